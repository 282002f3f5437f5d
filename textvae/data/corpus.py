"""A corpus to its train, valid and test sentences, with labels in step and a report of each.

The places text may come from are in `sources.py`, its forms and how strictly they are read in
`reading.py`, tables in `columns.py`, hub data sets in `hub.py`. Here: what is kept and dropped,
and how a split that was not given is carved out of the training text.
"""

import bisect
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, BinaryIO, Literal, NamedTuple

import msgspec

from textvae.config import Config
from textvae.data.columns import Columns, Rows, clean
from textvae.data.hub import read_parquet
from textvae.data.reading import decode_text, form_of, read_bytes, read_rows, split_lines
from textvae.data.segments import sentence_rank
from textvae.data.sources import SPLIT_NAMES, Input, Reading, find_inputs, pick_input
from textvae.data.tokenizer import TokenizerConfig
from textvae.errors import DataError
from textvae.randomness import key

SplitName = Literal["train", "valid", "test"]
Share = Annotated[float, msgspec.Meta(gt=0, le=0.4)]


class DataConfig(Config, frozen=True, kw_only=True):
    """What is kept of a corpus, and how it is cut into tokens.

    Attributes:
        tokenizer: None is byte-level BPE for a user's text and words for the embedded corpus.
        max_characters: longer lines are dropped and counted before they are tokenized.
        valid_share: of the different training sentences, where no validation set is given.
        test_share: the same for a test set.
        embedded_size: training sentences drawn for the embedded corpus, None is 80,000; validation
            and test are the same whatever it is.
        stream: tokenize a corpus larger than memory into the run directory, segment by segment.
        workers: processes that tokenize what is streamed.
    """

    tokenizer: TokenizerConfig | None = None
    max_characters: Annotated[int, msgspec.Meta(ge=1)] = 10_000
    valid_share: Share = 0.05
    test_share: Share = 0.05
    embedded_size: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] | None = None
    stream: bool = False
    workers: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 1


class ReadReport(Config, frozen=True, kw_only=True):
    """What became of the rows of one source: rows = kept + blank + too_long_characters.

    Attributes:
        source: the file, hub name or "standard input"; a carved split names what it came from.
        rows: lines of text, or rows of a table without its header.
        kept: sentences.
        blank: rows without text.
        too_long_characters: rows over the cap on characters.
        column: the column the text came from, None for plain text.
        label_column: the column or the file the labels came from, None without labels.
        sha256: of the kept sentences and labels, in order.
    """

    source: str
    rows: int
    kept: int
    blank: int
    too_long_characters: int
    column: str | None
    label_column: str | None
    sha256: str


class Sentences(NamedTuple):
    """The kept sentences of one source, and their labels in step, "" where one has none."""

    texts: list[str]
    labels: list[str] | None
    source: str
    report: ReadReport


class Splits(NamedTuple):
    """The three sets of a corpus, and in words what was decided for the user."""

    train: Sentences
    valid: Sentences
    test: Sentences
    notes: list[str]


def read_sentences(
    source: str | Path,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    labels_file: str | Path | None = None,
    max_characters: int = 10_000,
    stdin: BinaryIO | None = None,
    split: SplitName = "test",
) -> Sentences:
    """The sentences of one set.

    Args:
        source: a file, `-`, a directory of splits, or `hf:name[:config][@revision]`.
        text_column: None finds it (see `find_columns`).
        label_column: None takes a column named `label` where there is one.
        labels_file: one label a line, in step with the lines of `source`; a blank line is none.
        max_characters: longer sentences are dropped and counted.
        stdin: what to read for `-`, in place of the process's standard input.
        split: which set is meant of a directory or a hub data set; of one that has a single
            set, that one.

    Raises:
        DataError: where there is nothing to read, or text that cannot be read as it is.
    """
    how = Reading(Columns(text_column, label_column), max_characters, stdin)
    return _read(pick_input(source, split, how, labels_file), how, [])


