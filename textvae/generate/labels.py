"""Samples of models with labels: their labels, and what the decoder reads."""

import torch
from torch import Tensor

from textvae.model.labels_stacked import StackedLabels
from textvae.model.vae import VAE
from textvae.randomness import key, normals, uniforms


def draw_labels(model: VAE, count: int, *, seed: int) -> Tensor | None:
    """Labels drawn from p(y), int64 `[N]`, each a function of (seed, i); or None without."""
    if model.labels is None:
        return None
    cumulative = model.labels.log_prior().double().exp().cumsum(0).cpu()
    draws = uniforms(key(seed, "prior label"), torch.arange(count)).double()
    places = torch.searchsorted(cumulative, draws, right=True)
    return places.clamp_(max=model.labels.num_labels - 1)


def prior_conditions(model: VAE, labels: Tensor | None, latents: Tensor, *, seed: int) -> Tensor:
    """What the decoder reads for samples with labels, int64 `[N]` -> `[N, C]`.

    The latents are those drawn from p(z), `[N, Z]`. Of M1+M2 they are drawn from p(z|u, y) instead,
    u from its prior. Without labels they are all that is read.
    """
    latents = latents.to(model.device)
    if labels is None:
        return latents
    labels = labels.to(model.device)
    with torch.inference_mode():
        if not isinstance(model.labels, StackedLabels):
            return model.condition(latents, labels)
        numbers = torch.arange(len(labels))
        inner = normals(key(seed, "prior inner"), numbers, lanes=model.labels.config.latent_dim)
        outer = normals(key(seed, "prior outer"), numbers, lanes=latents.shape[1])
        return model.labels.draw(labels, inner.to(model.device), outer.to(model.device))
