"""Sentences to measure a model on, and those of the run that made it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from textvae.config import shorten
from textvae.data.batching import TokenArray
from textvae.data.corpus import (
    MAX_CHARACTERS,
    Sentences,
    exclusion_notes,
    read_sentences,
    sentences_of,
)
from textvae.data.grammar import embedded_splits
from textvae.data.rows import TooLong, clean
from textvae.data.tokenizer import Tokenizer
from textvae.errors import DataError
from textvae.evaluate.measurements import MeasuredCorpus
from textvae.evaluate.subject import Subject, TokenizedCorpus, count_unknown
from textvae.model.vae import VAE
from textvae.run.data import (
    DATA,
    EMBEDDED,
    SPLITS,
    SplitFacts,
    load_facts,
    open_split,
    tokenize_sentences,
)
from textvae.run.model_directory import Results


class Origin(NamedTuple):
    """The tokenizer of a model, its directory, and how it was made."""

    tokenizer: Tokenizer
    max_length: int
    path: Path | None
    results: Results | None

    @property
    def is_embedded(self) -> bool:
        """True if the model was trained on the embedded corpus."""
        return self.results is not None and self.results.data.source == EMBEDDED


class HeldOut(NamedTuple):
    """Sentences, tokenized."""

    array: TokenArray
    facts: SplitFacts
    texts: list[str] | None
    """The sentences themselves; None if a run kept only their tokens."""
    embedded: bool
    """True for the embedded corpus, whose likelihood is known exactly."""
    notes: tuple[str, ...] = ()
    """Notes for the user on rows that were left out, cut or split."""


def held_out(
    origin: Origin,
    data: str | Path | Sequence[str] | None,
    *,
    text_column: str | None = None,
    separator: str | None = None,
    encoding: str | None = None,
    too_long: TooLong = "drop",
) -> HeldOut:
    """The sentences to measure a model on.

    Args:
        origin: of the model.
        data: a file, a directory (its test split), `hf:name`, or a list of sentences; None is the
            test split that the run was made with.
        text_column: of a table.
        separator: of its cells; None finds it.
        encoding: None is UTF-8, or UTF-16 with a byte order mark.
        too_long: what becomes of sentences over the model's limit of tokens.

    Raises:
        DataError: sentences that cannot be read, one over the limit to be refused, no test split.
    """
    if data is None:
        if origin.is_embedded:
            return _embedded(origin, "test")
        if origin.path is None:
            raise DataError("a model without a run has no test split; give the sentences")
        return HeldOut(*open_split(origin.path / DATA, "test"), None, embedded=False)
    if isinstance(data, str | Path):
        limit = None if too_long in ("cut", "split") else MAX_CHARACTERS
        part = read_sentences(
            str(data),
            text_column=text_column,
            separator=separator,
            encoding=encoding,
            max_characters=limit,
        )
    else:
        part = given(data)
    array, facts, texts, notes = tokenize_sentences(
        part, origin.tokenizer, origin.max_length, too_long=too_long
    )
    notes = [*exclusion_notes(part.excluded, MAX_CHARACTERS), *notes]
    return HeldOut(
        array,
        facts,
        None if facts.num_shortened else texts,
        embedded=False,
        notes=tuple(f"{part.source}: {note}" for note in notes),
    )


def run_split(origin: Origin, name: str) -> HeldOut | None:
    """A split (`train`, `valid`, `test`) of the run that made a model, or None where it is gone."""
    assert name in SPLITS
    if origin.path is not None and load_facts(origin.path / DATA) is not None:
        return HeldOut(*open_split(origin.path / DATA, name), None, embedded=origin.is_embedded)
    return _embedded(origin, name) if origin.is_embedded else None


def given(sentences: Sequence[str]) -> Sentences:
    """Sentences of a caller, without blanks at their ends, as the reader of files leaves them.

    Raises:
        DataError: one string in place of a list.
    """
    if isinstance(sentences, str):
        raise DataError(f"{shorten(sentences)}: is one string; give a list of sentences")
    return sentences_of([clean(text) for text in sentences], source="the sentences given")


def tokenize_given(
    origin: Origin, part: Sentences, texts: Sequence[str]
) -> tuple[TokenArray, SplitFacts]:
    """Tokenize, and refuse what the reader or the model's limit would leave out.

    Args:
        origin: of the model.
        part: what the reader kept of `texts`.
        texts: as they were given.

    Raises:
        DataError: a blank sentence, or one over the model's limit of tokens.
    """
    limit, source = origin.max_length, part.report.source
    if len(part.texts) != len(texts):
        blank = next(i for i, text in enumerate(texts) if not text.strip())
        raise DataError(f"{source}: number {blank + 1} is blank; leave it out")
    for number, ids in enumerate(origin.tokenizer.encode_batch(part.texts), start=1):
        if len(ids) > limit:
            raise DataError(
                f"{source}: sentence {number} has {len(ids)} tokens, the model takes at most "
                f"{limit}; shorten it or leave it out"
            )
    array, facts, *_ = tokenize_sentences(part, origin.tokenizer, limit)
    return array, facts


def _embedded(origin: Origin, name: str) -> HeldOut:
    """A split of the embedded corpus; as in training, sentences over the limit are left out."""
    assert origin.results is not None
    num_train = origin.results.data.train.read.rows if name == "train" else None
    split = getattr(embedded_splits(num_train=num_train), name)
    part = sentences_of(split.texts, source=f"{EMBEDDED}, {name}")
    array, facts, texts, _ = tokenize_sentences(part, origin.tokenizer, origin.max_length)
    return HeldOut(array, facts, texts, embedded=True)


def subject_of(
    model: VAE,
    origin: Origin,
    sentences: HeldOut,
    *,
    seed: int,
    rows: int | None = None,
    dtype: torch.dtype = torch.float32,
    report: Callable[[str], object] = lambda line: None,
) -> Subject:
    """A model and sentences, for evaluators.

    Args:
        model: in evaluation mode.
        origin: of the model; the splits of its run are read when an evaluator needs them.
        sentences: to measure on.
        seed: of every draw.
        rows: latents decoded at once, which bounds the memory; no effect on the result.
        dtype: of the matrix products.
        report: takes lines of progress.
    """

    def split(name: str) -> TokenizedCorpus | None:
        part = run_split(origin, name)
        return None if part is None else _corpus(part)

    return Subject(
        model,
        origin.tokenizer,
        _corpus(sentences),
        max_length=origin.max_length,
        texts=sentences.texts,
        embedded=sentences.embedded,
        split=split,
        seed=seed,
        rows=rows,
        dtype=dtype,
        report=report,
    )


def _corpus(sentences: HeldOut) -> TokenizedCorpus:
    facts = sentences.facts
    counts = MeasuredCorpus(
        source=facts.read.source,
        sha256=facts.read.sha256,
        num_sentences=facts.num_sentences,
        num_tokens=facts.num_targets,
        num_words=facts.num_words,
        num_characters=facts.num_characters,
        num_unknown=count_unknown(sentences.array),
        decoded=sentences.texts is None,
    )
    return TokenizedCorpus(sentences.array, counts)
