r"""Sentences of a text file or of standard input, one at a time: memory does not grow with them.

The rules are those of `reading.py` for plain text: UTF-8, lines that end with `\n` or `\r\n`, no
NUL, blanks at either end taken off, blank lines left out and counted. Only the error comes later:
where the bad line is, not before the first good one.
"""

import gzip
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from textvae.data.columns import clean
from textvae.data.corpus import read_sentences
from textvae.data.hub import HUB_PREFIX
from textvae.data.reading import decode_text, form_of, read_bytes
from textvae.errors import DataError

LINE_BYTES = 2**24
"""A longer line is refused: something that is no text has been given."""
T = TypeVar("T")


class Lines:
    """The lines of a file or of standard input that are not blank, cleaned.

    Each iteration opens a file anew; standard input can be read once.
    """

    def __init__(
        self, source: str, stdin: BinaryIO | None = None, *, may_be_empty: bool = False
    ) -> None:
        self.source, self.where = source, "standard input" if source == "-" else source
        self.blank = 0
        """Blank lines of the last iteration, so far."""
        self._stdin, self._may_be_empty = stdin, may_be_empty

    def rows(self) -> Iterator[str]:
        """All lines, blank ones as ""."""
        with _opened(self.source, self._stdin) as file:
            for number, raw in enumerate(_raw_lines(file, self.where), start=1):
                yield clean(_text(raw, number, self.where))

    def __iter__(self) -> Iterator[str]:
        self.blank = 0
        found = 0
        for line in self.rows():
            if line:
                found += 1
                yield line
            else:
                self.blank += 1
        if not found and not self._may_be_empty:
            held = f"only {self.blank:,} blank lines" if self.blank else "nothing"
            raise DataError(f"{self.where}: holds {held}; give one sentence a line")


def stream_sentences(
    source: str,
    *,
    text_column: str | None = None,
    stdin: BinaryIO | None = None,
    may_be_empty: bool = False,
) -> Iterable[str]:
    """The sentences of a source: text streams, a table is read whole.

    Args:
        source: a text file, `-`, or anything that `read_sentences` takes.
        text_column: of a table.
        stdin: what to read for `-`, in place of the process's standard input.
        may_be_empty: text without a sentence is no error, but a stream of none.

    Returns:
        `Lines`, or the list of a table; either may be iterated again, but for standard input.

    Raises:
        DataError: nothing there, at once; text that cannot be read, when it is come to.
    """
    plain = not source.startswith(HUB_PREFIX) and form_of(source) == ".txt"
    if text_column is not None or not plain or (source != "-" and Path(source).is_dir()):
        return read_sentences(source, text_column=text_column, stdin=stdin).texts
    if source != "-":
        with _opened(source, None):
            pass
    return Lines(source, stdin, may_be_empty=may_be_empty)


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of so many items, the last perhaps shorter."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


def chunks_until_error(items: Iterable[T], size: int) -> Iterator[tuple[list[T], DataError | None]]:
    """`chunks`, and with the last one the error that cut the items short, if one did."""
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


def _opened(source: str, stdin: BinaryIO | None) -> AbstractContextManager[BinaryIO]:
    if source == "-":
        if stdin is None and sys.stdin is None:  # what Python makes of a closed descriptor
            raise DataError("standard input: is closed; give one sentence a line")
        return nullcontext(stdin or cast("BinaryIO", sys.stdin.buffer))
    try:
        if Path(source).suffix.lower() == ".gz":
            return cast("BinaryIO", gzip.open(source))  # a stream of bytes too
        return Path(source).open("rb")
    except (OSError, ValueError):
        read_bytes(source)  # says what is wrong, and with which name it would be right
        raise


def _raw_lines(file: BinaryIO, where: str) -> Iterator[bytes]:
    number = 0
    try:
        while raw := file.readline(LINE_BYTES + 1):
            number += 1
            if len(raw) > LINE_BYTES:
                raise DataError(f"{where}:{number}: a line of over {LINE_BYTES:,} bytes; no text?")
            yield raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{where}: damaged or cut short as a gzip file ({error}); fetch or pack it again"
        ) from error


def _text(raw: bytes, number: int, where: str) -> str:
    """One line as text. What is wrong with a file from its first byte shows in its first line."""
    if number > 1:
        if b"\0" not in raw:
            try:
                return raw.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = f"byte 0x{raw[error.start]:02x}"
                raise DataError(
                    f"{where}:{number}: {byte} is not UTF-8; convert the file to UTF-8 or repair "
                    "the line"
                ) from None
        raise DataError(f"{where}:{number}: holds a NUL character; remove it, or give a text file")
    return decode_text(raw, where)
