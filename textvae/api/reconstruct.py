"""Sentences and what a model makes of them, with how near each comes and all of them together."""

from collections.abc import Sequence
from typing import NamedTuple

from textvae.api.text_vae import TextVAE
from textvae.evaluate.reconstruction import (
    ReconstructionScores,
    SentenceScores,
    reconstruction_scores,
    sentence_scores,
)
from textvae.generate.options import AnyStrategy
from textvae.generate.strategies import Greedy
from textvae.metrics.text_quality import Tokenization, tokenization_for


class Reconstructions(NamedTuple):
    """What the decoder writes at the posterior means of N sentences."""

    texts: list[str]
    each: list[SentenceScores]
    scores: ReconstructionScores
    """Of all together."""


def reconstructions(
    vae: TextVAE,
    sentences: Sequence[str],
    *,
    strategy: AnyStrategy = Greedy(),  # noqa: B008 -- a frozen struct
    seed: int = 0,
    max_length: int | None = None,
    tokenize: Tokenization | None = None,
) -> Reconstructions:
    """Reconstruct sentences, and compare.

    Args:
        vae: the model.
        sentences: at least one, none blank.
        strategy: how words are chosen.
        seed: of the words, where the strategy draws.
        max_length: the most tokens; None is the model's limit.
        tokenize: of sacrebleu, for BLEU and edits; None is what fits the model's tokenizer: `none`
            for words, `13a` for byte pairs, `char` for characters.

    Raises:
        DataError, CheckpointError, ConfigError: as `TextVAE.reconstruct`.
    """
    written = vae.reconstruct(sentences, strategy=strategy, seed=seed, max_length=max_length)
    how = tokenize or tokenization_for(vae.tokenizer.kind)
    return Reconstructions(
        written,
        sentence_scores(written, sentences, how),
        reconstruction_scores(written, sentences, how),
    )
