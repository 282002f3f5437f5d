"""The Gaussian priors: N(0, 1), and the one with the moments of the aggregate posterior."""

from typing import Any

import torch
from torch import Tensor, nn

from textvae import distributed
from textvae.config import Config
from textvae.model.density import FitContext
from textvae.model.gaussian import (
    DiagonalGaussian,
    aggregate_covariance,
    standard_normal_log_prob,
    transform_rows,
)
from textvae.model.mixture import GaussianMixture
from textvae.randomness import key, normals

PAIRS = 16
"""Least number of draws of a posterior by which its KL is estimated, each with its mirror image:
the mean over two thousand sentences is exact to 0.01 nats, that of one to 0.05
(docs/develop/log.md)."""


class StandardNormalPriorConfig(Config, tag_field="kind", tag="standard_normal"):
    """N(0, 1) in each dimension; it has no settings."""

    def build(self, latent_dim: int) -> "StandardNormalPrior":
        """The prior over latents `[..., latent_dim]`."""
        return StandardNormalPrior(latent_dim)


class GaussianPriorConfig(Config, tag_field="kind", tag="gaussian"):
    """N(m, C) with the moments of the aggregate posterior of the training sentences.

    The steps of training see N(0, 1). Dimensions that repeat each other, because of a floor under
    the KL of each, cost their KL once under C (docs/concepts/math.md).
    """

    def build(self, latent_dim: int) -> "GaussianPrior | StandardNormalPrior":
        """The prior over latents `[..., latent_dim]`, N(0, 1) until it is fitted."""
        # a language model has nothing to fit, and its file nothing but a decoder
        return GaussianPrior(latent_dim) if latent_dim else StandardNormalPrior(0)


class PriorDefaults:
    """A prior that nothing is fitted to: what most priors have in common with N(0, 1)."""

    has_moments = False
    fit_sentences = 0

    @property
    def kl_is_exact(self) -> bool:
        """True: it is analytic."""
        return True

    @property
    def mixture(self) -> GaussianMixture | None:
        """None: there is at most one Gaussian."""
        return None

    def fit_moments(self, posterior: DiagonalGaussian) -> None:
        """Do nothing: the moments are fixed."""

    def reset(self) -> None:
        """Do nothing: the moments are fixed."""

    def fit(self, posterior: DiagonalGaussian, *, seed: int, context: FitContext) -> None:
        """Do nothing: there is no density to fit."""

    def broadcast(self) -> None:
        """Do nothing: every process has the same moments."""

    def reset_to_gaussian(self) -> None:
        """Do nothing: it is Gaussian."""


class StandardNormalPrior(PriorDefaults):
    """p(z) = N(0, 1): the contract is `model.interfaces.Prior`."""

    description = "standard normal prior"

    def __init__(self, latent_dim: int) -> None:
        self.latent_dim = latent_dim

    def kl(self, posterior: DiagonalGaussian) -> Tensor:
        """Analytic KL(q || p) `[B, Z]`, nats."""
        return posterior.kl_to_standard_normal()

    def log_prob(self, latents: Tensor) -> Tensor:
        """Log p(z), nats, `[..., Z]` -> `[...]`."""
        return standard_normal_log_prob(latents)

    def sample(self, num_samples: int, *, seed: int, start: int = 0) -> Tensor:
        """Draws `start` to `start + N - 1`, `[N, Z]`, on the CPU; draw i is one of (seed, i)."""
        return _standard_normals(num_samples, self.latent_dim, seed, start)

    def to_normals(self, latents: Tensor) -> Tensor:
        """The latents themselves."""
        return latents


