"""What is on disk: the model directory, and the training state of a run.

A model directory holds config.json, model.safetensors, tokenizer.json, README.md and, written
last, manifest.json with the size and sha256 of each. A run directory is a model directory that
also holds experiment.json, metrics.jsonl and state/step-00001234/, one directory a saved state.

Two promises. A process killed at any moment leaves the last good state behind, because files are
written under another name, fsynced, and renamed (the order of Pillai et al. 2014, "All file
systems are not created equal"). And damage is never loaded: of random changes to a safetensors
file every sixth loads as other numbers without a word, so checksums are compared first.
"""

import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from textvae.config import parse_json
from textvae.errors import CheckpointError
from textvae.files import saying_why, sync_directory, write_file, write_new
from textvae.manifest import (
    MANIFEST,
    Manifest,
    check_file,
    make_manifest,
    plain_name,
    read_manifest,
)

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
CARD = "README.md"
EXPERIMENT = "experiment.json"
METRICS = "metrics.jsonl"
_MODEL_FILES = (CONFIG, WEIGHTS, TOKENIZER, CARD)
_STATE_TENSORS = "state.safetensors"
_STATE_FACTS = "state.json"

_logger = logging.getLogger(__name__)


class ModelFiles(NamedTuple):
    """The verified contents of a model directory."""

    config: bytes
    tokenizer: bytes
    tensors: "dict[str, Tensor]"
    card: str
    manifest: Manifest


class FileCheck(NamedTuple):
    """One file of `verify_directory`: its name in the directory, and what is wrong, if anything."""

    name: str
    problem: str | None


class State(NamedTuple):
    """A saved training state: tensors and plain facts as given to `save_state`."""

    step: int
    tensors: "dict[str, Tensor]"
    facts: dict[str, object]
    path: Path


# -- tensors -----------------------------------------------------------------------------------


def tensors_to_bytes(tensors: "Mapping[str, Tensor]") -> bytes:
    """Safetensors bytes, the same for the same tensors; tied weights become copies."""
    from safetensors.torch import save  # noqa: PLC0415 -- costs an import of torch, 1 s

    seen: set[int] = set()
    owned: dict[str, Tensor] = {}
    for name in sorted(tensors):
        tensor = tensors[name].detach().to("cpu").contiguous()
        storage = tensor.untyped_storage()
        # safetensors refuses tensors that share memory; two names for one weight are fine here.
        if storage.data_ptr() in seen:
            tensor = tensor.clone()
        seen.add(storage.data_ptr())
        owned[name] = tensor
    data: bytes = save(owned)
    return data


def _tensors_from_bytes(data: bytes, path: Path) -> "dict[str, Tensor]":
    from safetensors import SafetensorError  # noqa: PLC0415 -- as above
    from safetensors.torch import load  # noqa: PLC0415 -- as above

    try:
        tensors: dict[str, Tensor] = load(data)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        # A KeyError is a number format that safetensors knows and torch does not.
        reason = ascii(str(error))[1:80]
        raise CheckpointError(f"{path}: not readable as safetensors: {reason}") from None
    return tensors


# -- the model directory -------------------------------------------------------------------------


