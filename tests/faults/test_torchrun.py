"""The verbs under the real torchrun: two processes write what one writes, and end together."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from textvae.storage.training_state import load_state

pytestmark = pytest.mark.full
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def textvae(
    *words: str | Path, ranks: int = 2, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    start = TORCHRUN if ranks == 2 else [sys.executable]
    line = [*start, "-m", "textvae", *map(str, words)]
    return subprocess.run(line, input=stdin, capture_output=True, text=True, timeout=300)


def settings(overrides: tuple[str, ...]) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]


def test_the_verbs_of_two_processes_are_those_of_one(
    tmp_path: Path, tiny_data: Path, tiny_overrides: tuple[str, ...], tiny_run: Path
) -> None:
    made = textvae("train", tiny_data, "--output", tmp_path / "two", *settings(tiny_overrides))
    assert made.returncode == 0, made.stderr
    facts = [
        json.loads((run / "results.json").read_bytes()) for run in (tiny_run, tmp_path / "two")
    ]
    elbos = [found["training"]["validation_elbo"] for found in facts]
    assert elbos[1] == pytest.approx(elbos[0], rel=1e-5)
    lines = (tiny_data / "test.txt").read_text(encoding="utf-8")
    copy = shutil.copytree(tiny_run, tmp_path / "copy")  # `score` keeps something beside it
    filters = (["encode", tiny_run, "-"], ["score", copy, "-", "--threshold", "0.2"])
    for verb in (["sample", tiny_run, "-n", "9"], *filters, ["info", tiny_run]):
        one, two = (textvae(*verb, ranks=ranks, stdin=lines).stdout for ranks in (1, 2))
        assert one
        assert one == two
    figures = [
        textvae("evaluate", tiny_run, "-", "--json", ranks=ranks, stdin=lines) for ranks in (1, 2)
    ]
    one, two = (json.loads(found.stdout) for found in figures)
    assert one["nll"] == two["nll"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_one_process_that_ends_ends_the_run_within_a_minute(
    tmp_path: Path, tiny_data: Path, tiny_overrides: tuple[str, ...], number: int
) -> None:
    run, endless = tmp_path / "run", ("train.max_steps=1000000", "train.save_every=20")
    line = [*TORCHRUN, "-m", "textvae", "train", str(tiny_data), "--output", str(run)]
    line += settings((*tiny_overrides, *endless))
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 120
        while not (run / "state").is_dir() or not any((run / "state").glob("step-*")):
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.1)
        told = subprocess.run(
            ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
        )
        ranks = [
            int(child)
            for child in told.stdout.split()
            if b"RANK=1" in Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        ]
        begun = time.monotonic()
        os.kill(ranks[0], number)
        _, talk = process.communicate(timeout=60)
        assert time.monotonic() - begun < 60
    assert process.returncode != 0
    assert re.search(r"exitcode\s*: *(-9|143)", talk), talk
    state = load_state(run)
    assert state is not None
    assert state.step % 20 == 0 or number == signal.SIGTERM
