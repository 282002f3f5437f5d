"""What must not be in the repository: code that runs data, letters that look alike, local paths."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = sorted(path for top in ("textvae", "scripts") for path in ROOT.glob(f"{top}/**/*.py"))
CODE = [
    *PACKAGE,
    *sorted(ROOT.glob("tests/**/*.py")),
    *sorted(ROOT.glob("configs/*.toml")),
    ROOT / "pyproject.toml",
    ROOT / "constraints.txt",
    ROOT / ".ci/run",
]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md")), ROOT / "LICENSE"]

MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
MODULES |= {"yaml", "ruamel", "jsonpickle"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
ATTRIBUTES = {
    "torch.load",
    "torch.save",
    "torch.jit.load",
    "torch.package",
    "numpy.load",
    "np.load",
}

# In halves, so that this file does not name what it bans.
LOCAL_PATHS = ["/wo" + "rk/", "../sha" + "red", "/ro" + "ot/", "/ho" + "me/", "/tm" + "p/dev"]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def banned(text: str) -> list[str]:
    found: list[str] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Attribute):
            names = [name for name in [dotted(node)] if name in ATTRIBUTES]
        elif isinstance(node, ast.Name):
            names = [name for name in [node.id] if name in BUILTINS]
        else:
            continue
        # One finding a statement: `from torch import load` names a module and a thing in it.
        found += [
            f"line {node.lineno}: {name}"
            for name in names
            if name.split(".")[0] in MODULES or name in ATTRIBUTES | BUILTINS
        ][:1]
    return found


@pytest.mark.parametrize("path", PACKAGE, ids=relative)
def test_nothing_runs_data_as_code(path: Path) -> None:
    assert banned(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "def f():\n    from yaml import load",
        "import torch\ntorch.load('x')",
        "from torch import load",
        "eval('1')",
        "exec('1')",
        "f = eval",
        "import numpy as np\nnp.load('x')",
        "import dill.session",
    ],
)
def test_the_bans_catch_what_they_ban(text: str) -> None:
    assert len(banned(text)) == 1


@pytest.mark.parametrize("text", ["model.eval()", "re.compile('x')", "json.load(f)"])
def test_the_bans_leave_the_rest_alone(text: str) -> None:
    assert banned(text) == []


@pytest.mark.parametrize("path", CODE, ids=relative)
def test_code_is_ascii(path: Path) -> None:
    path.read_bytes().decode("ascii")


@pytest.mark.parametrize("path", [*CODE, *DOCUMENTS], ids=relative)
def test_nothing_names_a_path_of_one_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert [name for name in LOCAL_PATHS if name in text] == []
