"""What must not grow: memory, file descriptors and threads with steps, memory with lines."""

import ctypes
import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(
    not Path("/proc").is_dir(), reason="needs the files of Linux in /proc"
)


def held() -> tuple[int, int, int]:
    """Resident bytes, open files, threads; without what earlier tests left to be freed."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc alone
    if trim is not None:
        trim(0)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    files = len(list(Path("/proc/self/fd").iterdir()))
    return pages * os.sysconf("SC_PAGE_SIZE"), files, threading.active_count()


@pytest.mark.parametrize("steps", [1000, pytest.param(20_000, marks=pytest.mark.full)])
def test_training_holds_no_more_at_its_end(training: Any, tmp_path: Path, steps: int) -> None:
    seen: dict[int, tuple[int, int, int]] = {}

    def report(line: str) -> None:
        if line.startswith("step ") and "/" in line.split()[1]:
            step = int(line.split()[1].split("/")[0])
            if step == 501 or step > steps - 3:
                seen[step] = held()

    training.run(tmp_path, steps, 100, report)
    begun = seen[501]
    ended = seen[max(seen)]
    assert max(seen) > steps - 3
    print(f"step 501: {begun}, step {max(seen)}: {ended}")
    assert ended[0] < begun[0] + 2**21
    assert ended[1:] == begun[1:]


@pytest.mark.parametrize("lines", [20_000, pytest.param(1_000_000, marks=pytest.mark.full)])
def test_a_pipe_of_many_lines_takes_no_more_memory(
    command: Callable[..., Any], tiny_run: Path, tmp_path: Path, lines: int
) -> None:
    peaks = []
    for number in (lines // 10, lines):
        text = tmp_path / "lines.txt"
        text.write_bytes(b"red cat eats\nold fox sees\n" * (number // 2))

        def before(text: Path = text) -> None:
            os.dup2(os.open(text, os.O_RDONLY), 0)

        output = tmp_path / "out.npz"
        words = ["encode", str(tiny_run), "-", "--output", str(output)]
        ended = command(*words, before=before).wait()
        assert ended.code == 0, ended.stderr
        peaks.append(ended.peak)
    print(f"peaks: {peaks}")
    assert peaks[1] < peaks[0] + 30 * 2**20
