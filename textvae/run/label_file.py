"""The names of a model's labels in its directory: labels.json, a list in the model's order."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from textvae.errors import CheckpointError
from textvae.storage.manifest import check_file, read_manifest

LABELS = "labels.json"


def label_files(names: Sequence[str]) -> dict[str, bytes]:
    """The file, by name."""
    return {LABELS: msgspec.json.format(msgspec.json.encode(list(names)), indent=2) + b"\n"}


def read_labels(path: Path, *, has_labels: bool, verify: bool = True) -> tuple[str, ...]:
    """The names of the labels of a model directory; none for a model without labels.

    CheckpointError where the file is missing, damaged, or of another model.
    """
    listed = read_manifest(path).files
    if has_labels != (LABELS in listed):
        fault = "is missing" if has_labels else "belongs to a model with labels"
        raise CheckpointError(f"{path / LABELS}: {fault}; take all files from the same model")
    if not has_labels:
        return ()
    data = check_file(path / LABELS, listed[LABELS], checksum=verify)
    try:
        names = msgspec.json.decode(data, type=tuple[str, ...])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise CheckpointError(f"{path / LABELS}: not a list of names, so it is damaged") from None
    if not names or len(set(names)) != len(names):
        raise CheckpointError(f"{path / LABELS}: not a list of different names, so it is damaged")
    return names
