"""Parquet files and hub data sets to rows, through `datasets`, which is imported only here.

The import takes a second, so it waits until one of these sources is named; local text never
comes this way, because the readers of `datasets` change it (the cell `NA` becomes missing, `007`
becomes 7). A missing cell (null) counts as a blank row. Whatever fails, a network that is not
there included, is one DataError in one line.
"""

import logging
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from textvae.data.columns import Columns, find_columns, table_rows
from textvae.data.rows import Rows, clean, refuse_nul
from textvae.data.unpacking import check_parquet
from textvae.errors import DataError

HUB_PREFIX = "hf:"
_HUB_NAME = re.compile(r"hf:(?P<name>[^:@\s]+)(:(?P<config>[^:@\s]+))?(@(?P<revision>[^@\s]+))?")


class HubName(NamedTuple):
    """The parts of `hf:name[:config][@revision]`."""

    name: str
    config: str | None
    revision: str | None


def parse_hub_name(source: str) -> HubName:
    """The parts of a hub name; DataError for another form."""
    match = _HUB_NAME.fullmatch(source)
    if match is None:
        raise DataError(f"{source}: a hub data set is written hf:name[:config][@revision]")
    return HubName(match["name"], match["config"], match["revision"])


def read_hub(source: str, columns: Columns) -> dict[str, Rows]:
    """The rows of every split of a hub data set, by the hub's name of the split."""
    with _hub_splits(source, streaming=False) as splits:
        return {str(split): _rows(splits[split], source, columns) for split in splits}


def stream_hub(source: str, columns: Columns) -> Iterator[str]:
    """The rows of the train split of a hub data set, or of its only one, one at a time."""
    with _hub_splits(source, streaming=True) as splits:
        split = next((s for s in splits if str(s) in ("train", "training")), None)
        if split is None and len(splits) > 1:
            raise DataError(f"{source}: has no train split, only {', '.join(map(str, splits))}")
        data = splits[next(iter(splits)) if split is None else split]
        yield from _streamed(data, source, columns)


def read_parquet(source: str, columns: Columns) -> Rows:
    """The rows of a local parquet file."""
    with _parquet(source, streaming=False) as data:
        return _rows(data, source, columns)


def stream_parquet(source: str, columns: Columns) -> Iterator[str]:
    """The rows of a local parquet file, one at a time."""
    with _parquet(source, streaming=True) as data:
        yield from _streamed(data, source, columns)


@contextmanager
def _hub_splits(source: str, *, streaming: bool) -> Iterator[Any]:
    name, config, revision = parse_hub_name(source)
    with _library(source, "check the name and the network, or give a file") as datasets:
        yield datasets.load_dataset(name, config, revision=revision, streaming=streaming)


@contextmanager
def _parquet(source: str, *, streaming: bool) -> Iterator[Any]:
    if not Path(source).is_file():
        raise DataError(f"{source}: there is no such file; check the path")
    with _library(source, "check that it is a parquet file") as datasets:
        check_parquet(source)
        # A temporary cache: the shared one would keep a second copy of the text.
        with tempfile.TemporaryDirectory() as cache:
            yield datasets.Dataset.from_parquet(
                source, cache_dir=cache, keep_in_memory=not streaming, streaming=streaming
            )


@contextmanager
def _library(source: str, advice: str) -> Iterator[Any]:
    """`datasets` without its progress bars and log lines; its errors become a DataError."""
    try:
        import datasets  # noqa: PLC0415

        bars = datasets.are_progress_bars_disabled()
        datasets.disable_progress_bars()
        loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield datasets
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            if not bars:
                datasets.enable_progress_bars()
    except DataError:
        raise
    except Exception as error:  # the hub, the network and the readers raise some dozens of types
        words = " ".join(str(error).split())[:200]
        raise DataError(f"{source}: {type(error).__name__}: {words}; {advice}") from error


def _streamed(data: Any, where: str, requested: Columns) -> Iterator[str]:
    column = None
    for number, row in enumerate(data, start=1):
        if column is None:
            column = find_columns(list(row), requested, where).text
        text = clean(_text(row[column], number, column, where))
        if "\0" in text:
            refuse_nul(f"{where}:{number}")
        yield text


def _rows(data: Any, where: str, requested: Columns) -> Rows:
    columns = find_columns(list(data.column_names), requested, where)
    values = enumerate(data[columns.text], start=1)
    texts = [_text(value, number, columns.text, where) for number, value in values]
    labels = None if columns.label is None else _labels(data, columns.label)
    return table_rows(where, columns, requested, texts, labels, range(1, len(texts) + 1))


def _text(value: object, number: int, column: str | None, where: str) -> str:
    """The text of a cell, "" where it is missing; tokens in a list are joined by blanks."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, list) and all(isinstance(token, str) for token in value):
        return " ".join(value)
    raise DataError(
        f"{where}: row {number} of column {column!r} is {value!r:.40}, not text; "
        "name another with --text-column"
    )


def _labels(data: Any, column: str) -> Sequence[object]:
    """The labels, by their names where the data set gives its classes names."""
    labels: list[object] = list(data[column])
    names = getattr(data.features[column], "names", None)
    if names is None:
        return labels
    return [
        names[label] if isinstance(label, int) and 0 <= label < len(names) else None
        for label in labels
    ]
