"""Training learns what there is, uses the latent where told to, and says when it is not used."""

from pathlib import Path
from typing import Any

import pytest
import torch

from textvae.data.batching import TokenArray
from textvae.evaluate.latent_usage import permutation_costs
from textvae.evaluate.likelihood import encode_corpus, reconstruction_at
from textvae.model.decoder import GRUDecoderConfig
from textvae.model.encoder import GRUEncoderConfig
from textvae.model.vae import VAE, ModelConfig
from textvae.randomness import hashes, key
from textvae.train.loop import DTYPES, TrainConfig, train, validate
from textvae.train.objective import FreeBitsPerDimension, NoFreeBits, ObjectiveConfig
from textvae.train.optimizer import AdamWConfig
from textvae.train.schedules import ConstantSchedule, LinearSchedule
from textvae.train.step import train_step

V, E, H, Z, N = 23, 5, 31, 2, 61


def model(dropout: float = 0.0) -> VAE:
    config = ModelConfig(
        latent_dim=Z,
        encoder=GRUEncoderConfig(embedding_dim=E, hidden_dim=H, dropout_rate=dropout),
        decoder=GRUDecoderConfig(
            embedding_dim=E,
            hidden_dim=H,
            tie_embeddings=False,
            dropout_rate=dropout,
            output_dropout_rate=dropout,
        ),
    )
    return config.build(V)


def config(steps: int, rate: float, **objective: Any) -> TrainConfig:
    plain = {"free_bits": NoFreeBits(), "word_dropout": ConstantSchedule(value=0.0)}
    return TrainConfig(
        batch_size=13,
        max_steps=steps,
        validate_every=steps // 2,
        log_every=steps,
        optimizer=AdamWConfig(learning_rate=rate),
        objective=ObjectiveConfig(**(plain | objective)),
    )


def factor(size: int = N) -> TokenArray:
    """Seven kinds of sentences, each fixed by its first word."""
    return TokenArray.from_lists([[2 + i % 7] * 2 + [9 + i % 7] * 2 for i in range(size)], V)


def test_it_learns_eight_sentences_by_heart() -> None:
    words = (hashes(key(5, "eight"), torch.arange(8), lanes=5) % (V - 2) + 2).tolist()
    few = TokenArray.from_lists([*words[:7], []], V)
    vae = model()
    before = reconstruction_at(vae, few, encode_corpus(vae, few).mean)
    aim = config(100, 5e-2, kl_weight=ConstantSchedule(value=0.001))
    train(vae, few, few, aim, seed=0, run=None, report=lambda _: None)
    after = reconstruction_at(vae, few, encode_corpus(vae, few).mean)
    assert float(before.mean()) > 10.0
    assert float(after.mean()) < 0.3, "nats a sentence"


def test_free_bits_keep_the_latent_in_use_where_there_is_a_factor() -> None:
    aim = config(
        120, 1e-2, kl_weight=LinearSchedule(share=0.25), free_bits=FreeBitsPerDimension(nats=0.5)
    )
    vae, data = model(), factor()
    said: list[str] = []
    found = train(vae, data, data, aim, seed=0, run=None, report=said.append)
    assert found.best.kl > 0.8, "two floors of half a nat"
    assert found.best.active_units > 0
    costs = permutation_costs(vae, data, encode_corpus(vae, data).mean, seed=0)
    assert float(costs.mean()) > 0.5, "the decoder reads the latent"
    assert not any("ignores the latent" in line for line in said)


def test_a_latent_that_is_ignored_is_said_so_once(tmp_path: Path) -> None:
    vae, data, said = model(), factor(), []
    aim = config(46, 1e-2, kl_weight=ConstantSchedule(), beta=100.0)
    found = train(vae, data, data, aim, seed=0, run=tmp_path, report=said.append)
    assert found.best.kl < 0.1
    assert sum("the decoder ignores the latent" in line for line in said) == 1


def test_a_validation_counts_every_sentence_once_at_weight_one_without_dropout() -> None:
    vae, valid = model(dropout=0.5), factor(97)  # more than one batch
    found = validate(vae, valid, seed=0)
    assert found == validate(vae, valid, seed=0)
    with torch.no_grad():
        vae.decoder.output_weight.zero_()
        vae.decoder.output_bias.zero_()
    uniform = validate(vae, valid, seed=0)
    expected = valid.num_targets / valid.num_sentences * torch.tensor(V).double().log()
    posterior = encode_corpus(vae, valid)
    kl = float(posterior.kl_to_standard_normal().sum()) / valid.num_sentences
    assert uniform.kl == pytest.approx(kl, rel=1e-5)
    assert -uniform.elbo == pytest.approx(float(expected) + kl, rel=1e-5)


def curve(precision: str, seed: int) -> torch.Tensor:
    """The loss of 200 steps, averaged over windows of 20: `[10]` nats a sentence."""
    vae, data, losses = model(), factor(503), []
    settings = config(200, 1e-2)
    optimizer = settings.optimizer.build(vae)
    order = [
        batch
        for epoch in range(6)
        for batch in settings.batches.order(data.lengths, 13, seed=seed, epoch=epoch)
    ]
    for step in range(200):
        taken = train_step(
            vae,
            optimizer,
            data.batch(order[step]),
            settings.objective,
            step=step,
            total=200,
            seed=seed,
            clip_norm=5.0,
            dtype=DTYPES[precision],
        )
        losses.append(float(taken.loss.value))
    return torch.tensor(losses).view(10, 20).mean(1)


def test_bfloat16_learns_as_float32_does_within_the_noise_between_seeds() -> None:
    exact, other, low = curve("float32", 0), curve("float32", 1), curve("bfloat16", 0)
    assert not torch.equal(exact, low)
    noise = (exact - other).abs().mean()
    assert float((exact - low).abs().mean()) < float(noise)
    assert float(low[-1]) < 0.5 * float(low[0])
