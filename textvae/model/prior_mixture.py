"""A mixture of Gaussians as the prior, fitted to the aggregate posterior when training ends."""

from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

from textvae.config import Config
from textvae.errors import DataError
from textvae.model.density import FitContext
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.mixture import GaussianMixture, MixtureScore, select_mixture
from textvae.model.prior_gaussian import (
    FittedDensityPrior,
    StandardNormalPrior,
    factor_fault,
    matched_normals,
)


class MixturePriorConfig(Config, tag_field="kind", tag="mixture"):
    """A mixture of Gaussians, fitted to the aggregate posterior of the training sentences.

    Validations see N(m, C), as with `gaussian`; the mixture replaces it when training ends, if it
    is better on held-out sentences.
    """

    max_components: Annotated[int, Meta(ge=2, le=1024)] = 64
    """The most Gaussians; 1, 2, 4, ... are tried until one more doubling is no better."""

    def build(self, latent_dim: int) -> "MixturePrior | StandardNormalPrior":
        """The prior over latents `[..., latent_dim]`, N(0, 1) until it is fitted."""
        if latent_dim == 0:
            return StandardNormalPrior(0)
        return MixturePrior(latent_dim, self.max_components)


class MixturePrior(FittedDensityPrior):
    """p(z) = sum_m w_m N(z; mean_m, L_m L_m'), and N(m, C) while it has no components."""

    weights: Tensor
    means: Tensor
    factors: Tensor

    def __init__(self, latent_dim: int, max_components: int) -> None:
        super().__init__(latent_dim)
        self.max_components = max_components
        # A component of weight 0 is none.
        self.register_buffer("weights", torch.zeros(max_components))
        self.register_buffer("means", torch.zeros(max_components, latent_dim))
        self.register_buffer("factors", torch.zeros(max_components, latent_dim, latent_dim))
        self.num_components = 0
        """M; 0 is N(m, C)."""

    @property
    def description(self) -> str:
        """For a reader."""
        if not self.num_components:
            return "mixture prior (N(m, C), which was no worse)"
        return f"mixture prior ({self.num_components} Gaussians)"

    @property
    def mixture(self) -> GaussianMixture | None:
        """The mixture, float64, on the CPU; None while the prior is N(m, C)."""
        return self._mixture(torch.device("cpu")) if self.num_components else None

    def fit(self, posterior: DiagonalGaussian, *, seed: int, context: FitContext) -> None:
        """Fit mixtures to N posteriors `[N, Z]`, and take the best if it beats N(m, C).

        It beats N(m, C) if its held-out gain is over two standard errors.
        """
        context.report(f"prior: fitting a mixture to {len(posterior.mean):,} sentences")
        try:
            selected = select_mixture(
                posterior,
                self,
                seed=seed,
                max_components=self.max_components,
                is_over=context.is_over,
                report=lambda score: context.report_progress(_size(score), score.gain.nats),
            )
        except DataError as error:  # the run diverged
            context.report(f"prior: N(m, C) stays: {error}")
            return
        best = selected.best
        is_better = best.num_components > 1 and best.gain.is_sure
        if is_better:
            self.set_mixture(selected.fit.mixture)
        context.report_result(_size(best), best.gain, is_better=is_better)

    def buffer_fault(self) -> str | None:
        """Weights are not negative, and the factor of each component has a positive diagonal."""
        if bool((self.weights < 0).any()):
            return "weights holds a number below 0"
        factors = self.factors[self.weights > 0]
        if bool((factors.diagonal(dim1=-2, dim2=-1) == 0).any()):
            return "factors has a zero on its diagonal"
        return super().buffer_fault() or factor_fault("factors", factors)

    def set_mixture(self, mixture: GaussianMixture) -> None:
        """Take a mixture of at most `max_components`; the moments stay those of the last fit."""
        count = mixture.num_components
        self.reset_to_gaussian()
        self.weights[:count] = mixture.log_weights.exp().to(self.weights)
        self.means[:count] = mixture.mean.to(self.means)
        self.factors[:count] = mixture.factor.to(self.factors)
        self._buffers_changed()

    def kl(self, posterior: DiagonalGaussian) -> Tensor:
        """KL(q || p) `[..., Z]`, nats, by the chain rule; to a mixture it is estimated.

        The exact KL to N(m, C), less the mean over draws of the gain of the mixture in
        log p(z_d | z_1, ..., z_(d-1)). The draws are the same standard normals for every posterior,
        so that its KL does not depend on others.
        """
        exact = super().kl(posterior)
        if not self.num_components:
            return exact
        gain = torch.zeros_like(exact, dtype=torch.float64)
        wide = posterior.apply(lambda part: part.detach().double())
        mixture, normal = self._mixture(exact.device), self._normal()
        draws = matched_normals(self.latent_dim).to(exact.device)
        for draw in draws:
            latents = wide.sample(draw).reshape(-1, self.latent_dim)
            more = mixture.conditional_log_probs(latents) - normal.conditional_log_probs(latents)
            gain += more.view_as(gain)
        return exact - (gain / len(draws)).to(exact)

    def log_prob(self, latents: Tensor) -> Tensor:
        """Log p(z), nats, `[..., Z]` -> `[...]`."""
        if not self.num_components:
            return super().log_prob(latents)
        mixture = self._mixture(latents.device)
        log_prob = mixture.log_prob(latents.double().reshape(-1, self.latent_dim))
        return log_prob.view(latents.shape[:-1]).to(latents)

    def sample(self, num_samples: int, *, seed: int, start: int = 0) -> Tensor:
        """Draws `start` to `start + N - 1`, `[N, Z]`, on the CPU; draw i is one of (seed, i)."""
        if not self.num_components:
            return super().sample(num_samples, seed=seed, start=start)
        mixture = self._mixture(torch.device("cpu"))
        return mixture.sample(num_samples, seed=seed, start=start).to(self.mean.dtype)

    def _buffers_changed(self) -> None:
        self.num_components = int((self.weights > 0).sum())
        self.has_density = self.num_components > 0

    def _mixture(self, device: torch.device) -> GaussianMixture:
        present = self.weights > 0
        parts = (part[present] for part in (self.weights, self.means, self.factors))
        weights, means, factors = (part.double().to(device) for part in parts)
        return GaussianMixture((weights / weights.sum()).log(), means, factors)

    def _normal(self) -> GaussianMixture:
        """N(m, C) as a mixture of one."""
        mean, factor = self.mean.double()[None], self._lower().double()[None]
        return GaussianMixture(mean.new_zeros(1), mean, factor)


def _size(score: MixtureScore) -> str:
    count = score.num_components
    return "1 Gaussian" if count == 1 else f"{count} Gaussians"
