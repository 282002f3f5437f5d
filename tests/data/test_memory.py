"""Texts of a Python program become the rows that a file of the same content would give."""

import re
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest

from textvae.data.columns import Columns
from textvae.data.memory import Texts, as_data
from textvae.errors import DataError

TEXTS = ["red cat", " big dog\n", "", None, float("nan"), "shy hen"]
CLEAN = ["red cat", "big dog", "", "", "", "shy hen"]


class Series(list[object]):
    """Like a Series of pandas: an iterable with an index beside it."""


class Missing:
    """pandas.NA, whose comparison has no truth."""

    def __eq__(self, other: object) -> Any:
        raise TypeError("boolean value of NA is ambiguous")

    __hash__ = None  # type: ignore[assignment]


Missing.__name__ = "NAType"


class Frame:
    """Like a DataFrame: columns by their names."""

    def __init__(self, **columns: object) -> None:
        self.columns, self.cells = list(columns), columns

    def __getitem__(self, name: str) -> object:
        return self.cells[name]


def rows_of(data: object, columns: Columns = Columns()) -> Any:  # noqa: B008
    texts = as_data(data, columns)
    assert isinstance(texts, Texts)
    assert texts.splits.keys() == {"train"}
    return texts.splits["train"]


@pytest.mark.parametrize(
    "data",
    [
        TEXTS,
        tuple(TEXTS),
        (text for text in TEXTS),
        Series(TEXTS),
        np.array(TEXTS, dtype=object),
        pa.array([None if text != text else text for text in TEXTS]),
        [Missing() if text is None else text for text in TEXTS],
    ],
    ids=["list", "tuple", "generator", "series", "array", "arrow", "missing"],
)
def test_missing_texts_are_blank_rows_wherever_they_come_from(data: object) -> None:
    assert rows_of(data).texts == CLEAN
    assert rows_of(data if not hasattr(data, "send") else TEXTS).labels is None


@pytest.mark.parametrize(
    "table",
    [
        Frame(number=[1, 2], text=["red cat", None], label=[np.int64(3), np.nan]),
        datasets.Dataset.from_dict({"text": ["red cat", None], "label": [3, None]}),
        pa.table({"text": ["red cat", None], "label": [3, None]}),
    ],
    ids=["frame", "dataset", "arrow"],
)
def test_tables_find_their_columns_as_files_do(table: object) -> None:
    rows = rows_of(table)
    assert (rows.texts, rows.labels) == (["red cat", ""], ["3", ""])
    assert (rows.column, rows.label_column) == ("text", "label")
    with pytest.raises(DataError, match="data: has no column 'txt'"):
        rows_of(table, Columns("txt"))


def test_labels_stay_with_their_texts() -> None:
    rows = rows_of((TEXTS, ["a", 1, None, True, np.float32(2.5), "b"]))
    assert rows.texts == CLEAN
    assert rows.labels == ["a", "1", "", "true", "2.5", "b"]
    with pytest.raises(DataError, match="data: 2 labels for 1 texts; give one for each"):
        rows_of((["red cat"], ["a", "b"]))
    assert rows_of(("red cat", "big dog")).texts == ["red cat", "big dog"]  # texts, not labels


def test_several_sets_go_under_their_names() -> None:
    parts = {name: datasets.Dataset.from_dict({"text": [name]}) for name in ("train", "test")}
    texts = as_data(datasets.DatasetDict(parts), Columns())
    assert isinstance(texts, Texts)
    assert {name: rows.texts for name, rows in texts.splits.items()} == {
        "train": ["train"],
        "test": ["test"],
    }
    assert texts.digest != as_data({"train": ["test"], "test": ["train"]}, Columns()).digest


def test_names_of_files_pass(tmp_path: Path) -> None:
    assert as_data(None, Columns()) is None
    assert as_data(tmp_path, Columns()) == as_data(str(tmp_path), Columns()) == str(tmp_path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (7, "data: found int, expected a file or directory, a list of strings"),
        (b"red cat", "data: found bytes, expected a file"),
        ({"red cat", "big dog"}, "data: found set, expected a file"),  # has no order
        ({1: ["red cat"]}, "data: found dict, expected a file"),
        ({"train": 3}, "data['train']: found int, expected a file"),
        (np.array("red cat"), "data: found ndarray, expected a file"),
        (["red cat", 7], "data: row 1 (counted from 0) is int, expected a string"),
        ([["red", "cat"]], "data: row 0 (counted from 0) is list, expected a string"),
        (np.eye(2), "data: row 0 (counted from 0) is ndarray, expected a string"),
    ],
)
def test_what_is_no_text_is_refused(data: object, words: str) -> None:
    with pytest.raises(TypeError, match=re.escape(words)):
        as_data(data, Columns())


def test_text_that_no_file_could_hold_is_refused() -> None:
    with pytest.raises(DataError, match=r"data: row 1 \(counted from 0\) holds a lone surrogate"):
        as_data(["red cat", "big \ud800"], Columns())
    with pytest.raises(DataError, match="data:1: holds a NUL character"):
        as_data(["red cat", "big \0 dog"], Columns())
    with pytest.raises(DataError, match="data: has no columns; leave out text_column"):
        as_data(["red cat"], Columns("text"))