def save_model_directory(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a model's files, and manifest.json last: with a manifest the directory is whole.

    Args:
        path: made if it is not there; other files in it stay.
        files: contents by name, the four of a model among them.

    Raises:
        CheckpointError: it cannot be written.
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


def load_model_directory(path: Path, *, verify: bool = True) -> ModelFiles:
    """Read a model directory, every byte compared with its manifest before any is used.

    Args:
        path: a run directory or a model directory.
        verify: False leaves out the checksums (2 GB/s), but not sizes and names.

    Raises:
        CheckpointError: not a directory, no model in it, an unfinished run, a missing, changed or
            unreadable file, a format this version does not know.
    """
    manifest = _model_manifest(path)
    data = {
        name: check_file(path / name, manifest.files[name], checksum=verify)
        for name in manifest.files
    }
    try:
        card = data[CARD].decode()
    except UnicodeDecodeError:
        raise CheckpointError(f"{path / CARD}: not UTF-8, so the file is damaged") from None
    tensors = _tensors_from_bytes(data[WEIGHTS], path / WEIGHTS)
    return ModelFiles(data[CONFIG], data[TOKENIZER], tensors, card, manifest)


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
    """Compare every file of a model directory, and of the saved states in it, with its checksum.

    Raises:
        CheckpointError: the directory has no manifest that can be read.
    """
    checks = _checks(path, _model_manifest(path), "")
    for directory in sorted(_states(path).values()):
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
            check_file(path / name, facts)
        except CheckpointError as error:
            checks.append(FileCheck(prefix + name, str(error)))
        else:
            checks.append(FileCheck(prefix + name, None))
    return checks


def newest_run(root: Path = Path("runs")) -> Path:
    """The run under a directory that was worked on last.

    Raises:
        CheckpointError: there is none.
    """

    def worked_on(run: Path) -> tuple[int, str]:
        marks = [run / name for name in (EXPERIMENT, METRICS, MANIFEST)]
        return max(mark.stat().st_mtime_ns for mark in marks if mark.exists()), run.name

    runs = [path for path in _entries(root) if (path / EXPERIMENT).is_file()]
    if not runs:
        raise CheckpointError(
            f"{root}/: there is no run; name a run directory, or make one with: textvae train"
        )
    return max(runs, key=worked_on)


# -- the training state ----------------------------------------------------------------------------


def save_state(
    run: Path,
    step: int,
    tensors: "Mapping[str, Tensor]",
    facts: Mapping[str, object],
    *,
    keep: int = 2,
) -> Path:
    """Save what a run needs to continue after a step, exactly or not at all.

    The state is written into a temporary directory that is renamed when all is on the disk; only
    then states before the newest `keep` are removed.

    Args:
        run: the run directory.
        step: names the directory; a state of the same step is replaced.
        tensors: model, optimizer and the like, on any device.
        facts: whatever JSON can hold; numbers are finite.
        keep: how many states to leave, this one among them; at least 1.

    Returns:
        The directory of the state.

    Raises:
        CheckpointError: it could not be written; the states before are untouched.
    """
    assert step >= 0
    assert keep >= 1
    words = json.dumps({"step": step, "facts": dict(facts)}, indent=2, allow_nan=False) + "\n"
    files = {_STATE_TENSORS: tensors_to_bytes(tensors), _STATE_FACTS: words.encode()}
    root = run / "state"
    target = root / f"step-{step:08d}"
    temporary = root / f".tmp-{target.name}-{os.getpid()}"
    with saying_why(target):
        root.mkdir(parents=True, exist_ok=True)
        _remove_stale(root)
        try:
            temporary.mkdir()
            for name, data in {**files, MANIFEST: make_manifest(files)}.items():
                write_new(temporary / name, data)
            sync_directory(temporary)
            if target.exists():  # damaged, or the run was rewound: this one counts
                target.rename(root / f".del-{target.name}-{os.getpid()}")
            temporary.rename(target)
            sync_directory(root)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        # Later states are damaged ones that a run fell back from: they do not use up `keep`, and
        # they are not ours to remove before the run has passed them.
        earlier = sorted(item for item in _states(run).items() if item[0] <= step)
        for _, old in earlier[:-keep]:
            old.rename(root / f".del-{old.name}-{os.getpid()}")  # never a half-removed state
        _remove_stale(root)
    return target


def load_state(run: Path) -> State | None:
    """The newest undamaged state of a run; damaged ones are named in a warning and skipped.

    Returns:
        None where no state was ever saved.

    Raises:
        CheckpointError: there are states, and all of them are damaged.
    """
    states = _states(run)
    for step in sorted(states, reverse=True):
        try:
            return _read_state(states[step], step)
        except CheckpointError as error:
            _logger.warning("%s; falling back to the state before it", error)
    if states:
        raise CheckpointError(
            f"{run / 'state'}: all {len(states)} saved states are damaged; "
            "move the run directory away to start again"
        )
    return None


def _read_state(path: Path, step: int) -> State:
    manifest = read_manifest(path)
    if manifest.files.keys() != {_STATE_TENSORS, _STATE_FACTS}:
        raise CheckpointError(f"{path / MANIFEST}: lists other files than a state has")
    data = {name: check_file(path / name, facts) for name, facts in manifest.files.items()}
    try:
        content = parse_json(data[_STATE_FACTS].decode())
    except (ValueError, RecursionError):
        content = None
    facts = content.get("facts") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(facts, dict):
        raise CheckpointError(f"{path / _STATE_FACTS}: not the facts of a state")
    if content.get("step") != step:
        raise CheckpointError(f"{path}: holds step {content.get('step')}, so it was renamed")
    tensors = _tensors_from_bytes(data[_STATE_TENSORS], path / _STATE_TENSORS)
    return State(step, tensors, facts, path)


def _states(run: Path) -> dict[int, Path]:
    names = {path: re.fullmatch(r"step-(\d{8,12})", path.name) for path in _entries(run / "state")}
    return {int(found[1]): path for path, found in names.items() if found}


def _entries(path: Path) -> Iterator[Path]:
    try:
        yield from path.iterdir()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None


def _remove_stale(root: Path) -> None:
    """Remove what a killed save left: half-written states, and states half removed."""
    for path in _entries(root):
        if path.name.startswith((".tmp-", ".del-")):
            shutil.rmtree(path, ignore_errors=True)
