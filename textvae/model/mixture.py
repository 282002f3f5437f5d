"""A mixture of Gaussians over latents: density, draws, and its fit by EM.

Pure mathematics, natural logarithms, float64.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from textvae.model.density import Gain, LogDensity, gain_of, posterior_draws, split_posteriors
from textvae.model.gaussian import LOG_TWO_PI, DiagonalGaussian, transform_rows
from textvae.randomness import key, normals, uniforms

ROWS = 2048
"""Latents whose M densities are computed at once: bounds the memory, `[ROWS, M, Z]`."""
VALUES = 2**19
"""The size of the features that EM holds at once, 4 MB: more does not fit into a CPU's cache."""
JITTER = 1e-6
"""The fraction of the variance of all points that is added to the variances of each component: far
narrower than posteriors of trained models, and enough to invert a component of equal points."""
LEAST = 1e-3
"""Points; a component that explains fewer is dropped."""


class GaussianMixture(NamedTuple):
    """M Gaussians with full covariances."""

    log_weights: Tensor
    """`[M]`, nats; the weights add to 1."""
    mean: Tensor
    """`[M, Z]`."""
    factor: Tensor
    """`[M, Z, Z]`: the lower Cholesky factor of each covariance."""

    @property
    def num_components(self) -> int:
        """M."""
        return self.mean.shape[0]

    def log_prob(self, latents: Tensor) -> Tensor:
        """Log-density in nats, `[N, Z]` -> `[N]`, differentiable."""
        return self.component_log_probs(latents).logsumexp(1)

    def component_log_probs(self, latents: Tensor) -> Tensor:
        """Log pi_m + log N(z; m, C_m), `[N, Z]` -> `[N, M]`."""
        inverse, constant = self._inverse(), self.log_scale()
        blocks = latents.split(ROWS)  # type: ignore[no-untyped-call]
        squares = [self._whitened(block, inverse).square().sum(2) for block in blocks]
        return constant - 0.5 * torch.cat(squares)

    def conditional_log_probs(self, latents: Tensor) -> Tensor:
        """Log p(z_d | z_1, ..., z_(d-1)), `[N, Z]` -> `[N, Z]`; their sum is the log-density."""
        inverse, scale = self._inverse(), self.factor.diagonal(dim1=1, dim2=2).log()
        parts = []
        for block in latents.split(ROWS):  # type: ignore[no-untyped-call]
            terms = -0.5 * (self._whitened(block, inverse).square() + LOG_TWO_PI) - scale
            # of the first d dimensions, for the factors are triangular
            joint = (self.log_weights[:, None] + terms.cumsum(2)).logsumexp(1)
            parts.append(joint.diff(dim=1, prepend=torch.zeros_like(joint[:, :1])))
        return torch.cat(parts)

    def sample(self, num_samples: int, *, seed: int, start: int = 0) -> Tensor:
        """Draws `start` to `start + N - 1`, `[N, Z]`, float64; draw i is one of (seed, i)."""
        index = torch.arange(start, start + num_samples)
        cumulative = self.log_weights.exp().cumsum(0)
        point = uniforms(key(seed, "aggregate", "component"), index).double() * cumulative[-1]
        component = torch.searchsorted(cumulative, point, right=True)
        component = component.clamp_(max=self.num_components - 1)
        noise = normals(key(seed, "aggregate"), index, lanes=self.mean.shape[1]).double()
        drawn = torch.empty_like(noise)
        for number in range(self.num_components):
            rows = (component == number).nonzero()[:, 0]
            drawn[rows] = self.mean[number] + transform_rows(noise[rows], self.factor[number])
        return drawn

    def _whitened(self, latents: Tensor, inverse: Tensor) -> Tensor:
        """One product for all components: y_m = A_m (z - m), `[N, M, Z]`."""
        size, dim = self.mean.shape
        shift = torch.einsum("mij,mj->mi", inverse, self.mean)
        return (latents @ inverse.reshape(size * dim, dim).t()).view(-1, size, dim) - shift

    def _inverse(self) -> Tensor:
        unit = torch.eye(self.mean.shape[1]).to(self.factor).expand_as(self.factor)
        inverse: Tensor = torch.linalg.solve_triangular(self.factor, unit, upper=False)
        return inverse

    def log_scale(self) -> Tensor:
        """Log pi_m less the log-determinant of L_m and of the normal's constant, `[M]`."""
        log_determinant = self.factor.diagonal(dim1=1, dim2=2).log().sum(1)
        return self.log_weights - log_determinant - 0.5 * LOG_TWO_PI * self.mean.shape[1]


