"""What a figure cannot say is unknown, and what flatters it is counted."""

from pathlib import Path

import msgspec
import pytest

from textvae.api.text_vae import TextVAE


@pytest.fixture(scope="module")
def vae(tiny_run: Path) -> TextVAE:
    return TextVAE.from_pretrained(tiny_run, device="cpu")


def test_one_sentence_and_one_sample_are_enough(vae: TextVAE) -> None:
    found = vae.evaluate(["red cat eats"], num_samples=1)
    assert found.nll == pytest.approx(-found.elbo)
    assert (found.num_tokens, found.mutual_information_cap) == (4, 0.0)
    # What one sentence or one sample cannot say is unknown, and not 0.
    assert found.nll_stderr is found.nll_monte_carlo_stderr is None
    assert found.active_units is found.permutation_cost is found.permutation_cost_stderr is None
    assert found.mutual_information_stderr is None
    for said in ("nll", "active units", "permutation cost"):
        (line,) = [line for line in found.table().splitlines() if line.startswith(f"  {said} ")]
        assert "unknown" in line
    assert msgspec.to_builtins(found)["active_units"] is None


def test_unknown_words_are_counted(vae: TextVAE) -> None:
    found = vae.evaluate(["red zebra eats", "a red okapi"], num_samples=1)
    assert (found.num_unknown, found.num_tokens) == (3, 8)
    assert "3 of 8 tokens are <unk> (37.50 %)" in found.table()
    known = vae.evaluate(["red cat eats"], num_samples=1)
    assert known.num_unknown == 0
    assert "<unk>" not in known.table()
