"""The temperature at the end of a run is the best one, and the weights alone know of it."""

import copy
import math
import os
import shutil
import signal
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from msgspec import structs

from textvae.data.batching import TokenArray
from textvae.model.decoder import GRUDecoderConfig
from textvae.model.encoder import GRUEncoderConfig, NoEncoderConfig
from textvae.model.vae import VAE, ModelConfig
from textvae.randomness import hashes, key
from textvae.train.config import TrainConfig
from textvae.train.loop import train
from textvae.train.optimizer import AdamWConfig
from textvae.train.temperature import NEAR, calibrate
from textvae.train.validation import validate

V = 19
AIM = TrainConfig(
    batch_size=13,
    max_steps=90,
    validate_every=30,
    save_every=40,
    log_every=90,
    optimizer=AdamWConfig(learning_rate=0.03),
    calibrate=True,
)


def model(*, latent: bool = True) -> VAE:
    decoder = GRUDecoderConfig(embedding_dim=7, hidden_dim=11)
    if not latent:
        return ModelConfig(latent_dim=0, encoder=NoEncoderConfig(), decoder=decoder).build(V)
    encoder = GRUEncoderConfig(embedding_dim=7, hidden_dim=11)
    return ModelConfig(latent_dim=3, encoder=encoder, decoder=decoder).build(V)


def corpus(name: str = "train", size: int = 101) -> TokenArray:
    words = hashes(key(1, name), torch.arange(size), lanes=5) % 9 + 1
    return TokenArray.from_lists([row[: row[0] % 4] for row in words.tolist()], V)


def trained(aim: TrainConfig, *, run: Path | None = None, latent: bool = True) -> VAE:
    vae = model(latent=latent)
    train(vae, corpus(size=29), corpus("valid"), aim, seed=0, run=run, report=lambda _: None)
    return vae


@cache
def _uncalibrated(latent: bool) -> VAE:
    return trained(structs.replace(AIM, calibrate=False), latent=latent)


def uncalibrated(*, latent: bool = True) -> VAE:
    """Of few sentences, seen so often that the model is too sure of others."""
    return copy.deepcopy(_uncalibrated(latent))


def elbo(vae: VAE) -> float:
    return validate(vae, corpus("valid"), seed=0).elbo


@pytest.mark.parametrize("latent", [True, False])
@pytest.mark.parametrize("factor", [0.02, 0.4, 1.0, 2.0, 30.0])
def test_it_is_the_best_of_all_however_wrong_the_logits_were(latent: bool, factor: float) -> None:
    vae = uncalibrated(latent=latent).double()
    calibrate(vae, partial(elbo, vae))
    right = elbo(vae)
    vae.scale_logits(factor)
    found = calibrate(vae, partial(elbo, vae))
    assert found.temperature == pytest.approx(factor, rel=NEAR)
    assert found.elbo == elbo(vae) == pytest.approx(right, abs=1e-3)
    for off in (-0.02, 0.02):
        vae.scale_logits(math.exp(off))
        assert elbo(vae) < found.elbo
        vae.scale_logits(math.exp(-off))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("own", [7, None])
def test_scaled_logits_leave_the_posterior_alone(own: int | None, tied: bool) -> None:
    encoder = GRUEncoderConfig(embedding_dim=own, hidden_dim=11, bidirectional=True)
    decoder = GRUDecoderConfig(embedding_dim=7, hidden_dim=11, tie_embeddings=tied)
    vae = ModelConfig(latent_dim=3, encoder=encoder, decoder=decoder).build(V).double()
    batch, noise = corpus().batch(torch.arange(13)), torch.zeros(13, 3).double()
    before = vae.posterior(batch.targets, batch.lengths, dtype=torch.float64)
    logits = [vae.decoder(batch.inputs, noise, dtype=torch.float64) @ vae.decoder.output_weight.t()]
    vae.scale_logits(0.3)
    after = vae.posterior(batch.targets, batch.lengths, dtype=torch.float64)
    logits += [
        vae.decoder(batch.inputs, noise, dtype=torch.float64) @ vae.decoder.output_weight.t()
    ]
    torch.testing.assert_close(after.mean, before.mean)
    torch.testing.assert_close(after.log_variance, before.log_variance)
    torch.testing.assert_close(logits[1], 0.3 * logits[0])


def test_what_is_too_sure_is_made_less_so_and_what_is_not_sure_enough_more_so() -> None:
    vae = uncalibrated()
    before = elbo(vae)
    found = calibrate(vae, partial(elbo, vae))
    assert found.temperature > 1.05
    assert found.elbo > before + 0.005
    short = structs.replace(AIM, calibrate=False, max_steps=30, optimizer=AdamWConfig())
    vae = trained(short)
    assert calibrate(vae, partial(elbo, vae)).temperature < 0.7


def test_where_no_temperature_is_better_nothing_changes() -> None:
    for bound in (lambda: 7.0, lambda: math.nan, lambda: -math.inf):
        vae, before = model(), {name: value.clone() for name, value in model().state_dict().items()}
        assert calibrate(vae, bound).temperature == 1.0
        assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())


def test_a_run_ends_with_it_and_says_so() -> None:
    said: list[str] = []
    vae = model()
    found = train(vae, corpus(size=29), corpus("valid"), AIM, seed=0, run=None, report=said.append)
    plain = uncalibrated()
    assert found.best == validate(vae, corpus("valid"), seed=0)
    assert found.best.elbo > elbo(plain)
    temperature = calibrate(plain, partial(elbo, plain)).temperature
    assert found.temperature == temperature
    assert f"temperature {temperature:.3f}: validation nll <= {-found.best.elbo:.3f}" in said
    for name, value in plain.state_dict().items():
        assert torch.equal(value, vae.state_dict()[name])


def test_a_run_that_stopped_ends_with_the_same_one(tmp_path: Path) -> None:
    first = trained(AIM, run=tmp_path)
    shutil.rmtree(tmp_path / "state" / "step-00000090")
    again = trained(AIM, run=tmp_path)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


def test_a_run_that_a_signal_stopped_has_none_yet() -> None:
    def stop(line: str) -> None:
        if line.startswith("step 60 "):
            os.kill(os.getpid(), signal.SIGTERM)

    vae = model()
    found = train(vae, corpus(size=29), corpus("valid"), AIM, seed=0, run=None, report=stop)
    assert (found.steps, found.signal, found.temperature) == (60, signal.SIGTERM, 1.0)
    assert found.best == validate(vae, corpus("valid"), seed=0)
