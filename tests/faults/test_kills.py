"""kill -9 at random moments: the run that goes on ends as the one that was never killed."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from textvae.randomness import hash64, key
from textvae.storage.training_state import load_state

STEPS = 60


def killed_run(
    path: Path, training: Any, fork: Callable[..., Any], trial: int, life: float
) -> tuple[int, int]:
    """Kill a run again and again until it is done; how often, and how often inside a save."""
    kills = inside = 0
    before, stuck = -1, 0
    path.mkdir()
    while True:

        def live() -> None:
            os.write(1, b"!")
            training.run(path, STEPS)

        child = fork(live)
        os.read(child.readers[0], 1)
        # Where nothing came of the last lives, because the machine is busy, they become longer.
        time.sleep(hash64(key(trial, "moment", kills)) % 1000 / 1000 * life * 1.5**stuck)
        child.send(signal.SIGKILL)
        ended = child.wait()
        if ended.code == 0:
            return kills, inside
        assert ended.code == -signal.SIGKILL, ended.stderr
        kills += 1
        left = [entry.name for entry in path.glob("state/.*")]
        inside += any(name.startswith((".tmp-", ".del-")) for name in left)
        state = load_state(path)  # whatever was going on, what is there is whole
        step = -1 if state is None else state.step
        assert before <= step <= STEPS  # and nothing is ever lost
        stuck = 0 if step > before else stuck + 1
        assert stuck < 30
        before = step


def kill_until(
    tmp_path: Path, training: Any, fork: Callable[..., Any], wanted: int, wanted_inside: int
) -> tuple[int, int]:
    begun = time.perf_counter()
    training.run(tmp_path / "straight", STEPS)
    life = (time.perf_counter() - begun) / STEPS * 6  # some three saves
    straight = training.outcome(tmp_path / "straight")
    kills = inside = trial = 0
    while kills < wanted or inside < wanted_inside:
        more, more_inside = killed_run(tmp_path / str(trial), training, fork, trial, life)
        kills, inside, trial = kills + more, inside + more_inside, trial + 1
        assert training.outcome(tmp_path / str(trial - 1)) == straight
        shutil.rmtree(tmp_path / str(trial - 1))
    print(f"{kills} kills, {inside} inside a save, {trial} runs, 0 differences")
    return kills, inside


def test_a_killed_run_ends_as_a_straight_one(
    tmp_path: Path, training: Any, fork: Callable[..., Any]
) -> None:
    kills, _ = kill_until(tmp_path, training, fork, 50, 1)
    assert kills >= 50


@pytest.mark.full
def test_a_thousand_kills(tmp_path: Path, training: Any, fork: Callable[..., Any]) -> None:
    kills, inside = kill_until(tmp_path, training, fork, 1000, 100)
    assert kills >= 1000
    assert inside >= 100
