"""The recipes of configs/: each decodes, says what it is for, and holds only what it changes."""

import tomllib
from pathlib import Path

import msgspec
import pytest

from textvae.config import decode, differences
from textvae.run.experiment import ExperimentConfig, load_config

RECIPES = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))


def stem(path: Path) -> str:
    return path.stem


def settings(table: dict[str, object], prefix: str = "") -> list[str]:
    found: list[str] = []
    for name, value in table.items():
        inner = settings(value, f"{prefix}{name}.") if isinstance(value, dict) else []
        found += inner or [f"{prefix}{name}"]
    return found


def test_there_are_recipes() -> None:
    assert RECIPES


def test_the_defaults_are_within_their_own_bounds() -> None:
    assert decode(msgspec.to_builtins(ExperimentConfig()), ExperimentConfig, source="defaults")
    assert load_config(None) == ExperimentConfig()


@pytest.mark.parametrize("path", RECIPES, ids=stem)
def test_a_recipe_decodes_and_changes_every_setting_it_names(path: Path) -> None:
    changed = differences(load_config(None), load_config(path))
    paths = {line.partition(":")[0] for line in changed}
    named = settings(tomllib.loads(path.read_text(encoding="utf-8")))
    assert [name for name in named if name not in paths] == []


@pytest.mark.parametrize("path", RECIPES, ids=stem)
def test_a_recipe_starts_with_the_command_that_uses_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    header = text[: text.index("\n\n")] if "\n\n" in text else text
    assert header.startswith("# ")
    assert f"--recipe {path.stem}" in header
