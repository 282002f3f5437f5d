"""How many components the aggregate posterior wants, by the likelihood of sentences held out."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from textvae.errors import ConfigError, DataError
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.interfaces import Prior
from textvae.model.mixture import Fit, GaussianMixture, fit_mixture
from textvae.randomness import key, normals, permutation

HELD_OUT = 0.1
DRAWS = 2
"""Of each posterior: the mean of log-densities over them is exact but for their noise. EM on the
posteriors themselves, with one set of shares for each, is a bound so loose that it ends in a
single Gaussian (docs/develop/log.md)."""


class HeldOut(NamedTuple):
    """A mixture of so many components, on draws from posteriors that it was not fitted to."""

    num_components: int
    log_prob: float
    """E_q(z) log mixture(z), nats a latent."""
    gain: float
    """What that is above E_q(z) log p(z), the prior's, on the same draws."""
    gain_stderr: float
    """Over sentences."""


class Chosen(NamedTuple):
    """The mixture that was best, and what was tried."""

    fit: Fit
    best: HeldOut
    tried: list[HeldOut]
    num_fitted: int
    """Sentences it was fitted to."""
    num_held_out: int


def choose_mixture(
    posterior: DiagonalGaussian,
    prior: Prior,
    *,
    seed: int,
    num_components: int | None = None,
    max_components: int = 64,
    diagonal: bool = False,
) -> Chosen:
    """Fit mixtures to draws from nine tenths of the posteriors; keep the best on the others.

    Tried are 1, 2, 4, ... components, until one more doubling is no better.

    Args:
        posterior: of N sentences, `[N, Z]`, at least 2.
        prior: of the model, which the mixtures are compared with.
        seed: of the split, the draws and the starts.
        num_components: M, where it is given.
        max_components: the most that is tried.
        diagonal: of the covariances.

    Raises:
        DataError: fewer than two sentences, or posteriors without finite moments.
        ConfigError: no components, or more than sentences to fit them to.
    """
    size = posterior.mean.shape[0]
    if size < 2:
        raise DataError(f"a mixture is fitted to at least 2 sentences, found {size}")
    order = permutation(key(seed, "held out"), size).to(posterior.mean.device)
    num_held_out = max(1, round(HELD_OUT * size))
    fitted, held = posterior.select(order[num_held_out:]), posterior.select(order[:num_held_out])
    available = fitted.mean.shape[0]
    for name, value in (("--components", num_components), ("--max-components", max_components)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} {value}: must be at least 1")
    if num_components is not None and num_components > available:
        raise ConfigError(
            f"--components {num_components}: more than the {available:,} sentences to fit them to"
        )
    points = _draws(fitted, seed, "aggregate fit").flatten(0, 1)
    if not bool(points.square().sum().isfinite()):
        raise DataError("latents are too far from zero for a mixture; the model has diverged")
    latents = _draws(held, seed, "held out")
    tried: list[HeldOut] = []
    best: Fit | None = None
    for count in [num_components] if num_components else _doublings(max_components, available):
        fit = fit_mixture(points, count, seed=seed, diagonal=diagonal)
        tried.append(_judged(fit.mixture, prior, latents))
        if best is not None and tried[-1].log_prob <= tried[-2].log_prob:
            break
        best = fit
    assert best is not None
    winner = max(tried, key=lambda one: one.log_prob)
    return Chosen(best, winner, tried, available, num_held_out)


def _doublings(largest: int, available: int) -> list[int]:
    counts: list[int] = []
    while 2 ** len(counts) <= min(largest, available):
        counts.append(2 ** len(counts))
    return counts


def _draws(posterior: DiagonalGaussian, seed: int, purpose: str) -> Tensor:
    """Float64 `[DRAWS, N, Z]`, on the CPU."""
    mean, log_variance = (part.detach().cpu().double() for part in posterior)
    index = torch.arange(mean.shape[0])
    noise = [
        normals(key(seed, purpose, number), index, lanes=mean.shape[1]) for number in range(DRAWS)
    ]
    return DiagonalGaussian(mean, log_variance).sample(torch.stack(noise).double())


def _judged(mixture: GaussianMixture, prior: Prior, latents: Tensor) -> HeldOut:
    found = mixture.log_prob(latents.flatten(0, 1)).view(latents.shape[:2]).mean(0)
    gains = found - prior.log_prob(latents).mean(0)
    count = gains.shape[0]
    stderr = float(gains.std()) / math.sqrt(count) if count > 1 else 0.0
    return HeldOut(mixture.num_components, float(found.mean()), float(gains.mean()), stderr)
