"""Take away one fsync, one rename, one check: a test has to go red."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAVES = "tests/faults/test_saves.py::test_everything_is_on_the_disk_before_the_name"
SAVES += "_and_the_name_before_the_old_goes"
MUTATIONS = {
    "fsync of a file": (
        "storage/files.py",
        "        os.fsync(descriptor)\n\n\ndef sync_",
        "\n\ndef sync_",
        SAVES,
    ),
    "fsync of a directory": (
        "storage/training_state.py",
        "            sync_directory(temporary)\n",
        "",
        SAVES,
    ),
    "fsync of the parent": (
        "storage/training_state.py",
        "            temporary.rename(target)\n            sync_directory(root)\n",
        "            temporary.rename(target)\n",
        SAVES,
    ),
    "rename of a state": (
        "storage/training_state.py",
        "            temporary.rename(target)\n",
        "            shutil.copytree(temporary, target)\n",
        SAVES,
    ),
    "rename of a file": (
        "storage/files.py",
        "            temporary.replace(path)\n",
        "            path.write_bytes(temporary.read_bytes())\n",
        "tests/storage/test_files.py",
    ),
    "checksum of a file": (
        "storage/manifest.py",
        "    if sha256 not in (None, facts.sha256):",
        "    if False:",
        "tests/faults/test_bytes.py",
    ),
    "checksum of the manifest": (
        "storage/manifest.py",
        "    if data != _encode(manifest):",
        "    if False:",
        "tests/faults/test_bytes.py",
    ),
    "names in a manifest": (
        "storage/manifest.py",
        "        if not plain_name(name) or name == MANIFEST:",
        "        if False:",
        "tests/storage/test_manifest.py",
    ),
    "links": (
        "storage/files.py",
        "    if not stat.S_ISREG(status.st_mode):",
        "    if False:",
        "tests/storage/test_files.py",
    ),
    "finite parameters": (
        "train/state.py",
        "        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):",
        "        if False:",
        "tests/train/test_divergence.py",
    ),
    "the lock": (
        "storage/lock.py",
        "            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "            pass\n",
        "tests/storage/test_files.py",
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_fits_the_code(name: str) -> None:
    file, old, _, tests = MUTATIONS[name]
    assert (ROOT / "textvae" / file).read_text(encoding="utf-8").count(old) == 1
    assert (ROOT / tests.partition("::")[0]).exists()


@pytest.mark.full
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutant_is_caught(tmp_path: Path, name: str) -> None:
    file, old, new, tests = MUTATIONS[name]
    for part in ("textvae", "tests", "configs"):
        shutil.copytree(ROOT / part, tmp_path / part)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    path = tmp_path / "textvae" / file
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(old, new), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", tests]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    found = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert found.returncode == 1, found.stdout
