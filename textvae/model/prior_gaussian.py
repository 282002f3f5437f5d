"""The Gaussian priors: N(0, 1), and the one with the moments of the aggregate posterior."""

import torch
from torch import Tensor, nn

from textvae.config import Config
from textvae.model.gaussian import (
    DiagonalGaussian,
    aggregate_covariance,
    standard_normal_log_prob,
    transform_rows,
)
from textvae.randomness import key, normals

PAIRS = 16
"""Least number of draws of a posterior by which its KL is estimated, each with its mirror image:
the mean over two thousand sentences is exact to 0.01 nats, that of one to 0.05
(docs/develop/log.md)."""


class StandardNormalPriorConfig(Config, tag_field="kind", tag="standard_normal"):
    """N(0, 1) in each dimension; it has nothing to choose."""

    def build(self, latent_dim: int) -> "StandardNormalPrior":
        """The prior over latents `[..., latent_dim]`."""
        return StandardNormalPrior(latent_dim)


class GaussianPriorConfig(Config, tag_field="kind", tag="gaussian"):
    """N(m, C) with the moments of the aggregate posterior of the training sentences.

    The steps of training see N(0, 1): what a floor under the KL of each dimension makes the
    dimensions say twice is then taken out of the KL by C (docs/concepts/math.md).
    """

    def build(self, latent_dim: int) -> "GaussianPrior | StandardNormalPrior":
        """The prior over latents `[..., latent_dim]`, N(0, 1) until it is fitted."""
        # a language model has nothing to fit, and its file nothing but a decoder
        return GaussianPrior(latent_dim) if latent_dim else StandardNormalPrior(0)


class StandardNormalPrior:
    """p(z) = N(0, 1): the contract is `model.interfaces.Prior`."""

    kl_is_exact = True

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
        """Draws are standard normals already."""
        return latents


class GaussianPrior(nn.Module):
    """p(z) = N(m, L L'): the contract is `model.interfaces.Prior`.

    Of all Gaussians the one with the moments of the aggregate posterior has the largest
    E_q(z) log p(z), so that fitting it can only raise the ELBO of the sentences it is fitted to.
    """

    mean: Tensor
    factor: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        # Both are zero before there is a fit, as all buffers begin: a zero on the diagonal is a 1.
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("factor", torch.zeros(latent_dim, latent_dim))

    @torch.no_grad()
    def fit(self, posterior: DiagonalGaussian) -> None:
        """Take the moments of the aggregate of N posteriors `[N, Z]`, worked out in float64.

        Where their covariance is singular or not finite, as where a run diverges, there is no fit.
        """
        factor, failed = torch.linalg.cholesky_ex(aggregate_covariance(posterior))
        factor = factor.to(self.factor)
        if int(failed) == 0 and bool(factor.isfinite().all()):
            self.mean.copy_(posterior.mean.double().mean(0))
            self.factor.copy_(factor)

    def forget(self) -> None:
        """Be N(0, 1) again."""
        self.mean.zero_()
        self.factor.zero_()

    @property
    def kl_is_exact(self) -> bool:
        """It is analytic."""
        return True

    def kl(self, posterior: DiagonalGaussian) -> Tensor:
        """Analytic KL(q || p) `[B, Z]`, nats, by the chain rule.

        Entry d is E KL(q(z_d) || p(z_d | z_1, ..., z_(d-1))) over q of the dimensions before it:
        what is said there and not before. They are not negative, and their sum is the KL.
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


def _standard_normals(num_samples: int, latent_dim: int, seed: int, start: int) -> Tensor:
    numbers = torch.arange(start, start + num_samples)
    return normals(key(seed, "prior"), numbers, lanes=latent_dim)


def matched_normals(latent_dim: int) -> Tensor:
    """Normals `[S, Z]`, float64, with exactly mean 0, covariance I and no third moments.

    So that what is quadratic in a latent, as the logarithm of a Gaussian is, has the mean that it
    should have (docs/concepts/math.md).
    """
    pairs = max(PAIRS, latent_dim)
    noise = normals(key(0, "mixture kl"), torch.arange(pairs), lanes=latent_dim).double()
    factor = torch.linalg.cholesky(noise.t() @ noise / pairs)
    noise = torch.linalg.solve_triangular(factor, noise.t(), upper=False).t()
    return torch.cat([noise, -noise])
