"""Sentences and their reconstructions, with how near each comes and all of them together."""

from collections.abc import Sequence
from typing import NamedTuple, Unpack

from textvae.api.text_vae import TextVAE
from textvae.evaluate.reconstruction import (
    ReconstructionScores,
    reconstruction_scores,
    sentence_scores,
)
from textvae.generate.options import Decoding
from textvae.generate.writing import candidates
from textvae.metrics.text_quality import Tokenization, tokenization_for
from textvae.run.conditions import decoder_conditions


class Reconstruction(NamedTuple):
    """A sentence that was encoded and decoded."""

    sentence: str
    rank: int | None
    """Among the n best of a beam, from 1, as the two scores; None where words were drawn."""
    reconstruction: str
    log_prob: float | None
    """log p(x|z) of the reconstruction in nats, summed over the tokens, `</s>` counted."""
    score: float | None
    """The log-likelihood over the length penalty."""
    exact_match: bool
    edit_distance: int
    """Tokens."""
    bleu: float
    """Sentence BLEU, 0 to 100."""


class Reconstructions(NamedTuple):
    """The sentences that the decoder writes at the posterior means of N sentences."""

    rows: list[Reconstruction]
    """N, in the order of the sentences; with `n_best` several for each."""
    scores: ReconstructionScores
    """The scores of the best of all sentences together."""


def reconstructions(
    vae: TextVAE,
    sentences: Sequence[str],
    *,
    label: str | None = None,
    tokenize: Tokenization | None = None,
    **decoding: Unpack[Decoding],
) -> Reconstructions:
    """Reconstruct sentences, and compare.

    Args:
        vae: the model.
        sentences: at least one, none blank.
        label: as for `TextVAE.reconstruct`.
        tokenize: of sacrebleu, for BLEU and edits; None is what fits the model's tokenizer: `none`
            for words, `13a` for byte pairs, `char` for characters.
        decoding: how words are chosen, by default greedily; see `textvae.Decoding`.

    Raises:
        DataError, CheckpointError, ConfigError, TypeError: as `TextVAE.reconstruct`.
    """
    settings = vae.decoding_settings(decoding, several=True)
    mean = vae.encode(sentences).mean
    conditions = decoder_conditions(
        vae.model, vae.labels, mean, label or vae.likeliest_labels(sentences)
    )
    written = candidates(vae.model, vae.tokenizer, conditions, settings)
    cut = tokenize or tokenization_for(vae.tokenizer.kind)
    pairs = [
        (sentence, rank, one)
        for sentence, best in zip(sentences, written, strict=True)
        for rank, one in enumerate(best, start=1)
    ]
    texts, originals = [one.text for _, _, one in pairs], [sentence for sentence, _, _ in pairs]
    rows = [
        Reconstruction(
            sentence,
            None if one.score is None else rank,
            one.text,
            one.log_prob,
            one.score,
            *scores,
        )
        for (sentence, rank, one), scores in zip(
            pairs, sentence_scores(texts, originals, cut), strict=True
        )
    ]
    return Reconstructions(
        rows, reconstruction_scores([best[0].text for best in written], sentences, cut)
    )
