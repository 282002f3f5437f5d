"""Labels of samples from models with labels."""

import torch
from torch import Tensor

from textvae.model.vae import VAE
from textvae.randomness import key, uniforms


def draw_labels(model: VAE, count: int, *, seed: int, start: int = 0) -> Tensor | None:
    """Labels drawn from p(y), int64 `[N]`, each a function of (seed, i); None without labels."""
    if model.labels is None:
        return None
    cumulative = model.labels.log_prior().double().exp().cumsum(0).cpu()
    draws = uniforms(key(seed, "prior label"), torch.arange(start, start + count)).double()
    places = torch.searchsorted(cumulative, draws, right=True)
    return places.clamp_(max=model.labels.num_labels - 1)
