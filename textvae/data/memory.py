"""Texts that a Python program holds: lists, Series, tables and data sets, as rows.

They go the way of rows of a file: blank and missing texts are left out and counted, labels stay
with their rows, and tables find their columns by the same names.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from textvae.data.columns import Columns, find_columns, table_rows
from textvae.data.rows import Rows
from textvae.errors import DataError

MEMORY = "the texts given"
_EXPECTED = (
    "a file or directory, a list of strings, a pair (texts, labels), a pandas Series or DataFrame, "
    "a datasets.Dataset, or a dict of these with train, valid and test"
)


class Texts(NamedTuple):
    """The rows of one set or of several, by their names, and a checksum of them all."""

    splits: dict[str, Rows]
    digest: str

    def __str__(self) -> str:
        return MEMORY


def as_data(data: object, columns: Columns, name: str = "data") -> str | Texts | None:
    """The place of data, or the texts that a caller gives in its stead; None passes.

    Args:
        data: what `_EXPECTED` says.
        columns: of a table; None finds them.
        name: of the argument, for errors.

    Raises:
        DataError: texts that cannot be read: labels out of step, a NUL or a lone surrogate.
        TypeError: anything else than text.
    """
    if data is None:
        return None
    if isinstance(data, str | os.PathLike):
        return _path(data, name)
    if not isinstance(data, Mapping):
        splits = {"train": _rows(data, columns, name)}
    elif data and all(isinstance(key, str) for key in data):
        splits = {key: _rows(part, columns, f"{name}[{key!r}]") for key, part in data.items()}
    else:
        raise TypeError(f"{name}: found {_kind(data)}, expected {_EXPECTED}")
    digest = hashlib.sha256()
    for key, rows in splits.items():
        digest.update("\n".join([key, *rows.texts, "\0", *(rows.labels or ())]).encode())
    return Texts(splits, digest.hexdigest())


def _path(data: "str | os.PathLike[Any]", name: str) -> str:
    path = os.fspath(data)
    if not isinstance(path, str):
        raise TypeError(f"{name}: found a path of bytes, expected one of text")
    return path


def _rows(data: object, columns: Columns, name: str) -> Rows:
    """The rows of one set."""
    if isinstance(data, tuple) and len(data) == 2 and not any(isinstance(x, str) for x in data):
        texts, labels = (_items(part, name) for part in data)
        if len(texts) != len(labels):
            raise DataError(
                f"{name}: {len(labels):,} labels for {len(texts):,} texts; give one for each, and "
                "None for no label"
            )
        return _checked(texts, labels, Columns(None, "labels"), columns, name)
    names = getattr(data, "column_names", None)  # of datasets and pyarrow
    names = getattr(data, "columns", None) if names is None else names  # of pandas and polars
    if names is None:
        if columns != Columns():
            raise DataError(
                f"{name}: has no columns; leave out text_column and label_column, or give a table"
            )
        return _checked(_items(data, name), None, columns, columns, name)
    table: Any = data
    by_name = {str(column): column for column in names}
    pair = find_columns([str(column) for column in names], columns, name)
    cells = {column: _items(table[by_name[column]], name) for column in pair if column is not None}
    texts = cells[pair.text or ""]
    return _checked(texts, cells.get(pair.label or ""), pair, columns, name)


def _checked(
    texts: Sequence[object],
    labels: Sequence[object] | None,
    pair: Columns,
    requested: Columns,
    name: str,
) -> Rows:
    """Rows of cells: a missing text is blank, and any other text is a string of Unicode."""
    strings: list[str] = []
    for number, text in enumerate(texts):
        if _is_missing(text):
            text = ""
        if not isinstance(text, str):
            raise TypeError(
                f"{name}: row {number:,} (counted from 0) is {_kind(text)}, expected a string"
            )
        try:
            text.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"{name}: row {number:,} (counted from 0) holds a lone surrogate, which is no "
                "Unicode character; remove it"
            ) from None
        strings.append(str(text))
    values = None if labels is None else [_plain(label) for label in labels]
    return table_rows(name, pair, requested, strings, values, range(len(strings)))


def _items(data: object, name: str) -> list[object]:
    """The items of a column, or of anything else that has them in an order."""
    if isinstance(data, str | bytes | bytearray | Mapping | set | frozenset) or not isinstance(
        data, Iterable
    ):
        raise TypeError(f"{name}: found {_kind(data)}, expected {_EXPECTED}")
    to_list = getattr(data, "to_pylist", None)  # an array of pyarrow has scalars of its own
    try:
        return list(data if to_list is None else to_list())
    except TypeError:  # such as an array without dimensions
        raise TypeError(f"{name}: found {_kind(data)}, expected {_EXPECTED}") from None


def _is_missing(value: object) -> bool:
    """True for None, NaN and what pandas writes for a missing value."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float) and value != value


def _plain(label: object) -> object:
    """A label as a value of Python; None where there is none."""
    if _is_missing(label):
        return None
    item = getattr(label, "item", None)  # of a scalar of numpy
    return item() if callable(item) and getattr(label, "ndim", None) == 0 else label


def _kind(value: object) -> str:
    return type(value).__name__
