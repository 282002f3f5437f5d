"""Any byte of any file that a manifest lists: changed, cut, added or swapped, it is found."""

import shutil
from pathlib import Path

import pytest

from textvae.errors import CheckpointError
from textvae.randomness import hash64, key
from textvae.storage.checkpoint import verify_directory


def is_found(run: Path) -> bool:
    try:
        return any(check.problem is not None for check in verify_directory(run))
    except CheckpointError:
        return True


def change(run: Path, names: list[str], trial: int) -> None:
    """One random change to one file, found, and taken back."""

    def draw(purpose: str, below: int) -> int:
        return hash64(key(trial, purpose)) % below

    path = run / names[draw("file", len(names))]
    data = path.read_bytes()
    place, kind = draw("place", len(data)), draw("kind", 5)
    other = (run / names[draw("other", len(names))]).read_bytes()
    changed = [
        data[:place] + bytes([data[place] ^ (1 << draw("bit", 8))]) + data[place + 1 :],
        data[:place],
        data[:place] + bytes(1 + draw("more", 9)) + data[place:],
        other if other != data else data + b" ",
        data[place:] + data[:place] if place and data[place:] + data[:place] != data else data[1:],
    ][kind]
    assert changed != data
    path.write_bytes(changed)
    assert is_found(run), (path.name, trial)
    path.write_bytes(data)


@pytest.mark.parametrize("trials", [500, pytest.param(20_000, marks=pytest.mark.full)])
def test_a_random_change_of_any_file_is_found(tiny_run: Path, tmp_path: Path, trials: int) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    names = [check.name for check in verify_directory(run)]
    assert len(names) > 8
    assert not is_found(run)
    for trial in range(trials):
        change(run, names, trial)
    assert not is_found(run)
    print(f"{trials} changes of {len(names)} files, all found")
