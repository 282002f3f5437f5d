"""A skip that nobody has listed fails a run that asks for it, as .ci/run does."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = """
import pytest

def test_that_runs():
    pass

@pytest.mark.skipif(True, reason="{reason}")
def test_that_does_not():
    pass
"""


@pytest.mark.parametrize(
    ("reason", "options", "code"),
    [
        ("there is no CUDA device", ["--strict-skips"], 0),
        ("it was raining", ["--strict-skips"], 1),
        ("it was raining", [], 0),
    ],
)
def test_an_unlisted_skip_fails_the_run(
    tmp_path: Path, reason: str, options: list[str], code: int
) -> None:
    shutil.copy(ROOT / "tests/conftest.py", tmp_path / "conftest.py")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_it.py").write_text(TESTS.format(reason=reason))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == code, found.stdout
    assert ("skipped for a reason not listed: test_it.py" in found.stdout) == (reason[0] == "i")


def test_ci_asks_for_it() -> None:
    assert "pytest --strict-skips" in (ROOT / ".ci/run").read_text()
