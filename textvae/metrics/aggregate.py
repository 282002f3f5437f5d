"""Fit a mixture to the aggregate posterior, its size selected by held-out likelihood."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from textvae.errors import DataError
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.interfaces import Prior
from textvae.model.mixture import Fit, GaussianMixture, fit_mixture
from textvae.randomness import key, normals, permutation

HELD_OUT = 0.1
"""The fraction of the sentences that the mixtures are compared on."""
DRAWS = 2
"""Draws per posterior. EM on the posteriors themselves, with one responsibility per posterior, is a
bound so loose that it ends in a single Gaussian (docs/develop/log.md)."""


class MixtureScore(NamedTuple):
    """The held-out likelihood of a mixture."""

    num_components: int
    log_prob: float
    """E_q(z) log mixture(z), nats per latent."""
    gain: float
    """`log_prob` minus E_q(z) log p(z) under the prior, on the same draws."""
    gain_stderr: float
    """Over sentences."""


class SelectedMixture(NamedTuple):
    """The best mixture, and the score of every one that was fitted."""

    fit: Fit
    best: MixtureScore
    scores: list[MixtureScore]
    num_fitted: int
    """Sentences it was fitted to."""
    num_held_out: int


def select_mixture(
    posterior: DiagonalGaussian,
    prior: Prior,
    *,
    seed: int,
    max_components: int = 64,
) -> SelectedMixture:
    """Fit mixtures to draws from nine tenths of the posteriors; keep the best on the others.

    The sizes are 1, 2, 4, ... components, until a doubling does not improve the held-out score.

    Args:
        posterior: of N sentences, `[N, Z]`, at least 2.
        prior: of the model, which the mixtures are compared with.
        seed: of the split, the draws and the initial components.
        max_components: the largest size, at least 1.

    Raises:
        DataError: fewer than two sentences, or posteriors without finite moments.
    """
    size = posterior.mean.shape[0]
    if size < 2:
        raise DataError(f"a mixture is fitted to at least 2 sentences, found {size}")
    order = permutation(key(seed, "held out"), size).to(posterior.mean.device)
    num_held_out = max(1, round(HELD_OUT * size))
    fitted, held = posterior.select(order[num_held_out:]), posterior.select(order[:num_held_out])
    available = fitted.mean.shape[0]
    points = _draws(fitted, seed, "aggregate fit").flatten(0, 1)
    if not bool(points.square().sum().isfinite()):
        raise DataError("latents are too far from zero for a mixture; the model has diverged")
    latents = _draws(held, seed, "held out")
    best = fit_mixture(points, 1, seed=seed)
    scores = [_held_out_score(best.mixture, prior, latents)]
    count = 2
    while count <= min(max_components, available):
        fit = fit_mixture(points, count, seed=seed)
        scores.append(_held_out_score(fit.mixture, prior, latents))
        if scores[-1].log_prob <= scores[-2].log_prob:
            break
        best, count = fit, 2 * count
    best_score = max(scores, key=lambda score: score.log_prob)
    return SelectedMixture(best, best_score, scores, available, num_held_out)


def _draws(posterior: DiagonalGaussian, seed: int, purpose: str) -> Tensor:
    """Float64 `[DRAWS, N, Z]`, on the CPU."""
    mean, log_variance = (part.detach().cpu().double() for part in posterior)
    index = torch.arange(mean.shape[0])
    noise = [
        normals(key(seed, purpose, number), index, lanes=mean.shape[1]) for number in range(DRAWS)
    ]
    return DiagonalGaussian(mean, log_variance).sample(torch.stack(noise).double())


def _held_out_score(mixture: GaussianMixture, prior: Prior, latents: Tensor) -> MixtureScore:
    log_prob = mixture.log_prob(latents.flatten(0, 1)).view(latents.shape[:2]).mean(0)
    gains = log_prob - prior.log_prob(latents).mean(0)
    count = gains.shape[0]
    stderr = float(gains.std()) / math.sqrt(count) if count > 1 else 0.0
    return MixtureScore(mixture.num_components, float(log_prob.mean()), float(gains.mean()), stderr)
