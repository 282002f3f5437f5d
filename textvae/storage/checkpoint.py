"""Model directories on disk.

A model directory holds config.json, model.safetensors, tokenizer.json, README.md and, written
last, manifest.json with the size and sha256 of each. A run directory is a model directory that
also holds experiment.json, metrics.jsonl and state/step-00001234/, one directory a saved state.

Two promises. A process killed at any moment leaves the last good state behind, because files are
written under another name, fsynced, and renamed (the order of Pillai et al. 2014, "All file
systems are not created equal"). And damage is never loaded: of random changes to a safetensors
file every sixth loads as other numbers without a word, so checksums are compared first.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from textvae.errors import CheckpointError
from textvae.storage.files import saying_why, sync_directory, write_file
from textvae.storage.manifest import (
    MANIFEST,
    Manifest,
    check_file,
    hash_file,
    make_manifest,
    plain_name,
    read_manifest,
)
from textvae.storage.tensors import tensor_shapes, tensors_from_bytes
from textvae.storage.training_state import entries_of, states_of

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
CARD = "README.md"
EXPERIMENT = "experiment.json"
METRICS = "metrics.jsonl"
_MODEL_FILES = (CONFIG, WEIGHTS, TOKENIZER, CARD)
_LARGEST = {CONFIG: 2**20, TOKENIZER: 2**26, CARD: 2**24}
"""Bytes: what a file may hold at the most, whatever a manifest says."""


Shapes = Mapping[str, tuple[int, ...]]


class ModelFiles(NamedTuple):
    """An open model directory: its small files, verified, and the shapes of its weights."""

    path: Path
    config: bytes
    tokenizer: bytes
    card: str
    shapes: Shapes
    manifest: Manifest
    verify: bool

    def read_tensors(self) -> "dict[str, Tensor]":
        """Verify all other files, and read the weights."""
        file = self.path / WEIGHTS
        data = check_file(file, self.manifest.files[WEIGHTS], checksum=self.verify)
        for name in self.manifest.files.keys() - set(_MODEL_FILES):
            hash_file(self.path / name, self.manifest.files[name], checksum=self.verify)
        return tensors_from_bytes(data, file)


class FileCheck(NamedTuple):
    """One file of `verify_directory`: its name in the directory, and what is wrong, if anything."""

    name: str
    problem: str | None


def save_model_directory(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a model's files, and manifest.json last: with a manifest the directory is whole.

    `files` are contents by name, the four of a model among them. Other files of the path stay.
    """
    assert set(_MODEL_FILES) <= files.keys()
    assert all(plain_name(name) for name in files)
    manifest = make_manifest(files)
    with saying_why(path):
        path.mkdir(parents=True, exist_ok=True)
        # Without this a crash between two files would look like damage, not like an unfinished run.
        (path / MANIFEST).unlink(missing_ok=True)
        sync_directory(path)
    for name, data in files.items():
        write_file(path / name, data)
    write_file(path / MANIFEST, manifest)


def open_model_directory(path: Path, *, verify: bool = True) -> ModelFiles:
    """Open a model directory: every byte is compared with the manifest before it is used.

    Without `verify` checksums are left out (2 GB/s), but not sizes and names.

    The weights are not read yet, so that a caller can first compare their shapes with the config.

    Raises:
        CheckpointError: not a directory, no model in it, an unfinished run, a missing, changed or
            unreadable file, a format this version does not know.
    """
    manifest = _model_manifest(path)
    data: dict[str, bytes] = {}
    for name, most in _LARGEST.items():
        if (size := manifest.files[name].size) > most:
            raise CheckpointError(f"{path / name}: {size:,} bytes are too many, expected {most:,}")
        data[name] = check_file(path / name, manifest.files[name], checksum=verify)
    try:
        card = data[CARD].decode()
    except UnicodeDecodeError:
        raise CheckpointError(f"{path / CARD}: not UTF-8, so the file is damaged") from None
    shapes = tensor_shapes(path / WEIGHTS, manifest.files[WEIGHTS].size)
    return ModelFiles(path, data[CONFIG], data[TOKENIZER], card, shapes, manifest, verify)


def _model_manifest(path: Path) -> Manifest:
    """The manifest of a directory, or in words why there is none."""
    if not path.exists():
        raise CheckpointError(f"{path}: there is no such run or model directory")
    if not path.is_dir():
        raise CheckpointError(f"{path}: is a file, expected a run or model directory")
    if not (path / MANIFEST).exists():
        if (path / EXPERIMENT).exists():
            raise CheckpointError(
                f"{path}: this run has not finished a model yet; "
                "continue it with the same train command"
            )
        raise CheckpointError(f"{path}: has no {MANIFEST}, so it is no run or model of textvae")
    manifest = read_manifest(path)
    for name in _MODEL_FILES:
        if name not in manifest.files:
            raise CheckpointError(f"{path / MANIFEST}: lists no {name}, which a model needs")
    return manifest


def verify_directory(path: Path) -> list[FileCheck]:
    """Compare every file of a model directory, and of the saved states in it, with its checksum."""
    checks = _checks(path, _model_manifest(path), "")
    for directory in sorted(states_of(path).values()):
        prefix = f"{directory.parent.name}/{directory.name}/"
        try:
            checks += _checks(directory, read_manifest(directory), prefix)
        except CheckpointError as error:
            checks.append(FileCheck(prefix + MANIFEST, str(error)))
    return checks


def _checks(path: Path, manifest: Manifest, prefix: str) -> list[FileCheck]:
    checks = [FileCheck(prefix + MANIFEST, None)]
    for name, facts in manifest.files.items():
        try:
            hash_file(path / name, facts)
        except CheckpointError as error:
            checks.append(FileCheck(prefix + name, str(error)))
        else:
            checks.append(FileCheck(prefix + name, None))
    return checks


def newest_run(root: Path = Path("runs")) -> Path:
    """The run under a directory that was worked on last."""

    def worked_on(run: Path) -> tuple[int, str]:
        marks = [run / name for name in (EXPERIMENT, METRICS, MANIFEST)]
        return max(mark.stat().st_mtime_ns for mark in marks if mark.exists()), run.name

    runs = [path for path in entries_of(root) if (path / EXPERIMENT).is_file()]
    if not runs:
        raise CheckpointError(
            f"{root}/: there is no run; name a run directory, or make one with: textvae train"
        )
    return max(runs, key=worked_on)
