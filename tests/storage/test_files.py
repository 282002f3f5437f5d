"""files.py: what a reader may find after a write that was cut short, and what is not read."""

import os
import resource
import signal
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from textvae.errors import CheckpointError, DataError, StorageError
from textvae.storage.files import open_to_read, read_bytes, replacing, write_file
from textvae.storage.lock import LOCK, only_writer


@contextmanager
def small_disk() -> Iterator[None]:
    """Let no file grow beyond 1,009 bytes, the next best thing to a full disk.

    Not a fixture: pytest reports a test before it takes fixtures down, and a report that goes to
    a file would then meet the limit and end the whole run.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1009, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_write_file_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_file(path, b"old")
    write_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_replaced_and_never_changed_in_place(tmp_path: Path) -> None:
    # Written in place, a kill between two writes would leave the half of it under the name.
    path = tmp_path / "a.json"
    write_file(path, b"old")
    (tmp_path / "link").hardlink_to(path)
    with path.open("rb") as reader:
        write_file(path, b"new and longer")
        assert reader.read() == b"old"
    assert (tmp_path / "link").read_bytes() == b"old"


def test_write_file_honours_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_file(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".a[1].99999999.tmp").write_bytes(b"half")
    (tmp_path / ".b.99999999.tmp").write_bytes(b"another file's")
    with replacing(tmp_path / "a[1]") as file:
        file.write(b"whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".b.99999999.tmp", "a[1]"]


def test_writers_of_one_file_at_once_both_end_well(tmp_path: Path) -> None:
    with replacing(tmp_path / "a") as first:
        first.write(b"first")
        with replacing(tmp_path / "a") as second:
            second.write(b"second")
        pid = os.fork()
        if pid == 0:
            write_file(tmp_path / "a", b"third")
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert (tmp_path / "a").read_bytes() == b"third"
    assert (tmp_path / "a").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("size", [1_013, 10_007, 1_000_003], ids=["buffered", "at once", "large"])
def test_a_full_disk_keeps_the_old_file_and_says_why(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a"
    write_file(path, b"old")
    refused = pytest.raises(StorageError, match=r"a: cannot be written: File too large$")
    with refused as caught, small_disk():
        write_file(path, bytes(size))
    assert isinstance(caught.value.__cause__, OSError)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    refused = pytest.raises(CheckpointError, match=r"cannot be written: No such file or directory$")
    with refused as caught:
        write_file(tmp_path / "no" / "a", b"")
    assert not isinstance(caught.value, StorageError)  # the user named it: exit code 2


def test_a_writer_that_stops_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_file(path, b"old")

    def fail(file: BinaryIO) -> None:
        file.write(b"half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), replacing(path) as file:
        fail(file)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "words"),
    [("no", "there is no such file"), (".", "Is a directory"), ("a\0b", "a.x00b: cannot be read")],
)
def test_a_file_that_cannot_be_opened_is_said(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        open_to_read(tmp_path / name)


def test_links_pipes_and_large_files_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"seven b")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "zero").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    assert read_bytes(tmp_path / "file", at_most=7) == b"seven b"
    for name, words in {
        "link": "is a link, expected a file in the directory itself",
        "zero": "is a link, expected a file in the directory itself",
        "pipe": "is no regular file, expected",
        "no": "the file is missing",
        "file/no": "cannot be read: Not a directory",
    }.items():
        with pytest.raises(CheckpointError, match=words):
            read_bytes(tmp_path / name, at_most=7)
    with pytest.raises(CheckpointError, match=r"holds 7 bytes, expected 5$"):
        read_bytes(tmp_path / "file", at_most=5)


# -- one writer a run: a second is refused in words, and no dead one stands in the way


def hold(run: Path) -> int:
    """Another process that holds the lock until it is killed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with only_writer(run):
                os.write(writer, b"held")
                time.sleep(60)
        finally:
            os._exit(1)
    os.close(writer)
    assert os.read(reader, 4) == b"held"
    os.close(reader)
    return child


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_second_writer_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    child = hold(tmp_path)
    refused = rf"is being trained by another process \({child}\); wait for it, stop it, or give"
    try:
        with pytest.raises(CheckpointError, match=refused), only_writer(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with only_writer(tmp_path):
        assert (tmp_path / LOCK).read_text() == f"{os.getpid()}\n"


def test_a_lock_that_cannot_be_written_is_the_disk(tmp_path: Path) -> None:
    (tmp_path / LOCK).symlink_to("/proc/version")
    with pytest.raises(StorageError, match=r"\.lock: cannot be written"), only_writer(tmp_path):
        pass
