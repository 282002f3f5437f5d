"""Priors over latents: a new one is a config with a `kind` here, and a name in `PriorConfig`."""

from torch import Tensor

from textvae.config import Config
from textvae.model.gaussian import DiagonalGaussian, standard_normal_log_prob


class StandardNormalPriorConfig(Config, tag_field="kind", tag="standard_normal"):
    """N(0, 1) in each dimension; it has nothing to choose."""

    def build(self, latent_dim: int) -> "StandardNormalPrior":
        """The prior over latents `[..., latent_dim]`."""
        return StandardNormalPrior(latent_dim)


PriorConfig = StandardNormalPriorConfig


class StandardNormalPrior:
    """p(z) = N(0, 1): the contract is `model.interfaces.Prior`."""

    def __init__(self, latent_dim: int) -> None:
        self.latent_dim = latent_dim

    def kl(self, posterior: DiagonalGaussian) -> Tensor:
        """Analytic KL(q || p) `[B, Z]`, nats."""
        return posterior.kl_to_standard_normal()

    def log_prob(self, latents: Tensor) -> Tensor:
        """Log p(z), nats, `[..., Z]` -> `[...]`."""
        return standard_normal_log_prob(latents)

    def from_normals(self, normals: Tensor) -> Tensor:
        """Standard normals are draws already."""
        return normals
