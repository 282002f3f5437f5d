"""A corpus to its train, valid and test sentences, with labels in step and a report of each.

The places text may come from are in `sources.py`, its forms and how strictly they are read in
`reading.py`, tables in `columns.py`, hub data sets in `hub.py`, and the rule by which rows are
excluded in `rows.py`. Here: sets are read, and a missing one is carved out of the training text.
"""

import bisect
import hashlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, BinaryIO, Literal, NamedTuple

import msgspec

from textvae.config import Config
from textvae.data.columns import Columns
from textvae.data.hub import read_parquet
from textvae.data.memory import Texts
from textvae.data.reading import check_encoding, form_of, read_rows, text_lines
from textvae.data.rows import Exclusion, Rows, TooLong, clean, rows_text, select_rows
from textvae.data.segments import sentence_rank
from textvae.data.sources import (
    SPLIT_NAMES,
    Input,
    Reading,
    find_inputs,
    pick_input,
    unused_files,
)
from textvae.data.tokenizer import TokenizerConfig
from textvae.errors import DataError
from textvae.randomness import key

MAX_CHARACTERS = 10_000
"""Longer rows are no sentences, unless a config or a policy for long ones says otherwise."""
SplitName = Literal["train", "valid", "test"]
Fraction = Annotated[float, msgspec.Meta(gt=0, le=0.4)]


class DataConfig(Config):
    """How a corpus is read, split, and cut into tokens."""

    tokenizer: TokenizerConfig | None = None
    """None is byte-level BPE for a user's text and words for the embedded corpus."""
    max_characters: Annotated[int, msgspec.Meta(ge=1)] = MAX_CHARACTERS
    """Longer rows are dropped and counted before they are tokenized, unless `too_long` is cut or
    split."""
    too_long: TooLong = "drop"
    """The treatment of a sentence of more than `model.max_length` tokens, in all three sets: drop
    leaves it out, cut keeps its beginning (without `</s>`), split makes sentences of its parts,
    refuse is an error."""
    valid_share: Fraction = 0.05
    """The fraction of the different training sentences that is carved out for validation, where no
    validation set is given."""
    test_share: Fraction = 0.05
    """The same for a test set."""
    embedded_size: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] | None = None
    """Training sentences drawn for the embedded corpus, None is 80,000; validation and test are the
    same whatever it is."""
    stream: bool = False
    """Tokenize a corpus larger than memory into the run directory, segment by segment."""
    workers: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 1
    """Processes that tokenize what is streamed."""


class ReadReport(Config):
    """The counts of the rows of one source: rows = kept + blank + too_long_characters."""

    source: str
    """The file, hub name or "standard input"; a carved split names the source it came from."""
    rows: int
    """Lines of text, or rows of a table without its header."""
    kept: int
    """Sentences."""
    blank: int
    """Rows without text."""
    too_long_characters: int
    """Rows over the limit of characters."""
    column: str | None
    """The column of the text, None for plain text."""
    label_column: str | None
    """The column or the file of the labels, None without labels."""
    sha256: str
    """The checksum of the kept sentences and labels, in order."""


class Sentences(NamedTuple):
    """The sentences of one source."""

    texts: list[str]
    labels: list[str] | None
    """The label of each sentence, "" for none."""
    source: str
    report: ReadReport
    rows: "array[int]"
    """The row number of each sentence in the source, from 0."""
    excluded: Mapping[int, Exclusion]
    """The reason for each row that is no sentence, by row number."""


class Splits(NamedTuple):
    """The three sets of a corpus, and notes for the user on how they were read."""

    train: Sentences
    valid: Sentences
    test: Sentences
    notes: list[str]


