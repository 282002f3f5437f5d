"""A corpus larger than memory: tokenized in a stream, segment by segment, into mapped files.

Three passes over the source: count the rows; train the tokenizer on the first of them; tokenize, by
several processes. data.json is written last: with it the data are complete and used again. Without
it the same command tokenizes from the start.
"""

import hashlib
from collections.abc import Iterable
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec
import torch
from msgspec import structs

from textvae.config import Config, decode, encode_json, read_config_file
from textvae.data.batching import TokenArray
from textvae.data.columns import Columns
from textvae.data.corpus import DataConfig, ReadReport, Sentences, read_sentences, split_secret
from textvae.data.memory import Texts
from textvae.data.reading import is_pipe
from textvae.data.rows import TooLong, exclusion
from textvae.data.segments import EncodedSentences, SplitRule, encode_segments
from textvae.data.sources import Reading, find_inputs
from textvae.data.stream import chunks, stream_rows
from textvae.data.tokenizer import Tokenizer
from textvae.errors import CheckpointError, DataError
from textvae.run.data import (
    DATA,
    FACTS,
    SPLITS,
    DataFacts,
    DataOptions,
    Report,
    RunData,
    SplitFacts,
    describe,
    open_run_data,
    tokenize_sentences,
)
from textvae.run.experiment import ExperimentConfig
from textvae.run.start import fit_tokenizer
from textvae.storage.checkpoint import TOKENIZER
from textvae.storage.files import replacing, saying_why, write_file

STREAM, TEXTS = "stream.json", "test.txt"
SEGMENT = 20_000
"""Rows of a segment."""
TOKENIZER_SENTENCES = 1_000_000
"""Training sentences that the tokenizer learns from."""
HELD_OUT = 10_000
"""About how many sentences are carved out for validation, and as many for the test."""


class _Source(Config):
    """The corpus and the settings that decide how it is tokenized."""

    place: str
    size: int
    modified: int = 0
    """The time of the file, of streams that did not record its contents."""
    settings: str
    """The config of the data, the seed and the longest sentence, as JSON."""
    sha256: str = ""
    """The checksum of the file."""

    def is_same(self, other: "_Source") -> bool:
        """Compare contents and settings with those of another reading of the corpus."""
        if self.sha256:
            return self == structs.replace(other, modified=self.modified)
        return self == structs.replace(other, sha256="")


class _Stream(Config):
    """stream.json: the source, its number of rows, and the fractions of it that are carved."""

    source: _Source
    rows: int
    valid_share: float
    test_share: float

    def edges(self) -> tuple[tuple[str, float], ...]:
        """The splits that are carved, each with the fraction at which it ends."""
        edges, edge = [], 0.0
        for name, fraction in (("valid", self.valid_share), ("test", self.test_share)):
            if fraction:
                edge += fraction
                edges.append((name, edge))
        return tuple(edges)


class _Places(NamedTuple):
    train: str
    others: dict[str, Sentences]
    """The splits that are read, not carved."""


def stream_run_data(
    options: DataOptions, config: ExperimentConfig, run: Path, *, report: Report
) -> RunData:
    """Tokenize the data of a run into its directory, or open them where that has been done.

    Args:
        options: DATA is a text file or a parquet file (also in a directory), or a hub data set.
        config: with a tokenizer.
        run: the directory, which exists.
        report: takes lines of progress.

    Raises:
        DataError: no text, labels, or a form that cannot be streamed.
        CheckpointError: the directory holds the stream of another corpus.
        StorageError: the disk is full, and the like.
    """
    folder = run / DATA
    with saying_why(folder):
        folder.mkdir(parents=True, exist_ok=True)
    places = _places(options, config)
    source = _source(places.train, options, config)
    stream = _read_stream(run, source)
    if stream is None:
        stream = _count(source, places, options, config, report)
        write_file(folder / STREAM, encode_json(stream))
    if not (folder / FACTS).is_file():
        _tokenize(folder, stream, places, options, config, report)
    data = open_run_data(folder, Tokenizer.from_json((folder / TOKENIZER).read_bytes()))
    texts = (folder / TEXTS).read_text(encoding="utf-8").split("\n")[:-1]
    notes = [f"{source.place}: streamed, {stream.rows:,} rows", *describe(data.facts)]
    return data._replace(test_texts=texts, notes=notes, streamed=True)


