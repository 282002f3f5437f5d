"""The character that separates the cells of a CSV file, found from its header and its counts."""

import csv
import io
from collections.abc import Iterator
from itertools import islice

from textvae.errors import DataError

SEPARATORS = (",", ";", "\t", "|")
"""The comma first: where several fit, the first one separates."""
ROWS = 100
"""Rows whose cells are counted."""


def find_separator(text: str, where: str) -> str:
    """The separator of a CSV file.

    Raises:
        DataError: the header seems to be separated by another character than a comma, which the
            rows below it are not.
    """
    header = next((line for line in _lines(text) if line.strip()), "")
    seen = [separator for separator in SEPARATORS if separator in header]
    for separator in seen:
        widths = set(_widths(text, separator))
        if len(widths) == 1 and widths != {1}:
            return separator
    if not seen or "," in seen or header.startswith(chr(34)):
        return ","
    raise DataError(
        f"{where}: its header seems to be separated by {seen[0]!r}, but rows have other numbers of "
        "cells; quote cells that hold it, or name what separates cells with --separator"
    )


def _lines(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        yield text[start:end]
        start = end + 1


def _widths(text: str, separator: str) -> Iterator[int]:
    """The number of cells of the first rows; 0 for the rest where a row cannot be parsed."""
    reader = csv.reader(io.StringIO(text, newline="\n"), strict=True, delimiter=separator)
    limit = csv.field_size_limit(2**31 - 1)
    try:
        for row in islice(reader, ROWS):
            if row:
                yield len(row)
    except csv.Error:
        yield 0
    finally:
        csv.field_size_limit(limit)
