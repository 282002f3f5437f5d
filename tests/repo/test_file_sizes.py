"""One idea a file: limits on files and functions, names that say nothing, and empty inits."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path for top in ("textvae", "scripts", "tests") for path in ROOT.glob(f"{top}/**/*.py")
)

FILE_LINES = 500
FUNCTION_LINES = 90
EMPTY_NAMES = {"base", "common", "helper", "helpers", "manager", "misc", "util", "utils"}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            assert lines <= FUNCTION_LINES, f"{node.name} has {lines} lines"


def test_names_of_files_say_what_is_in_them() -> None:
    parts = {part for path in SOURCES for part in path.relative_to(ROOT).with_suffix("").parts}
    assert parts.isdisjoint(EMPTY_NAMES)


def test_inner_inits_are_empty() -> None:
    inner = [path for path in (ROOT / "textvae").glob("*/**/__init__.py") if path.read_bytes()]
    assert inner == []
    packages = {path.parent for path in (ROOT / "textvae").glob("*/**/*.py")}
    assert all((package / "__init__.py").exists() for package in packages)
    assert not list((ROOT / "textvae").glob("*/*/*.py")), "sub-packages are one level deep"