def _places(options: DataOptions, config: ExperimentConfig) -> _Places:
    others: dict[str, str | Texts] = {}
    if not isinstance(options.data, str) or options.data == "-":
        raise DataError("data.stream: needs a file or a hub data set that can be read twice")
    if options.separator is not None or options.encoding is not None:
        raise DataError(
            f"{options.data}: data.stream reads UTF-8 without --separator or --encoding; convert "
            "the file, or leave out data.stream"
        )
    if options.more:
        raise DataError(f"{options.data}: data.stream reads one file; put all into one")
    if is_pipe(options.data):
        raise DataError(
            f"{options.data}: is a pipe, and data.stream reads it more than once; save it to a file"
        )
    if options.labels is not None or options.label_column is not None:
        raise DataError(f"{options.data}: labels are not streamed; leave out data.stream or labels")
    limit = None if config.data.too_long in ("cut", "split") else config.data.max_characters
    if options.data.startswith("hf:"):
        train = options.data
    else:
        inputs = find_inputs(options.data, Reading(Columns(options.text_column, None), limit, None))
        if "train" not in inputs:
            raise DataError(f"{options.data}: has nothing to train on; add a train file")
        train = inputs["train"].place
        if inputs["train"].more:
            raise DataError(f"{options.data}: data.stream reads one file; put all into one")
        others = {name: entry.place for name, entry in inputs.items() if name != "train"}
    for name in ("valid", "test"):
        if (place := getattr(options, name)) is not None:
            others[name] = place
    column = options.text_column
    sentences = {
        name: read_sentences(
            place,
            text_column=column,
            max_characters=limit,
            split="valid" if name == "valid" else "test",
        )
        for name, place in others.items()
    }
    return _Places(train, sentences)


def _source(place: str, options: DataOptions, config: ExperimentConfig) -> _Source:
    size, modified, sha256 = 0, 0, ""
    if not place.startswith("hf:"):
        try:
            status = Path(place).stat()
            with Path(place).open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"{place}: cannot be read: {error.strerror}") from None
        size, modified = status.st_size, status.st_mtime_ns
    data = structs.replace(config.data, workers=1)  # which does not change the result
    settings = msgspec.json.encode((data, config.seed, config.model.max_length, options))
    return _Source(
        place=place, size=size, modified=modified, settings=settings.decode(), sha256=sha256
    )


def _read_stream(run: Path, source: _Source) -> _Stream | None:
    """stream.json, if an earlier call has written it for the same source."""
    file = run / DATA / STREAM
    if not file.is_file():
        if (run / DATA / FACTS).is_file():
            raise CheckpointError(
                f"{run}: holds a run whose data were not streamed; give --output another directory"
            )
        return None
    stream = decode(read_config_file(file), _Stream, source=str(file))
    recorded = structs.replace(stream.source, settings=_with_defaults(stream.source.settings))
    if not recorded.is_same(source):
        raise CheckpointError(
            f"{run}: holds the stream of another corpus or other settings ({stream.source.place}); "
            "give --output another directory"
        )
    return stream


def _with_defaults(settings: str) -> str:
    """Recorded settings, with the defaults of those that were added since."""
    try:
        data, seed, max_length, options = msgspec.json.decode(settings)
        complete = (msgspec.convert(data, DataConfig), seed, max_length, DataOptions(*options))
        return msgspec.json.encode(complete).decode()
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError):
        return settings  # of no version: they equal none


def _count(
    source: _Source, places: _Places, options: DataOptions, config: ExperimentConfig, report: Report
) -> _Stream:
    """Count the rows, and settle the fractions that are carved."""
    report(f"{source.place}: counting")
    rows = sum(1 for _ in stream_rows(source.place, options.text_column))
    if not rows:
        raise DataError(f"{source.place}: is empty; give it one sentence a line")
    fractions = {
        name: 0.0 if name in places.others else min(fraction, HELD_OUT / rows)
        for name, fraction in (("valid", config.data.valid_share), ("test", config.data.test_share))
    }
    return _Stream(
        source=source, rows=rows, valid_share=fractions["valid"], test_share=fractions["test"]
    )


def _tokenize(
    folder: Path,
    stream: _Stream,
    places: _Places,
    options: DataOptions,
    config: ExperimentConfig,
    report: Report,
) -> None:
    """Train the tokenizer, write the arrays of the three splits, and data.json last."""
    max_length = config.model.max_length
    rule = SplitRule(
        split_secret(config.seed),
        stream.edges(),
        config.data.max_characters,
        max_length,
        config.data.too_long,
    )
    training_texts = (
        text
        for text in stream_rows(places.train, options.text_column)
        if exclusion(text, rule.character_limit) is None and rule.split_of(text) == "train"
    )
    report(f"{places.train}: {stream.rows:,} rows; training the tokenizer")
    tokenizer = fit_tokenizer(config, islice(training_texts, TOKENIZER_SENTENCES))
    write_file(folder / TOKENIZER, tokenizer.to_json().encode())
    rows = stream_rows(places.train, options.text_column)
    facts = _write_splits(folder, places.train, rows, tokenizer, rule, config.data.workers, report)
    for name, sentences in places.others.items():
        array, facts[name], texts, notes = tokenize_sentences(
            sentences, tokenizer, max_length, too_long=config.data.too_long
        )
        for note in notes:
            report(f"{name}: {note}")
        array.save(folder / name)
        if name == "test":
            write_file(folder / TEXTS, "".join(f"{text}\n" for text in texts).encode())
    train, valid, test = (facts[name] for name in SPLITS)
    size = tokenizer.vocabulary_size
    complete = DataFacts(
        source=places.train, vocabulary_size=size, train=train, valid=valid, test=test
    )
    write_file(folder / FACTS, encode_json(complete))


