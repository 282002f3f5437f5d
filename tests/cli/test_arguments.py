"""Which argument is the MODEL, and the sentences of arguments and of standard input."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from textvae.cli.arguments import (
    find_model,
    split_model,
    split_model_and_data,
    take_sentences,
)
from textvae.errors import CheckpointError, DataError

Invoke = Callable[..., Result]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """runs/old and runs/new, newest last; a model elsewhere; a corpus; a file."""
    monkeypatch.chdir(tmp_path)
    for name in ("runs/old", "runs/new", "model", "corpus", "nothing"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("runs/old", "runs/new"):
        (tmp_path / name / "experiment.json").write_text("{}", encoding="utf-8")
    (tmp_path / "model/manifest.json").write_text("{}", encoding="utf-8")
    (tmp_path / "corpus/test.txt.gz").write_bytes(b"")
    (tmp_path / "words.txt").write_text("a b\n", encoding="utf-8")
    return tmp_path


NEW = Path("runs/new")


@pytest.mark.parametrize(
    ("arguments", "model", "sentences"),
    [
        ([], NEW, []),
        (["-"], NEW, ["-"]),
        (["a b", "c d"], NEW, ["a b", "c d"]),
        (["hello"], NEW, ["hello"]),
        (["he/she and they"], NEW, ["he/she and they"]),
        (["x" * 5000], NEW, ["x" * 5000]),
        (["model"], Path("model"), []),
        (["model", "-"], Path("model"), ["-"]),
        (["model", "a b", "c d"], Path("model"), ["a b", "c d"]),
        (
            ["model", "and/or", "words.txt", "model"],
            Path("model"),
            ["and/or", "words.txt", "model"],
        ),
        (["./runs/old/", "a"], Path("runs/old"), ["a"]),
    ],
    ids=str,
)
def test_a_directory_is_the_model_and_all_else_a_sentence(
    arguments: list[str], model: Path, sentences: list[str]
) -> None:
    assert split_model(arguments) == (model, sentences)


@pytest.mark.parametrize(
    ("first", "said"),
    [
        ("runs/nwe", "runs/nwe: there is no such directory; name a run or model directory"),
        ("and/or", "and/or: there is no such directory"),
        ("old", "old: there is no such directory; did you mean runs/old?"),
        ("words.txt", "words.txt: is a file, expected a run or model directory"),
    ],
)
def test_what_can_only_be_a_model_is_not_taken_for_a_sentence(first: str, said: str) -> None:
    with pytest.raises(CheckpointError, match=r"there is no|is a file") as caught:
        split_model([first, "a b", "c d"])
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], (NEW, None)),
        (["model"], (Path("model"), None)),
        (["nothing"], (Path("nothing"), None)),
        (["runs/old"], (Path("runs/old"), None)),
        (["corpus"], (NEW, "corpus")),
        (["words.txt"], (NEW, "words.txt")),
        (["-"], (NEW, "-")),
        (["hf:name:config@main"], (NEW, "hf:name:config@main")),
        (["model", "corpus"], (Path("model"), "corpus")),
        (["corpus", "model"], (Path("corpus"), "model")),
        (["model", "not there"], (Path("model"), "not there")),
    ],
    ids=str,
)
def test_the_model_and_the_data_of_evaluate(
    arguments: list[str], expected: tuple[Path, str | None]
) -> None:
    assert split_model_and_data(arguments) == expected


def test_a_model_that_holds_files_named_like_splits_is_a_model(folder: Path) -> None:
    (folder / "model/train.txt").write_text("", encoding="utf-8")
    assert split_model_and_data(["model"]) == (Path("model"), None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing"], "missing: there is no such model directory and no such file"),
        (["old"], "did you mean runs/old?"),
        (["words.txt", "corpus"], "words.txt: is a file, expected"),
        (["missing", "corpus"], "missing: there is no such directory"),
    ],
    ids=str,
)
def test_evaluate_refuses_what_is_not_there(arguments: list[str], said: str) -> None:
    with pytest.raises((CheckpointError, DataError)) as caught:
        split_model_and_data(arguments)
    assert said in str(caught.value)


def test_without_runs_a_model_must_be_named(folder: Path) -> None:
    (folder / "runs").rename(folder / "elsewhere")
    with pytest.raises(CheckpointError, match=r"there is no run; .* textvae train"):
        find_model(None)


def test_sentences_given_are_cleaned_as_those_of_a_file() -> None:
    assert take_sentences([" a b ", "c\r\nd"]) == ["a b", "c d"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["a", " "], "sentence 2: is blank"),
        (["a\0b"], "sentence 1: holds a NUL"),
        (["a", "b\udcff"], "sentence 2: is not UTF-8"),
        (["-", "a"], "- stands for standard input"),
    ],
    ids=ascii,
)
def test_sentences_given_are_checked(given: list[str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        take_sentences(given)


@pytest.mark.parametrize(
    ("stdin", "said"),
    [
        (b"", "standard input: holds nothing"),
        (b"\n \n\n", "standard input: holds only 3 blank lines"),
        (b"a\nb\xff\n", "standard input:2: byte 0xff is not UTF-8"),
        (b"a\n\nb\0\n", "standard input:3: holds a NUL"),
    ],
    ids=ascii,
)
def test_standard_input_is_read_strictly(invoke: Invoke, stdin: bytes, said: str) -> None:
    result = invoke("interpolate", "nothing", "-", stdin=stdin)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {said}")
    assert result.stderr.count("\n") == 1


def test_an_interpolation_wants_two_sentences_at_least(invoke: Invoke) -> None:
    for arguments, stdin, said in [
        (["nothing", "a"], b"", "found 1 besides the MODEL nothing"),
        (["a"], b"", "found 1\n"),
        (["nothing"], b"a\n", "standard input: an interpolation passes through at least 2"),
    ]:
        result = invoke("interpolate", *arguments, stdin=stdin)
        assert result.exit_code == 2
        assert said in result.stderr
