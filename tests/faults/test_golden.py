"""Model directories of every format there was: they load for ever and keep their figures."""

from pathlib import Path

import pytest

from textvae.api.text_vae import TextVAE
from textvae.storage.checkpoint import verify_directory

GOLDEN = Path(__file__).parent / "golden"
SENTENCES = ["red cat eats", "odd bee likes", "old fox sees today"]
# Nats a sentence: minus the importance-weighted log-likelihood (K 100, seed 3), and the ELBO.
FIGURES = {"format-1": (11.611071017515712, -13.155082996686298)}


def test_every_directory_has_figures() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == set(FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_an_old_model_has_its_likelihood(name: str) -> None:
    assert all(check.problem is None for check in verify_directory(GOLDEN / name))
    vae = TextVAE.from_pretrained(GOLDEN / name, device="cpu")
    found = vae.evaluate(SENTENCES, num_samples=100, seed=3)
    assert (found.nll, found.elbo) == pytest.approx(FIGURES[name], rel=1e-5)