def load_splits(
    data: str | Path,
    *,
    valid: str | Path | None = None,
    test: str | Path | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    labels_file: str | Path | None = None,
    config: DataConfig,
    seed: int,
    stdin: BinaryIO | None = None,
) -> Splits:
    """The three sets of a corpus: read where they are given, carved out of train where not.

    Carving goes by a hash of (seed, sentence): copies of a sentence stay together, the order of
    the rows changes nothing, and a corpus that grows keeps its old sentences where they were.

    Args:
        data: a file, `-`, a directory with at least a train file, or a hub name.
        valid: in place of what `data` holds; may be any form that `data` may be.
        test: the same.
        text_column: for every table read.
        label_column: for every table read.
        labels_file: for `data`, where it is one file or standard input.
        config: caps and shares.
        seed: of the carving.
        stdin: what to read for `-`.

    Raises:
        DataError: as `read_sentences`; or fewer different sentences than sets.
    """
    how = Reading(Columns(text_column, label_column), config.max_characters, stdin)
    inputs = find_inputs(data, how, labels_file)
    if "train" not in inputs:
        raise DataError(
            f"{data}: has {' and '.join(inputs)} but nothing to train on; add a train file, "
            "or give the training text as DATA and these with --valid and --test"
        )
    if valid is not None:
        inputs["valid"] = pick_input(valid, "valid", how)
    if test is not None:
        inputs["test"] = pick_input(test, "test", how)
    notes: list[str] = []
    sets = {name: _read(inputs[name], how, notes) for name in SPLIT_NAMES if name in inputs}
    shares = {"valid": config.valid_share, "test": config.test_share}
    missing = {name: share for name, share in shares.items() if name not in sets}
    whole = sets["train"]
    sets |= _carve(whole, missing, seed)
    for name in missing:
        notes.append(
            f"{name} carved: {len(sets[name].texts):,} of the {len(whole.texts):,} sentences "
            f"of {whole.source}, by seed {seed}"
        )
    if whole.labels is not None:
        notes += [f"{name} has no labels, train has" for name in shares if not sets[name].labels]
    return Splits(sets["train"], sets["valid"], sets["test"], notes)


def _read(source: Input, how: Reading, notes: list[str]) -> Sentences:
    """Read one set, put its labels in step, drop blank and over-long rows, and note it all."""
    where = "standard input" if source.place == "-" else source.place
    if source.rows is not None:
        rows = source.rows
    elif form_of(source.place) == ".parquet":
        rows = read_parquet(source.place, how.columns)
    else:
        rows = read_rows(source.place, how.columns, how.stdin)
    if source.labels_file is not None:
        rows = _with_labels(rows, source.labels_file, where, how.stdin)
    sentences = _kept(rows, where, how.max_characters)
    report = sentences.report
    dropped = []
    if report.blank:
        dropped.append(f"{report.blank:,} blank")
    if report.too_long_characters:
        cap = f"{how.max_characters:,} characters"
        dropped.append(f"{report.too_long_characters:,} longer than {cap}")
    why = f" of {report.rows:,} rows ({', '.join(dropped)})" if dropped else ""
    notes.append(f"{where}: {report.kept:,} sentences{why}")
    if rows.column is not None:
        notes.append(f"{where}: text from column {rows.column!r}")
    if sentences.labels is not None:
        kinds = len({label for label in sentences.labels if label})
        without = sentences.labels.count("")
        some = f"; {without:,} sentences have none" if without else ""
        notes.append(f"{where}: labels from {rows.label_column!r}, {kinds:,} different{some}")
    if rows.note is not None:
        notes.append(rows.note)
    return sentences


