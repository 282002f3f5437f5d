"""The fit of a density to the aggregate posterior: held-out sentences, gain and time limit."""

import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from textvae.errors import DataError
from textvae.model.gaussian import DiagonalGaussian
from textvae.randomness import key, normals, permutation

HELD_OUT = 0.1
"""The fraction of the sentences that densities are compared on."""
DRAWS = 2
"""Draws per posterior. EM on the posteriors themselves, with one responsibility per posterior, is a
bound so loose that it ends in a single Gaussian (docs/develop/log.md)."""


class LogDensity(Protocol):
    """Anything with a log-density, such as a prior."""

    def log_prob(self, latents: Tensor) -> Tensor:
        """Log-density in nats, `[..., Z]` -> `[...]`."""


class Split(NamedTuple):
    """Posteriors that a density is fitted to, and draws of others to compare densities on."""

    fitted: DiagonalGaussian
    """`[N, Z]`."""
    held_out: Tensor
    """Float64 `[DRAWS, M, Z]`, on the CPU."""


class Gain(NamedTuple):
    """How much likelier a density makes held-out draws than a baseline does."""

    nats: float
    """Mean over sentences, nats per latent."""
    stderr: float
    """Over sentences."""

    @property
    def is_sure(self) -> bool:
        """True where the gain is above 0 by two standard errors."""
        return self.nats > 2.0 * self.stderr


class FitContext(NamedTuple):
    """The time limit of a fit at the end of training, and the receiver of its lines."""

    report: Callable[[str], object]
    """Takes lines of progress."""
    seconds: float = math.inf
    """Time that the fit may take."""
    signals: Sequence[int] = ()
    """Signals caught meanwhile: with one, the fit ends with what it has."""
    begun: float = 0.0
    """By `time.perf_counter`."""

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self.begun

    def fraction(self) -> float:
        """How much of the time is over; 1 after a signal."""
        return 1.0 if self.signals else self.elapsed / self.seconds

    def is_over(self) -> bool:
        """True when the fit has to end."""
        return self.fraction() >= 1.0

    def report_progress(self, stage: str, nats: float) -> None:
        """Report the gain so far."""
        self.report(
            f"prior: {stage}, {self.elapsed:.0f} s: {nats:.3f} nats per latent above N(m, C)"
        )

    def report_result(self, name: str, gain: Gain, *, is_better: bool) -> None:
        """Report the gain in the end, and why the fit ended if it ended early."""
        reason = ""
        if self.signals:
            reason = "; ended by a signal"
        elif self.is_over():
            reason = f"; ended after {self.elapsed:.0f} s"
        self.report(
            f"prior: {name}, {gain.nats:.3f} +- {gain.stderr:.3f} nats per latent above N(m, C)"
            f"{'' if is_better else ', which stays'}{reason}"
        )


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
    held_out = posterior[order[:num_held_out]]
    return Split(posterior[order[num_held_out:]], posterior_draws(held_out, seed, "held out"))


def posterior_draws(posterior: DiagonalGaussian, seed: int, purpose: str) -> Tensor:
    """Draws of posteriors `[N, Z]`: float64 `[DRAWS, N, Z]`, on the CPU."""
    wide = posterior.apply(lambda part: part.detach().cpu().double())
    index, dim = torch.arange(len(wide)), wide.mean.shape[1]
    noise = [normals(key(seed, purpose, number), index, lanes=dim) for number in range(DRAWS)]
    return wide.sample(torch.stack(noise).double())


def gain_of(log_prob: Tensor, baseline: Tensor) -> Gain:
    """The gain of log-densities over those of a baseline, both `[DRAWS, M]`."""
    gains = (log_prob.double() - baseline.double()).mean(0)
    count = gains.shape[0]
    return Gain(float(gains.mean()), float(gains.std()) / math.sqrt(count) if count > 1 else 0.0)