def read_sentences(
    source: str | Path | Texts,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    labels_file: str | Path | None = None,
    separator: str | None = None,
    encoding: str | None = None,
    max_characters: int | None = MAX_CHARACTERS,
    stdin: BinaryIO | None = None,
    split: SplitName = "test",
) -> Sentences:
    """The sentences of one set.

    Args:
        source: a file, `-`, a directory of splits, or `hf:name[:config][@revision]`.
        text_column: None finds it (see `find_columns`).
        label_column: None takes a column named `label` where there is one.
        labels_file: one label a line, in step with the lines of `source`; a blank line is none.
        separator: of the cells of a table; None finds it.
        encoding: None is UTF-8, or UTF-16 with a byte order mark.
        max_characters: longer sentences are dropped and counted; None drops none.
        stdin: read for `-` in place of the process's standard input.
        split: the set to read of a directory or a hub data set that has several.

    Raises:
        DataError: nothing to read, or text that cannot be read.
    """
    how = _reading(text_column, label_column, separator, encoding, max_characters, stdin)
    return _read(pick_input(source, split, how, labels_file), how, [])


def read_texts(
    source: str | Path,
    *,
    text_column: str | None = None,
    separator: str | None = None,
    encoding: str | None = None,
    stdin: BinaryIO | None = None,
    may_be_empty: bool = False,
) -> list[str]:
    """The text of every row of one set, in its order, "" for blank ones.

    Raises:
        DataError: as `read_sentences`, but no sentence is an error only unless it `may_be_empty`.
    """
    how = _reading(text_column, None, separator, encoding, None, stdin)
    entry = pick_input(source, "test", how)
    rows = _rows_of(entry, how)
    if not may_be_empty:
        _select(rows, entry.where, None)
    return rows.texts


def load_splits(
    data: str | Path | Texts,
    *,
    more: Sequence[str] = (),
    valid: str | Path | Texts | None = None,
    test: str | Path | Texts | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    labels_file: str | Path | None = None,
    separator: str | None = None,
    encoding: str | None = None,
    config: DataConfig,
    seed: int,
    stdin: BinaryIO | None = None,
) -> Splits:
    """The three sets of a corpus: read, or carved out of the training set where missing.

    Carving goes by a hash of (seed, sentence): copies of a sentence stay together, the order of
    the rows changes nothing, and a corpus that grows keeps its old sentences where they were.

    Args:
        data: a file, a pattern, `-`, a directory, a hub name, or texts in memory.
        more: further files, patterns or directories whose sentences follow.
        valid: in place of the validation set of `data`; any form that `data` may have.
        test: the same.
        text_column: for every table read.
        label_column: for every table read.
        labels_file: for `data`, where it is one file or standard input.
        separator: of the cells of tables; None finds it.
        encoding: of all files; None is UTF-8, or UTF-16 with a byte order mark.
        config: limits and fractions.
        seed: of the carving.
        stdin: read for `-`.

    Raises:
        DataError: as `read_sentences`; or fewer different sentences than sets.
    """
    limit = None if config.too_long in ("cut", "split") else config.max_characters
    how = _reading(text_column, label_column, separator, encoding, limit, stdin)
    inputs = find_inputs(data, how, labels_file, more)
    if "train" not in inputs:
        raise DataError(
            f"{data}: has {' and '.join(inputs)} but nothing to train on; add a train file, "
            "or give the training text as DATA and these with --valid and --test"
        )
    if valid is not None:
        inputs["valid"] = pick_input(valid, "valid", how)
    if test is not None:
        inputs["test"] = pick_input(test, "test", how)
    unused = unused_files(str(data), inputs)
    shown = ", ".join(unused[:6]) + (f" and {len(unused) - 6:,} more" if len(unused) > 6 else "")
    notes = [f"{data}: not used: {shown}"] if unused else []
    sets = {name: _read(inputs[name], how, notes) for name in SPLIT_NAMES if name in inputs}
    fractions = {"valid": config.valid_share, "test": config.test_share}
    missing = {name: value for name, value in fractions.items() if name not in sets}
    whole = sets["train"]
    sets |= _carve(whole, missing, seed)
    for name in missing:
        notes.append(
            f"{name} carved: {len(sets[name].texts):,} of the {len(whole.texts):,} sentences "
            f"of {whole.source}, by seed {seed}"
        )
    if whole.labels is not None:
        notes += [f"{name} has no labels, train has" for name in fractions if not sets[name].labels]
    return Splits(sets["train"], sets["valid"], sets["test"], notes)


