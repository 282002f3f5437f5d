"""Text of data, models, labels and file names as it is printed: one line each, no controls."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import textvae
from textvae.cli.main import program
from textvae.cli.terminal import printable

HOSTILE = "\x1b[2Ja\tb\r\nc\x7f\x9b1m\u2028d\u202ee"
ESCAPED = r"\x1b[2Ja\tb\r\nc\x7f\x9b1m\u2028d\u202ee"
HARMLESS = "caf\u00e9\u3000\u00a0 \u0645\u06cc\u200c\u062e \U0001f468\u200d\U0001f469 a\\b \u200f"


def invoke(*arguments: str) -> Result:
    return CliRunner(catch_exceptions=False).invoke(program, arguments)


def test_controls_become_escapes_and_all_else_stays() -> None:
    assert printable(HOSTILE) == ESCAPED
    assert printable("\udc80") == r"\udc80"  # of a file name that is no UTF-8
    assert printable(HARMLESS) == HARMLESS


@pytest.fixture
def hostile_labels(model_kinds: dict[str, Path], tmp_path: Path) -> Path:
    vae = textvae.TextVAE.from_pretrained(model_kinds["labels"])
    named = textvae.TextVAE(vae.model, vae.tokenizer, vae.config, labels=(HOSTILE, "b\tc"))
    named.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_labels(hostile_labels: Path, verb_arguments: dict[str, list[str]], tmp_path: Path) -> None:
    some = verb_arguments["classify"][0]
    rows = [
        line.split("\t")
        for line in invoke("classify", str(hostile_labels), some).stdout.splitlines()
    ]
    assert len(rows) == 5
    assert {label for label, _ in rows} <= {ESCAPED, r"b\tc"}
    lines = invoke("classify", str(hostile_labels), some, "--json").stdout
    assert lines.isascii()
    assert "\x7f" not in lines
    assert all(
        set(json.loads(line)["probabilities"]) == {HOSTILE, "b\tc"} for line in lines.splitlines()
    )
    unknown = invoke("sample", str(hostile_labels), "--label", "x\x1b\n")
    assert unknown.exit_code == 2
    assert unknown.stderr.count("\n") == 1
    assert "\x1b" not in unknown.stderr


def test_samples_of_bytes_are_a_line_each(model_kinds: dict[str, Path]) -> None:
    result = invoke("sample", str(model_kinds["bytes"]), "-n", "101")
    texts = textvae.TextVAE.from_pretrained(model_kinds["bytes"]).sample(101)
    assert result.stdout == "".join(printable(text) + "\n" for text in texts)
    assert result.stdout.count("\n") == 101


def test_names_of_files(copy: Path) -> None:
    name = "a\x1b[31m\u202e.txt"
    for arguments in (["train", name], ["sample", f"runs/{name}"], ["evaluate", name]):
        result = invoke(*arguments)
        assert result.exit_code == 2
        assert r"a\x1b[31m\u202e.txt" in result.stderr
        assert result.stderr.count("\n") == 1
