"""Help, version and usage errors come at once: they do not import torch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "numpy", "tokenizers", "datasets", "safetensors", "sacrebleu", "huggingface_hub"}
SECONDS = 0.150

# Runs the command as `python -m textvae` does, then names the heavy modules it has imported.
WRAPPER = """
import runpy, sys
sys.argv = ["textvae", *sys.argv[1:]]
code = 0
try:
    runpy.run_module("textvae", run_name="__main__", alter_sys=True)
except SystemExit as stop:
    code = stop.code
print("imported:", *sorted(name for name in sys.modules if "." not in name), file=sys.stderr)
sys.exit(code)
"""

COMMANDS = [
    (["--help"], 0),
    (["--version"], 0),
    (["train", "--help"], 0),
    (["sample", "--help"], 0),
    (["trian"], 2),
    (["train", "--no-such-option"], 2),
    (["sample", "-n", "many"], 2),
    ([], 2),
]


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def imported(result: subprocess.CompletedProcess[str]) -> set[str]:
    return set(result.stderr.rpartition("imported: ")[2].split())


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = "import sys, textvae; print('imported:', *sys.modules, file=sys.stderr)"
    result = run(["-c", program])
    assert result.returncode == 0
    assert imported(result).isdisjoint(HEAVY)


@pytest.mark.parametrize(("arguments", "code"), COMMANDS, ids=lambda value: str(value))
def test_no_torch_for_help_and_usage_errors(arguments: list[str], code: int) -> None:
    result = run(["-c", WRAPPER, *arguments])
    assert result.returncode == code, result.stderr
    assert "textvae" in imported(result)
    assert imported(result).isdisjoint(HEAVY)


@pytest.mark.parametrize(
    ("arguments", "code"), [(["--help"], 0), (["--version"], 0), (["trian"], 2)]
)
def test_help_and_usage_errors_come_at_once(arguments: list[str], code: int) -> None:
    def spent(*command: str, expected: int = 0) -> float:
        before = os.times()
        assert run(list(command)).returncode == expected
        after = os.times()
        system = after.children_system - before.children_system
        return after.children_user - before.children_user + system

    # Processor time: the clock would say who else was running. Even that doubles where a busy
    # neighbour shares the core and its caches, so a bare `import click` is the other measure: the
    # dearest, --version, takes 1.8 times as long by itself and 2.6 times beside other work.
    pairs = [
        (spent("-m", "textvae", *arguments, expected=code), spent("-c", "import click"))
        for _ in range(5)
    ]
    ours, click = (min(times) for times in zip(*pairs, strict=True))
    assert ours < max(SECONDS, 4 * click)