def _with_labels(rows: Rows, file: str, where: str, stdin: BinaryIO | None) -> Rows:
    """Labels from a file of one a line; blank lines at the end of either file do not count."""
    name = "standard input" if file == "-" else file
    labels = [clean(line) for line in split_lines(decode_text(read_bytes(file, stdin), name))]
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
        DataError: there is none, or every one is blank.
    """
    return _kept(
        Rows(list(texts), None if labels is None else list(labels)),
        source,
        max(map(len, texts), default=0),
    )


def _without_blank_end(lines: Sequence[str]) -> int:
    return next((place for place in range(len(lines), 0, -1) if lines[place - 1]), 0)


def _kept(rows: Rows, where: str, max_characters: int) -> Sentences:
    """The rows with text and within the cap, counted; DataError where none is left."""
    keep = [index for index, text in enumerate(rows.texts) if 0 < len(text) <= max_characters]
    blank = rows.texts.count("")
    too_long = len(rows.texts) - blank - len(keep)
    if not rows.texts:
        raise DataError(f"{where}: is empty; give it one sentence a line")
    if not keep and not too_long:
        raise DataError(f"{where}: all its {blank:,} rows are blank; give it one sentence a line")
    if not keep:
        raise DataError(
            f"{where}: every sentence is longer than {max_characters:,} characters; "
            "give it one sentence a line, or raise data.max_characters"
        )
    report = ReadReport(
        source=where,
        rows=len(rows.texts),
        kept=len(keep),
        blank=blank,
        too_long_characters=too_long,
        column=rows.column,
        label_column=rows.label_column,
        sha256="",
    )
    return _sentences(rows.texts, rows.labels, keep, report)


def _sentences(
    texts: Sequence[str],
    labels: Sequence[str] | None,
    keep: Sequence[int],
    report: ReadReport,
) -> Sentences:
    """Some of the texts, their labels in step, and the report with the checksum of both."""
    kept = [texts[index] for index in keep]
    kept_labels = None if labels is None else [labels[index] for index in keep]
    # Neither holds a line feed or a NUL, so that no two corpora give the same bytes.
    content = "\n".join(kept) + "\0" + "\n".join(kept_labels or ())
    report = msgspec.structs.replace(report, sha256=hashlib.sha256(content.encode()).hexdigest())
    return Sentences(kept, kept_labels, report.source, report)


def split_secret(seed: int) -> bytes:
    """The key of the hash by which splits are carved."""
    return key(seed, "split").to_bytes(8, "little")


def _carve(whole: Sentences, shares: Mapping[str, float], seed: int) -> dict[str, Sentences]:
    """What remains as `train`, and one set for each share; each has a sentence at least."""
    if not shares:
        return {}
    secret = split_secret(seed)
    ranks = {text: sentence_rank(text, secret) for text in whole.texts}
    ordered = sorted(ranks, key=lambda text: (ranks[text], text))
    if len(ordered) <= len(shares):
        raise DataError(
            f"{whole.source}: {len(ordered)} different sentences are too few for "
            f"train, {' and '.join(shares)}; give {len(shares) + 1} at least"
        )
    keys = [ranks[text] for text in ordered]
    name_of: dict[str, str] = {}
    start, edge = 0, 0.0
    for later, (name, share) in zip(range(len(shares), 0, -1), shares.items(), strict=True):
        edge += share
        stop = bisect.bisect_left(keys, int(edge * 2**64))
        stop = min(max(stop, start + 1), len(ordered) - later)
        name_of |= dict.fromkeys(ordered[start:stop], name)
        start = stop
    places: dict[str, list[int]] = {"train": [], **{name: [] for name in shares}}
    for index, text in enumerate(whole.texts):
        places[name_of.get(text, "train")].append(index)
    return {name: _part(whole, name, keep) for name, keep in places.items()}


def _part(whole: Sentences, name: str, keep: Sequence[int]) -> Sentences:
    """A carved set; the rows that were dropped in reading stay in the report of train."""
    report = whole.report
    dropped = (report.blank, report.too_long_characters) if name == "train" else (0, 0)
    report = msgspec.structs.replace(
        report,
        source=report.source if name == "train" else f"{report.source} ({name}, carved)",
        rows=len(keep) + sum(dropped),
        kept=len(keep),
        blank=dropped[0],
        too_long_characters=dropped[1],
    )
    return _sentences(whole.texts, whole.labels, keep, report)
