"""SIGTERM and SIGINT at random moments of every verb: 143 or 130, one line, no traceback."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from textvae.randomness import hash64, key

LINES = b"red cat eats\nold fox sees\n" * 30_000
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}


def verbs(run: Path, data: Path, place: Path) -> list[list[str]]:
    """Each with enough to do."""
    model, corpus = str(run), str(place / "lines.txt")
    return [
        ["train", str(data), "--output", str(place / "new"), "--max-steps", "100000"],
        ["sample", model, "-n", "1000000"],
        ["interpolate", model, "red cat eats", "old fox sees", "--steps", "200000"],
        ["reconstruct", model],
        ["encode", model, corpus, "--output", str(place / "out.npz")],
        ["decode", model, str(place / "latents.jsonl")],
        ["neighbors", model, "red cat eats", "--corpus", corpus],
        ["analogy", model],
        ["attribute", model, "--from", corpus, "--to", corpus],
        ["evaluate", model, corpus, "--samples", "1000000"],
        ["score", model, "--reference", corpus],
        ["classify", model, "--labelled", str(place / "labelled.csv")],
        ["report", model, corpus, "--output", str(place / "report")],
        ["info", model, "--verify"],
    ]


def until_it_listens(child: Any) -> None:
    """Wait for the handler: on a busy machine a child may not have come to it in 20 ms."""
    status = Path(f"/proc/{child.pid}/status")
    for _ in range(2000 if status.exists() else 0):
        caught = next(
            line for line in status.read_text(encoding="ascii").splitlines() if "SigCgt" in line
        )
        if int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.001)


def stop(child: Any, number: int, delay: float) -> bool:
    """Whether it was stopped by the signal, and not done before."""
    os.read(child.readers[0], 1)
    until_it_listens(child)
    time.sleep(delay)
    child.send(number)
    ended = child.wait()
    assert ended.code in (CODES[signal.Signals(number)], 0), ended
    assert "Traceback" not in ended.stderr
    if ended.code:
        assert "stopped" in ended.stderr.splitlines()[-1], ended.stderr
    return bool(ended.code)


@pytest.mark.parametrize("rounds", [1, pytest.param(9, marks=pytest.mark.full)])
def test_every_verb_answers(
    command: Callable[..., Any],
    tiny_run: Path,
    tiny_data: Path,
    tmp_path: Path,
    rounds: int,
) -> None:
    (tmp_path / "lines.txt").write_bytes(LINES)
    (tmp_path / "labelled.csv").write_bytes(
        b"text,label\nred cat eats,a\nold fox sees,b\n" * 30_000
    )
    (tmp_path / "latents.jsonl").write_bytes(b"[0, 0, 0, 0, 0]\n" * 50_000)
    shutil.copytree(tiny_run, tmp_path / "run")
    stopped = trial = 0
    for _ in range(rounds):
        for words in verbs(tmp_path / "run", tiny_data, tmp_path):
            trial += 1
            number = (signal.SIGTERM, signal.SIGINT)[trial % 2]
            child = command(*words, stdin=LINES, before=lambda: os.write(1, b"!"))
            # Signals before the first line of Python are the interpreter's own affair.
            delay = 0.02 + hash64(key(trial, "delay")) % 1000 / 2500
            stopped += stop(child, number, delay)
    assert not list(tmp_path.glob(".*.tmp"))  # and nothing half-written is left
    assert stopped > trial * 2 // 3
    print(f"{trial} signals, {stopped} stopped a verb, the others came too late")
