"""Results on stdout, one a line and UTF-8 whatever the locale; talk on stderr."""

import os
import sys
from typing import Any

import click

from textvae.distributed import is_first

_NOT_WRITTEN = "standard output: cannot be written"


class OutputError(Exception):
    """A result that stdout did not take."""


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


def talk(line: str) -> None:
    """Say something to a person; where nobody can hear it, work goes on.

    Of several processes the first one talks.
    """
    if is_first():
        complain(line)


def complain(line: str) -> None:
    """Say something whichever process this is."""
    try:
        click.echo(line, err=True)
    except OSError:
        return


def say_which(model: object, *, named: bool) -> None:
    """Say which model was found, if the user left it out; last, so that an error stands alone."""
    if not named:
        talk(f"model: {model}")


def flush() -> None:
    """Hand over what was emitted, so that a full disk is noticed while it can be said."""
    if sys.stdout is None:  # closed, and so nothing was emitted
        return
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"{_NOT_WRITTEN}: {error.strerror}") from error


def discard_stdout() -> None:
    """Let the interpreter's last flush go nowhere: what it holds could not be written."""
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