class Fit(NamedTuple):
    """The result of EM."""

    mixture: GaussianMixture
    log_prob: float
    """Mean log-density of the points, nats."""
    iterations: int


def fit_mixture(
    points: Tensor,
    num_components: int,
    *,
    seed: int,
    max_iterations: int = 200,
    tolerance: float = 3e-4,
    is_over: Callable[[], bool] = lambda: False,
) -> Fit:
    """Fit a mixture to points by EM (Dempster, Laird and Rubin 1977).

    Components start at points drawn by k-means++ (Arthur and Vassilvitskii 2007) in units of the
    standard deviation of each dimension, each with the points that are nearest to it. Of float64
    points `[N, Z]`, M from 1 to N; fewer are returned if some explain no point. It ends where an
    iteration raises the mean log-density by less than `tolerance`, or `is_over`.
    """
    assert 1 <= num_components <= points.shape[0]
    scaled = points / points.std(0, correction=0).clamp(min=1e-12)
    centers = scaled[_plus_plus(scaled, num_components, seed)]
    nearest = torch.cdist(scaled, centers).argmin(1)
    moments = _Moments(points)
    responsibilities = torch.nn.functional.one_hot(nearest, num_components).to(points.dtype)
    start = moments.mixture(moments.sums(responsibilities))
    return raise_likelihood(
        points, start, max_iterations=max_iterations, tolerance=tolerance, is_over=is_over
    )


def raise_likelihood(
    points: Tensor,
    start: GaussianMixture,
    *,
    max_iterations: int = 200,
    tolerance: float = 3e-4,
    is_over: Callable[[], bool] = lambda: False,
) -> Fit:
    """EM from a given mixture; the arguments are those of `fit_mixture`."""
    moments = _Moments(points)
    mixture, before = start, -math.inf
    for iteration in range(max_iterations + 1):
        log_prob, sums = moments.expect(mixture)
        if log_prob - before < tolerance or iteration == max_iterations or is_over():
            break
        before = log_prob
        mixture = moments.mixture(sums)
    return Fit(mixture, log_prob, iteration)


