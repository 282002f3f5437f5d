"""The training state of a run on disk: state/step-00001234/, one directory per saved state.

A state is written file by file under another name, each file fsynced, its manifest with the sha256
of each last; then it is renamed and the parent directory synced, and only then older ones go (the
order of Pillai et al. 2014, "All file systems are not created equal"). The newest state whose
manifest verifies is loaded; a damaged one is named and skipped.
"""

import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from textvae.config import parse_json
from textvae.errors import CheckpointError, StorageError
from textvae.storage.files import saying_why, sync_directory, write_new
from textvae.storage.manifest import MANIFEST, check_file, make_manifest, read_manifest
from textvae.storage.tensors import tensors_from_bytes, tensors_to_bytes

if TYPE_CHECKING:
    from torch import Tensor

_STATE_TENSORS = "state.safetensors"
_STATE_FACTS = "state.json"

_logger = logging.getLogger(__name__)


class State(NamedTuple):
    """A saved training state: tensors and plain facts as given to `save_state`."""

    step: int
    tensors: "dict[str, Tensor]"
    facts: dict[str, object]
    path: Path


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
    then states before the newest `keep` >= 1 are removed, and one of the same step is replaced.
    `facts` is whatever JSON can hold, its numbers finite. Returns the directory of the state.

    Raises:
        StorageError: it could not be written; the states before are untouched.
    """
    assert step >= 0
    assert keep >= 1
    words = json.dumps({"step": step, "facts": dict(facts)}, indent=2, allow_nan=False) + "\n"
    files = {_STATE_TENSORS: tensors_to_bytes(tensors), _STATE_FACTS: words.encode()}
    root = run / "state"
    target = root / f"step-{step:08d}"
    temporary = root / f".tmp-{target.name}-{os.getpid()}"
    with saying_why(target, ours=True):
        if not run.is_dir():
            raise StorageError(f"{target}: cannot be written: {run} is gone")
        root.mkdir(exist_ok=True)
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
        states = _states_among(root.iterdir())
        earlier = sorted(item for item in states.items() if item[0] <= step)
        for _, old in earlier[:-keep]:
            old.rename(root / f".del-{old.name}-{os.getpid()}")  # never a half-removed state
        _remove_stale(root)
    return target


def load_state(run: Path) -> State | None:
    """The newest undamaged state of a run; damaged ones are named in a warning and skipped.

    None where no state was ever saved; CheckpointError where all of them are damaged.
    """
    states = states_of(run)
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
    tensors = tensors_from_bytes(data[_STATE_TENSORS], path / _STATE_TENSORS)
    return State(step, tensors, facts, path)


def set_aside(run: Path, step: int) -> None:
    """Take a state that does not lead on out of the way, so that the one before it is loaded.

    It is kept as `diverged-step-...`, as it may hold the best parameters of the run.
    """
    root, path = run / "state", states_of(run)[step]
    aside = root / f"diverged-{path.name}"
    with saying_why(aside, ours=True):
        if aside.exists():  # of the last time that it came to this
            aside.rename(root / f".del-{aside.name}-{os.getpid()}")
        path.rename(aside)
        sync_directory(root)
        _remove_stale(root)


def states_of(run: Path) -> dict[int, Path]:
    """The saved states by step, whether or not they are whole."""
    return _states_among(entries_of(run / "state"))


def _states_among(entries: Iterable[Path]) -> dict[int, Path]:
    matches = {path: re.fullmatch(r"step-(\d{8,12})", path.name) for path in entries}
    return {int(match[1]): path for path, match in matches.items() if match}


def entries_of(path: Path) -> Iterator[Path]:
    """The entries of a directory; none if it does not exist."""
    try:
        yield from path.iterdir()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None


def _remove_stale(root: Path) -> None:
    """Remove what a killed save left: half-written states, and states half removed."""
    for path in list(root.iterdir()):
        if path.name.startswith((".tmp-", ".del-")):
            shutil.rmtree(path, ignore_errors=True)
