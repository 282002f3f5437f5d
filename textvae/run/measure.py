"""An evaluation with its provenance, and on the embedded corpus with the exact truth."""

from collections.abc import Sequence

import torch
from msgspec import structs

from textvae.data.batching import TokenArray
from textvae.data.tokenizer import Tokenizer
from textvae.evaluate.subject import source_truth
from textvae.evaluate.summary import Evaluation, evaluate
from textvae.metrics.likelihood import ROWS
from textvae.model.vae import VAE
from textvae.run.data import SplitFacts


def measure(
    model: VAE,
    tokenizer: Tokenizer,
    array: TokenArray,
    facts: SplitFacts,
    *,
    embedded_texts: Sequence[str] | None,
    num_samples: int,
    seed: int,
    rows: int = ROWS,
    dtype: torch.dtype = torch.float32,
) -> Evaluation:
    """`evaluate`, with what was evaluated.

    Args:
        model: in evaluation mode.
        tokenizer: that made the array.
        array: N sentences.
        facts: of the same sentences.
        embedded_texts: the sentences themselves, if they are of the embedded corpus.
        num_samples: K.
        seed: of the samples.
        rows: latents decoded at once.
        dtype: of the matrix products.
    """
    found = evaluate(
        model, array, facts.counts(), num_samples=num_samples, seed=seed, rows=rows, dtype=dtype
    )
    truth = None if embedded_texts is None else source_truth(embedded_texts)
    return structs.replace(
        found,
        tokenizer=tokenizer.kind,
        source=facts.read.source,
        sha256=facts.read.sha256,
        source_nll=None if truth is None else truth.nll,
        source_entropy=None if truth is None else truth.entropy,
    )
