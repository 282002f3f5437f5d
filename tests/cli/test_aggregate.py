"""aggregate, and sample --prior aggregate, on one tiny model."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

import textvae
from textvae.api.aggregate import fit_aggregate

Invoke = Callable[..., Result]


def test_aggregate_is_the_python_call(copy: Path, invoke: Invoke) -> None:
    vae = textvae.TextVAE.from_pretrained("runs/tiny")
    expected = fit_aggregate(vae)
    assert vae.aggregate is not None
    lines = invoke("aggregate", "runs/tiny").stdout.splitlines()
    rows = [json.loads(line) for line in invoke("aggregate", "--json").stdout.splitlines()]
    assert rows == [one._asdict() | {"kept": one == expected.best} for one in expected.tried]
    assert len(lines) == len(rows)
    assert [line.endswith("kept") for line in lines] == [row["kept"] for row in rows]
    said = invoke("sample", "runs/tiny", "-n", "3", "--prior", "aggregate", "--seed", "5")
    assert said.stdout.splitlines() == vae.sample(3, seed=5, prior="aggregate")
    ends = ("the dog sees the cat .", "the fox eats the cow .")
    along = invoke("interpolate", "runs/tiny", *ends, "--along", "data", "--steps", "3", "--json")
    steps = [json.loads(line) for line in along.stdout.splitlines()]
    assert [step["text"] for step in steps] == vae.interpolate(*ends, steps=3, path="data")
    assert all(isinstance(step["log_density"], float) for step in steps)
    info = json.loads(invoke("info", "--verify", "--json").stdout)
    assert info["aggregate"]["gain"] == expected.best.gain
    assert info["aggregate"]["num_components"] == expected.best.num_components
    assert "aggregate   " in invoke("info", "runs/tiny").stdout
    text = (copy / "tiny.txt").read_bytes()
    options = ("--components", "2", "--covariance", "diagonal", "--sentences", "31")
    files = [
        invoke("aggregate", "runs/tiny", "--corpus", source, *options, stdin=stdin).stdout
        for source, stdin in (("tiny.txt", b""), ("-", text))
    ]
    assert files[0] == files[1]
    assert files[0].startswith("   2 components  log-density ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sample", "--prior", "aggregate"], "has no aggregate posterior yet; fit one with: tex"),
        (["sample", "--prior", "aggregate", "--near", "a cat"], "give one of the two"),
        (["interpolate", "a", "b", "--along", "data"], "--path data: this model has no aggregate"),
        (["aggregate", "--corpus", "tiny.tx"], "did you mean tiny.txt?"),
        (["aggregate", "--corpus", "-"], "standard input: holds nothing"),
        (["aggregate", "--components", "100"], "--components 100: more than the 6"),
        (["aggregate", "runs/none"], "there is no such directory"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(
    place: Path, invoke: Invoke, arguments: list[str], said: str
) -> None:
    result = invoke(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (place / "runs/tiny/aggregate.json").exists()
