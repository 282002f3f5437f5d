"""Model directories of every format there was: they load for ever and keep their figures.

`format-1` is the oldest. The directories ending in `-2` are runs of the code before "one layout,
one way for each thing", on tests/faults/golden_corpus with the default objective, optimizer and
batches of that time: a later default must not change what they compute. Each holds the state of the
middle of its training, from which the same command reaches the published weights again.
"""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from textvae.api.text_vae import TextVAE
from textvae.run.data import DataOptions
from textvae.run.experiment import load_config
from textvae.run.plan import plan_run
from textvae.run.training import execute
from textvae.storage.checkpoint import verify_directory

GOLDEN = Path(__file__).parent / "golden"
CORPUS = Path(__file__).parent / "golden_corpus"


class Figures(NamedTuple):
    """Nats per sentence: minus the importance-weighted log-likelihood (K 100, seed 3), the ELBO."""

    sentences: list[str]
    nll: float
    elbo: float


SENTENCES = ["red cat eats corn", "hot mug needs tea now", "shy girl sings alone"]
FIGURES = {
    "format-1": Figures(
        ["red cat eats", "odd bee likes", "old fox sees today"],
        11.611071017515712,
        -13.155082996686298,
    ),
    "defaults-2": Figures(SENTENCES, 20.79665252997931, -20.92968900879224),
    "mixture-2": Figures(SENTENCES, 7.144808178621836, -7.355802722771963),
}
TEST_SPLITS = {
    "defaults-2": (23.3521939491706, -23.523832114651558),
    "mixture-2": (7.119915407567528, -7.350085875499444),
}
"""The same two figures on the test split of the run."""
SAMPLES = {
    "defaults-2": [
        "kda g l reas crr now",
        "yoea gyings aloralne",
        "hotaup g seedsn now",
        "shda hea les cinialrone now",
        "gyrt iallalks f today now",
    ],
    "mixture-2": [
        "kind mug holds milk now",
        "big cat likes fish",
        "dry mug needs now",
        "shy girl alone fish now",
        "old bee sees fish",
    ],
}
RECONSTRUCTIONS = {
    "defaults-2": [
        "rdaaat leads corone",
        "hrw cup holds miiiik now",
        "rrdaaaaaaaaaaaaat lays ooone",
    ],
    "mixture-2": ["old hen sees fish now", "dry cup holds milk now", "glad girl sings today now"],
}
LATENTS = {"defaults-2": [1.1844, 0.6396, 1.1024], "mixture-2": [0.8776, 1.0238, 0.9627]}
"""The posterior mean of the second sentence."""


def test_every_directory_has_figures() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == set(FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_an_old_model_has_its_likelihood(name: str) -> None:
    assert all(check.problem is None for check in verify_directory(GOLDEN / name))
    vae = TextVAE.from_pretrained(GOLDEN / name, device="cpu")
    figures = FIGURES[name]
    evaluation = vae.evaluate(figures.sentences, num_samples=100, seed=3)
    assert (evaluation.nll, evaluation.elbo) == pytest.approx(figures[1:], rel=1e-5)


@pytest.mark.parametrize("name", SAMPLES)
def test_an_old_run_has_its_test_figures_samples_and_latents(name: str) -> None:
    vae = TextVAE.from_pretrained(GOLDEN / name, device="cpu")
    evaluation = vae.evaluate(num_samples=100, seed=3)
    assert (evaluation.nll, evaluation.elbo) == pytest.approx(TEST_SPLITS[name], rel=1e-5)
    assert vae.sample(5, seed=7) == SAMPLES[name]
    assert vae.reconstruct(SENTENCES) == RECONSTRUCTIONS[name]
    assert vae.encode(SENTENCES).mean[1].tolist() == pytest.approx(LATENTS[name], abs=2e-4)


@pytest.mark.parametrize("name", SAMPLES)
def test_an_old_state_is_resumed_to_the_same_weights(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(CORPUS, tmp_path / "corpus")
    run = tmp_path / "run"
    shutil.copytree(GOLDEN / name, run)
    for published in ("manifest.json", "model.safetensors", "config.json", "results.json"):
        (run / published).unlink()
    monkeypatch.chdir(tmp_path)
    lines: list[str] = []
    config = load_config(run / "experiment.json")
    outcome = execute(plan_run(DataOptions("corpus"), config, run), report=lines.append)
    assert "from step" in lines[0]
    assert outcome.result is not None
    published = TextVAE.from_pretrained(GOLDEN / name, device="cpu")
    assert published.results is not None
    training = published.results.training
    assert outcome.result.best_step == training.best_step
    assert outcome.result.best.elbo == pytest.approx(training.validation_elbo, rel=1e-4)
    # Other processors round otherwise, and hundreds of steps let that grow.
    for key, weights in published.model.state_dict().items():
        torch.testing.assert_close(outcome.model.state_dict()[key], weights, atol=1e-2, rtol=0.0)
