"""encode and decode on one tiny model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result

import textvae

FIRST, SECOND = "the dog sees the cat .", "the fox eats the cow ."
LONG = "the " * 20

Invoke = Callable[..., Result]


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_encode_writes_posteriors_wherever_they_are_wanted(copy: Path, invoke: Invoke) -> None:
    vae = textvae.TextVAE.from_pretrained("runs/tiny")
    stdin = f"{FIRST}\n\n{SECOND}\n".encode()
    result = invoke("encode", stdin=stdin)
    said = "standard input: 1 row (row 1, counted from 0) blank or missing, left out"
    assert result.stderr == f"model: runs/tiny\n{said}\n"
    found = objects(result.stdout)
    expected = vae.encode([FIRST, SECOND])
    assert [row["sentence"] for row in found] == [FIRST, SECOND]
    assert [row["row"] for row in found] == [0, 2]
    for name in ("mean", "log_variance"):
        values = getattr(expected, name)
        torch.testing.assert_close(torch.tensor([row[name] for row in found]), values)

    (copy / "two.txt").write_bytes(stdin)
    for name in ("a.jsonl", "a.npz"):
        said = invoke("encode", "runs/tiny", "two.txt", "--output", name, "--json")
        assert objects(said.stdout) == [{"output": name, "num_sentences": 2, "latent_dim": 5}]
    assert (copy / "a.jsonl").read_text("utf-8") == result.stdout
    plain = invoke("encode", "runs/tiny", "-", "--output", "a.npz", stdin=stdin)
    assert plain.stdout == "a.npz: 2 posteriors of 5 dimensions\n"


@pytest.mark.parametrize("name", ["a.jsonl", "a.npz"])
def test_encode_then_decode_is_reconstruct(copy: Path, invoke: Invoke, name: str) -> None:
    whole = invoke("reconstruct", "runs/tiny", stdin=(copy / "tiny.txt").read_bytes())
    assert invoke("encode", "runs/tiny", "tiny.txt", "--output", name).exit_code == 0
    assert invoke("decode", "runs/tiny", name).stdout == whole.stdout
    newest = invoke("decode", name, "--json")
    assert newest.stderr == "model: runs/tiny\n"
    rows = [{"index": i, "text": text} for i, text in enumerate(whole.stdout.splitlines())]
    assert objects(newest.stdout) == rows
    drawn = ["decode", "runs/tiny", name, "--temperature", "2", "--seed"]
    assert invoke(*drawn, "1").stdout == invoke(*drawn, "1").stdout != invoke(*drawn, "2").stdout


def test_a_pipe_of_the_two(place: Path, invoke: Invoke) -> None:
    lines = invoke("encode", "runs/tiny", stdin=f"{FIRST}\n{SECOND}\n".encode()).stdout.encode()
    reconstructed = invoke("reconstruct", "runs/tiny", FIRST, SECOND).stdout
    assert invoke("decode", "runs/tiny", stdin=lines).stdout == reconstructed
    assert invoke("decode", "runs/tiny", "-", stdin=b"[0,0,0,0,0]\n").stdout.count("\n") == 1
