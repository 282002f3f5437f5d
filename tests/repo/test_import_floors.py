"""Imports run downwards: the floor table of the house as data, and the imports read with ast."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parents[2] / "textvae"

# A module, or a sub-package with all in it. A module may import from its own floor or lower.
FLOORS = {
    "__init__": 9,
    "__main__": 9,
    "cli": 9,
    "report": 8,  # a page about a TextVAE
    "aggregate": 8,  # takes a TextVAE
    "candidates": 8,
    "classify": 8,  # takes a TextVAE
    "text_vae": 8,
    "evaluation": 8,  # takes a TextVAE too
    "editing": 8,  # as latent_space, on which it stands
    "reconstructions": 8,
    "walks": 8,  # takes a TextVAE too
    "score_reference": 8,  # what scoring compares with
    "scoring": 8,
    "latent_space": 8,  # functions that take a TextVAE
    "conditional": 7,
    "experiment": 7,
    "evaluators": 7,  # the union of a config; some of them fit models
    "held_out": 7,
    "language_model_scores": 7,  # fits models, and so stands above train
    "measure": 7,
    "model_directory": 7,
    "run_data": 7,
    "stream_data": 7,
    "sentences": 7,
    "training_run": 7,
    "train": 6,
    "evaluate": 5,
    "generate": 4,
    "aggregate_file": 3,
    "label_file": 3,
    "checkpoint": 3,
    "saved_state": 3,
    "run_lock": 1,
    "tensor_file": 3,
    "latent_file": 3,  # a stream of sentences and their posteriors: data and model, and files
    "data": 2,
    "model": 2,
    "manifest": 2,
    "config": 1,
    "config_faults": 1,
    "files": 1,
    "heap": 1,
    "kernels": 1,
    "distributed": 0,
    "errors": 0,
    "randomness": 0,
    "version": 0,
}

STRANGERS = [("data", "model"), ("model", "data")]  # the model takes tensors, never a batch

# Heavy or peculiar packages, and the only modules that may import them.
HOMES = {
    "tokenizers": ["data.tokenizer"],
    "datasets": ["data.corpus", "data.hub"],
    "huggingface_hub": ["data.hub", "checkpoint", "text_vae"],
    "sacrebleu": ["evaluate.text_quality"],
    "safetensors": ["tensor_file"],
    "numpy": ["latent_file"],
    "click": ["cli"],
    "tqdm": ["train.metrics", "cli"],
    "sklearn": ["evaluate.prototypes"],
    "matplotlib": ["report.plots"],
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
            elif FLOORS[other] > FLOORS[unit]:
                found.append(f"{where}{unit} (floor {FLOORS[unit]}) imports {other} above it")
            elif (unit, other) in STRANGERS:
                found.append(f"{where}{unit} imports {other}: neither may know the other")
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
            "data.a:1: data (floor 2) imports train above",
        ),
        ({"kernels/a.py": "def f():\n from textvae.model.vae import V"}, "kernels.a:2: kernels (f"),
        (
            {"config.py": "from textvae import checkpoint", "checkpoint.py": ""},
            "config:1: config (f",
        ),
        ({"data/a.py": "from textvae.model.vae import V"}, "data.a:1: data imports model: neither"),
        ({"model/a.py": "import textvae.data.batching"}, "model.a:1: model imports data: neither"),
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
