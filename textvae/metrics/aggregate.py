"""Fit a density to the aggregate posterior, selected by its likelihood of held-out sentences."""

import math
from collections.abc import Callable
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


class Gain(NamedTuple):
    """How much likelier a density makes draws of held-out posteriors than the prior does."""

    nats: float
    """Mean over sentences, nats per latent."""
    stderr: float
    """Over sentences."""

    @property
    def is_better(self) -> bool:
        """True where the gain is above 0 by two standard errors."""
        return self.nats > 2.0 * self.stderr


class Split(NamedTuple):
    """Posteriors that a density is fitted to, and draws of others to compare densities on."""

    fitted: DiagonalGaussian
    """`[N, Z]`."""
    held_out: Tensor
    """Float64 `[DRAWS, M, Z]`, on the CPU."""


class MixtureScore(NamedTuple):
    """The held-out likelihood of a mixture."""

    num_components: int
    log_prob: float
    """E_q(z) log mixture(z), nats per latent."""
    gain: Gain
    """Over the prior, on the same draws."""


class SelectedMixture(NamedTuple):
    """The best mixture, and the score of every one that was fitted."""

    fit: Fit
    best: MixtureScore
    scores: list[MixtureScore]


def split_posteriors(posterior: DiagonalGaussian, *, seed: int) -> Split:
    """Hold out a tenth of the posteriors of N sentences.

    Raises:
        DataError: fewer than two sentences, or posteriors without finite moments.
    """
    size = posterior.mean.shape[0]
    if size < 2:
        raise DataError(f"a prior is fitted to at least 2 sentences, found {size}")
    variance = posterior.log_variance.double().exp()
    if not bool((posterior.mean.double().square() + variance).sum().isfinite()):
        raise DataError("latents are too far from zero for a prior; the model has diverged")
    order = permutation(key(seed, "held out"), size).to(posterior.mean.device)
    num_held_out = max(1, round(HELD_OUT * size))
    held_out = posterior.select(order[:num_held_out])
    return Split(posterior.select(order[num_held_out:]), _draws(held_out, seed, "held out"))


def select_mixture(
    posterior: DiagonalGaussian,
    prior: Prior,
    *,
    seed: int,
    max_components: int = 64,
    is_over: Callable[[], bool] = lambda: False,
    report: Callable[[MixtureScore], object] = lambda score: None,
) -> SelectedMixture:
    """Fit mixtures to draws from nine tenths of the posteriors; keep the best on the others.

    The sizes are 1, 2, 4, ... components, until a doubling does not improve the held-out score.

    Args:
        posterior: of N sentences, `[N, Z]`, at least 2.
        prior: of the model, which the mixtures are compared with.
        seed: of the split, the draws and the initial components.
        max_components: the largest size, at least 1.
        is_over: asked between iterations; True ends the fit with the best mixture so far.
        report: takes the score of each size.

    Raises:
        DataError: fewer than two sentences, or posteriors without finite moments.
    """
    split = split_posteriors(posterior, seed=seed)
    points = _draws(split.fitted, seed, "aggregate fit").flatten(0, 1)
    scores: list[MixtureScore] = []
    count, best = 1, None
    while best is None or (count <= min(max_components, len(split.fitted.mean)) and not is_over()):
        fit = fit_mixture(points, count, seed=seed, is_over=is_over)
        scores.append(_mixture_score(fit.mixture, prior, split.held_out))
        report(scores[-1])
        if best is not None and scores[-1].log_prob <= scores[-2].log_prob:
            break
        best, count = fit, 2 * count
    return SelectedMixture(best, max(scores, key=lambda score: score.log_prob), scores)


def gain_over(prior: Prior, log_prob: Tensor, latents: Tensor) -> Gain:
    """The gain of log-densities `[DRAWS, M]` of latents `[DRAWS, M, Z]` over those of a prior."""
    gains = (log_prob.double() - prior.log_prob(latents).double()).mean(0)
    count = gains.shape[0]
    return Gain(float(gains.mean()), float(gains.std()) / math.sqrt(count) if count > 1 else 0.0)


def _draws(posterior: DiagonalGaussian, seed: int, purpose: str) -> Tensor:
    """Float64 `[DRAWS, N, Z]`, on the CPU."""
    mean, log_variance = (part.detach().cpu().double() for part in posterior)
    index = torch.arange(mean.shape[0])
    noise = [
        normals(key(seed, purpose, number), index, lanes=mean.shape[1]) for number in range(DRAWS)
    ]
    return DiagonalGaussian(mean, log_variance).sample(torch.stack(noise).double())


def _mixture_score(mixture: GaussianMixture, prior: Prior, latents: Tensor) -> MixtureScore:
    log_prob = mixture.log_prob(latents.flatten(0, 1)).view(latents.shape[:2])
    gain = gain_over(prior, log_prob, latents)
    return MixtureScore(mixture.num_components, float(log_prob.mean(0).mean()), gain)
