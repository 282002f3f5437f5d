"""A save that is interrupted, at each of its system calls, and the order in which it writes."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from textvae.errors import StorageError
from textvae.storage.training_state import load_state, save_state

TENSORS = {"weight": torch.arange(7.0), "count": torch.tensor(3)}
EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir", "os.scandir")
ERRORS = (errno.ENOSPC, errno.EIO, errno.EINTR, errno.EDQUOT)
CALLS = "openat mkdir write fsync close rename unlink unlinkat rmdir getdents64 newfstatat lseek"
DAMAGES = ("signal=KILL", "error=ENOSPC", "error=EIO", "error=EINTR")


def begun(run: Path) -> Path:
    """A run with the states of steps 3 and 5."""
    run.mkdir()
    for step in (3, 5):
        save_state(run, step, TENSORS, {"at": step})
    return run


def save(run: Path) -> int:
    """Save step 7; the exit code is that of the command line."""
    try:
        save_state(run, 7, TENSORS, {"at": 7})
    except StorageError as error:
        os.write(2, str(error).encode())
        return error.exit_code
    return 0


def check(run: Path, code: int, said: str) -> None:
    """The last good state loads, no success is claimed without it, and the next save tidies up."""
    state = load_state(run)
    assert state is not None
    assert state.step in (5, 7)
    assert state.facts == {"at": state.step}
    assert torch.equal(state.tensors["weight"], TENSORS["weight"])
    if code == 0:
        assert state.step == 7
    elif code != -signal.SIGKILL:
        assert code == 74, said
        assert "cannot be written: " in said
        assert "\n" not in said
    save_state(run, 11, TENSORS, {"at": 11})
    names = sorted(path.name for path in (run / "state").iterdir())
    assert names == [f"step-{state.step:08d}", "step-00000011"]


class Trouble:
    """Count what a save asks of the system from Python, and fail at one of them."""

    def __init__(self, at: int, number: int) -> None:
        self.left, self.number, self.happened = at, number, False

    def __enter__(self) -> None:
        self.fsync = os.fsync
        sys.addaudithook(self.hook)  # for ever, so only in a process that is about to end
        os.fsync = self.failing_fsync

    def __exit__(self, *_: object) -> None:
        os.fsync = self.fsync
        self.left = -1

    def count(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise OSError(self.number, os.strerror(self.number))

    def hook(self, event: str, _: object) -> None:
        if event in EVENTS:
            self.count()

    def failing_fsync(self, descriptor: int) -> None:
        self.count()
        self.fsync(descriptor)


@pytest.mark.parametrize("number", ERRORS[:2], ids=errno.errorcode.get)
def test_an_error_at_any_call_of_a_save_loses_nothing(
    tmp_path: Path, fork: Callable[..., Any], number: int
) -> None:
    points = failed = 0
    while True:
        points += 1
        run = begun(tmp_path / str(points))
        trouble = Trouble(points, number)

        def act(run: Path = run, trouble: Trouble = trouble) -> int:
            with trouble:
                code = save(run)
                os.write(1, b"out of calls" if trouble.left > 0 else b"")
            return code

        ended = fork(act).wait()
        check(run, ended.code, ended.stderr)
        failed += ended.code == 74
        if ended.stdout:
            break
    assert points > 20
    assert failed > 12  # the others are of what is tidied up, and are passed over


def calls_of(run: Path) -> Iterator[tuple[str, str]]:
    """What a save does to files, in order: what, and to which name in the run."""

    def name(path: object) -> str:
        text = os.fspath(path) if isinstance(path, str | os.PathLike) else ""
        return str(text).replace(str(os.getpid()), "PID").removeprefix(f"{run}/")

    seen: list[tuple[str, str]] = []
    active = [True]

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if active[0] and event in ("os.rename", "os.rmdir") and str(run) in str(arguments[0]):
            seen.append((event, name(arguments[0])))

    fsync = os.fsync

    def watched(descriptor: int) -> None:
        seen.append(("fsync", name(Path(f"/proc/self/fd/{descriptor}").readlink())))
        fsync(descriptor)

    sys.addaudithook(hook)
    os.fsync = watched
    try:
        save(run)
    finally:
        os.fsync = fsync
        active[0] = False
    yield from seen


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs the files of Linux in /proc")
def test_everything_is_on_the_disk_before_the_name_and_the_name_before_the_old_goes(
    tmp_path: Path, fork: Callable[..., Any]
) -> None:
    run = begun(tmp_path / "run")

    def act() -> None:
        os.write(1, "\n".join(f"{what} {name}" for what, name in calls_of(run)).encode())

    ended = fork(act).wait()
    assert ended.code == 0, ended.stderr
    new = "state/.tmp-step-00000007-PID"
    files = [f"fsync {new}/{name}" for name in ("state.safetensors", "state.json", "manifest.json")]
    calls = ended.stdout.splitlines()
    assert calls[:6] == [
        *files,
        f"fsync {new}",
        f"os.rename {new}",
        "fsync state",
    ]
    assert calls[6] == "os.rename state/step-00000003"


def traced(pid: int, inject: str) -> "subprocess.Popen[str]":
    """Strace that has attached itself and injects a fault."""
    command = ["strace", "-f", "-qq", "-p", str(pid), "-o", "/dev/null", "-e", f"inject={inject}"]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    status = Path(f"/proc/{pid}/status")
    for _ in range(5000):
        if "TracerPid:\t0\n" not in status.read_text(encoding="utf-8"):
            return tracer
        if tracer.poll() is not None:
            assert tracer.stderr is not None
            pytest.skip("strace is not installed or may not trace")
        time.sleep(0.002)
    raise AssertionError("strace does not attach")


def interrupted(run: Path, fork: Callable[..., Any], inject: str) -> bool:
    """Save under strace with one fault; whether there was such a call to fail."""
    reader, writer = os.pipe()

    def act() -> int:
        os.read(reader, 1)
        return save(run)

    child = fork(act)
    tracer = traced(child.pid, inject)
    os.write(writer, b"!")
    os.close(writer)
    os.close(reader)
    ended = child.wait()
    tracer.communicate()
    check(run, ended.code, ended.stderr)
    return bool(ended.code != 0)


def trials(
    tmp_path: Path, fork: Callable[..., Any], calls: list[str], damages: tuple[str, ...]
) -> int:
    done = harmed = 0
    for call in calls:
        for damage in damages:
            quiet = 0
            for when in range(1, 60):
                run = begun(tmp_path / f"{call}-{damage}-{when}")
                bad = interrupted(run, fork, f"{call}:{damage}:when={when}")
                shutil.rmtree(run)
                done, harmed = done + 1, harmed + bad
                quiet = 0 if bad else quiet + 1
                if quiet == 4:  # beyond the last, or of calls whose failure is passed over
                    break
    print(f"{done} trials, {harmed} stopped the save, 0 lost")
    return harmed


STRACE = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed or may not trace"
)


@STRACE
def test_a_sample_of_system_calls(tmp_path: Path, fork: Callable[..., Any]) -> None:
    assert trials(tmp_path, fork, ["rename"], ("signal=KILL", "error=EIO")) >= 2


@STRACE
@pytest.mark.full
def test_every_system_call(tmp_path: Path, fork: Callable[..., Any]) -> None:
    assert trials(tmp_path, fork, CALLS.split(), DAMAGES) > 60
