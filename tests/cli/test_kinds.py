"""Every verb on every kind of model: it works, or says in one line why that kind cannot."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import textvae
from textvae.cli.main import VERBS, program

KINDS = ["plain", "labels", "language model", "mixture", "flow", "bytes"]
READERS = [verb for verb in VERBS if verb not in {"train", "recipes", "settings"}]
WITHOUT_LATENT = {"sample", "score", "evaluate", "report", "info"}
"""What a language model can do."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verb", READERS)
def test_a_verb_on_a_kind_of_model(
    model_kinds: dict[str, Path], verb_arguments: dict[str, list[str]], verb: str, kind: str
) -> None:
    arguments = [verb, str(model_kinds[kind]), *verb_arguments[verb]]
    if verb == "classify" and kind == "labels":
        arguments = arguments[:-2]  # by its own classifier
    if verb == "decode" and kind == "labels":
        arguments += ["--label", "big"]
    result = CliRunner(catch_exceptions=False).invoke(program, arguments)
    if kind == "language model" and verb not in WITHOUT_LATENT:
        assert result.exit_code == 2
        assert result.stderr.startswith("error: ")
        assert "is a language model" in result.stderr
        assert result.stderr.count("\n") == 1
    else:
        assert result.exit_code == 0, result.stderr
        assert result.stdout


def test_edits_are_written_under_the_likeliest_label_or_another(
    model_kinds: dict[str, Path],
) -> None:
    vae = textvae.TextVAE.from_pretrained(model_kinds["labels"])
    lines = ["red cat eats", "odd hen sees today", "shy fox likes"]
    for label in (None, "red", "big"):
        written = vae.reconstruct(lines, label=label)
        assert list(textvae.edit(vae, lines, torch.zeros(5), label=label)) == written
        triples = [(line, line, line) for line in lines]
        assert list(textvae.analogies(vae, triples, label=label)) == written
    assert vae.reconstruct(lines, label="red") != vae.reconstruct(lines, label="big")
