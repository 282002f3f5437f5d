"""The prior that is validated, selected and saved: fitted to the aggregate posterior."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from textvae import distributed
from textvae.data.batching import TokenArray
from textvae.errors import DataError
from textvae.metrics.aggregate import select_mixture
from textvae.metrics.likelihood import encode_corpus
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.prior_gaussian import GaussianPrior
from textvae.model.prior_mixture import MixturePrior
from textvae.model.vae import VAE
from textvae.train.state import Validation

FIT_SENTENCES = 10_000
"""Most training sentences whose posteriors a prior is fitted to, evenly spaced in the corpus: with
32 dimensions the moments of so many are exact to about 32 * 35 / (4 * 10,000) = 0.03 nats."""
MIXTURE_SENTENCES = 100_000
"""The same for a mixture, a tenth of them held out: it has more to learn. Of 12 dimensions 10,000
sentences give 16 Gaussians and half of what 100,000 give with 64 (docs/develop/log.md)."""


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
    model: VAE,
    corpus: TokenArray,
    gaussian: Validation,
    validated: Callable[[], Validation],
    *,
    seed: int,
    report: Callable[[str], object],
) -> Validation:
    """Put a mixture in the place of N(m, C), where the model is to have one and it is better.

    It is better where it says more of the posteriors held out of its fit by two standard errors
    and the validation set has a larger ELBO. The first process fits; the others wait for it.

    Args:
        model: in evaluation mode, its prior fitted.
        corpus: what was trained on, N sentences.
        gaussian: the validation of the model as it is.
        validated: validates the model as it is when called.
        seed: of the draws, of what is held out, and of where EM starts.
        report: takes lines.

    Returns:
        The validation of the model as it is now.
    """
    prior = model.prior
    if not isinstance(prior, MixturePrior) or corpus.num_sentences < 2:
        return gaussian
    posterior = _posteriors(model, corpus, MIXTURE_SENTENCES)
    report(f"prior: fitting a mixture to {len(posterior.mean):,} sentences")
    if distributed.rank() == 0:
        _take_better(prior, posterior, seed, report)
    prior.share()
    if not prior.num_components:
        return gaussian
    found = validated()
    if found.elbo > gaussian.elbo:
        report(f"prior: validation nll <= {-found.elbo:.3f}  kl {found.kl:.2f}")
        return found
    prior.drop()
    report(f"prior: N(m, C) stays, for its validation is no worse: nll <= {-gaussian.elbo:.3f}")
    return gaussian


def _take_better(
    prior: MixturePrior, posterior: DiagonalGaussian, seed: int, report: Callable[[str], object]
) -> None:
    try:
        chosen = select_mixture(posterior, prior, seed=seed, max_components=prior.max_components)
    except DataError as error:  # of a run that diverged
        report(f"prior: N(m, C) stays: {error}")
        return
    best = chosen.best
    better = best.num_components > 1 and best.gain > 2.0 * best.gain_stderr
    if better:
        prior.take(chosen.fit.mixture)
    size = "1 Gaussian" if best.num_components == 1 else f"{best.num_components} Gaussians"
    report(
        f"prior: {size}, {best.gain:.3f} +- {best.gain_stderr:.3f} nats a latent above N(m, C)"
        f"{'' if better else ', which stays'}"
    )


def _posteriors(model: VAE, corpus: TokenArray, at_most: int) -> DiagonalGaussian:
    """Of at most so many sentences, evenly spaced in the corpus."""
    apart = -(-corpus.num_sentences // at_most)
    some = torch.arange(0, corpus.num_sentences, apart, device=corpus.offsets.device)
    return encode_corpus(model, corpus.select(some).to(model.device))
