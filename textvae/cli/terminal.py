r"""Results on stdout, one a line and UTF-8 whatever the locale; messages on stderr.

`emit` writes a result, `log` a message; nothing else of the command line prints. Text of data,
models and file names may hold characters that steer a terminal, end a line or reverse it: they are
written as escapes, `\x1b`, and in JSON as JSON's own, `\u009b`, which a reader turns back.
"""

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

from textvae.data.rows import Exclusion, RowCounts
from textvae.distributed import is_first

_CONTROL = "\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_CONTROLS = re.compile(f"[{_CONTROL}]")
# The same but for C0, which JSON escapes anyway, in UTF-8.
_CONTROL_BYTES = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xa8-\xae]|\xe2\x81[\xa6-\xa9]")
_NOT_WRITTEN = "standard output: cannot be written"


class OutputError(Exception):
    """A result that could not be written to stdout."""


def printable(text: str) -> str:
    """Text with escapes in the place of control characters, line ends and tabs among them."""
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def emit(*fields: str) -> None:
    """Write one line of results, whose fields are separated by tabs."""
    _write("\t".join(map(printable, fields)).encode("utf-8") + b"\n")


def emit_lines(text: str) -> None:
    """Write results of several lines."""
    for line in text.split("\n"):
        emit(line)


def emit_json(value: Any) -> None:
    """Write one object (a dict or a struct) as one line of JSON."""
    import msgspec  # noqa: PLC0415 -- costs 20 ms that no help text should pay

    emit_raw(msgspec.json.encode(value))


def emit_raw(line: bytes) -> None:
    """Write one line of results that is JSON already."""
    _write(_CONTROL_BYTES.sub(lambda match: b"\\u%04x" % ord(match[0].decode()), line) + b"\n")


class RowWriter(RowCounts):
    """Writes the results of rows in their order, an empty line for each that has none."""

    def __init__(self, *, empty_lines: bool, at_once: bool = False) -> None:
        """Begin at row 0.

        Args:
            empty_lines: without them, rows without a result are only counted.
            at_once: flush after each empty line.
        """
        super().__init__()
        self._empty_lines, self._at_once = empty_lines, at_once
        self._next, self._excluded = 0, set[int]()

    def exclude(self, row: int, reason: Exclusion) -> None:
        """Count a row without a result; its line follows those of the rows before it."""
        super().exclude(row, reason)
        self._excluded.add(row)
        self._fill()
        if self._at_once and self._empty_lines:
            flush()

    def emit(self, row: int, *fields: str) -> None:
        """Write a line of results of a row, which may have several."""
        self._fill(row)
        emit(*fields)
        self._next = row + 1

    def emit_json(self, row: int, value: Any) -> None:
        """Write an object, for a row."""
        self._fill(row)
        emit_json(value)
        self._next = row + 1

    def _fill(self, stop: int | None = None) -> None:
        """Write the empty lines that come next, before row `stop`."""
        while self._next in self._excluded and (stop is None or self._next < stop):
            self._excluded.remove(self._next)
            self._next += 1
            if self._empty_lines:
                emit("")

    def finish(self, where: str, max_length: int) -> None:
        """Write the last empty lines, and to stderr what was left out, cut or split."""
        self._fill()
        for line in self.notes(where, max_length):
            log(line)


def log(line: str, *, any_process: bool = False) -> None:
    """Write a message to stderr, of several processes the first one's alone unless `any_process`.

    A closed stderr is no reason to stop.
    """
    if any_process or is_first():
        with suppress(OSError):
            click.echo(printable(line), err=True)


class Busy:
    """Logs what is at work, once it has taken some seconds."""

    def __init__(self, line: str) -> None:
        self._lines, self._late = [line], False

    def report(self, line: str) -> None:
        """Take the line of a part that begins now."""
        self._lines.append(line)
        if self._late:
            log(line)

    @contextmanager
    def after(self, seconds: float = 3.0) -> Iterator[None]:
        """Start to log after so many seconds, unless the work is done by then."""
        timer = threading.Timer(seconds, self._start)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _start(self) -> None:
        self._late = True
        log(": ".join([self._lines[0], *self._lines[1:][-1:]]))


def log_model(model: object, *, named: bool) -> None:
    """Log the model that is used, if the user did not name it; last, so that errors stand alone."""
    if not named:
        log(f"model: {model}")


def flush() -> None:
    """Flush results, so that a full disk is an error while it can still be logged."""
    if sys.stdout is None:  # closed, and so nothing was emitted
        return
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"{_NOT_WRITTEN}: {error.strerror}") from error


def discard_stdout() -> None:
    """Redirect the interpreter's last flush to nowhere: its buffer could not be written."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _write(data: bytes) -> None:
    if not is_first():
        return
    if sys.stdout is None:  # what Python makes of a closed descriptor
        raise OutputError(f"{_NOT_WRITTEN}: it is closed")
    try:
        sys.stdout.buffer.write(data)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"{_NOT_WRITTEN}: {error.strerror}") from error
