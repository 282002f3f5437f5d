"""Where latents come from: the prior, or around a posterior."""

import torch
from torch import Tensor

from textvae.errors import ConfigError, DataError
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.interfaces import Prior
from textvae.randomness import key, normals


def sample_latents(
    prior: Prior,
    num_samples: int,
    *,
    seed: int,
    start: int = 0,
    posterior: DiagonalGaussian | None = None,
    scale: float | None = None,
) -> Tensor:
    """Draws from a prior, or around a posterior: `[N, Z]`; draw i is a function of (seed, i).

    `start` is the index i of the first draw; a posterior is that of one sentence, `[1, Z]`, with a
    scale from 0 to 1000, where None is 1.

    Around a posterior a draw is mean + scale * standard deviation * e, with e standard normal: 1
    is the posterior itself, 0 its mean.

    Raises:
        ConfigError: a scale out of bounds, or without a posterior.
    """
    if posterior is None:
        if scale is not None:
            raise ConfigError(f"--scale {scale}: belongs to --near, the sentence to draw around")
        return prior.sample(num_samples, seed=seed, start=start)
    scale = 1.0 if scale is None else scale
    if not 0.0 <= scale <= 1000.0:
        raise ConfigError(f"--scale {scale}: must be from 0 to 1000")
    numbers = torch.arange(start, start + num_samples)
    drawn = normals(key(seed, "near"), numbers, lanes=prior.latent_dim)
    return posterior.sample(scale * drawn.to(posterior.mean.device))


def check_latents(latents: Tensor, latent_dim: int) -> None:
    """Refuse latents that are not `[N, latent_dim]`: a DataError."""
    if latents.dim() != 2 or latents.shape[1] != latent_dim:
        raise DataError(
            f"latents of shape {tuple(latents.shape)}: this model takes (any number, {latent_dim})"
        )
