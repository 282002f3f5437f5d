"""analogy and attribute on one tiny model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

import textvae
from textvae.api.edit import analogies, attribute_vector, edit
from textvae.api.least_edit import attribute_of, edit_least

A, B, C = "the dog sees the cat .", "the fox eats the cow .", "the bird likes the dog ."
CATS, COWS = "cats.txt", "cows.txt"

Invoke = Callable[..., Result]


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def parts(copy: Path) -> dict[str, list[str]]:
    """Sentences that end in cats and in cows, as files and as a table."""
    lines = (copy / "tiny.txt").read_text(encoding="utf-8").splitlines()
    kinds = {
        noun: [line for line in lines if line.endswith(f"{noun} .")] for noun in ("cat", "cow")
    }
    for name, kind in ((CATS, "cat"), (COWS, "cow")):
        (copy / name).write_text("\n".join(kinds[kind]) + "\n", encoding="utf-8")
    rows = [f"{kind},{line}" for kind, some in kinds.items() for line in some]
    (copy / "table.csv").write_text("\n".join(["label,text", *rows]) + "\n", encoding="utf-8")
    return kinds


def test_analogy_is_the_python_call(place: Path, invoke: Invoke) -> None:
    vae = textvae.TextVAE.from_pretrained("runs/tiny")
    expected = list(analogies(vae, [(A, B, C), (C, B, A)]))
    result = invoke("analogy", A, B, C)
    assert (result.stdout, result.stderr) == (f"{expected[0]}\n", "model: runs/tiny\n")
    stdin = "\n".join([A, B, C, C, B, A]).encode()
    assert invoke("analogy", "runs/tiny", stdin=stdin).stdout.splitlines() == expected
    found = objects(invoke("analogy", "runs/tiny", "-", "--json", stdin=stdin).stdout)
    assert found[1] == {"first": C, "second": B, "third": A, "text": expected[1]}
    drawn = ["analogy", "runs/tiny", A, B, C, "--temperature", "3", "--seed"]
    assert invoke(*drawn, "1").stdout == invoke(*drawn, "1").stdout != invoke(*drawn, "2").stdout


def test_least_is_the_python_call(parts: dict[str, list[str]], invoke: Invoke) -> None:
    vae = textvae.TextVAE.from_pretrained("runs/tiny")
    attribute = attribute_of(vae, parts["cat"], parts["cow"])
    expected = list(edit_least(vae, [A, C], attribute))
    ends = ["--from", CATS, "--to", COWS, "--least"]
    result = invoke("attribute", "runs/tiny", A, C, *ends)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [one.text for one in expected]
    refused = sum(not one.accepted for one in expected)
    assert (f"{refused} of 2: no candidate has the attribute" in result.stderr) is bool(refused)
    rows = objects(invoke("attribute", "runs/tiny", A, C, *ends, "--json").stdout)
    assert [row["text"] for row in rows] == [one.text for one in expected]
    assert set(rows[0]) == set(expected[0]._fields)
    for more in (["--strength", "2"], ["--temperature", "1"], ["--output", "v.json"]):
        clash = invoke("attribute", "runs/tiny", A, *ends, *more)
        assert clash.exit_code == 2
        assert "--least finds the strength and the decoding" in clash.stderr


def test_attribute_is_the_python_call(parts: dict[str, list[str]], invoke: Invoke) -> None:
    vae = textvae.TextVAE.from_pretrained("runs/tiny")
    vector = attribute_vector(vae, parts["cat"], parts["cow"]).vector
    expected = list(edit(vae, [A, B], vector, strength=2.0))
    ends = ["--from", CATS, "--to", COWS, "--strength", "2"]
    result = invoke("attribute", "runs/tiny", A, B, *ends)
    assert result.stdout.splitlines() == expected
    piped = invoke("attribute", *ends, stdin=f"{A}\n{B}\n".encode())
    assert (piped.stdout, piped.stderr) == (result.stdout, "model: runs/tiny\n")
    rows = objects(invoke("attribute", A, B, *ends, "--json").stdout)
    assert rows == [
        {"sentence": given, "text": text} for given, text in zip([A, B], expected, strict=True)
    ]
    labels = ["--data", "table.csv", "--from", "cat", "--to", "cow", "--strength", "2"]
    for column in ([], ["--label-column", "label", "--text-column", "text"]):
        assert invoke("attribute", A, B, *labels, *column).stdout == result.stdout


def test_a_vector_is_kept_and_used(copy: Path, parts: dict[str, list[str]], invoke: Invoke) -> None:
    ends = ["--from", CATS, "--to", COWS]
    kept = invoke("attribute", "runs/tiny", *ends, "--output", "v.json", "--json")
    (said,) = objects(kept.stdout)
    assert (said["output"], said["num_from"], said["num_to"]) == ("v.json", 20, 20)
    used = invoke("attribute", "runs/tiny", A, B, "--vector", "v.json")
    assert used.stdout == invoke("attribute", A, B, *ends).stdout
    assert invoke("attribute", *ends, "--output", "w.json").stdout.startswith("w.json: a vector of")
    assert (copy / "w.json").read_bytes() == (copy / "v.json").read_bytes()
    both = invoke("attribute", "runs/tiny", A, B, *ends, "--output", "w.json")
    assert both.stdout == used.stdout