def _reading(
    text_column: str | None,
    label_column: str | None,
    separator: str | None,
    encoding: str | None,
    max_characters: int | None,
    stdin: BinaryIO | None,
) -> Reading:
    separator = {"\\t": "\t", "tab": "\t"}.get(separator or "", separator)
    if separator is not None and (len(separator) != 1 or separator in '"\r\n'):
        raise DataError(f"--separator {separator!r}: is one character, such as ';', '|' or tab")
    if encoding is not None:
        check_encoding(encoding)
    columns = Columns(text_column, label_column, separator)
    return Reading(columns, max_characters, stdin, encoding)


def _rows_of(source: Input, how: Reading) -> Rows:
    """All rows of one set, without the labels of a file of labels."""
    if source.more:
        parts = [_rows_of(Input(place), how) for place in (source.place, *source.more)]
        labelled = [part.labels is not None for part in parts]
        if any(labelled) and not all(labelled):
            place = (source.place, *source.more)[labelled.index(False)]
            raise DataError(f"{place}: has no labels, as other files have; give all or none labels")
        labels = [label for part in parts for label in part.labels or ()]
        return parts[0]._replace(
            texts=[text for part in parts for text in part.texts],
            labels=labels if all(labelled) else None,
        )
    if source.rows is not None:
        return source.rows
    if form_of(source.place) == ".parquet":
        return read_parquet(source.place, how.columns)
    return read_rows(source.place, how.columns, how.stdin, how.encoding)


def _read(source: Input, how: Reading, notes: list[str]) -> Sentences:
    """Read one set with its labels, and add notes on its rows, columns and labels."""
    where, rows = source.where, _rows_of(source, how)
    if source.labels_file is not None:
        rows = _with_labels(rows, source.labels_file, where, how)
    sentences = _select(rows, where, how.max_characters)
    report = sentences.report
    of_rows = f" of {report.rows:,} rows" if sentences.excluded else ""
    notes.append(f"{where}: {report.kept:,} sentences{of_rows}")
    notes += [f"{where}: {n}" for n in exclusion_notes(sentences.excluded, how.max_characters)]
    if rows.column is not None:
        notes.append(f"{where}: text from column {rows.column!r}")
    if sentences.labels is not None:
        kinds = len({label for label in sentences.labels if label})
        without = sentences.labels.count("")
        detail = f"; {without:,} sentences have none" if without else ""
        notes.append(f"{where}: labels from {rows.label_column!r}, {kinds:,} different{detail}")
    if rows.note is not None:
        notes.append(rows.note)
    return sentences


def exclusion_notes(excluded: Mapping[int, Exclusion], max_characters: int | None) -> Iterator[str]:
    """A line for each reason why rows are no sentences, with the number of rows and the first."""
    words = {
        Exclusion.BLANK: "blank or missing",
        Exclusion.TOO_LONG_CHARACTERS: f"longer than {max_characters or 0:,} characters",
    }
    for reason, text in words.items():
        rows = [row for row, why in excluded.items() if why is reason]
        if rows:
            yield f"{rows_text(len(rows), rows[0])} {text}, left out"


def _with_labels(rows: Rows, file: str, where: str, how: Reading) -> Rows:
    """Labels from a file of one a line; blank lines at the end of either file do not count."""
    name = "standard input" if file == "-" else file
    labels = [clean(line) for line in text_lines(file, how.stdin, how.encoding)]
    num_rows = _without_blank_end(rows.texts)
    num_labels = _without_blank_end(labels)
    if not num_labels <= num_rows <= len(labels):  # the last rows may have no label
        raise DataError(
            f"{name}: {max(num_labels, len(labels)):,} labels for the {num_rows:,} rows of "
            f"{where}; give one a line, in step, and a blank line for none"
        )
    labels = labels[:num_labels] + [""] * (len(rows.texts) - num_labels)
    return rows._replace(labels=labels, label_column=file, note=None)


def sentences_of(
    texts: Sequence[str], labels: Sequence[str] | None = None, *, source: str
) -> Sentences:
    """Sentences that are in memory already, such as draws from the embedded grammar.

    Raises:
        DataError: no sentence, or only blank ones.
    """
    rows = Rows(list(texts), None if labels is None else list(labels))
    return _select(rows, source, max(map(len, texts), default=0))