class GaussianPrior(nn.Module, PriorDefaults):
    """p(z) = N(m, L L'): the contract is `model.interfaces.Prior`.

    Of all Gaussians the one with the moments of the aggregate posterior has the largest
    E_q(z) log p(z), so that fitting it can only raise the ELBO of the sentences it is fitted to.
    """

    has_moments = True
    mean: Tensor
    factor: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        # Both are zero before a fit, as all buffers are: a zero on the diagonal stands for a 1.
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("factor", torch.zeros(latent_dim, latent_dim))

    @property
    def description(self) -> str:
        """For a reader."""
        return "gaussian prior"

    @torch.no_grad()
    def fit_moments(self, posterior: DiagonalGaussian) -> None:
        """Take the moments of the aggregate of N posteriors `[N, Z]`, computed in float64.

        If their covariance is singular or not finite, as in a run that diverges, nothing changes.
        """
        factor, failed = torch.linalg.cholesky_ex(aggregate_covariance(posterior))
        factor = factor.to(self.factor)
        if int(failed) == 0 and bool(factor.isfinite().all()):
            self.mean.copy_(posterior.mean.double().mean(0))
            self.factor.copy_(factor)

    def buffer_fault(self) -> str | None:
        """The factor of a covariance is lower triangular, its diagonal not negative."""
        return factor_fault("factor", self.factor)

    def reset(self) -> None:
        """Become N(0, 1) again."""
        self.mean.zero_()
        self.factor.zero_()

    def kl(self, posterior: DiagonalGaussian) -> Tensor:
        """Analytic KL(q || p) `[B, Z]`, nats, by the chain rule.

        Entry d is E KL(q(z_d) || p(z_d | z_1, ..., z_(d-1))), the expectation over q of the
        dimensions before it. The entries are not negative, and their sum is the KL.
        """
        factor = self._lower().to(posterior.mean)
        inverse = self._inverse(factor)
        squared = ((posterior.mean - self.mean.to(factor)) @ inverse.t()).square()
        squared = squared + posterior.log_variance.exp() @ inverse.square().t()
        return 0.5 * (squared - 1.0 - posterior.log_variance) + factor.diagonal().log()

    def log_prob(self, latents: Tensor) -> Tensor:
        """Log p(z), nats, `[..., Z]` -> `[...]`."""
        determinant = self._lower().to(latents).diagonal().log().sum()
        return standard_normal_log_prob(self.to_normals(latents)) - determinant

    def sample(self, num_samples: int, *, seed: int, start: int = 0) -> Tensor:
        """Draws m + L e `[N, Z]` on the CPU, e standard normal; draw i is one of (seed, i)."""
        noise = _standard_normals(num_samples, self.latent_dim, seed, start)
        return self.mean.to(noise) + transform_rows(noise, self._lower().to(noise))

    def to_normals(self, latents: Tensor) -> Tensor:
        """The standard normals of which these are the draws, `[..., Z]` -> `[..., Z]`."""
        inverse = self._inverse(self._lower().to(latents))
        return (latents - self.mean.to(latents)) @ inverse.t()

    def _lower(self) -> Tensor:
        return self.factor + (self.factor.diagonal() == 0).to(self.factor).diag()

    def _inverse(self, factor: Tensor) -> Tensor:
        identity = torch.eye(self.latent_dim, dtype=factor.dtype, device=factor.device)
        inverse: Tensor = torch.linalg.solve_triangular(factor, identity, upper=False)
        return inverse


class FittedDensityPrior(GaussianPrior):
    """Base of priors whose density is fitted when training ends; N(m, C) until then.

    A subclass registers the buffers of its density, which are zero without one, and sets
    `has_density` in `_buffers_changed`: asking the buffers each time would make CUDA wait.
    """

    fit_sentences = 100_000
    """A tenth of them held out. In 12 dimensions 10,000 sentences give 16 Gaussians and half of the
    gain that 100,000 give with 64 (docs/develop/log.md)."""
    has_density = False

    @property
    def kl_is_exact(self) -> bool:
        """False with a density, to which the KL is estimated."""
        return not self.has_density

    def fit_moments(self, posterior: DiagonalGaussian) -> None:
        """Become the Gaussian with the moments of the aggregate of N posteriors `[N, Z]`."""
        super().fit_moments(posterior)
        self.reset_to_gaussian()

    def reset(self) -> None:
        """Become N(0, 1) again."""
        super().reset()
        self.reset_to_gaussian()

    def reset_to_gaussian(self) -> None:
        """Drop the density and keep the moments."""
        for buffer in self._density_buffers():
            buffer.zero_()
        self._buffers_changed()

    def broadcast(self) -> None:
        """Take the density from the first process; every process calls this."""
        for buffer in self._density_buffers():
            value = buffer if distributed.rank() == 0 else torch.zeros_like(buffer)
            # on the CPU, whose transport waits as long as a fit takes
            buffer.copy_(distributed.all_reduce_sum(value.cpu()))
        self._buffers_changed()

    def _density_buffers(self) -> list[Tensor]:
        return [value for name, value in self.named_buffers() if name not in {"mean", "factor"}]

    def _buffers_changed(self) -> None:
        """Update what follows from the values of the buffers."""
        raise NotImplementedError

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._buffers_changed()


def factor_fault(name: str, factors: Tensor) -> str | None:
    """The fault of Cholesky factors `[..., Z, Z]`, or None."""
    if bool(factors.triu(1).any()) or bool((factors.diagonal(dim1=-2, dim2=-1) < 0).any()):
        return f"{name} is not lower triangular with a diagonal of at least 0"
    return None


def matched_normals(latent_dim: int) -> Tensor:
    """Normals `[S, Z]`, float64, with exactly mean 0, covariance I and no third moments.

    So the mean of anything quadratic in a latent, such as the logarithm of a Gaussian, is exact
    (docs/concepts/math.md).
    """
    pairs = max(PAIRS, latent_dim)
    noise = normals(key(0, "mixture kl"), torch.arange(pairs), lanes=latent_dim).double()
    factor = torch.linalg.cholesky(noise.t() @ noise / pairs)
    noise = torch.linalg.solve_triangular(factor, noise.t(), upper=False).t()
    return torch.cat([noise, -noise])


def _standard_normals(num_samples: int, latent_dim: int, seed: int, start: int) -> Tensor:
    numbers = torch.arange(start, start + num_samples)
    return normals(key(seed, "prior"), numbers, lanes=latent_dim)
