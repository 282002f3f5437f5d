"""A model whose prior is a flow: saved, read back, measured and shown."""

import math
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from msgspec import structs

from textvae.api.evaluate import run_evaluators
from textvae.api.text_vae import TextVAE
from textvae.cli.main import program
from textvae.evaluate.evaluators import KINDS
from textvae.evaluate.latent import LatentEvaluator
from textvae.model.flow import AutoregressiveFlow
from textvae.model.prior_flow import FlowPrior, FlowPriorConfig
from textvae.randomness import key, normals

CONFIG = FlowPriorConfig(hidden_dim=23, num_components=3)


@pytest.fixture(scope="module")
def flowing(tiny_run: Path) -> TextVAE:
    """The tiny model, with a flow in the place of its prior."""
    vae = TextVAE.from_pretrained(tiny_run, device="cpu")
    config = structs.replace(vae.config, prior=CONFIG)
    model = config.build(vae.tokenizer.vocabulary_size)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(state | vae.model.state_dict())
    assert isinstance(model.prior, FlowPrior)
    sizes = CONFIG.shape(config.latent_dim).sizes()
    weights = {
        name: 0.1 * normals(key(8, name), torch.arange(math.prod(size)), lanes=1).view(size)
        for name, size in sizes.items()
    }
    model.prior.set_flow(AutoregressiveFlow(**weights))
    return TextVAE(model, vae.tokenizer, config)


def test_it_is_read_back_as_it_was(flowing: TextVAE, tmp_path: Path) -> None:
    flowing.save_pretrained(tmp_path / "model")
    read = TextVAE.from_pretrained(tmp_path / "model", device="cpu")
    assert not read.model.prior.kl_is_exact
    assert read.sample(7, seed=3) == flowing.sample(7, seed=3)
    latents = flowing.model.prior.sample(401, seed=1)
    assert torch.equal(read.model.prior.sample(401, seed=1), latents)
    assert torch.equal(read.model.prior.log_prob(latents), flowing.model.prior.log_prob(latents))
    shown = CliRunner(catch_exceptions=False).invoke(program, ["info", str(tmp_path / "model")])
    assert f"{flowing.config.latent_dim} dimensions, flow prior" in shown.stdout


def test_its_kl_is_estimated_and_adds_up(flowing: TextVAE, tiny_data: Path) -> None:
    lines = (tiny_data / "valid.txt").read_text(encoding="utf-8").splitlines()
    evaluators = (KINDS["likelihood"](num_samples=53), LatentEvaluator())
    found = run_evaluators(flowing, lines, evaluators=evaluators)
    assert found["kl"].settings == "to the prior, estimated"
    dimensions, kl, elbo = (found[name].value for name in ("kl_per_dimension", "kl", "elbo"))
    reconstruction = found["reconstruction"].value
    assert isinstance(dimensions, list)
    assert isinstance(kl, float)
    assert isinstance(elbo, float)
    assert isinstance(reconstruction, float)
    assert sum(dimensions) == pytest.approx(kl, rel=1e-5)
    assert kl == pytest.approx(-elbo - reconstruction, abs=0.2), "by other draws"
