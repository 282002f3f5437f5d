"""Parquet files and hub data sets to rows, through `datasets`, which is imported only here.

The import takes a second, so it waits until one of these sources is named; local text never
comes this way, because the readers of `datasets` change it (the cell `NA` becomes missing, `007`
becomes 7). A missing cell (null) counts as a blank row. Whatever fails, a network that is not
there included, is one DataError in one line.
"""

import contextlib
import logging
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from textvae.data.columns import Columns, Rows, clean, find_columns, refuse_nul, table_rows
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
    name, config, revision = parse_hub_name(source)
    try:
        import datasets  # noqa: PLC0415

        with _quiet(datasets):
            splits = datasets.load_dataset(name, config, revision=revision)
        return {str(split): _rows(splits[split], source, columns) for split in splits}
    except DataError:
        raise
    except Exception as error:  # the hub, the network and the readers raise some dozens of types
        raise _failure(source, error, "check the name and the network, or give a file") from error


def read_parquet(source: str, columns: Columns) -> Rows:
    """The rows of a local parquet file."""
    if not Path(source).is_file():
        raise DataError(f"{source}: there is no such file; check the path")
    try:
        check_parquet(source)
        import datasets  # noqa: PLC0415

        # A cache of our own, thrown away: the shared one would keep a second copy of the text.
        with _quiet(datasets), tempfile.TemporaryDirectory() as cache:
            data = datasets.Dataset.from_parquet(source, cache_dir=cache, keep_in_memory=True)
            return _rows(data, source, columns)
    except DataError:
        raise
    except Exception as error:  # pyarrow and datasets raise their own and each other's types
        raise _failure(source, error, "check that it is a parquet file") from error


def stream_hub(source: str, columns: Columns) -> Iterator[str]:
    """The rows of the train split of a hub data set, or of its only one, as they come."""
    name, config, revision = parse_hub_name(source)
    try:
        import datasets  # noqa: PLC0415

        with _quiet(datasets):
            splits = datasets.load_dataset(name, config, revision=revision, streaming=True)
            split = next((s for s in splits if str(s) in ("train", "training")), None)
            if split is None and len(splits) > 1:
                raise DataError(f"{source}: has no train split, only {', '.join(map(str, splits))}")
            data = splits[next(iter(splits)) if split is None else split]
            yield from _streamed(data, source, columns)
    except DataError:
        raise
    except Exception as error:  # as in read_hub
        raise _failure(source, error, "check the name and the network, or give a file") from error


def stream_parquet(source: str, columns: Columns) -> Iterator[str]:
    """The rows of a local parquet file as they come."""
    if not Path(source).is_file():
        raise DataError(f"{source}: there is no such file; check the path")
    try:
        import datasets  # noqa: PLC0415

        check_parquet(source)
        with _quiet(datasets), tempfile.TemporaryDirectory() as cache:
            data = datasets.load_dataset(
                "parquet", data_files=source, split="train", streaming=True, cache_dir=cache
            )
            yield from _streamed(data, source, columns)
    except DataError:
        raise
    except Exception as error:  # as in read_parquet
        raise _failure(source, error, "check that it is a parquet file") from error


def _streamed(data: Any, where: str, asked: Columns) -> Iterator[str]:
    column = None
    for number, row in enumerate(data, start=1):
        if column is None:
            column = find_columns(list(row), asked, where).text
        text = row[column]
        if text is not None and not isinstance(text, str):
            raise DataError(
                f"{where}: row {number} of column {column!r} is {text!r:.40}, not text; "
                "name another with --text-column"
            )
        cleaned = clean(text or "")
        if "\0" in cleaned:
            refuse_nul(f"{where}:{number}")
        yield cleaned


def _rows(data: Any, where: str, asked: Columns) -> Rows:
    found = find_columns(list(data.column_names), asked, where)
    values: list[object] = list(data[found.text])
    texts = ["" if value is None else value for value in values]
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            raise DataError(
                f"{where}: row {number} of column {found.text!r} is {text!r:.40}, not text; "
                "name another with --text-column"
            )
    labels = None if found.label is None else _labels(data, found.label)
    strings = [text for text in texts if isinstance(text, str)]
    return table_rows(where, found, asked, strings, labels, range(1, len(texts) + 1))


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


@contextlib.contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Without the progress bars and log lines that would stand beside our one line."""
    bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()


def _failure(source: str, error: Exception, advice: str) -> DataError:
    words = " ".join(str(error).split())
    return DataError(f"{source}: {type(error).__name__}: {words[:200]}; {advice}")
