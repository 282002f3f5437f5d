"""One writer a run: a lock that the system lets go of however its holder ends."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from textvae.errors import CheckpointError
from textvae.storage.files import saying_why

LOCK = ".lock"


@contextlib.contextmanager
def only_writer(run: Path) -> Iterator[None]:
    """Hold the run directory, which is there; nobody else writes to it meanwhile.

    The file stays: were it removed, two could hold locks on two files of that name.

    Raises:
        CheckpointError: another process holds it.
        StorageError: the directory cannot be written to.
    """
    if os.name == "nt":  # no flock; a second writer then fails at the first file both replace
        yield
        return
    import fcntl  # noqa: PLC0415 -- not on Windows

    with saying_why(run / LOCK):
        descriptor = os.open(run / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
            raise CheckpointError(
                f"{run}: is being trained by another process ({holder or 'unknown'}); wait for "
                "it, stop it, or give --output another directory"
            ) from None
        except OSError:
            pass  # a file system without locks: better an unguarded run than none
        with saying_why(run / LOCK):
            os.truncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)  # lets go of the lock too
