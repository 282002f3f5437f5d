"""One tiny model, trained by the command line itself once a session."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from textvae.cli.main import program

# As the command line does, but before any test imports torch: see exit_code in cli/process.py.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

Invoke = Callable[..., Result]

# Every size another prime; seconds on one core. The words of the corpus are fewer than 23.
TINY = [
    *("--set", "model.latent_dim=5", "--set", "model.max_length=19"),
    *("--set", "model.encoder.embedding_dim=7", "--set", "model.encoder.hidden_dim=11"),
    *("--set", "model.decoder.embedding_dim=7", "--set", "model.decoder.hidden_dim=13"),
    *("--set", "data.tokenizer.kind=word", "--set", "train.batch_size=17"),
    *("--set", "data.test_share=0.2"),
    *("--set", "evaluate.num_samples=3", "--max-steps", "29", "--save-every", "29"),
    *("--set", "train.validate_every=29", "--device", "cpu", "--precision", "float32"),
]


def _invoke(*arguments: str, stdin: bytes = b"") -> Result:
    return CliRunner(catch_exceptions=False).invoke(program, arguments, input=stdin)


@pytest.fixture(name="invoke", scope="session")
def invoke_fixture() -> Invoke:
    """Run the command line in this process: `invoke("sample", "runs/tiny").stdout`."""
    return _invoke


@pytest.fixture(scope="session")
def tiny_options() -> list[str]:
    return list(TINY)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A directory with tiny.txt and runs/tiny, and what training it said; do not change it."""
    place = tmp_path_factory.mktemp("trained")
    names, verbs = ["cat", "dog", "bird", "fox", "cow"], ["sees", "likes", "eats", "finds"]
    lines = [f"the {a} {verb} the {b} ." for a in names for verb in verbs for b in names]
    (place / "tiny.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        result = _invoke("train", "tiny.txt", *TINY)
    assert result.exit_code == 0, result.stderr
    return place, result


@pytest.fixture
def place(trained: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of `trained` as the working directory, to be read only."""
    monkeypatch.chdir(trained[0])
    return trained[0]


@pytest.fixture
def copy(trained: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as the working directory, to be changed."""
    shutil.copytree(trained[0], tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"
