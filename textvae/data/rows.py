"""Rows of a source, and the one place that decides which of them are sentences."""

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple, NoReturn

from textvae.errors import DataError

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


class Selection(NamedTuple):
    """The rows of a source that are sentences, and the reason for each that is not."""

    rows: list[int]
    """Row numbers, from 0, in their order."""
    excluded: dict[int, Exclusion]
    """By row number."""

    def count(self, reason: Exclusion) -> int:
        """The number of rows excluded for a reason."""
        return sum(excluded is reason for excluded in self.excluded.values())


def exclusion(text: str, max_characters: int) -> Exclusion | None:
    """The reason why a cleaned row is not a sentence, or None."""
    if not text:
        return Exclusion.BLANK
    return Exclusion.TOO_LONG_CHARACTERS if len(text) > max_characters else None


def select_rows(texts: Sequence[str], max_characters: int) -> Selection:
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
