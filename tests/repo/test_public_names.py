"""The public names: there, lazy, documented, and no others."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import textvae

ROOT = Path(__file__).parents[2]

NAMES = [
    "AttributeVector",
    "Beam",
    "Candidate",
    "CheckpointError",
    "Classifier",
    "ConfigError",
    "DataError",
    "Decoding",
    "DiagonalGaussian",
    "EncodedPart",
    "Evaluation",
    "Event",
    "ExperimentConfig",
    "GNMTPenalty",
    "Greedy",
    "Label",
    "Measurements",
    "MinLength",
    "Neighbor",
    "NoRepeatedNgrams",
    "Nucleus",
    "Reconstruction",
    "Reconstructions",
    "Reference",
    "RepetitionPenalty",
    "Sample",
    "Scored",
    "Step",
    "Temperature",
    "TextVAE",
    "TextVAEError",
    "TokenMean",
    "TopK",
    "TrainingError",
    "Typical",
    "Walk",
    "__version__",
    "analogies",
    "attribute_vector",
    "classifier",
    "edit",
    "load_config",
    "load_vector",
    "n_best",
    "neighbors",
    "posteriors",
    "read_latents",
    "reconstructions",
    "reference_of",
    "run_evaluators",
    "save_vector",
    "score",
    "sentences_at",
    "threshold",
    "walk",
    "walk_steps",
    "write_latents",
]


def test_these_are_the_public_names() -> None:
    assert sorted(textvae.__all__) == NAMES
    assert set(NAMES) <= set(dir(textvae))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "__version__"])
def test_each_name_is_what_its_home_defines(name: str) -> None:
    value = getattr(textvae, name)
    assert value.__name__ == name
    assert value is getattr(importlib.import_module(value.__module__), name)
    assert value.__doc__


def test_type_checkers_see_the_same_homes() -> None:
    tree = ast.parse((ROOT / "textvae/__init__.py").read_text(encoding="utf-8"))
    seen = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("textvae.")
        for alias in node.names
    }
    seen.pop("installed_version")  # what __version__ is made of
    assert seen == {
        name: getattr(textvae, name).__module__ for name in NAMES if name != "__version__"
    }


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'textvae' has no attribute 'VAE'"):
        textvae.VAE  # noqa: B018 -- looking it up is the test


def test_the_version_is_that_of_the_metadata_or_unknown() -> None:
    assert textvae.__version__ == "unknown" or textvae.__version__[0].isdigit()


def test_errors_are_there_without_torch() -> None:
    program = (
        "import sys, textvae\n"
        "assert issubclass(textvae.DataError, (textvae.TextVAEError, ValueError))\n"
        "textvae.__version__, dir(textvae)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
