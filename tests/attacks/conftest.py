"""Hostile and malformed input, each in a forked process with limits on time and memory."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

SECONDS, BYTES = 3.0, 700 * 2**20


@pytest.fixture
def model(tiny_run: Path, tmp_path: Path) -> Path:
    """A model directory to be spoilt."""
    copy = tmp_path / "model"
    shutil.copytree(tiny_run, copy, ignore=shutil.ignore_patterns("state", "data", ".lock"))
    (copy / "experiment.json").unlink()
    return copy


def _reseal(model: Path, **sizes: int) -> None:
    """Make the manifest agree with the files, as whoever made the model would."""
    from textvae.storage.manifest import FORMAT, MANIFEST  # noqa: PLC0415 -- not before torch is wanted

    files = {}
    for path in sorted(model.iterdir()):
        if path.is_file() and path.name != MANIFEST and not path.is_symlink():
            size = sizes.get(path.name, path.stat().st_size)
            data = path.read_bytes() if path.stat().st_size < 2**28 else b""
            files[path.name] = {"size": size, "sha256": hashlib.sha256(data).hexdigest()}
    _write_manifest(model, {"format": FORMAT, "textvae": "0", "files": files})


def _write_manifest(model: Path, value: dict[str, Any]) -> None:
    """A manifest that matches its own checksum, whatever is in it."""
    seal = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
    text = json.dumps({**value, "seal": seal}, indent=2) + "\n"
    (model / "manifest.json").write_text(text, encoding="utf-8")


@pytest.fixture(scope="session")
def reseal() -> Callable[..., None]:
    """The function above."""
    return _reseal


@pytest.fixture(scope="session")
def write_manifest() -> Callable[[Path, dict[str, Any]], None]:
    """The function above."""
    return _write_manifest


@pytest.fixture
def refuse(
    command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Run the command line on something that it must refuse; what it says."""
    monkeypatch.chdir(tmp_path)
    canary = tmp_path / "canary"

    def run(*arguments: str, stdin: bytes = b"", seconds: float = SECONDS) -> str:
        ended = command(*arguments, stdin=stdin).wait()
        assert ended.code == 2, (arguments, ended)
        assert ended.stdout == ""
        assert ended.stderr.startswith("error: "), ended.stderr
        assert ended.stderr.count("\n") == 1, ended.stderr
        assert ended.peak < BYTES
        assert ended.seconds < seconds
        assert not canary.exists()
        return str(ended.stderr)

    return run


@pytest.fixture
def refused(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run the command line here on what it must refuse, and leave as it was; what it says."""
    from textvae.cli.main import program  # noqa: PLC0415 -- as above

    monkeypatch.chdir(tmp_path)

    def names() -> list[str]:
        return sorted(str(path) for path in tmp_path.rglob("*"))

    def run(*arguments: str, stdin: bytes = b"") -> str:
        before, begun = names(), time.process_time()
        result = CliRunner(catch_exceptions=False).invoke(program, arguments, input=stdin)
        assert time.process_time() - begun < 3
        assert result.exit_code == 2, (arguments, result.output)
        assert result.stdout == ""
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1, result.stderr
        assert len(result.stderr) < 600
        assert names() == before
        return result.stderr

    return run