class _SplitWriter:
    """Appends the segments of one split to its files, and counts."""

    def __init__(self, folder: Path, name: str, stack: ExitStack, too_long: TooLong) -> None:
        self._too_long = too_long
        self.path, self.digest = folder / name, hashlib.sha256()
        self.sources = self.sentences = self.words = 0
        self.characters = self.too_long = self.num_tokens = 0
        self._tokens = stack.enter_context(replacing(folder / f"{name}.tokens"))
        self._cut = None
        if too_long in ("cut", "split"):
            self._cut = stack.enter_context(replacing(folder / f"{name}.cut"))
        self._offsets = stack.enter_context(replacing(folder / f"{name}.offsets"))
        self._offsets.write(torch.zeros(1, dtype=torch.int64).numpy().tobytes())

    def append(self, part: EncodedSentences) -> None:
        """Write one segment."""
        tokens = part.tokens.tobytes()
        offsets = torch.tensor(part.lengths, dtype=torch.int64).cumsum(0) + self.num_tokens
        self._tokens.write(tokens)
        self._offsets.write(offsets.numpy().tobytes())
        if self._cut is not None:
            self._cut.write(part.cut.tobytes())
        self.digest.update(hashlib.sha256(tokens).hexdigest().encode())
        self.sentences += len(part.lengths)
        self.sources += len(set(part.sources))
        self.words += part.num_words
        self.characters += part.num_characters
        self.too_long += len(part.too_long)
        self.num_tokens += len(part.tokens)

    def facts(self, source: str, blank: int, too_long_characters: int, start: int) -> SplitFacts:
        """The counts, once the files are complete."""
        array = TokenArray.open(self.path, start)
        dropped = self.too_long if self._too_long == "drop" else 0
        num_kept = self.sources + dropped
        return SplitFacts(
            read=ReadReport(
                source=source,
                rows=num_kept + blank + too_long_characters,
                kept=num_kept,
                blank=blank,
                too_long_characters=too_long_characters,
                column=None,
                label_column=None,
                sha256=self.digest.hexdigest(),
            ),
            too_long_tokens=dropped,
            num_shortened=self.too_long - dropped,
            num_sentences=self.sentences,
            num_targets=array.num_targets,
            num_words=self.words,
            num_characters=self.characters,
            tokens_sha256=array.checksum(),
        )


def _write_splits(
    folder: Path,
    place: str,
    rows: Iterable[str],
    tokenizer: Tokenizer,
    rule: SplitRule,
    workers: int,
    report: Report,
) -> dict[str, SplitFacts]:
    """Tokenize every row into the arrays of `train` and of the splits that are carved."""
    num_rows = blank = too_long = 0
    with saying_why(folder), ExitStack() as stack:
        writers = {
            name: _SplitWriter(folder, name, stack, rule.too_long) for name in rule.split_names()
        }
        texts = stack.enter_context(replacing(folder / TEXTS))
        for segment in encode_segments(chunks(rows, SEGMENT), tokenizer, rule, workers):
            for name, part in segment.splits.items():
                if part.too_long and rule.too_long == "refuse":
                    raise DataError(
                        f"{place}: a row after row {num_rows:,} has more than {rule.max_length:,} "
                        "tokens (model.max_length); shorten it, or give --too-long drop, cut or "
                        "split"
                    )
                writers[name].append(part)
            texts.write("".join(f"{text}\n" for text in segment.test_texts).encode())
            num_rows += segment.rows
            blank += segment.blank
            too_long += segment.too_long_characters
            if num_rows % (50 * SEGMENT) == 0:
                report(f"{place}: {num_rows:,} rows tokenized")
    for name, writer in writers.items():
        if not writer.sentences:
            raise DataError(
                f"{place}: no sentence for {name} with at most {rule.max_length} tokens; give more "
                f"text, or --{name}"
            )
    return {
        name: writer.facts(place, blank, too_long, tokenizer.start)
        if name == "train"
        else writer.facts(f"{place} ({name}, carved)", 0, 0, tokenizer.start)
        for name, writer in writers.items()
    }
