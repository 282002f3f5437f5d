"""The group: the table of verbs, help and usage errors."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from click.testing import Result

from textvae.cli import options
from textvae.cli.main import VERBS, program

Invoke = Callable[..., Result]


def one_line(stderr: str) -> str:
    """The error, which is the only line there is."""
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == 1
    return stderr.removeprefix("error: ").rstrip("\n")


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_says_its_line_of_the_table_first(invoke: Invoke, verb: str) -> None:
    result = invoke(verb, "--help")
    assert result.exit_code == 0
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert lines[0].startswith(f"Usage: textvae {verb} ")
    assert lines[2] == VERBS[verb]
    assert VERBS[verb] in invoke("--help").stdout
    assert importlib.import_module(f"textvae.cli.{verb}").command.name == verb


def test_every_verb_that_prints_results_has_json_and_all_that_draw_a_seed(invoke: Invoke) -> None:
    helps = {verb: invoke(verb, "--help").stdout for verb in VERBS}
    assert all("--json" in text for text in helps.values())
    assert {verb for verb, text in helps.items() if "--seed" in text} == {
        "score",
        "train",
        "sample",
        "interpolate",
        "reconstruct",
        "decode",
        "analogy",
        "attribute",
        "evaluate",
        "report",
    }
    decoding = ["--strategy", "--temperature", "--top-k", "--top-p", "--max-length"]
    decoding += ["--beam-size", "--n-best", "--length-penalty", "--typical-p"]
    decoding += ["--min-length", "--repetition-penalty", "--no-repeat-ngram"]
    for verb in ("sample", "interpolate", "reconstruct", "decode", "analogy", "attribute"):
        assert all(option in helps[verb] for option in decoding)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian"], "No such verb 'trian'; did you mean 'train'? See: textvae --help"),
        (["zzz"], "No such verb 'zzz'; the verbs are train, sample"),
        (["train", "--ouput", "x"], "'--output'?"),
        (["sample", "--sead", "1"], "'--seed'?"),
        (["sample", "-n", "many"], "'many' is not a valid integer"),
        (["sample", "-n", "0"], "0 is not in the range 1<=x"),
        (["sample", "--seed", "-1"], "-1 is not in the range 0<=x"),
        (["sample", "--strategy", "gredy"], "is not one of 'greedy'"),
        (["interpolate", "--steps", "1"], "1 is not in the range 2<=x"),
        (["sample", "a", "b"], "Got unexpected extra argument (b) See: textvae sample --help"),
        (["evaluate", "a", "b", "c"], "MODEL and DATA are 2 arguments at most, found 3"),
        (["--verison"], "'--version'?"),
    ],
)
def test_usage_errors_are_one_line(invoke: Invoke, arguments: list[str], said: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert said in one_line(result.stderr)


def test_no_verb_shows_the_help_on_stderr(invoke: Invoke) -> None:
    result = invoke()
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == invoke("--help").stdout


def test_shell_completion_knows_the_verbs(monkeypatch: pytest.MonkeyPatch, invoke: Invoke) -> None:
    monkeypatch.setenv("_TEXTVAE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "textvae re")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert invoke().stdout.split() == ["plain,reconstruct", "plain,report", "plain,recipes"]


def test_choices_are_those_of_the_code_they_stand_for() -> None:
    from textvae.api.latent_space import Metric  # noqa: PLC0415 -- as above
    from textvae.generate.paths import PathKind  # noqa: PLC0415 -- torch, for this test alone
    from textvae.train.config import DTYPES  # noqa: PLC0415 -- as above

    assert get_args(PathKind) == options.PATHS
    assert get_args(Metric) == options.METRICS
    assert tuple(DTYPES) == options.PRECISIONS


def test_the_table_and_the_modules_agree() -> None:
    with program.make_context("textvae", ["--help"], resilient_parsing=True) as context:
        assert program.list_commands(context) == list(VERBS)
        assert program.get_command(context, "main") is None
    for verb in VERBS:
        assert (Path(importlib.import_module("textvae.cli").__path__[0]) / f"{verb}.py").is_file()
