"""manifest.json: the sizes and sha256 checksums of the files of a directory, sealed by its own.

The manifest is written in one canonical form and holds a checksum of itself, so that a change to
any byte of it is found as surely as a change to the files it lists. Names in it are plain file
names of regular files: no manifest can make a reader leave its directory.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, cast

import msgspec

from textvae.config import Config, decode, parse_json, shorten
from textvae.errors import CheckpointError, ConfigError
from textvae.storage.files import read_bytes, read_parts
from textvae.version import installed_version

FORMAT = 1
MANIFEST = "manifest.json"
_LARGEST = 1 << 20  # bytes: a manifest lists a handful of files

Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class FileFacts(Config):
    """The size and checksum of one file."""

    size: Annotated[int, msgspec.Meta(ge=0)]
    sha256: Sha256


class Manifest(Config):
    """The contents of manifest.json."""

    format: int
    """The format of the directory; one newer than `FORMAT` is refused."""
    textvae: str
    """The version that wrote it."""
    files: dict[str, FileFacts]
    """By file name, in the order of the names."""
    seal: Sha256
    """The sha256 of the manifest without this entry."""


def plain_name(name: str) -> bool:
    """True for the name of a file in the directory itself, on every system."""
    return re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}", name) is not None


def make_manifest(files: Mapping[str, bytes]) -> bytes:
    """The manifest of files given by name and contents."""
    facts = {
        name: FileFacts(size=len(data), sha256=hashlib.sha256(data).hexdigest())
        for name, data in sorted(files.items())
    }
    return _encode(Manifest(format=FORMAT, textvae=installed_version(), files=facts, seal=""))


def read_manifest(directory: Path) -> Manifest:
    """Read, and check against itself, the manifest of a directory."""
    path = directory / MANIFEST
    data = read_bytes(path, at_most=_LARGEST)
    try:
        value = parse_json(data.decode())
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        raise CheckpointError(f"{path}: not JSON, so the file is damaged") from None
    except ValueError as error:  # a key given twice, for one
        raise CheckpointError(f"{path}: {error}") from None
    version = value.get("format") if isinstance(value, dict) else None
    if isinstance(version, int) and version > FORMAT:  # before all else, which may differ in it
        raise CheckpointError(
            f"{path}: format {shorten(version)} is newer than the format {FORMAT} of this version; "
            "upgrade textvae"
        )
    try:
        manifest = decode(value, Manifest, source=str(path))
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    if manifest.format != FORMAT:
        raise CheckpointError(f"{path}: found format {manifest.format}, expected {FORMAT}")
    for name in manifest.files:
        if not plain_name(name) or name == MANIFEST:
            raise CheckpointError(f"{path}: {ascii(name)[:60]} is not the name of a file beside it")
    if data != _encode(manifest):
        raise CheckpointError(f"{path}: does not match its own checksum, so the file is damaged")
    return manifest


def check_file(path: Path, facts: FileFacts, *, checksum: bool = True) -> bytes:
    """The bytes of a file that is as the manifest says."""
    data = read_bytes(path, at_most=facts.size)
    _compare(path, facts, len(data), hashlib.sha256(data).hexdigest() if checksum else None)
    return data


def hash_file(path: Path, facts: FileFacts, *, checksum: bool = True) -> None:
    """The checks of `check_file`, a piece at a time, for a file that is not needed in memory."""
    size, digest = 0, hashlib.sha256()
    for part in read_parts(path, at_most=facts.size):
        size += len(part)
        digest.update(part)
    _compare(path, facts, size, digest.hexdigest() if checksum else None)


def _compare(path: Path, facts: FileFacts, size: int, sha256: str | None) -> None:
    if size != facts.size:
        raise CheckpointError(
            f"{path}: holds {size} bytes, expected {facts.size}, so the file is cut short"
        )
    if sha256 not in (None, facts.sha256):
        raise CheckpointError(
            f"{path}: does not match its checksum in {MANIFEST}, so the file was changed"
        )


def _encode(manifest: Manifest) -> bytes:
    """The one way to write a manifest, with its seal recomputed."""
    value = cast("dict[str, object]", msgspec.to_builtins(manifest))
    del value["seal"]
    seal = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
    return (json.dumps({**value, "seal": seal}, indent=2) + "\n").encode()
