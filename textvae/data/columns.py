"""Which columns of a table are read, and how their cells become sentences and labels."""

import difflib
from collections.abc import Sequence
from typing import NamedTuple

from textvae.data.rows import Rows, clean, refuse_nul
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


class Columns(NamedTuple):
    """Names of the text and the label column, and what separates cells; None is found."""

    text: str | None = None
    label: str | None = None
    separator: str | None = None


def find_columns(names: Sequence[str], requested: Columns, where: str) -> Columns:
    """The text and label column among the names of a table.

    The label column is the requested one, or one named `label`. The text column is the requested
    one, or the first of TEXT_COLUMNS that is there, or the only one beside the label.
    """
    label = _named(names, requested.label, "--label-column", where)
    if label is None and requested.text != LABEL_COLUMN:
        label = _like(names, LABEL_COLUMN)
    text = _named(names, requested.text, "--text-column", where)
    others = [name for name in names if name != label]
    if text is None:
        known = (_like(others, name) for name in TEXT_COLUMNS)
        text = next((name for name in known if name is not None), None)
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
    column = None if name is None else _like(names, name)
    if name is None or column is not None:
        return column
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
    columns: Columns,
    requested: Columns,
    texts: Sequence[str],
    labels: Sequence[object] | None,
    lines: Sequence[int],
) -> Rows:
    """Clean the cells of a table's two columns; `lines` says where each row is, for errors.

    A label that is missing, null or blank is "": the row has none. One that is no string, number
    or boolean is an error if the label column was requested; otherwise the labels are ignored, and
    the note says why.
    """
    cleaned = [clean(text) for text in texts]
    for line, text in zip(lines, cleaned, strict=True):
        if "\0" in text:
            refuse_nul(f"{where}:{line}")
    if labels is None:
        return Rows(cleaned, column=columns.text)
    words = [_label_text(label) for label in labels]
    for line, text, label, word in zip(lines, cleaned, labels, words, strict=True):
        if text and word is None:
            reason = f"{where}:{line}: no label in column {columns.label!r}, but {label!r:.40}"
            if requested.label is not None:
                raise DataError(f"{reason}; make it a string, a number, or null for no label")
            return Rows(cleaned, column=columns.text, note=f"labels passed over: {reason}")
    return Rows(cleaned, [word or "" for word in words], columns.text, columns.label)


def _label_text(label: object) -> str | None:
    """A label as text, "" where there is none; None for what cannot be a label."""
    if isinstance(label, bool):
        return "true" if label else "false"
    if isinstance(label, (int, float)):
        return str(label)
    if label is None:
        return ""
    return clean(label).replace("\0", "") if isinstance(label, str) else None