def _without_blank_end(lines: Sequence[str]) -> int:
    return next((place for place in range(len(lines), 0, -1) if lines[place - 1]), 0)


def _select(rows: Rows, where: str, max_characters: int | None) -> Sentences:
    """The rows that are sentences; DataError where there is none."""
    selection = select_rows(rows.texts, max_characters)
    blank = selection.count(Exclusion.BLANK)
    too_long = selection.count(Exclusion.TOO_LONG_CHARACTERS)
    if not rows.texts:
        raise DataError(f"{where}: is empty; give it one sentence a line")
    if blank == len(rows.texts):
        raise DataError(f"{where}: all its {blank:,} rows are blank; give it one sentence a line")
    if not selection.rows:
        raise DataError(
            f"{where}: every sentence is longer than {max_characters or 0:,} characters; "
            "give it one sentence a line, raise data.max_characters, or give --too-long split"
        )
    report = ReadReport(
        source=where,
        rows=len(rows.texts),
        kept=len(selection.rows),
        blank=blank,
        too_long_characters=too_long,
        column=rows.column,
        label_column=rows.label_column,
        sha256="",
    )
    numbers = array("q", range(len(rows.texts)))
    every_row = Sentences(rows.texts, rows.labels, where, report, numbers, selection.excluded)
    return _part(every_row, selection.rows, report)


def _part(whole: Sentences, indices: Sequence[int], report: ReadReport) -> Sentences:
    """The sentences at `indices`, with a report to which the checksum is added."""
    texts = [whole.texts[index] for index in indices]
    labels = None if whole.labels is None else [whole.labels[index] for index in indices]
    # Neither holds a line feed or a NUL, so that no two corpora give the same bytes.
    content = "\n".join(texts) + "\0" + "\n".join(labels or ())
    report = msgspec.structs.replace(report, sha256=hashlib.sha256(content.encode()).hexdigest())
    rows = array("q", [whole.rows[index] for index in indices])
    return Sentences(texts, labels, report.source, report, rows, whole.excluded)


def split_secret(seed: int) -> bytes:
    """The key of the hash by which splits are carved."""
    return key(seed, "split").to_bytes(8, "little")


def _carve(whole: Sentences, fractions: Mapping[str, float], seed: int) -> dict[str, Sentences]:
    """The rest as `train`, and one set for each fraction; each has a sentence at least."""
    if not fractions:
        return {}
    secret = split_secret(seed)
    ranks = {text: sentence_rank(text, secret) for text in whole.texts}
    ordered = sorted(ranks, key=lambda text: (ranks[text], text))
    if len(ordered) <= len(fractions):
        raise DataError(
            f"{whole.source}: {len(ordered)} different sentences are too few for "
            f"train, {' and '.join(fractions)}; give {len(fractions) + 1} at least"
        )
    keys = [ranks[text] for text in ordered]
    name_of: dict[str, str] = {}
    start, edge = 0, 0.0
    for later, (name, fraction) in zip(
        range(len(fractions), 0, -1), fractions.items(), strict=True
    ):
        edge += fraction
        stop = bisect.bisect_left(keys, int(edge * 2**64))
        stop = min(max(stop, start + 1), len(ordered) - later)
        name_of |= dict.fromkeys(ordered[start:stop], name)
        start = stop
    indices: dict[str, list[int]] = {"train": [], **{name: [] for name in fractions}}
    for index, text in enumerate(whole.texts):
        indices[name_of.get(text, "train")].append(index)
    return {name: _carved(whole, name, places) for name, places in indices.items()}


def _carved(whole: Sentences, name: str, indices: Sequence[int]) -> Sentences:
    """A carved set; the rows that were excluded in reading stay in the report of train."""
    report = whole.report
    if name != "train":
        report = msgspec.structs.replace(
            report, source=f"{report.source} ({name}, carved)", blank=0, too_long_characters=0
        )
        whole = whole._replace(excluded={})
    rows = len(indices) + report.blank + report.too_long_characters
    return _part(whole, indices, msgspec.structs.replace(report, rows=rows, kept=len(indices)))
