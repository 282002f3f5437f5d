"""Whole files, read with care and written so that a crash leaves the old one or the new one."""

import contextlib
import glob
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from textvae.errors import CheckpointError


def write_file(path: Path, data: bytes) -> None:
    """Put data under a name so that a crash leaves either the old file or the new one, whole.

    The file gets the permissions that the umask leaves, unlike those of the tempfile module.

    Raises:
        CheckpointError: the disk is full, the directory cannot be written, and the like; the old
            file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with saying_why(path):
        # Of processes killed while writing. A live one, were there two, would get an error.
        for stale in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
            stale.unlink(missing_ok=True)
        try:
            write_new(temporary, data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_directory(path.parent)


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


@contextlib.contextmanager
def saying_why(path: Path) -> Iterator[None]:
    """Turn an OSError of writing into a CheckpointError with the path; the cause has the errno."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise CheckpointError(f"{path}: cannot be written: {reason}") from error


def read_bytes(path: Path, *, at_most: int) -> bytes:
    """The bytes of a regular file; links and devices are refused before anything is read.

    Raises:
        CheckpointError: missing, no regular file, unreadable, or larger than allowed.
    """
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            what = "a link" if stat.S_ISLNK(status.st_mode) else "no regular file"
            raise CheckpointError(f"{path}: is {what}, expected a file in the directory itself")
        if status.st_size > at_most:
            raise CheckpointError(f"{path}: holds {status.st_size} bytes, expected {at_most}")
        return path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{path}: the file is missing") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to that takes its name only when all is written, as `write_file` does.

    Raises:
        CheckpointError: it cannot be written; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with saying_why(path):
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            with saying_why(path):
                file.flush()
                os.fsync(descriptor)
        with saying_why(path):
            temporary.replace(path)
            sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
