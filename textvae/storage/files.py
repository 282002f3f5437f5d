"""Whole files, read with care and written so that a crash leaves the old one or the new one.

A file of a model or run that cannot be read is a CheckpointError, one of the user's data a
DataError; a disk that cannot be written is a StorageError, a name that cannot be is a
CheckpointError.
"""

import contextlib
import errno
import glob
import itertools
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from textvae.errors import CheckpointError, DataError, MemoryLimitError, StorageError

# The errors of a faulty disk, as opposed to a wrong name.
_DISK = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
    errno.EFBIG,
    errno.EACCES,
    errno.EPERM,
    errno.EINTR,  # Python repeats reads and writes, but not a rename or the making of a directory
    errno.ESTALE,
}


_WRITERS = itertools.count()
"""Numbers the files that this process writes."""


def is_disk_error(error: BaseException | None) -> bool:
    """True if the disk is full, read-only, over quota, failing or not writable."""
    return isinstance(error, OSError) and error.errno in _DISK


def write_file(path: Path, data: bytes) -> None:
    """Put data under a name so that a crash leaves either the old file or the new one, whole."""
    with replacing(path) as file, saying_why(path):
        file.write(data)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to that takes its name only when all is written and on the disk.

    It gets the permissions that the umask leaves, unlike those of the tempfile module.

    Raises:
        StorageError: the disk is full, read-only and the like; the old file is untouched.
        CheckpointError: no file can have that name, such as one in a directory that is not there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{next(_WRITERS)}.tmp")
    with saying_why(path):
        # Of processes killed while writing; those of live ones stay, which write the same file.
        for stale in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
            if not _is_alive(stale.name.split(".")[-2].partition("-")[0]):
                stale.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    file = os.fdopen(descriptor, "wb")
    try:
        yield file
        with saying_why(path):
            file.flush()
            os.fsync(descriptor)
            file.close()
            temporary.replace(path)
            sync_directory(path.parent)
    finally:
        # Either may fail again where the disk is full or gone; the first error is to be said.
        with contextlib.suppress(OSError):
            file.close()
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _is_alive(pid: str) -> bool:
    """Test for a process of that number on this machine."""
    if os.name == "nt" or not pid.isdecimal():
        return pid.isdecimal()
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # of another user
        return True
    return True


def write_new(path: Path, data: bytes) -> None:
    """Write a file that must not be there yet, and wait until it is on the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def sync_directory(path: Path) -> None:
    """Make renames and new names durable; Windows can neither open nor fsync a directory."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_to_read(path: Path) -> BinaryIO:
    """A file of the user's, open for its bytes."""
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; check the path") from None
    except (OSError, ValueError) as error:  # a NUL in the name is a ValueError
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{ascii(str(path))[1:-1]}: cannot be read: {reason}") from None


@contextlib.contextmanager
def saying_why(path: Path, *, ours: bool = False) -> Iterator[None]:
    """Turn an OSError of writing into one of ours, with the path; the cause has the errno.

    `ours` says that the path was good before, so that whatever fails is the fault of the disk.
    """
    try:
        yield
    except OSError as error:
        kind = StorageError if ours or is_disk_error(error) else CheckpointError
        reason = error.strerror or str(error)
        raise kind(f"{path}: cannot be written: {reason}") from error


def read_bytes(path: Path, *, at_most: int) -> bytes:
    """The bytes of a regular file; links and devices are refused before anything is read."""
    if min(regular_size(path), at_most) > (there := memory_size()):
        raise CheckpointError(f"{path}: is larger than the memory of this machine, {there:,} bytes")
    return b"".join(read_parts(path, at_most=at_most))


def read_parts(path: Path, *, at_most: int) -> Iterator[bytes]:
    """The bytes of `read_bytes`, at most 16 MiB at a time."""
    if (size := regular_size(path)) > at_most:
        raise CheckpointError(f"{path}: holds {size} bytes, expected {at_most}")
    try:
        with path.open("rb") as file:
            while part := file.read(2**24):
                yield part
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None


def regular_size(path: Path) -> int:
    """The bytes of a file that is neither a link nor a device."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        raise CheckpointError(f"{path}: the file is missing") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):
        what = "a link" if stat.S_ISLNK(status.st_mode) else "no regular file"
        raise CheckpointError(f"{path}: is {what}, expected a file in the directory itself")
    return status.st_size


def memory_size() -> int:
    """Bytes of memory of this machine, or that this process may have."""
    if not hasattr(os, "sysconf"):
        return sys.maxsize
    import resource  # noqa: PLC0415 -- not on Windows

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return memory if limit == resource.RLIM_INFINITY else min(memory, limit)


def require_memory(num_bytes: int, what: str, remedy: str) -> None:
    """Refuse work before memory is taken for it.

    Args:
        num_bytes: that it takes at least.
        what: takes them, such as an option with its value.
        remedy: what to do.

    Raises:
        MemoryLimitError: this machine has less.
    """
    if num_bytes > (there := memory_size()):
        raise MemoryLimitError(
            f"{what}: takes at least {num_bytes / 2**30:,.0f} GiB, this machine has "
            f"{there / 2**30:,.0f}; {remedy}"
        )
