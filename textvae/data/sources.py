"""Places of data: the sets that a file, a directory or a hub name holds, and their labels.

A place is a file, `-` for standard input, a pattern such as `news/*.txt`, a directory, or a hub
data set. The `train`, `valid` and `test` files of a directory may have any form and the names in
which corpora travel (`dev`, `validation`, `val`; `eval`; `ptb.train.txt`, `train.src`); one without
any of them is a corpus of all its files of text. Beside a `train.txt` or `train.txt.gz` of a
directory, `train.labels` or `train.labels.gz` is taken too.
"""

import glob
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from textvae.data.columns import Columns
from textvae.data.hub import HUB_PREFIX, read_hub
from textvae.data.memory import Texts
from textvae.data.reading import TEXT_FORMS, form_of
from textvae.data.rows import Rows
from textvae.data.unpacking import PACKED
from textvae.errors import DataError

SPLIT_NAMES: dict[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "valid": ("valid", "dev", "validation", "val"),
    "test": ("test", "eval"),
}
_ENDINGS = (*(form + gz for form in TEXT_FORMS for gz in ("", *PACKED)), ".parquet")


class Input(NamedTuple):
    """One set before it is read: a file or `-`, or the rows of a hub data set."""

    place: str
    labels_file: str | None = None
    rows: Rows | None = None
    more: tuple[str, ...] = ()
    """Further files whose rows follow."""

    @property
    def where(self) -> str:
        """The place as messages name it."""
        name = "standard input" if self.place == "-" else self.place
        return f"{name} and {len(self.more):,} more" if self.more else name


class Reading(NamedTuple):
    """How to read, the same for every set."""

    columns: Columns
    max_characters: int | None
    stdin: BinaryIO | None
    encoding: str | None = None
    """None is UTF-8, or UTF-16 with a byte order mark."""


def find_inputs(
    place: str | Path | Texts,
    how: Reading,
    labels_file: str | Path | None = None,
    more: Sequence[str] = (),
) -> dict[str, Input]:
    """The sets at one place, `train` first; one file alone, or with `more`, is called `train`."""
    if isinstance(place, Texts):
        if labels_file is not None:
            raise DataError(f"{place}: give their labels with them, as a pair (texts, labels)")
        if place.splits.keys() == {"train"}:
            return {"train": Input(str(place), rows=place.splits["train"])}
        return _named_splits(str(place), place.splits)
    place = os.fspath(place)
    if more or _is_pattern(place):
        files = [file for one in (place, *more) for file in _files(one)]
        if labels_file is not None:
            raise DataError(f"{files[0]}: --labels goes with one file; use --label-column")
        return {"train": Input(files[0], more=tuple(files[1:]))}
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


def _is_pattern(place: str) -> bool:
    try:
        is_there = Path(place).exists()
    except (OSError, ValueError):  # a NUL in the name, which reading it reports
        return False
    return bool(set(place) & set("*?[")) and not is_there


def _files(place: str) -> list[str]:
    """The files of one of several places: itself, those of a pattern, or those of a directory."""
    if place == "-" or place.startswith(HUB_PREFIX):
        raise DataError(f"{place}: does not go with other files; give it alone")
    if _is_pattern(place):
        paths = glob.glob(place, recursive=True)  # noqa: PTH207 -- may be absolute
        files = sorted(file for file in paths if Path(file).is_file())
        if not files:
            raise DataError(f"{place}: no file has such a name; check the pattern")
        return files
    return _texts_of(place) if _is_directory(place) else [place]


def _names(place: str) -> list[str]:
    return sorted(path.name for path in Path(place).iterdir() if path.is_file())


def _texts_of(place: str) -> list[str]:
    """The files of text of a directory, all of one form; none of those that describe the others."""
    names = [name for name in _names(place) if not name.startswith(".")]
    if {"manifest.json", "experiment.json"} & set(names):
        raise DataError(f"{place}: is a run or a model, not text; name files of text")
    about = ("readme", "license", "licence", "changelog", "notice", "citation")
    texts = [
        name
        for name in names
        if name.lower().endswith(_ENDINGS) and not name.lower().startswith(about)
    ]
    forms = sorted({form_of(name) for name in texts})
    if len(forms) > 1:
        raise DataError(f"{place}: holds {' and '.join(forms)} files; name those to read")
    return [str(Path(place, name)) for name in texts]


def unused_files(place: str, inputs: Mapping[str, Input]) -> list[str]:
    """The names of the files of a directory that are no part of its sets."""
    if not _is_directory(place):
        return []
    of_sets = {
        Path(file).name
        for entry in inputs.values()
        for file in (entry.place, entry.labels_file, *entry.more)
        if file is not None
    }
    return [name for name in _names(place) if name not in of_sets]


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
        path = path or _only_one(place, _travelling(_names(place), aliases))
        if path is None:
            continue
        labels = None
        if form_of(path.name) == ".txt":
            stem = path.name.removesuffix(path.suffix) if path.suffix in PACKED else path.name
            stem = stem.rpartition(".")[0] or stem
            labels = _only_one(
                place,
                [stem + ending for ending in (".labels", *(f".labels{end}" for end in PACKED))],
            )
        inputs[name] = Input(str(path), None if labels is None else str(labels))
    if not inputs and (texts := _texts_of(place)):
        return {"train": Input(texts[0], more=tuple(texts[1:]))}
    if not inputs:
        raise DataError(
            f"{place}: a directory without a train file (such as train.txt, train.csv.gz) or other "
            "files of text (such as a.txt, b.txt); name the files themselves"
        )
    return inputs


def _travelling(names: Sequence[str], aliases: Sequence[str]) -> list[str]:
    """The names that have an alias between dots: `ptb.train.txt`, `train.src`."""
    return [
        name
        for name in names
        if not name.startswith(".")
        and {"labels", "json", "md", "lock"}.isdisjoint(name.lower().split(".")[1:])
        and not set(aliases).isdisjoint(name.lower().split("."))
    ]


def _only_one(place: str, names: Sequence[str]) -> Path | None:
    paths = [path for name in names if (path := Path(place, name)).is_file()]
    if len(paths) > 1:
        raise DataError(f"{place}: holds both {paths[0].name} and {paths[1].name}; keep one")
    return paths[0] if paths else None


def pick_input(
    place: str | Path | Texts, name: str, how: Reading, labels_file: str | Path | None = None
) -> Input:
    """The only set of a place, or the one of that name."""
    inputs = find_inputs(place, how, labels_file)
    if len(inputs) == 1:
        return next(iter(inputs.values()))
    if name not in inputs:
        raise DataError(f"{place}: has {' and '.join(inputs)} but no {name} set; name one file")
    return inputs[name]
