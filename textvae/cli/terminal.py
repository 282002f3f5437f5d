"""Results on stdout, one a line and UTF-8 whatever the locale; messages on stderr.

`emit` writes a result, `log` a message; nothing else of the command line prints.
"""

import os
import sys
from contextlib import suppress
from typing import Any

import click

from textvae.distributed import is_first

_NOT_WRITTEN = "standard output: cannot be written"


class OutputError(Exception):
    """A result that could not be written to stdout."""


def emit(line: str) -> None:
    """Write one line of results."""
    _write(line.encode("utf-8") + b"\n")


def emit_json(value: Any) -> None:
    """Write one object (a dict or a struct) as one line of JSON."""
    import msgspec  # noqa: PLC0415 -- costs 20 ms that no help text should pay

    _write(msgspec.json.encode(value) + b"\n")


def emit_raw(line: bytes) -> None:
    """Write one line of results that is UTF-8 already."""
    _write(line + b"\n")


def log(line: str, *, any_process: bool = False) -> None:
    """Write a message to stderr, of several processes the first one's alone unless `any_process`.

    A closed stderr is no reason to stop.
    """
    if any_process or is_first():
        with suppress(OSError):
            click.echo(line, err=True)


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
