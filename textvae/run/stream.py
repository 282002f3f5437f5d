"""A corpus larger than memory: tokenized in a stream, segment by segment, into mapped files.

Three passes over the source: count the rows; train the tokenizer on the first of them; tokenize, by
several processes, and append (data/stream_files.py). An interrupted run goes on where it was.
"""

import hashlib
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import structs

from textvae.config import Config, decode, encode_json, read_config_file
from textvae.data.batching import TokenArray
from textvae.data.columns import Columns
from textvae.data.corpus import ReadReport, Sentences, read_sentences, split_secret
from textvae.data.rows import rows_of
from textvae.data.segments import Cut
from textvae.data.sources import Reading, find_inputs
from textvae.data.stream_files import PROGRESS, TEXTS, Line, Report, append, read_lines
from textvae.data.tokenizer import Tokenizer
from textvae.errors import CheckpointError, DataError
from textvae.run.data import (
    DATA,
    FACTS,
    SPLITS,
    DataFacts,
    DataOptions,
    RunData,
    SplitFacts,
    open_run_data,
    tokenize_sentences,
)
from textvae.run.experiment import ExperimentConfig
from textvae.storage.checkpoint import TOKENIZER
from textvae.storage.files import saying_why, write_file

STREAM = "stream.json"
TOKENIZER_SENTENCES = 1_000_000
"""Training sentences that the tokenizer learns from."""
HELD_OUT = 10_000
"""About how many sentences are carved out for validation, and as many for the test."""


class _Source(Config):
    """What is streamed, and how it is cut: a run goes on with the same alone."""

    place: str
    size: int
    modified: int
    settings: str
    """The config of the data, the seed and the longest sentence, as JSON."""


class _Stream(Config):
    source: _Source
    rows: int
    valid_share: float
    test_share: float


class _Places(NamedTuple):
    train: str
    others: dict[str, Sentences]


def stream_run_data(
    options: DataOptions, config: ExperimentConfig, run: Path, *, report: Report
) -> RunData:
    """The data of a run, tokenized into its directory; what is there already is not done again.

    Args:
        options: DATA is a text file or a parquet file (also in a directory), or a hub data set.
        config: with a tokenizer.
        run: the directory, which is there.
        report: takes lines of talk.

    Raises:
        DataError: no text, labels, or a form that cannot be streamed.
        CheckpointError: the directory holds the stream of something else.
        StorageError: the disk is full, and the like; the segments so far are kept.
    """
    folder = run / DATA
    with saying_why(folder):
        folder.mkdir(parents=True, exist_ok=True)
    places = _places(options, config)
    source = _source(places.train, options, config)
    stream, tokenizer = _begun(run, source)
    if stream is None or tokenizer is None:
        stream, tokenizer = _begin(run, source, places, options, config, report)
    if not (folder / FACTS).is_file():
        cut = Cut(
            split_secret(config.seed),
            _edges(stream),
            config.data.max_characters,
            config.model.max_length,
        )
        last = append(
            folder, source.place, options.text_column, tokenizer, cut, config.data.workers, report
        )
        _finish(folder, last, places, tokenizer, config)
    data = open_run_data(folder, tokenizer)
    texts = (folder / TEXTS).read_text(encoding="utf-8").split("\n")[:-1]
    note = f"{source.place}: streamed, {stream.rows:,} rows"
    return data._replace(test_texts=texts, notes=[note], streamed=True)


def _places(options: DataOptions, config: ExperimentConfig) -> _Places:
    if options.data is None or options.data == "-":
        raise DataError("data.stream: needs a file or a hub data set that can be read twice")
    if options.labels is not None or options.label_column is not None:
        raise DataError(f"{options.data}: labels are not streamed; leave out data.stream or labels")
    if options.data.startswith("hf:"):
        train, given = options.data, dict[str, str]()
    else:
        how = Reading(Columns(options.text_column, None), config.data.max_characters, None)
        inputs = find_inputs(options.data, how)
        if "train" not in inputs:
            raise DataError(f"{options.data}: has nothing to train on; add a train file")
        train = inputs["train"].place
        given = {name: found.place for name, found in inputs.items() if name != "train"}
    for name in ("valid", "test"):
        if (place := getattr(options, name)) is not None:
            given[name] = place
    limit = config.data.max_characters
    others = {
        name: read_sentences(
            place,
            text_column=options.text_column,
            max_characters=limit,
            split="valid" if name == "valid" else "test",
        )
        for name, place in given.items()
    }
    return _Places(train, others)


