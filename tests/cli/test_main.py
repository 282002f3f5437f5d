"""The group: the table of verbs, help, usage errors and exit codes."""

import errno
import importlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from click.testing import Result

from textvae.cli import options
from textvae.cli.main import VERBS, exit_code, program
from textvae.cli.terminal import OutputError
from textvae.errors import CheckpointError, ConfigError, DataError, StorageError, TrainingError

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
        (["train", "a", "b"], "Got unexpected extra argument (b) See: textvae train --help"),
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


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("a: b"), 2, "a: b"),
        (TrainingError("two\n  lines"), 4, "two lines"),
        (StorageError("x: cannot be written"), 74, "x: cannot be written"),
        (CheckpointError("x: cannot be written"), 2, "x: cannot be written"),
        (DataError("x: cannot be read"), 2, "x: cannot be read"),
        (OSError(errno.ENOSPC, "No space", "m.jsonl"), 74, "m.jsonl: cannot be written: No space"),
        (OutputError("stdout is full"), 74, "stdout is full"),
    ],
    ids=repr,
)
def test_errors_have_exit_codes(
    capsys: pytest.CaptureFixture[str], error: Exception, code: int, said: str
) -> None:
    def run() -> None:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        # What could not be written is discarded with stdout, which here belongs to pytest.
        patch.setattr("sys.stdout", None)
        assert exit_code(run) == code
    assert one_line(capsys.readouterr().err) == said


def test_an_interrupt_is_130_and_a_fault_of_ours_keeps_its_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    def broken() -> None:
        raise ZeroDivisionError

    before = signal.getsignal(signal.SIGTERM)
    for run, code in [
        (interrupted, 130),
        (lambda: os.kill(os.getpid(), signal.SIGINT), 130),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), 143),
    ]:
        assert exit_code(run) == code
        assert capsys.readouterr().err == "stopped\n"
        assert signal.getsignal(signal.SIGTERM) is before
    with pytest.raises(ZeroDivisionError):
        exit_code(broken)


@pytest.mark.parametrize(
    ("policy", "spins", "after"), [(None, None, "200000"), (None, "7", "7"), ("ACTIVE", None, None)]
)
def test_idle_threads_spin_for_a_moment_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, policy: str | None, spins: str | None, after: str | None
) -> None:
    for name, value in (("OMP_WAIT_POLICY", policy), ("GOMP_SPINCOUNT", spins)):
        monkeypatch.setenv(name, "")  # so that it is put back afterwards
        monkeypatch.delenv(name)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert exit_code(lambda: None) == 0
    assert os.environ.get("OMP_WAIT_POLICY") == policy
    assert os.environ.get("GOMP_SPINCOUNT") == after


def test_shell_completion_knows_the_verbs(monkeypatch: pytest.MonkeyPatch, invoke: Invoke) -> None:
    monkeypatch.setenv("_TEXTVAE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "textvae re")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert invoke().stdout.split() == ["plain,reconstruct", "plain,report", "plain,recipes"]


def test_choices_are_those_of_the_code_they_stand_for() -> None:
    from textvae.api.latent_space import Metric  # noqa: PLC0415 -- as above
    from textvae.generate.interpolation import PathKind  # noqa: PLC0415 -- torch, for this test alone
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
