"""Full, read-only and vanishing disks: exit code 74, one line, and the last good things kept."""

import contextlib
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from textvae.errors import StorageError
from textvae.storage.checkpoint import verify_directory
from textvae.storage.training_state import load_state

SENTENCES = b"red cat eats\nold fox sees\n" * 50


def limited(size: int) -> Callable[[], None]:
    """Let no file grow beyond so many bytes, as on a disk that is full."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


def refused(child: Any, said: str = "cannot be written: ") -> None:
    ended = child.wait()
    assert ended.code == 74, ended
    lines = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, ended.stderr
    assert said in lines[0]
    assert ended.stderr.endswith(f"{lines[0]}\n")
    assert "Traceback" not in ended.stderr


def train(
    command: Callable[..., Any], data: Path, run: Path, options: tuple[str, ...], **how: Any
) -> Any:
    settings = [word for option in options for word in ("--set", option)]
    return command("train", str(data), "--output", str(run), *settings, **how)


@pytest.fixture
def copy(tiny_run: Path, tmp_path: Path) -> Path:
    """A run that was stopped before it published its model."""
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    for name in ("manifest.json", "model.safetensors", "results.json", "config.json"):
        (run / name).unlink()
    return run


def test_no_room_to_begin(
    command: Callable[..., Any], tiny_data: Path, tiny_overrides: tuple[str, ...], tmp_path: Path
) -> None:
    child = train(command, tiny_data, tmp_path / "run", tiny_overrides, before=limited(100))
    refused(child, "experiment.json: cannot be written: File too large")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {".lock"}


def test_no_room_for_the_model(
    command: Callable[..., Any], tiny_data: Path, tiny_overrides: tuple[str, ...], copy: Path
) -> None:
    size = (copy / "state/step-00000127/state.safetensors").stat().st_size
    child = train(command, tiny_data, copy, tiny_overrides, before=limited(size // 5))
    refused(child, "model.safetensors: cannot be written: File too large")
    assert load_state(copy) is not None
    assert train(command, tiny_data, copy, tiny_overrides).wait().code == 0
    assert all(check.problem is None for check in verify_directory(copy))


@pytest.mark.parametrize("name", ["latents.npz", "latents.jsonl"])
def test_no_room_for_latents(
    command: Callable[..., Any], tiny_run: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(b"old")
    options = ["encode", str(tiny_run), "--output", str(tmp_path / name)]
    refused(command(*options, stdin=SENTENCES, before=limited(509)), f"{name}: cannot be written")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_no_room_for_a_state(
    command: Callable[..., Any], tiny_data: Path, tiny_overrides: tuple[str, ...], tmp_path: Path
) -> None:
    options = (*tiny_overrides, "train.save_every=31", "train.max_steps=62")
    child = train(command, tiny_data, tmp_path / "run", options, before=limited(30_011))
    refused(child, "state/step-00000031: cannot be written: File too large")
    assert list((tmp_path / "run/state").iterdir()) == []


def test_a_directory_that_goes_away(training: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"

    def report(line: str) -> None:
        if line.startswith("step 6/"):
            shutil.rmtree(run)

    with pytest.raises(StorageError, match=r"cannot be written: "):
        training.run(run, 20, report=report)
    assert not run.exists()


FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")


def to_full() -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)


@FULL
@pytest.mark.parametrize(
    "words",
    [["sample"], ["info"], ["evaluate", "--samples", "1", "--json"], ["encode"]],
    ids=lambda words: words[0],
)
def test_results_that_nobody_takes(
    command: Callable[..., Any], used_run: Path, words: list[str]
) -> None:
    verb, *options = words
    refused(command(verb, str(used_run), *options, stdin=SENTENCES, before=to_full))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_small_disk_that_is_read_only(
    command: Callable[..., Any], tiny_run: Path, tiny_data: Path, small_disk: Path
) -> None:
    (small_disk / "a.jsonl").write_bytes(b"old")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    options = ["encode", str(tiny_run), "--output", str(small_disk / "a.jsonl")]
    refused(command(*options, stdin=SENTENCES), "Read-only file system")
    assert (small_disk / "a.jsonl").read_bytes() == b"old"
    refused(train(command, tiny_data, small_disk / "run", ()), "Read-only file system")


@pytest.mark.full
def test_a_disk_that_fills_and_is_emptied(training: Any, small_disk: Path, tmp_path: Path) -> None:
    training.run(tmp_path / "straight", 40)
    filler = small_disk / "filler"

    def fill(line: str) -> None:
        if line.startswith("step 21/"):
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(4096))

    with pytest.raises(StorageError, match="No space left on device"):
        training.run(small_disk / "run", 40, report=fill)
    state = load_state(small_disk / "run")
    assert state is not None
    assert state.step in (18, 20)
    filler.unlink()
    training.run(small_disk / "run", 40)
    assert training.outcome(small_disk / "run") == training.outcome(tmp_path / "straight")
