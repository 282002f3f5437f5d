"""The prior that is validated, selected and saved: fitted to the aggregate posterior."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from textvae import distributed
from textvae.data.batching import TokenArray
from textvae.metrics.likelihood import encode_corpus
from textvae.model.density import FitContext
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.vae import VAE
from textvae.train.signals import catch_signals
from textvae.train.validation import Validation

FIT_SENTENCES = 10_000
"""Most training sentences whose posteriors a prior is fitted to, evenly spaced in the corpus: with
32 dimensions the moments of so many are exact to about 32 * 35 / (4 * 10,000) = 0.03 nats."""

TIME_FRACTION = 0.2
"""The most time of the fit of a density, as a fraction of the time of training."""
LEAST_SECONDS = 20.0
"""Time that every fit has, however short the training was."""


@contextmanager
def fitted_prior(model: VAE, corpus: TokenArray) -> Iterator[dict[str, Tensor]]:
    """Fit the moments of the prior to a training set in the block; yields its buffers by name.

    The steps of training see N(0, 1). A prior without moments yields no buffers.
    """
    if not model.prior.has_moments:
        yield {}
        return
    model.prior.fit_moments(_posteriors(model, corpus, FIT_SENTENCES))
    buffers = dict(model.named_buffers()).items()
    try:
        yield {name: value.clone() for name, value in buffers if name.startswith("prior.")}
    finally:
        model.prior.reset()


def fit_density(
    model: VAE,
    corpus: TokenArray,
    gaussian: Validation,
    validated: Callable[[], Validation],
    *,
    seed: int,
    seconds: float,
    report: Callable[[str], object],
) -> Validation:
    """Fit the density of a prior that has one; it stays if the validation ELBO rises.

    Of a model in evaluation mode with fitted moments, whose validation is `gaussian`; `validated`
    validates it as it is when called, and `seconds` is the time of training. Returns the validation
    of the model as it is now.

    The first process fits; the others wait for it. The fit ends with the best density so far after
    a fifth of the time of training, or at a signal, which does not end the run.
    """
    prior = model.prior
    if not prior.fit_sentences or corpus.num_sentences < 2:
        return gaussian
    posterior = _posteriors(model, corpus, prior.fit_sentences)
    if distributed.rank() == 0:
        with catch_signals() as signals:
            allowed = max(LEAST_SECONDS, TIME_FRACTION * seconds)
            context = FitContext(report, allowed, signals, time.perf_counter())
            prior.fit(posterior, seed=seed, context=context)
    prior.broadcast()
    if prior.kl_is_exact:
        return gaussian
    fitted = validated()
    if fitted.elbo > gaussian.elbo:
        report(f"prior: validation nll <= {-fitted.elbo:.3f}  kl {fitted.kl:.2f}")
        return fitted
    prior.reset_to_gaussian()
    report(f"prior: N(m, C) stays, for its validation is no worse: nll <= {-gaussian.elbo:.3f}")
    return gaussian


def _posteriors(model: VAE, corpus: TokenArray, at_most: int) -> DiagonalGaussian:
    """The posteriors of at most so many sentences, evenly spaced in the corpus."""
    interval = -(-corpus.num_sentences // at_most)
    rows = torch.arange(0, corpus.num_sentences, interval)
    return encode_corpus(model, corpus.select(rows).to(model.device))
