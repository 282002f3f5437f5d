"""Documents, docstrings and commands that name files of the repository, and the test command."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))]
CODE = [
    path
    for top in ("textvae", "scripts", "tests", "configs")
    for path in sorted(ROOT.glob(f"{top}/**/*"))
    if path.suffix in {".py", ".toml"}
]

LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
NAMED = re.compile(
    r"(?<![\w/.*-])((?:docs|scripts|tests|textvae|configs)/[\w/.-]*\.(?:py|md|svg|toml))\b"
)
"""A path from the root of the repository."""
MODULE = re.compile(r"`([a-z_]+(?:/[a-z_]+)*\.py)`")
"""A module, from any folder down."""
HISTORY = {"docs/develop/log.md", "CHANGELOG.md"}
"""Documents that may name files that no longer exist."""


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def lost_paths(text: str) -> list[str]:
    """Paths of the repository that a text names and that are not there."""
    names = [name for name in NAMED.findall(text) if not (ROOT / name).exists()]
    folders = [f"/{relative(path)}" for path in CODE]
    names += [m for m in MODULE.findall(text) if not any(p.endswith(f"/{m}") for p in folders)]
    return names


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_every_link_leads_somewhere(path: Path) -> None:
    targets = LINK.findall(path.read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (path.parent / target).exists()] == []


@pytest.mark.parametrize("path", [*DOCUMENTS, *CODE], ids=relative)
def test_every_path_that_is_named_exists(path: Path) -> None:
    if relative(path) not in {*HISTORY, relative(Path(__file__))}:
        assert lost_paths(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("see docs/concepts/none.md.", ["docs/concepts/none.md"]),
        ("(textvae/train/none.py)", ["textvae/train/none.py"]),
        ("`train/none.py` and `train/loop.py`", ["train/none.py"]),
        ("textvae/config.py, tests/conftest.py:12 and runs/docs/none.md", []),
    ],
)
def test_the_rule_for_paths_catches_its_faults(text: str, lost: list[str]) -> None:
    assert lost_paths(text) == lost


def test_the_readme_and_ci_install_for_tests_alike() -> None:
    command = "pip install -c constraints.txt -e '.[test]'"
    assert f"    {command} && pytest\n" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"\nstep {command}" in (ROOT / ".ci/run").read_text(encoding="utf-8")


def test_a_hosted_workflow_runs_what_contributors_run() -> None:
    assert "- run: .ci/run\n" in (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
