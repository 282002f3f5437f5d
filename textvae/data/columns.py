"""Which columns of a table are read, and how their cells become sentences and labels."""

import difflib
import re
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from textvae.errors import DataError

TEXT_COLUMNS = (
    "text",
    "sentence",
    "content",
    "review",
    "title",
    "question",
    "utterance",
    "caption",
    "document",
    "tweet",
    "comment",
)
LABEL_COLUMN = "label"
_LINE_BREAKS = re.compile(r"[\r\n]+")


class Columns(NamedTuple):
    """What the user said about columns: None is "find it"."""

    text: str | None = None
    label: str | None = None


class Rows(NamedTuple):
    """Every row of a source, blank ones as "".

    `label_column` is what `labels` came from; `note` says why a label column was passed over.
    """

    texts: list[str]
    labels: list[str] | None = None
    column: str | None = None
    label_column: str | None = None
    note: str | None = None


def find_columns(names: Sequence[str], asked: Columns, where: str) -> Columns:
    """The text and label column among the names of a table.

    A label column is the one asked for, or one named `label`. The text column is the one asked
    for, or the first of TEXT_COLUMNS that is there, or the only one beside the label.
    """
    label = _named(names, asked.label, "--label-column", where)
    if label is None and asked.text != LABEL_COLUMN:
        label = _like(names, LABEL_COLUMN)
    text = _named(names, asked.text, "--text-column", where)
    others = [name for name in names if name != label]
    if text is None:
        found = (_like(others, name) for name in TEXT_COLUMNS)
        text = next((name for name in found if name is not None), None)
    if text is None and len(others) == 1:
        text = others[0]
    if text is None:
        raise DataError(
            f"{where}: none of its columns ({_list(names)}) is known to hold the text; "
            "name it with --text-column"
        )
    for name in (text, label):
        if name is not None and names.count(name) > 1:
            raise DataError(f"{where}: has two columns named {name!r}; rename one")
    if text == label:
        raise DataError(f"{where}: {text!r} cannot be both the text and the label column")
    return Columns(text, label)


def _named(names: Sequence[str], name: str | None, option: str, where: str) -> str | None:
    if name is None or (found := _like(names, name)) is not None:
        return None if name is None else found
    nearest = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"name one of these with {option}"
    raise DataError(f"{where}: has no column {name!r}, but {_list(names)}; {hint}")


def _like(names: Sequence[str], name: str) -> str | None:
    """The column of that name, or else of that name in another case."""
    folded = (other for other in names if other.casefold() == name.casefold())
    return name if name in names else next(folded, None)


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:40]) for name in names[:12])
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def table_rows(
    where: str,
    found: Columns,
    asked: Columns,
    texts: Sequence[str],
    labels: Sequence[object] | None,
    lines: Sequence[int],
) -> Rows:
    """Clean the cells of a table's two columns; `lines` says where each row is, for errors.

    A label that is missing, null or blank is "": the row has none. One that is no string, number
    or boolean is an error where the label column was asked for; otherwise the labels are passed
    over, and the note says so.
    """
    cleaned = [clean(text) for text in texts]
    for line, text in zip(lines, cleaned, strict=True):
        if "\0" in text:
            refuse_nul(f"{where}:{line}")
    if labels is None:
        return Rows(cleaned, column=found.text)
    words = [_label_text(label) for label in labels]
    for line, text, label, word in zip(lines, cleaned, labels, words, strict=True):
        if text and word is None:
            reason = f"{where}:{line}: no label in column {found.label!r}, but {label!r:.40}"
            if asked.label is not None:
                raise DataError(f"{reason}; make it a string, a number, or null for no label")
            return Rows(cleaned, column=found.text, note=f"labels passed over: {reason}")
    return Rows(cleaned, [word or "" for word in words], found.text, found.label)


def _label_text(label: object) -> str | None:
    """A label as text, "" where there is none; None for what cannot be a label."""
    if isinstance(label, bool):
        return "true" if label else "false"
    if isinstance(label, (int, float)):
        return str(label)
    if label is None:
        return ""
    return clean(label).replace("\0", "") if isinstance(label, str) else None


def clean(text: str) -> str:
    """One sentence on one line, without blanks at its ends."""
    text = text.strip()
    if "\n" in text or "\r" in text:
        return _LINE_BREAKS.sub(" ", text)
    return text


def refuse_nul(place: str) -> NoReturn:
    """DataError for a NUL character at a place (file and line)."""
    raise DataError(f"{place}: holds a NUL character; remove it, or give a text file")
