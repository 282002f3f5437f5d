"""The words of the code: names that say what a value is, docstrings that say what a thing does."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = sorted(ROOT.glob("textvae/**/*.py"))
SOURCES = [*PACKAGE, *sorted(ROOT.glob("scripts/*.py"))]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))]

VAGUE_NAMES = {"found", "told", "given", "wanted", "kept", "chosen", "own", "some"}
"""Participles that fit any value: the name of what it holds is wanted instead."""
VAGUE_OPENINGS = ("What", "Of", "Whether", "Be", "Nothing")
"""First words of a docstring that delays what a thing is or does."""
PHRASES = ("nats a sentence", "nats a token", "bits a character")
"""The field writes `nats per sentence`."""
PRIVATE_WORDS = re.compile(
    r"\b(strange\w*|talks?|told|moonshot|goes on|by a hair)\b", re.IGNORECASE
)
"""Words for which the field has others: anomaly, message, given, goal, continues."""

VAGUE_NAMES_ALLOWED: dict[str, str] = {
    "textvae/data/corpus.py:kept": "a key of data.json and results.json",
}
"""`module.py:name` -> why no other name will do."""
PRIVATE_WORDS_ALLOWED = {
    "textvae/cli/score.py:strange": "a value and a key of its output, which do not change"
}
"""`module.py:word` -> why."""
SHARED_NAMES_ALLOWED: dict[str, str] = {}
"""A public name that two modules define -> why."""


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def bound_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every name that code gives to a value: targets, parameters, and fields."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def vague_names(text: str) -> list[str]:
    return [f"{line}: {name}" for line, name in bound_names(ast.parse(text)) if name in VAGUE_NAMES]


def docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Docstrings, those below a field or a constant too."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:
            if (
                isinstance(statement, ast.Expr)
                and isinstance(statement.value, ast.Constant)
                and isinstance(statement.value.value, str)
            ):
                yield statement.lineno, statement.value.value


def vague_openings(text: str) -> list[str]:
    return [
        f"{line}: {words.splitlines()[0]}"
        for line, words in docstrings(ast.parse(text))
        if words.strip() and words.split()[0].rstrip(",:.") in VAGUE_OPENINGS
    ]


def private_words(text: str) -> list[str]:
    """Every private word in a string of the code, by line."""
    return [
        f"{node.lineno}: {word}"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for word in PRIVATE_WORDS.findall(node.value)
    ]


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_values_have_names_of_their_own(path: Path) -> None:
    hits = vague_names(path.read_text(encoding="utf-8"))
    allowed = {key for key in VAGUE_NAMES_ALLOWED if key.startswith(f"{relative(path)}:")}
    names = {key.rpartition(":")[2] for key in allowed}
    assert [hit for hit in hits if hit.split(": ")[1] not in names] == []


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_docstrings_begin_with_what_a_thing_is_or_does(path: Path) -> None:
    assert vague_openings(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", [*SOURCES, *DOCUMENTS], ids=relative)
def test_rates_are_written_with_per(path: Path) -> None:
    text = " ".join(path.read_text(encoding="utf-8").split())
    assert [phrase for phrase in PHRASES if phrase in text] == []


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_docstrings_help_and_messages_are_in_the_words_of_the_field(path: Path) -> None:
    hits = private_words(path.read_text(encoding="utf-8"))
    words = [hit.split(": ")[1] for hit in hits]
    assert [one for one in words if f"{relative(path)}:{one}" not in PRIVATE_WORDS_ALLOWED] == []


def test_two_public_things_never_share_a_name() -> None:
    homes: dict[str, list[str]] = defaultdict(list)
    for path in PACKAGE:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                homes[node.name].append(relative(path))
    shared = {name: paths for name, paths in homes.items() if len(paths) > 1}
    commands = {"command"}  # each verb of the command line has one
    assert {n: p for n, p in shared.items() if n not in {*SHARED_NAMES_ALLOWED, *commands}} == {}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("found = 1", 1),
        ("for some in x: pass", 1),
        ("def f(own): pass", 1),
        ("with a as kept: pass", 1),
        ("self.told = 1", 1),
        ("a, (given, b) = c", 1),
        ("class A:\n    wanted: int", 1),
        ("found_rows = 1\nx = chosen", 0),
    ],
)
def test_the_rule_for_names_catches_its_faults(text: str, number: int) -> None:
    assert len(vague_names(text)) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ('"""What it is."""', 1),
        ('def f():\n    """Whether so."""', 1),
        ('class A:\n    a: int\n    """Of b."""', 1),
        ('"""Return what it is."""', 0),
        ('"""Offset."""', 0),
    ],
)
def test_the_rule_for_docstrings_catches_its_faults(text: str, number: int) -> None:
    assert len(vague_openings(text)) == number


def test_the_rule_for_words_catches_its_faults() -> None:
    text = 'def f():\n    """Score strange rows."""\n    print("it goes on", "a tolled bell")'
    assert private_words(text) == ["2: strange", "3: goes on"]
