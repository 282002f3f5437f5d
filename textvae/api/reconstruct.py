"""Sentences and their reconstructions, with how near each comes and all of them together."""

from collections.abc import Iterable
from typing import NamedTuple, Unpack

from textvae.api.inputs import tokenize_stream
from textvae.api.text_vae import TextVAE
from textvae.data.batching import TokenArray
from textvae.data.rows import RowCounts, TooLong
from textvae.errors import DataError
from textvae.evaluate.reconstruction import (
    ReconstructionScores,
    reconstruction_scores,
    sentence_scores,
)
from textvae.generate.options import Decoding
from textvae.generate.writing import candidates
from textvae.metrics.likelihood import encode_corpus
from textvae.metrics.text_quality import Tokenization, tokenization_for
from textvae.run.conditions import decoder_conditions
from textvae.run.model_directory import require_latent

TOGETHER = 2048
"""Sentences tokenized in one go."""


class Reconstruction(NamedTuple):
    """A sentence that was encoded and decoded."""

    row: int
    """The row of the sentence among those given, from 0."""
    sentence: str
    """As the model read it."""
    cut: bool
    """True for the beginning of a longer text."""
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
    sentences: Iterable[str],
    *,
    label: str | None = None,
    tokenize: Tokenization | None = None,
    too_long: TooLong = "cut",
    counts: RowCounts | None = None,
    source: str = "the sentences given",
    **decoding: Unpack[Decoding],
) -> Reconstructions:
    """Reconstruct sentences, and compare.

    Args:
        vae: the model.
        sentences: rows; a blank one has no result, and at least one is not blank.
        label: as for `TextVAE.reconstruct`.
        tokenize: of sacrebleu, for BLEU and edits; None is what fits the model's tokenizer: `none`
            for words, `13a` for byte pairs, `char` for characters.
        too_long: what becomes of rows over the model's limit of tokens.
        counts: counts the rows without a result, and those cut or split.
        source: where the rows are from, for errors.
        decoding: how words are chosen, by default greedily; see `textvae.Decoding`.

    Raises:
        DataError, CheckpointError, ConfigError, TypeError: as `TextVAE.reconstruct`.
    """
    settings = vae.decoding_settings(decoding, several=True)
    require_latent(vae.model, vae.path)
    parts = tokenize_stream(
        vae.tokenizer,
        sentences,
        limit=vae.config.max_length,
        source=source,
        too_long=too_long,
        counts=counts,
        together=TOGETHER,
    )
    read, tokens = list[tuple[int, str, bool]](), list[list[int]]()
    for part in parts:
        if part.error is not None:
            raise part.error
        read += zip(part.rows, part.texts, part.cut, strict=True)
        tokens += part.tokens
    if not read:
        raise DataError(f"{source}: holds no sentence that the model takes")
    array = TokenArray.from_lists(tokens, vae.tokenizer.start, cut=[cut for _, _, cut in read])
    mean = encode_corpus(vae.model, array.to(vae.device)).mean
    conditions = decoder_conditions(vae.model, vae.labels, mean, label or vae.label_array(array))
    written = candidates(vae.model, vae.tokenizer, conditions, settings)
    how = tokenize or tokenization_for(vae.tokenizer.kind, [text for _, text, _ in read])
    pairs = [
        (original, rank, one)
        for original, best in zip(read, written, strict=True)
        for rank, one in enumerate(best, start=1)
    ]
    texts, originals = [one.text for *_, one in pairs], [text for (_, text, _), *_ in pairs]
    rows = [
        Reconstruction(
            *original,
            None if one.score is None else rank,
            one.text,
            one.log_prob,
            one.score,
            *scores,
        )
        for (original, rank, one), scores in zip(
            pairs, sentence_scores(texts, originals, how), strict=True
        )
    ]
    first = [best[0].text for best in written]
    return Reconstructions(rows, reconstruction_scores(first, [text for _, text, _ in read], how))
