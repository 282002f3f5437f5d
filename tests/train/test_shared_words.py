"""An encoder that reads by the decoder's word vectors, as by default, in training and after it."""

from pathlib import Path

import pytest
import torch
from small import drawn_corpus
from torch import nn

from textvae.api.text_vae import TextVAE
from textvae.data.batching import Batch, TokenArray
from textvae.model.decoder import GRUDecoderConfig
from textvae.model.encoder import GRUEncoderConfig
from textvae.model.vae import VAE, ModelConfig
from textvae.run.data import DataOptions
from textvae.run.experiment import load_config
from textvae.run.plan import plan_run
from textvae.run.training import execute
from textvae.train.config import StepSettings
from textvae.train.objective import ObjectiveConfig
from textvae.train.optimizer import AdamWConfig
from textvae.train.procedures import Part, PretrainingProcedure
from textvae.train.schedules import Clock
from textvae.train.step import train_step
from textvae.train.validation import validate

V, E, H, Z, B = 23, 5, 11, 3, 17
SHARED = "decoder.input_embedding"


def model() -> VAE:
    encoder = GRUEncoderConfig(hidden_dim=H)
    decoder = GRUDecoderConfig(embedding_dim=E, hidden_dim=H)
    return ModelConfig(latent_dim=Z, encoder=encoder, decoder=decoder).build(V, seed=1)


def batch() -> Batch:
    return drawn_corpus("train", B, V).batch(torch.arange(B))


def update(vae: VAE, optimizer: torch.optim.Optimizer, part: Part | None = None) -> set[str]:
    """One step; which parameters it moved."""
    before = {name: value.clone() for name, value in vae.named_parameters()}
    settings = StepSettings(ObjectiveConfig(), seed=1)
    train_step(vae, optimizer, batch(), settings, Clock(3, 3, 9), part=part)
    return {name for name, value in vae.named_parameters() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("part", ["encoder", "rest"])
def test_they_belong_to_the_rest_where_parts_are_updated_by_themselves(part: Part) -> None:
    vae = model()
    moved = update(vae, AdamWConfig().build(vae), part)
    assert (SHARED in moved) is (part == "rest")
    assert {name.split(".")[0] == "encoder" for name in moved} == {part == "encoder"}


def test_a_decoder_that_begins_again_keeps_them_so_that_the_encoder_goes_on() -> None:
    vae, read = model(), batch()
    optimizer = AdamWConfig().build(vae)
    update(vae, optimizer)
    assert isinstance(vae.decoder, nn.Module)
    assert isinstance(vae.encoder, nn.Module)
    before = {name: value.clone() for name, value in vae.decoder.named_parameters()}
    posterior = vae.posterior(read.targets, read.lengths)
    PretrainingProcedure(share=0.3).prepare(vae, optimizer, 6, 20, 1)
    assert torch.equal(vae.posterior(read.targets, read.lengths).mean, posterior.mean)
    same = [n for n, value in vae.decoder.named_parameters() if torch.equal(value, before[n])]
    assert same == ["input_embedding"]
    assert set(optimizer.state) == {*vae.encoder.parameters(), vae.decoder.word_vectors}


def test_a_calibrated_run_of_the_default_form_is_loaded_as_it_was(
    tiny_data: Path, tiny_overrides: tuple[str, ...], tmp_path: Path
) -> None:
    form = ["model.encoder.embedding_dim=null", "model.decoder.skip_connection=true"]
    config = load_config(None, [*tiny_overrides, *form, "train.calibrate=true"])
    plan = plan_run(DataOptions(str(tiny_data)), config, tmp_path)
    found = execute(plan, report=lambda _: None).result
    assert found is not None
    assert found.temperature != 1.0
    vae = TextVAE.from_pretrained(tmp_path)
    assert "encoder.embedding" not in vae.model.state_dict()
    lines = (tiny_data / "valid.txt").read_text(encoding="utf-8").splitlines()
    ids = vae.tokenizer.encode_batch(lines)
    valid = TokenArray.from_lists(ids, vae.tokenizer.vocabulary_size)
    assert validate(vae.model, valid, seed=config.seed) == found.best
    assert len(set(vae.reconstruct(lines))) > 1, "the latents are read"
