"""The prior that is validated, selected and saved: fitted to the aggregate posterior."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from textvae.data.batching import TokenArray
from textvae.evaluate.aggregate import choose_mixture
from textvae.evaluate.likelihood import encode_corpus
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.prior_gaussian import GaussianPrior
from textvae.model.prior_mixture import MixturePrior
from textvae.model.vae import VAE

FIT_SENTENCES = 10_000
"""Most training sentences whose posteriors a prior is fitted to, evenly spaced in the corpus: with
32 dimensions the moments of so many are exact to about 32 * 35 / (4 * 10,000) = 0.03 nats."""
MIXTURE_SENTENCES = 100_000
"""The same for a mixture, which has more to learn: of 12 dimensions 10,000 sentences give 16
Gaussians and half of what 100,000 give with 64 (docs/log.md)."""


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


def fit_mixture_prior(
    model: VAE, corpus: TokenArray, *, seed: int, report: Callable[[str], object]
) -> bool:
    """Put a mixture in the place of N(m, C), where the model is to have one; whether it has now.

    Not where N(m, C) is at least as good for sentences held out of the fit, as where they are few.

    Args:
        model: in evaluation mode, its prior fitted.
        corpus: what was trained on, N sentences.
        seed: of the draws, of what is held out, and of where EM starts.
        report: takes a line.
    """
    prior = model.prior
    if not isinstance(prior, MixturePrior) or corpus.num_sentences < 2:
        return False
    chosen = choose_mixture(
        _posteriors(model, corpus, MIXTURE_SENTENCES),
        prior,
        seed=seed,
        max_components=prior.max_components,
    )
    best = chosen.best
    better = best.num_components > 1 and best.gain > 0.0
    if better:
        prior.take(chosen.fit.mixture)
    report(
        f"prior: {best.num_components} Gaussians, {best.gain:.3f} +- {best.gain_stderr:.3f} nats a "
        f"latent above N(m, C){'' if better else ', which stays'}"
    )
    return better


def _posteriors(model: VAE, corpus: TokenArray, at_most: int) -> DiagonalGaussian:
    """Of at most so many sentences, evenly spaced in the corpus."""
    apart = -(-corpus.num_sentences // at_most)
    some = torch.arange(0, corpus.num_sentences, apart, device=corpus.offsets.device)
    return encode_corpus(model, corpus.select(some).to(model.device))
