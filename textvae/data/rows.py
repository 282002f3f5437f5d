"""Rows of a source, and the one place that decides which of them are sentences."""

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Literal, NamedTuple, NoReturn, get_args

from textvae.errors import DataError

TooLong = Literal["drop", "cut", "split", "refuse"]
"""The treatment of a sentence of more tokens than the model takes: it is left out, cut to its
beginning (without `</s>`), split into sentences of its parts, or an error."""
TOO_LONG: tuple[str, ...] = get_args(TooLong)

_LINE_BREAKS = re.compile(r"[\r\n]+")


class Rows(NamedTuple):
    """Every row of a source in its order, blank ones as ""."""

    texts: list[str]
    labels: list[str] | None = None
    """The label of each row, "" for none."""
    column: str | None = None
    """The column of the text."""
    label_column: str | None = None
    """The column or the file of the labels."""
    note: str | None = None
    """Why a label column was ignored."""


class Exclusion(StrEnum):
    """Why a row is not a sentence."""

    BLANK = "blank"
    TOO_LONG_CHARACTERS = "too_long_characters"
    TOO_LONG_TOKENS = "too_long_tokens"


class RowCounts:
    """Rows of a stream that have no result or not a whole one, counted, with the first of each."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, int]] = {}

    def exclude(self, row: int, reason: Exclusion) -> None:
        """Count a row that has no result."""
        self._add(row, reason)

    def shorten(self, row: int, too_long: TooLong) -> None:
        """Count a row that was cut or split."""
        self._add(row, too_long)

    def _add(self, row: int, name: str) -> None:
        count, first = self._counts.get(name, (0, row))
        self._counts[name] = count + 1, first

    def count(self, name: str) -> int:
        """The rows of an `Exclusion`, or of `cut` or `split`."""
        return self._counts.get(name, (0, 0))[0]

    def notes(self, where: str, max_length: int | None = None) -> list[str]:
        """A line for each reason, for the user; `max_length` is that of the model."""
        over = f"with more than the model's {max_length:,} tokens" if max_length else ""
        words = {
            Exclusion.BLANK: "blank or missing, left out",
            Exclusion.TOO_LONG_CHARACTERS: "with too many characters, left out",
            Exclusion.TOO_LONG_TOKENS: f"{over}, left out; --too-long cut or split keeps them",
            "cut": f"{over}, cut to as many",
            "split": f"{over}, split",
        }
        return [
            f"{where}: {rows_text(*self._counts[name])} {text}"
            for name, text in words.items()
            if name in self._counts
        ]


def rows_text(count: int, first: int) -> str:
    """A number of rows, and the first of them, as a message names it."""
    if count == 1:
        return f"1 row (row {first:,}, counted from 0)"
    return f"{count:,} rows (the first is row {first:,}, counted from 0)"


class Selection(NamedTuple):
    """The rows of a source that are sentences, and the reason for each that is not."""

    rows: list[int]
    """Row numbers, from 0, in their order."""
    excluded: dict[int, Exclusion]
    """By row number."""

    def count(self, reason: Exclusion) -> int:
        """The number of rows excluded for a reason."""
        return sum(excluded is reason for excluded in self.excluded.values())


def exclusion(text: str, max_characters: int | None) -> Exclusion | None:
    """The reason why a cleaned row is not a sentence, or None; no limit is None."""
    if not text:
        return Exclusion.BLANK
    if max_characters is None or len(text) <= max_characters:
        return None
    return Exclusion.TOO_LONG_CHARACTERS


def select_rows(texts: Sequence[str], max_characters: int | None) -> Selection:
    """Apply `exclusion` to every row."""
    rows, excluded = [], {}
    for row, text in enumerate(texts):
        reason = exclusion(text, max_characters)
        if reason is None:
            rows.append(row)
        else:
            excluded[row] = reason
    return Selection(rows, excluded)


def clean(text: str) -> str:
    """One sentence on one line, without blanks at its ends."""
    text = text.strip()
    if "\n" in text or "\r" in text:
        return _LINE_BREAKS.sub(" ", text)
    return text


def refuse_nul(place: str) -> NoReturn:
    """DataError for a NUL character at a place (file and line)."""
    raise DataError(f"{place}: holds a NUL character; remove it, or give a text file")
