"""Imports run downwards: the table of floors as data, and the imports read with ast."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parents[2] / "textvae"

# A unit is a module of the root, or a package with all in it. A unit imports from lower floors
# only: two on one floor do not know each other. docs/develop/architecture.md has the same table.
FLOORS = {
    "cli": 10,
    "__init__": 10,
    "__main__": 11,  # calls cli
    "report": 9,
    "api": 8,
    "run": 7,
    "evaluate": 6,
    "train": 5,
    "generate": 4,
    "metrics": 4,
    "data": 3,
    "model": 3,
    "kernels": 2,
    "storage": 2,
    "config": 1,
    "distributed": 1,
    "randomness": 1,
    "errors": 0,
    "randomness_triton": 0,
    "version": 0,
}

# Heavy or peculiar packages, and the only modules that may import them.
HOMES = {
    "tokenizers": ["data.tokenizer", "data.tokenizer_format"],
    "datasets": ["data.corpus", "data.hub"],
    "huggingface_hub": ["data.hub", "storage.checkpoint", "api.text_vae"],
    "sacrebleu": ["metrics.text_quality"],
    "safetensors": ["storage.tensors"],
    "numpy": ["api.latent_file"],
    "click": ["cli"],
    "tqdm": ["train.metrics", "cli"],
    "sklearn": ["metrics.prototypes"],
    "triton": ["randomness_triton"],
}


class Edge(NamedTuple):
    """One import: the importing module, without the name of the package, and what it names."""

    module: str
    target: str
    line: int


def module_name(path: Path, package: Path) -> str:
    """data/corpus.py -> data.corpus; data/__init__.py -> data; __init__.py -> __init__."""
    parts = list(path.relative_to(package).with_suffix("").parts)
    if parts[-1] == "__init__" and len(parts) > 1:
        parts.pop()
    return ".".join(parts)


def imports(package: Path) -> Iterator[Edge]:
    """Every import statement, those inside functions and under TYPE_CHECKING too."""
    for path in sorted(package.rglob("*.py")):
        module = module_name(path, package)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Edge(module, alias.name, node.lineno)
            elif isinstance(node, ast.ImportFrom):
                target = "." * node.level + (node.module or "")
                if target.split(".")[0] == "textvae":
                    # `from textvae.data import corpus` names a module, not something in one.
                    for alias in node.names:
                        yield Edge(module, resolve(package, target, alias.name), node.lineno)
                else:
                    yield Edge(module, target, node.lineno)


def resolve(package: Path, target: str, name: str) -> str:
    inside = package.joinpath(*target.split(".")[1:])
    is_module = (inside / f"{name}.py").exists() or (inside / name / "__init__.py").exists()
    return f"{target}.{name}" if is_module else target


def faults(package: Path) -> list[str]:
    found: list[str] = []
    graph: dict[str, set[str]] = {}
    for module, target, line in imports(package):
        where = f"{module}:{line}: "
        unit, home = module.split(".")[0], target.split(".")[0]
        if target.startswith("."):
            found.append(f"{where}relative import")
        elif target == "textvae":
            found.append(f"{where}imports the root of the package")
        elif home == "textvae":
            inner = target.removeprefix("textvae.")
            other = inner.split(".")[0]
            graph.setdefault(module, set()).add(inner)
            if unit not in FLOORS or other not in FLOORS:
                found.append(f"{where}{unit} or {other} has no floor")
            elif unit != other and FLOORS[other] >= FLOORS[unit]:
                found.append(f"{where}{unit} (floor {FLOORS[unit]}) imports {other}, not below it")
        elif home in HOMES and not any(
            f"{module}.".startswith(f"{allowed}.") for allowed in HOMES[home]
        ):
            found.append(f"{where}{home} is not at home here")
    return found + circles(graph)


def circles(graph: dict[str, set[str]]) -> list[str]:
    found: list[str] = []
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        if module in path:
            found.append("circle: " + " -> ".join([*path[path.index(module) :], module]))
        elif module not in done:
            for target in sorted(graph.get(module, ())):
                visit(target, (*path, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())
    return found


def test_imports_run_downwards() -> None:
    assert faults(PACKAGE) == []


def test_the_configuration_of_an_experiment_imports_no_trainer() -> None:
    code = "import sys, textvae.run.experiment; print('textvae.train.loop' in sys.modules)"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


def test_the_document_has_the_same_table() -> None:
    text = (PACKAGE.parent / "docs/develop/architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (`[^|]+) \|", text, flags=re.MULTILINE)
    assert {
        unit: int(floor) for floor, units in rows for unit in re.findall(r"`(\w+)`", units)
    } == (FLOORS)


def test_every_module_has_a_floor() -> None:
    units = {module_name(path, PACKAGE).split(".")[0] for path in PACKAGE.rglob("*.py")}
    assert units <= FLOORS.keys()


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ({"data/corpus.py": "from textvae.errors import DataError"}, None),
        ({"data/a.py": "import textvae.data.b", "data/b.py": "import json"}, None),
        (
            {"data/a.py": "import textvae.train.loop"},
            "data.a:1: data (floor 3) imports train, not below it",
        ),
        ({"kernels/a.py": "def f():\n from textvae.model.vae import V"}, "kernels.a:2: kernels (f"),
        (
            {"config.py": "from textvae import distributed", "distributed.py": ""},
            "config:1: config (floor 1) imports distributed, not below it",
        ),
        ({"data/a.py": "from textvae.model.vae import V"}, "data.a:1: data (floor 3) imports m"),
        ({"model/a.py": "import textvae.data.batching"}, "model.a:1: model (floor 3) imports d"),
        ({"data/a.py": "from . import b"}, "data.a:1: relative import"),
        ({"data/a.py": "from ..errors import E"}, "data.a:1: relative import"),
        ({"cli/a.py": "import textvae"}, "cli.a:1: imports the root of the package"),
        ({"cli/a.py": "from textvae import TextVAE"}, "cli.a:1: imports the root of the package"),
        ({"cli/a.py": "import textvae.misc"}, "cli.a:1: cli or misc has no floor"),
        (
            {"data/a.py": "from textvae.data import b", "data/b.py": "import textvae.data.a"},
            "circle: data.a -> data.b -> data.a",
        ),
        ({"train/loop.py": "import datasets"}, "train.loop:1: datasets is not at home here"),
        ({"cli/main.py": "import click.testing"}, None),
    ],
)
def test_each_rule_catches_its_fault(
    tmp_path: Path, files: dict[str, str], fault: str | None
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    found = faults(tmp_path)
    assert len(found) == (fault is not None)
    assert fault is None or found[0].startswith(fault)
