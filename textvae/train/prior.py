"""The prior that is validated, selected and saved: fitted to the aggregate posterior."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from textvae import distributed
from textvae.data.batching import TokenArray
from textvae.errors import DataError
from textvae.metrics.aggregate import (
    Gain,
    MixtureScore,
    gain_over,
    select_mixture,
    split_posteriors,
)
from textvae.metrics.likelihood import encode_corpus
from textvae.model.flow import FlowProgress, fit_flow
from textvae.model.gaussian import DiagonalGaussian, standard_normal_log_prob
from textvae.model.prior_flow import FlowPrior
from textvae.model.prior_gaussian import GaussianPrior
from textvae.model.prior_mixture import MixturePrior
from textvae.model.vae import VAE
from textvae.train.signals import catch_signals
from textvae.train.state import Validation

FIT_SENTENCES = 10_000
"""Most training sentences whose posteriors a prior is fitted to, evenly spaced in the corpus: with
32 dimensions the moments of so many are exact to about 32 * 35 / (4 * 10,000) = 0.03 nats."""
DENSITY_SENTENCES = 100_000
"""The same for a mixture or a flow, a tenth of them held out: it has more to learn. Of 12
dimensions 10,000 sentences give 16 Gaussians and half of what 100,000 give with 64
(docs/develop/log.md)."""
TIME_FRACTION = 0.2
"""The time of a fit of a mixture or a flow, at most, as a fraction of the time of training."""
LEAST_SECONDS = 20.0
"""Time that every fit has, however short the training was."""


@contextmanager
def fitted_prior(model: VAE, corpus: TokenArray) -> Iterator[dict[str, Tensor]]:
    """The prior is fitted while this lasts; yields its buffers, by their names in the model.

    The steps of training see it as it begins. Of a prior that is not fitted there are none.

    Args:
        model: in any mode; posteriors are those of evaluation.
        corpus: what is trained on, N sentences.
    """
    prior = model.prior
    if not isinstance(prior, GaussianPrior):
        yield {}
        return
    prior.fit(_posteriors(model, corpus, FIT_SENTENCES))
    try:
        yield {f"prior.{name}": value.clone() for name, value in prior.named_buffers()}
    finally:
        prior.forget()


class Deadline(NamedTuple):
    """When the fit of a prior ends early: at the end of its time, or at a signal."""

    begun: float
    """Of `time.perf_counter`."""
    seconds: float
    signals: list[int]
    """Caught by `catch_signals`."""

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self.begun

    def fraction(self) -> float:
        """How much of the time is over, 1 after a signal."""
        return 1.0 if self.signals else self.elapsed / self.seconds

    def is_over(self) -> bool:
        """True when the fit has to end with what it has."""
        return self.fraction() >= 1.0

    def reason(self) -> str:
        """Why it ended early, for a reader."""
        if self.signals:
            return "ended by a signal"
        return f"ended after {self.elapsed:.0f} s, a fifth of the time of training"


def fit_prior(
    model: VAE,
    corpus: TokenArray,
    gaussian: Validation,
    validated: Callable[[], Validation],
    *,
    seed: int,
    seconds: float,
    report: Callable[[str], object],
) -> Validation:
    """Put a mixture or a flow in the place of N(m, C), if the prior is to be one and it is better.

    It is better where it makes the posteriors held out of its fit likelier by two standard errors
    and the validation set has a larger ELBO. The first process fits; the others wait for it. The
    fit ends with the best so far after a fifth of the time of training (`LEAST_SECONDS` at least),
    or at a signal, which does not end the run.

    Args:
        model: in evaluation mode, its prior fitted as `fitted_prior` does.
        corpus: what was trained on, N sentences.
        gaussian: the validation of the model as it is.
        validated: validates the model as it is when called.
        seed: of the draws, of what is held out, and of the initial values.
        seconds: the time of training.
        report: takes lines.

    Returns:
        The validation of the model as it is now.
    """
    prior = model.prior
    if not isinstance(prior, MixturePrior | FlowPrior) or corpus.num_sentences < 2:
        return gaussian
    posterior = _posteriors(model, corpus, DENSITY_SENTENCES)
    kind = "mixture" if isinstance(prior, MixturePrior) else "flow"
    report(f"prior: fitting a {kind} to {len(posterior.mean):,} sentences")
    if distributed.rank() == 0:
        with catch_signals() as signals:
            allowed = max(LEAST_SECONDS, TIME_FRACTION * seconds)
            deadline = Deadline(time.perf_counter(), allowed, signals)
            try:
                if isinstance(prior, MixturePrior):
                    _fit_mixture(prior, posterior, seed, deadline, report)
                else:
                    _fit_flow(prior, posterior, seed, deadline, report)
            except DataError as error:  # of a run that diverged
                report(f"prior: N(m, C) stays: {error}")
    prior.share()
    if prior.kl_is_exact:
        return gaussian
    validation = validated()
    if validation.elbo > gaussian.elbo:
        report(f"prior: validation nll <= {-validation.elbo:.3f}  kl {validation.kl:.2f}")
        return validation
    prior.drop()
    report(f"prior: N(m, C) stays, for its validation is no worse: nll <= {-gaussian.elbo:.3f}")
    return gaussian


def _fit_mixture(
    prior: MixturePrior,
    posterior: DiagonalGaussian,
    seed: int,
    deadline: Deadline,
    report: Callable[[str], object],
) -> None:
    def tried(score: MixtureScore) -> None:
        report(
            f"prior: {_size(score)}, {deadline.elapsed:.0f} s: {score.gain.nats:.3f} nats per "
            "latent above N(m, C)"
        )

    selected = select_mixture(
        posterior,
        prior,
        seed=seed,
        max_components=prior.max_components,
        is_over=deadline.is_over,
        report=tried,
    )
    best = selected.best
    is_better = best.num_components > 1 and best.gain.is_better
    if is_better:
        prior.take(selected.fit.mixture)
    _report_gain(_size(best), best.gain, is_better, deadline, report)


def _size(score: MixtureScore) -> str:
    count = score.num_components
    return "1 Gaussian" if count == 1 else f"{count} Gaussians"


def _fit_flow(
    prior: FlowPrior,
    posterior: DiagonalGaussian,
    seed: int,
    deadline: Deadline,
    report: Callable[[str], object],
) -> None:
    config, split = prior.config, split_posteriors(posterior, seed=seed)
    held_out = split.held_out.to(prior.mean)
    points, normal = prior.to_normals(held_out.flatten(0, 1)), prior.log_prob(held_out)
    best: FlowProgress | None = None
    for progress in fit_flow(
        split.fitted,
        prior.to_normals,
        points,
        config.shape(prior.latent_dim),
        seed=seed,
        num_steps=config.num_steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        fraction_of_time=deadline.fraction,
    ):
        gain = progress.log_prob - float(standard_normal_log_prob(points).double().mean())
        report(
            f"prior: flow, step {progress.step:,} of at most {progress.num_steps:,}, "
            f"{deadline.elapsed:.0f} s: {gain:.3f} nats per latent above N(m, C)"
        )
        if best is None or progress.log_prob > best.log_prob:
            best = progress
    assert best is not None
    more = best.flow.conditional_log_probs(points).sum(1) - standard_normal_log_prob(points)
    gained = gain_over(prior, normal + more.view(normal.shape), held_out)
    if gained.is_better:
        prior.set_flow(best.flow)
    _report_gain("flow", gained, gained.is_better, deadline, report)


def _report_gain(
    name: str, gain: Gain, is_better: bool, deadline: Deadline, report: Callable[[str], object]
) -> None:
    ended = f"; {deadline.reason()}" if deadline.is_over() else ""
    report(
        f"prior: {name}, {gain.nats:.3f} +- {gain.stderr:.3f} nats per latent above N(m, C)"
        f"{'' if is_better else ', which stays'}{ended}"
    )


def _posteriors(model: VAE, corpus: TokenArray, at_most: int) -> DiagonalGaussian:
    """Of at most so many sentences, evenly spaced in the corpus."""
    apart = -(-corpus.num_sentences // at_most)
    some = torch.arange(0, corpus.num_sentences, apart, device=corpus.offsets.device)
    return encode_corpus(model, corpus.select(some).to(model.device))
