"""One writer a run: a second is refused in words, and no dead one stands in the way."""

import os
import signal
import time
from pathlib import Path

import pytest

from textvae.errors import CheckpointError, StorageError
from textvae.storage.lock import LOCK, only_writer

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="signals and pipes of POSIX"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


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