class _Moments:
    """EM in products of matrices: log-density and moments are linear in 1, z and z z'.

    A component's log-density is a row of coefficients times these features of a point, its moments
    are its responsibilities times the features: three times as fast as `component_log_probs` and a
    loop over components, without a tensor of the size of points times components
    (docs/develop/log.md).
    """

    def __init__(self, points: Tensor) -> None:
        self.center = points.mean(0)  # near the means, so that differences keep their digits
        self.points = points - self.center
        self.rows = max(1, VALUES // _num_features(points.shape[1]))
        self.least = JITTER * points.var(0, correction=0).clamp(min=1e-12)

    def expect(self, mixture: GaussianMixture) -> tuple[float, Tensor]:
        """The mean log-density of the points, and the sums `[M, F]` of their weighted features."""
        coefficients = self._coefficients(mixture).t()
        total, sums = 0.0, torch.zeros_like(coefficients.t())
        for block in self.points.split(self.rows):  # type: ignore[no-untyped-call]
            features = _features(block)
            joint = features @ coefficients
            density = joint.logsumexp(1, keepdim=True)
            total += float(density.sum())
            sums += (joint - density).exp_().t() @ features
        return total / self.points.shape[0], sums

    def sums(self, responsibilities: Tensor) -> Tensor:
        """Sums of the features weighted by responsibilities `[N, M]`: `[M, F]`."""
        whole = torch.zeros(())
        for first in range(0, len(responsibilities), self.rows):
            rows = slice(first, first + self.rows)
            whole = whole + responsibilities[rows].t() @ _features(self.points[rows])
        return whole

    def mixture(self, sums: Tensor) -> GaussianMixture:
        """The mixture with the moments in these sums; components without points are dropped."""
        sums = sums[sums[:, -1] > LEAST]
        dim, counts = self.center.shape[0], sums[:, -1]
        mean = sums[:, -1 - dim : -1] / counts[:, None]
        row, column = torch.triu_indices(dim, dim)
        covariance = sums.new_zeros(len(sums), dim, dim)
        covariance[:, row, column] = sums[:, : len(row)] / counts[:, None]
        covariance[:, column, row] = covariance[:, row, column]
        covariance -= mean[:, :, None] * mean[:, None, :]
        factor = torch.linalg.cholesky(covariance + self.least.diag())
        return GaussianMixture((counts / counts.sum()).log(), mean + self.center, factor)

    def _coefficients(self, mixture: GaussianMixture) -> Tensor:
        """`[M, F]` of log pi_m + log N(z; m, C_m)."""
        mean = mixture.mean - self.center
        precision = torch.cholesky_inverse(mixture.factor)
        row, column = torch.triu_indices(*precision.shape[1:])
        twice = torch.where(row == column, 1.0, 2.0).to(mean)
        linear = (precision @ mean[:, :, None])[:, :, 0]
        constant = mixture.log_scale() - 0.5 * (linear * mean).sum(1)
        quadratic = -0.5 * twice * precision[:, row, column]
        return torch.cat([quadratic, linear, constant[:, None]], 1)


def _num_features(dim: int) -> int:
    """F."""
    return dim * (dim + 1) // 2 + dim + 1


def _features(points: Tensor) -> Tensor:
    """Products of two dimensions, dimensions, and 1: `[N, Z]` -> `[N, F]`."""
    dim = points.shape[1]
    features = points.new_empty(len(points), _num_features(dim))
    first = 0
    for row in range(dim):  # in the order of triu_indices; gathering columns takes much longer
        width = dim - row
        torch.mul(points[:, row:], points[:, row, None], out=features[:, first : first + width])
        first += width
    features[:, first:-1] = points
    features[:, -1] = 1.0
    return features


def _plus_plus(points: Tensor, size: int, seed: int) -> Tensor:
    """Rows of points `[N, Z]`, each drawn in proportion to its squared distance to those before."""
    draws = uniforms(key(seed, "k-means++"), torch.arange(size)).double()
    nearest = torch.ones(points.shape[0], dtype=torch.float64)
    rows: list[int] = []
    for draw in draws:
        cumulative = nearest.cumsum(0)
        row = int(torch.searchsorted(cumulative, draw * cumulative[-1], right=True))
        rows.append(min(row, points.shape[0] - 1))
        distance = (points - points[rows[-1]]).square().sum(1)
        nearest = distance if len(rows) == 1 else torch.minimum(nearest, distance)
    return torch.tensor(rows)


class MixtureScore(NamedTuple):
    """The held-out likelihood of a mixture."""

    num_components: int
    log_prob: float
    """E_q(z) log mixture(z), nats per latent."""
    gain: Gain
    """Over E_q(z) log p(z) under the baseline, on the same draws."""


class SelectedMixture(NamedTuple):
    """The best mixture, and the score of every one that was fitted."""

    fit: Fit
    best: MixtureScore
    scores: list[MixtureScore]


def select_mixture(
    posterior: DiagonalGaussian,
    baseline: LogDensity,
    *,
    seed: int,
    max_components: int = 64,
    is_over: Callable[[], bool] = lambda: False,
    report: Callable[[MixtureScore], object] = lambda score: None,
) -> SelectedMixture:
    """Fit mixtures to draws from nine tenths of the posteriors; keep the best on the others.

    `posterior` is that of N >= 2 sentences, `[N, Z]`. `is_over` is asked between iterations: True
    ends the fit with the best mixture so far. `report` takes the score of each size.

    The sizes are 1, 2, 4, ... components, until a doubling does not improve the held-out score.
    """
    split = split_posteriors(posterior, seed=seed)
    points = posterior_draws(split.fitted, seed, "aggregate fit").flatten(0, 1)
    largest = min(max_components, len(split.fitted.mean))
    scores: list[MixtureScore] = []
    best, count = None, 1
    while best is None or (count <= largest and not is_over()):
        fit = fit_mixture(points, count, seed=seed, is_over=is_over)
        scores.append(_held_out_score(fit.mixture, baseline, split.held_out))
        report(scores[-1])
        if best is not None and scores[-1].log_prob <= scores[-2].log_prob:
            break
        best, count = fit, 2 * count
    return SelectedMixture(best, max(scores, key=lambda score: score.log_prob), scores)


def _held_out_score(
    mixture: GaussianMixture, baseline: LogDensity, latents: Tensor
) -> MixtureScore:
    log_prob = mixture.log_prob(latents.flatten(0, 1)).view(latents.shape[:2])
    gain = gain_of(log_prob, baseline.log_prob(latents))
    return MixtureScore(mixture.num_components, float(log_prob.mean(0).mean()), gain)
