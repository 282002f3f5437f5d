"""Places of data: the sets that a file, a directory or a hub name holds, and their labels.

A place is a file, `-` for standard input, a directory with `train`, `valid` and `test` files of
any form (`valid` may be called `dev`, `validation` or `val`), or a hub data set. Beside a
`train.txt` or `train.txt.gz` of a directory, `train.labels` or `train.labels.gz` is taken too.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from textvae.data.columns import Columns
from textvae.data.hub import HUB_PREFIX, read_hub
from textvae.data.reading import TEXT_FORMS, form_of
from textvae.data.rows import Rows
from textvae.data.unpacking import PACKED
from textvae.errors import DataError

SPLIT_NAMES: dict[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "valid": ("valid", "dev", "validation", "val"),
    "test": ("test",),
}
_ENDINGS = (*(form + gz for form in TEXT_FORMS for gz in ("", *PACKED)), ".parquet")


class Input(NamedTuple):
    """One set before it is read: a file or `-`, or the rows of a hub data set."""

    place: str
    labels_file: str | None = None
    rows: Rows | None = None


class Reading(NamedTuple):
    """How to read, the same for every set."""

    columns: Columns
    max_characters: int | None
    stdin: BinaryIO | None
    encoding: str | None = None
    """None is UTF-8, or UTF-16 with a byte order mark."""


def find_inputs(
    place: str | Path, how: Reading, labels_file: str | Path | None = None
) -> dict[str, Input]:
    """The sets at one place, `train` first; one file alone is called `train`."""
    place = os.fspath(place)
    if not place:
        raise DataError("the name of the data is empty; name a file, a directory or -")
    labels = None if labels_file is None else os.fspath(labels_file)
    if labels is not None and how.columns.label is not None:
        raise DataError(f"{place}: labels come from --labels or --label-column, not from both")
    hub, directory = place.startswith(HUB_PREFIX), _is_directory(place)
    if labels is not None and (hub or directory):
        raise DataError(
            f"{place}: --labels goes with one file; "
            + ("use --label-column" if hub else "put train.labels beside the train file")
        )
    if hub:
        return _named_splits(place, read_hub(place, how.columns))
    return _directory(place) if directory else {"train": Input(place, labels)}


def _is_directory(place: str) -> bool:
    try:
        return place != "-" and Path(place).is_dir()
    except ValueError:  # a NUL in the name, which reading it reports
        return False


def _named_splits(place: str, splits: Mapping[str, Rows]) -> dict[str, Input]:
    """The splits of a hub data set under our names; a single one is `train`."""
    if len(splits) == 1:
        name, rows = next(iter(splits.items()))
        return {"train": Input(f"{place} {name}", rows=rows)}
    inputs = {
        name: Input(f"{place} {alias}", rows=splits[alias])
        for name, aliases in SPLIT_NAMES.items()
        for alias in reversed(aliases)
        if alias in splits
    }
    if not inputs:
        raise DataError(f"{place}: has no train, valid or test split, only {', '.join(splits)}")
    return inputs


def _directory(place: str) -> dict[str, Input]:
    inputs: dict[str, Input] = {}
    for name, aliases in SPLIT_NAMES.items():
        path = _only_one(place, [alias + ending for alias in aliases for ending in _ENDINGS])
        if path is None:
            continue
        labels = None
        if form_of(path.name) == ".txt":
            stem = path.name.partition(".")[0]
            labels = _only_one(
                place,
                [stem + ending for ending in (".labels", *(f".labels{end}" for end in PACKED))],
            )
        inputs[name] = Input(str(path), None if labels is None else str(labels))
    if not inputs:
        raise DataError(
            f"{place}: a directory without a train file (such as train.txt, train.csv.gz); "
            "name the file itself"
        )
    return inputs


def _only_one(place: str, names: Sequence[str]) -> Path | None:
    paths = [path for name in names if (path := Path(place, name)).is_file()]
    if len(paths) > 1:
        raise DataError(f"{place}: holds both {paths[0].name} and {paths[1].name}; keep one")
    return paths[0] if paths else None


def pick_input(
    place: str | Path, name: str, how: Reading, labels_file: str | Path | None = None
) -> Input:
    """The only set of a place, or the one of that name."""
    inputs = find_inputs(place, how, labels_file)
    if len(inputs) == 1:
        return next(iter(inputs.values()))
    if name not in inputs:
        raise DataError(f"{place}: has {' and '.join(inputs)} but no {name} set; name one file")
    return inputs[name]
