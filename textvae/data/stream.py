"""Sentences of a source one at a time: memory does not grow with them.

Text is read as in `reading.py`; an error is raised at the bad line, after the lines before it.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeVar

from textvae.data.columns import Columns
from textvae.data.corpus import read_texts
from textvae.data.hub import HUB_PREFIX, stream_hub, stream_parquet
from textvae.data.reading import check_encoding, form_of, is_pipe, open_text, text_lines
from textvae.data.rows import clean
from textvae.errors import DataError

T = TypeVar("T")


class Lines:
    """The lines of a text file or of standard input, cleaned, blank ones as "".

    Each iteration opens a file anew; standard input can be read once.
    """

    def __init__(
        self,
        source: str,
        stdin: BinaryIO | None = None,
        *,
        encoding: str | None = None,
        may_be_empty: bool = False,
    ) -> None:
        self._encoding = encoding
        self.source, self._stdin, self._may_be_empty = source, stdin, may_be_empty

    def __iter__(self) -> Iterator[str]:
        blank = sentences = 0
        for line in map(clean, text_lines(self.source, self._stdin, self._encoding)):
            sentences += bool(line)
            blank += not line
            yield line
        if not sentences and not self._may_be_empty:
            where = "standard input" if self.source == "-" else self.source
            content = f"only {blank:,} blank lines" if blank else "nothing"
            raise DataError(f"{where}: holds {content}; give one sentence a line")


def stream_texts(
    source: str,
    *,
    text_column: str | None = None,
    separator: str | None = None,
    encoding: str | None = None,
    stdin: BinaryIO | None = None,
    may_be_empty: bool = False,
) -> Iterable[str]:
    """The text of every row of a source, "" for blank ones: a table is read into memory.

    Args:
        source: a text file, `-`, or anything that `read_sentences` takes.
        text_column: of a table.
        separator: of its cells; None finds it.
        encoding: None is UTF-8, or UTF-16 with a byte order mark.
        stdin: read for `-` in place of the process's standard input.
        may_be_empty: text without a sentence is no error.

    Returns:
        `Lines`, or the list of a table; either may be iterated again, except for standard input.

    Raises:
        DataError: a missing file, at once; text that cannot be read, when it is reached.
    """
    plain = not source.startswith(HUB_PREFIX) and form_of(source) == ".txt"
    if text_column is not None or not plain or (source != "-" and Path(source).is_dir()):
        return read_texts(
            source,
            text_column=text_column,
            separator=separator,
            encoding=encoding,
            stdin=stdin,
            may_be_empty=may_be_empty,
        )
    if encoding is not None:
        check_encoding(encoding)
    if source != "-" and not is_pipe(source):
        with open_text(source):
            pass
    return Lines(source, stdin, encoding=encoding, may_be_empty=may_be_empty)


def stream_rows(source: str, text_column: str | None = None) -> Iterator[str]:
    """All rows of a text, parquet or hub source, blank ones as ""; may be called several times.

    Raises:
        DataError: another form, or text that cannot be read, when it is reached.
    """
    columns = Columns(text_column, None)
    if source.startswith(HUB_PREFIX):
        return stream_hub(source, columns)
    form = form_of(source)
    if form == ".parquet":
        return stream_parquet(source, columns)
    if form != ".txt" or text_column is not None:
        raise DataError(
            f"{source}: only plain text, parquet and hub data sets are streamed; convert it, or "
            "leave out data.stream"
        )
    return map(clean, text_lines(source))


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items; the last one may be shorter."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


def chunks_until_error(items: Iterable[T], size: int) -> Iterator[tuple[list[T], DataError | None]]:
    """`chunks`, and with the last one the error that ended the items early, if any."""
    part: list[T] = []
    try:
        for item in items:
            part.append(item)
            if len(part) == size:
                yield part, None
                part = []
    except DataError as error:
        yield part, error
        return
    if part:
        yield part, None
