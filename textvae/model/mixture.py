"""A mixture of Gaussians over latents: density, draws, and its fit by EM.

Pure mathematics, natural logarithms, float64.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from textvae.model.gaussian import LOG_TWO_PI
from textvae.randomness import key, normals, uniforms

ROWS = 2048
"""Latents whose M densities are worked out at once: bounds the memory, `[ROWS, M, Z]`."""
JITTER = 1e-6
"""Of the variance of all points, added to each variance of a component: as narrow as the posteriors
of trained models never are, and points that coincide leave a component with an inverse."""
LEAST = 1e-3
"""Points; a component that explains fewer is dropped."""


class GaussianMixture(NamedTuple):
    """M Gaussians with full covariances (a diagonal one has zeros elsewhere)."""

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
        inverse, constant = self._inverse(), self._constant()
        parts = [self._densities(some, inverse, constant) for some in latents.split(ROWS)]  # type: ignore[no-untyped-call]
        return torch.cat(parts)

    def sample(self, num_samples: int, *, seed: int) -> Tensor:
        """Draws `[N, Z]`, float64; draw i is a function of (seed, i)."""
        index = torch.arange(num_samples)
        cumulative = self.log_weights.exp().cumsum(0)
        point = uniforms(key(seed, "aggregate", "component"), index).double() * cumulative[-1]
        chosen = torch.searchsorted(cumulative, point, right=True)
        chosen = chosen.clamp_(max=self.num_components - 1)
        noise = normals(key(seed, "aggregate"), index, lanes=self.mean.shape[1]).double()
        drawn = torch.empty_like(noise)
        for number in range(self.num_components):
            rows = (chosen == number).nonzero()[:, 0]
            drawn[rows] = self.mean[number] + noise[rows] @ self.factor[number].t()
        return drawn

    def _densities(self, latents: Tensor, inverse: Tensor, constant: Tensor) -> Tensor:
        """One product for all components: y_m = A_m (z - m)."""
        size, dim = self.mean.shape
        shift = torch.einsum("mij,mj->mi", inverse, self.mean)
        white = (latents @ inverse.reshape(size * dim, dim).t()).view(-1, size, dim) - shift
        return constant - 0.5 * white.square().sum(2)

    def _inverse(self) -> Tensor:
        unit = torch.eye(self.mean.shape[1], dtype=self.mean.dtype).expand_as(self.factor)
        inverse: Tensor = torch.linalg.solve_triangular(self.factor, unit, upper=False)
        return inverse

    def _constant(self) -> Tensor:
        log_determinant = self.factor.diagonal(dim1=1, dim2=2).log().sum(1)
        return self.log_weights - log_determinant - 0.5 * LOG_TWO_PI * self.mean.shape[1]


class Fit(NamedTuple):
    """What EM found."""

    mixture: GaussianMixture
    log_prob: float
    """Mean log-density of the points, nats."""
    iterations: int


def fit_mixture(
    points: Tensor,
    num_components: int,
    *,
    seed: int,
    diagonal: bool = False,
    max_iterations: int = 200,
    tolerance: float = 3e-4,
) -> Fit:
    """Fit a mixture to points by EM (Dempster, Laird and Rubin 1977).

    Components begin at points drawn by k-means++ (Arthur and Vassilvitskii 2007) in units of the
    standard deviation of each dimension, each with the points that are nearest to it.

    Args:
        points: float64 `[N, Z]`.
        num_components: M, from 1 to N; fewer come back where some explain no point.
        seed: of the start.
        diagonal: keep the covariances diagonal.
        max_iterations: of EM.
        tolerance: stop where an iteration raises the mean log-density by less.
    """
    assert 1 <= num_components <= points.shape[0]
    scaled = points / points.std(0, correction=0).clamp(min=1e-12)
    centers = scaled[_plus_plus(scaled, num_components, seed)]
    nearest = torch.cdist(scaled, centers).argmin(1)
    share = torch.nn.functional.one_hot(nearest, num_components).to(points.dtype)
    start = _maximize(points, share, diagonal=diagonal)
    return raise_likelihood(
        points, start, diagonal=diagonal, max_iterations=max_iterations, tolerance=tolerance
    )


def raise_likelihood(
    points: Tensor,
    start: GaussianMixture,
    *,
    diagonal: bool = False,
    max_iterations: int = 200,
    tolerance: float = 3e-4,
) -> Fit:
    """EM from a given mixture; the arguments are those of `fit_mixture`."""
    mixture, before = start, -math.inf
    for iteration in range(max_iterations + 1):
        joint = mixture.component_log_probs(points)
        total = joint.logsumexp(1)
        found = float(total.mean())
        if found - before < tolerance or iteration == max_iterations:
            break
        before = found
        mixture = _maximize(points, (joint - total[:, None]).exp(), diagonal=diagonal)
    return Fit(mixture, found, iteration)


def _maximize(points: Tensor, share: Tensor, *, diagonal: bool) -> GaussianMixture:
    """The mixture that is best for shares `[N, M]` of the points; an empty component goes."""
    share = share[:, share.sum(0) > LEAST]
    counts = share.sum(0)
    mean = share.t() @ points / counts[:, None]
    least = JITTER * points.var(0, correction=0).clamp(min=1e-12)
    covariances = []
    center = points.mean(0)  # near the means, so that the difference of moments keeps its digits
    points, away = points - center, mean - center
    for number, column in enumerate((share / counts).t()):
        if diagonal:
            second = (column @ points.square()).diag()
            second -= away[number].square().diag()
        else:
            second = (points * column[:, None]).t() @ points
            second -= torch.outer(away[number], away[number])
        covariances.append(second + least.diag())
    factor = torch.linalg.cholesky(torch.stack(covariances))
    return GaussianMixture((counts / counts.sum()).log(), mean, factor)


def _plus_plus(points: Tensor, size: int, seed: int) -> Tensor:
    """Rows of points `[N, Z]`, each drawn in proportion to its squared distance to those before."""
    draws = uniforms(key(seed, "k-means++"), torch.arange(size)).double()
    nearest = torch.ones(points.shape[0], dtype=torch.float64)
    chosen: list[int] = []
    for draw in draws:
        cumulative = nearest.cumsum(0)
        row = int(torch.searchsorted(cumulative, draw * cumulative[-1], right=True))
        chosen.append(min(row, points.shape[0] - 1))
        away = (points - points[chosen[-1]]).square().sum(1)
        nearest = away if len(chosen) == 1 else torch.minimum(nearest, away)
    return torch.tensor(chosen)
