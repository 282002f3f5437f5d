"""Readers that go away, outputs that are closed, and no network: for every verb."""

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

WORDS = {
    "sample": ["-n", "50000"],
    "interpolate": ["red cat eats", "old fox sees", "--steps", "5000"],
    "reconstruct": [],
    "encode": [],
    "info": [],
    "evaluate": ["--samples", "1"],
    "recipes": [],
}
LINES = b"red cat eats\nold fox sees\n" * 5_000


def start(command: Callable[..., Any], run: Path, verb: str, **how: Any) -> Any:
    model = [] if verb == "recipes" else [str(run)]
    return command(verb, *model, *WORDS[verb], stdin=LINES, **how)


@pytest.mark.parametrize("verb", WORDS)
def test_a_reader_that_goes_away(command: Callable[..., Any], used_run: Path, verb: str) -> None:
    reader, writer = os.pipe()

    def before() -> None:
        os.close(reader)
        os.dup2(writer, 1)

    child = start(command, used_run, verb, before=before)
    os.close(writer)
    # As `| head -1` does, but for a verb that says no more than a line: nobody reads that either.
    os.read(reader, 1)
    os.close(reader)
    ended = child.wait()
    assert ended.code == 0, ended
    assert "rror" not in ended.stderr


@pytest.mark.parametrize("verb", ["sample", "info"])
def test_a_closed_output(command: Callable[..., Any], used_run: Path, verb: str) -> None:
    def before() -> None:
        sys.stdout = None  # type: ignore[assignment]  # what Python makes of a closed descriptor
        os.close(1)

    ended = start(command, used_run, verb, before=before).wait()
    assert ended.code == 74, ended
    assert ended.stderr == "error: standard output: cannot be written: it is closed\n"


def test_local_models_never_ask_the_network(command: Callable[..., Any], used_run: Path) -> None:
    def before() -> None:
        def hook(event: str, arguments: tuple[object, ...]) -> None:
            if event.startswith("socket."):
                os.write(2, f"{event} {arguments[1:]}".encode())
                os._exit(99)

        sys.addaudithook(hook)

    for verb in ("info", "sample", "encode"):
        ended = start(command, used_run, verb, before=before).wait()
        assert ended.code == 0, ended.stderr

    def tries() -> None:
        before()
        socket.create_connection(("127.0.0.1", 9))

    assert command("recipes", before=tries).wait().code == 99  # the guard guards
