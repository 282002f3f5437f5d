"""The prior that is validated, selected and saved: fitted to the aggregate posterior."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from textvae.data.batching import TokenArray
from textvae.evaluate.likelihood import encode_corpus
from textvae.model.prior import GaussianPrior
from textvae.model.vae import VAE

FIT_SENTENCES = 10_000
"""Most training sentences whose posteriors a prior is fitted to, evenly spaced in the corpus: with
32 dimensions the moments of so many are exact to about 32 * 35 / (4 * 10,000) = 0.03 nats."""


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
    apart = -(-corpus.num_sentences // FIT_SENTENCES)
    some = torch.arange(0, corpus.num_sentences, apart, device=corpus.offsets.device)
    prior.fit(encode_corpus(model, corpus.select(some).to(model.device)))
    try:
        yield {f"prior.{name}": value.clone() for name, value in prior.named_buffers()}
    finally:
        prior.forget()