def _source(place: str, options: DataOptions, config: ExperimentConfig) -> _Source:
    size = modified = 0
    if not place.startswith("hf:"):
        try:
            found = Path(place).stat()
        except OSError as error:
            raise DataError(f"{place}: cannot be read: {error.strerror}") from None
        size, modified = found.st_size, found.st_mtime_ns
    data = structs.replace(config.data, workers=1)  # which may change when a run goes on
    chosen = (data, config.seed, config.model.max_length, options)
    return _Source(
        place=place, size=size, modified=modified, settings=msgspec.json.encode(chosen).decode()
    )


def _begun(run: Path, source: _Source) -> tuple[_Stream | None, Tokenizer | None]:
    """What an earlier call has settled, if it was about the same."""
    file, tokenizer = run / DATA / STREAM, run / DATA / TOKENIZER
    if not file.is_file():
        if (run / DATA / FACTS).is_file():
            raise CheckpointError(
                f"{run}: holds a run whose data were not streamed; give --output another directory"
            )
        return None, None
    stream = decode(read_config_file(file), _Stream, source=str(file))
    if stream.source != source:
        raise CheckpointError(
            f"{run}: holds the stream of another corpus or other settings ({stream.source.place}); "
            "give --output another directory"
        )
    return stream, Tokenizer.from_json(tokenizer.read_bytes())


def _begin(
    run: Path,
    source: _Source,
    places: _Places,
    options: DataOptions,
    config: ExperimentConfig,
    report: Report,
) -> tuple[_Stream, Tokenizer]:
    """Count, settle the shares, train the tokenizer, and write all that down."""
    report(f"{source.place}: counting")
    rows = sum(1 for _ in rows_of(source.place, options.text_column))
    if not rows:
        raise DataError(f"{source.place}: is empty; give it one sentence a line")
    shares = {
        name: 0.0 if name in places.others else min(share, HELD_OUT / rows)
        for name, share in (("valid", config.data.valid_share), ("test", config.data.test_share))
    }
    stream = _Stream(
        source=source, rows=rows, valid_share=shares["valid"], test_share=shares["test"]
    )
    cut = Cut(split_secret(config.seed), _edges(stream), config.data.max_characters, 0)
    some = (
        text
        for text in rows_of(source.place, options.text_column)
        if 0 < len(text) <= cut.max_characters and cut.split_of(text) == "train"
    )
    report(f"{source.place}: {rows:,} rows; training the tokenizer")
    assert config.data.tokenizer is not None
    tokenizer = config.data.tokenizer.train(islice(some, TOKENIZER_SENTENCES))
    write_file(run / DATA / TOKENIZER, tokenizer.to_json().encode())
    write_file(run / DATA / STREAM, encode_json(stream))
    return stream, tokenizer


def _edges(stream: _Stream) -> tuple[tuple[str, float], ...]:
    edges, edge = [], 0.0
    for name, share in (("valid", stream.valid_share), ("test", stream.test_share)):
        if share:
            edge += share
            edges.append((name, edge))
    return tuple(edges)


def _finish(
    folder: Path, last: Line, places: _Places, tokenizer: Tokenizer, config: ExperimentConfig
) -> None:
    """data.json, with which the folder is whole."""
    digests = {name: hashlib.sha256() for name in SPLITS}
    for _, line in read_lines(folder / PROGRESS):
        for name in last.counts:
            digests[name].update(line.sha256[f"{name}.tokens"].encode())
    facts: dict[str, SplitFacts] = {}
    for name, counts in last.counts.items():
        array = TokenArray.open(folder / name, tokenizer.start)
        if not array.num_sentences:
            raise DataError(
                f"{places.train}: no sentence for {name} with at most {config.model.max_length} "
                f"tokens; give more text, or --{name}"
            )
        first = name == "train"
        blank, too_long = (last.blank, last.too_long_characters) if first else (0, 0)
        kept = counts.sentences + counts.too_long_tokens
        facts[name] = SplitFacts(
            read=ReadReport(
                source=places.train if first else f"{places.train} ({name}, carved)",
                rows=kept + blank + too_long,
                kept=kept,
                blank=blank,
                too_long_characters=too_long,
                column=None,
                label_column=None,
                sha256=digests[name].hexdigest(),
            ),
            too_long_tokens=counts.too_long_tokens,
            num_sentences=counts.sentences,
            num_targets=array.num_targets,
            num_words=counts.num_words,
            num_characters=counts.num_characters,
            tokens_sha256=array.checksum(),
        )
    for name, part in places.others.items():
        found, facts[name], texts = tokenize_sentences(part, tokenizer, config.model.max_length)
        found.save(folder / name)
        if name == "test":
            write_file(folder / TEXTS, "".join(f"{text}\n" for text in texts).encode())
    size, (train, valid, test) = tokenizer.vocabulary_size, (facts[name] for name in SPLITS)
    whole = DataFacts(
        source=places.train, vocabulary_size=size, train=train, valid=valid, test=test
    )
    write_file(folder / FACTS, encode_json(whole))
