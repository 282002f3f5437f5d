"""Training learns what there is, uses the latent where told to, and says when it is not used."""

import os
from pathlib import Path
from signal import SIGTERM
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file
from small import small_config

from textvae.data.batching import TokenArray
from textvae.metrics.latent_usage import permutation_costs
from textvae.metrics.likelihood import encode_corpus, reconstruction_at
from textvae.model.posterior import BatchNormConfig
from textvae.model.vae import VAE
from textvae.randomness import hashes, key
from textvae.train.config import DTYPES, StepSettings, TrainConfig
from textvae.train.loop import train
from textvae.train.objective import FreeBitsPerDimension, NoFreeBits, ObjectiveConfig
from textvae.train.optimizer import AdamWConfig, LearningRateConfig, SGDConfig
from textvae.train.rate import ControlledRate, LagrangianRate
from textvae.train.schedules import Clock, ConstantSchedule, CosineRestartsSchedule, LinearSchedule
from textvae.train.step import train_step
from textvae.train.validation import validate

V, E, H, Z, N = 23, 5, 31, 2, 61


def model(dropout: float = 0.0, **encoder: Any) -> VAE:
    config = small_config(
        Z,
        E,
        H,
        encoder={"dropout_rate": dropout, **encoder},
        decoder={"tie_embeddings": False, "dropout_rate": dropout, "output_dropout_rate": dropout},
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


def read_state(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "state.safetensors")


def factor(size: int = N) -> TokenArray:
    """Seven kinds of sentences, each fixed by its first word."""
    return TokenArray.from_lists([[2 + i % 7] * 2 + [9 + i % 7] * 2 for i in range(size)], V)


def test_it_learns_eight_sentences_by_heart() -> None:
    words = (hashes(key(5, "eight"), torch.arange(8), lanes=5) % (V - 2) + 2).tolist()
    few = TokenArray.from_lists([*words[:7], []], V)
    vae = model()
    before = reconstruction_at(vae, few, encode_corpus(vae, few).mean)
    aim = config(100, 5e-2, kl_weight=ConstantSchedule(value=0.001))
    train(vae, few, few.head(5), aim, seed=0, run=None, report=lambda _: None)
    after = reconstruction_at(vae, few, encode_corpus(vae, few).mean)
    assert float(before.mean()) > 10.0
    assert float(after.mean()) < 0.3, "nats a sentence"


def test_free_bits_keep_the_latent_in_use_where_there_is_a_factor() -> None:
    aim = config(
        120, 1e-2, kl_weight=LinearSchedule(share=0.25), free_bits=FreeBitsPerDimension(nats=0.8)
    )
    vae, data = model(), factor()
    said: list[str] = []
    found = train(vae, data, factor(41), aim, seed=0, run=None, report=said.append)
    kl = encode_corpus(vae, data).kl_to_standard_normal().sum(1).mean()
    assert float(kl) > 1.3, "two floors of 0.8 nats, under the N(0, 1) of training"
    assert found.best.kl < float(kl), "under the prior that was fitted"
    assert found.best.active_units > 0
    costs = permutation_costs(vae, data, encode_corpus(vae, data).mean, seed=0)
    assert float(costs.mean()) > 0.5, "the decoder reads the latent"
    assert not any("ignores the latent" in line for line in said)


def test_batch_normalised_means_keep_their_kl_and_go_on_exactly_after_a_stop(
    tmp_path: Path,
) -> None:
    aim = config(60, 1e-2, kl_weight=ConstantSchedule(), beta=10.0)  # which would collapse
    data, built = factor(), {"posterior": BatchNormConfig(scale=0.7)}
    straight = model(**built)
    found = train(straight, data, factor(41), aim, seed=0, run=None, report=lambda _: None)
    assert found.best.kl >= Z * 0.7**2 / 2 * 0.9, "of the running statistics"
    aim, parts = msgspec.structs.replace(aim, log_every=1), []
    for stop in (31, 60):
        again = model(**built)
        said = f"step {stop}/"
        kill = lambda line, said=said: line.startswith(said) and os.kill(os.getpid(), SIGTERM)  # noqa: E731
        parts.append(train(again, data, factor(41), aim, seed=0, run=tmp_path, report=kill).steps)
    assert parts == [31, 60]
    for name, value in straight.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


RATES = [LagrangianRate(nats=1.5, step_size=0.01), ControlledRate(nats=1.5, integral_gain=0.01)]


@pytest.mark.parametrize("rate", RATES, ids=lambda rate: type(rate).__name__)
def test_a_target_rate_finds_the_weight_and_selects_at_weight_one(
    rate: Any, tmp_path: Path
) -> None:
    aim = config(300, 1e-2, kl_weight=ConstantSchedule())
    aims = msgspec.structs.replace(aim.objective, rate=rate)
    aim = msgspec.structs.replace(aim, objective=aims, validate_every=20, log_every=20)
    vae, data = model(), factor()  # of log 7 = 1.95 nats
    found = train(vae, data, factor(41), aim, seed=0, run=tmp_path, report=lambda _: None)
    lines = [msgspec.json.decode(x) for x in (tmp_path / "metrics.jsonl").read_bytes().splitlines()]
    weights = [line["kl_weight"] for line in lines if "kl_weight" in line]
    validations = [line["validation"] for line in lines if "validation" in line]
    assert validations[-1]["kl"] == pytest.approx(1.5, abs=0.2)
    assert len(set(weights)) == len(weights), "the journal shows the weight that was found"
    assert found.best.elbo == max(line["elbo"] for line in validations), "at weight 1"


def test_a_latent_that_is_ignored_is_said_so_once_and_not_before_it_could_be_used(
    tmp_path: Path,
) -> None:
    vae, data, said = model(), factor(), []
    aim = config(46, 1e-2, kl_weight=ConstantSchedule(), beta=100.0)
    aim = msgspec.structs.replace(aim, validate_every=5)
    found = train(vae, data, factor(41), aim, seed=0, run=tmp_path, report=said.append)
    assert found.best.kl < 0.1
    warned = [n for n, line in enumerate(said) if "the decoder ignores the latent" in line]
    assert len(warned) == 1
    assert said[warned[0] - 1].startswith("step 15 "), "11.5 steps are a quarter of the run"


def test_a_validation_counts_every_sentence_once_at_weight_one_without_dropout() -> None:
    vae, valid = model(dropout=0.5), factor(97)  # more than one batch
    found = validate(vae, valid, seed=0)
    assert found == validate(vae, valid, seed=0)
    with torch.no_grad():
        vae.encoder.posterior_bias[:Z] = 1.0  # a KL that could not be overlooked
        vae.decoder.output_weight.zero_()
        vae.decoder.output_bias.zero_()
    uniform = validate(vae, valid, seed=0)
    expected = valid.num_targets / valid.num_sentences * torch.tensor(V).double().log()
    posterior = encode_corpus(vae, valid)
    kl = float(posterior.kl_to_standard_normal().sum()) / valid.num_sentences
    assert kl > 0.4 * Z
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
            StepSettings(settings.objective, seed, dtype=DTYPES[precision]),
            Clock(step, step, 200),
        )
        losses.append(float(taken.loss.value))
    return torch.tensor(losses).view(10, 20).mean(1)


def test_bfloat16_learns_as_float32_does_within_the_noise_between_seeds() -> None:
    exact, other, low = curve("float32", 0), curve("float32", 1), curve("bfloat16", 0)
    assert not torch.equal(exact, low)
    noise = (exact - other).abs().mean()
    assert float((exact - low).abs().mean()) < float(noise)
    assert float(low[-1]) < 0.5 * float(low[0])


def test_the_gradient_is_clipped_where_it_is_too_long_and_else_left_alone() -> None:
    def moved(clip_norm: float) -> torch.Tensor:
        """What one step of plain gradient descent at rate 1 changes, as one vector."""
        vae, data = model(), factor()
        before = torch.cat([p.detach().flatten() for p in vae.parameters()])
        optimizer, aim = SGDConfig().build(vae), config(1, 1.0).objective
        batch = data.batch(torch.arange(13))
        train_step(vae, optimizer, batch, StepSettings(aim, 0, clip_norm), Clock(0, 0, 1))
        return torch.cat([p.detach().flatten() for p in vae.parameters()]) - before

    free = moved(1e9)
    longest = float(free.norm())
    assert torch.equal(moved(1.01 * longest), free)
    short = moved(longest / 7)
    assert float(short.norm()) == pytest.approx(longest / 7, rel=1e-4)
    torch.testing.assert_close(7 * short, free, rtol=1e-3, atol=1e-6)


def test_the_first_cycle_of_restarts_is_a_run_of_its_length(tmp_path: Path) -> None:
    """So that a finished run can be made longer: it is the first part of one in more cycles."""
    once, twice = tmp_path / "once", tmp_path / "twice"
    for run, steps, rates, share in (
        (once, 24, LearningRateConfig(warmup_share=0.5), 0.5),
        (twice, 48, LearningRateConfig(warmup_share=0.25, decay=CosineRestartsSchedule()), 0.25),
    ):
        run.mkdir()
        vae, aim = model(dropout=0.2), config(steps, 0.02, kl_weight=LinearSchedule(share=share))
        aim = msgspec.structs.replace(aim, learning_rate=rates, save_every=24)
        train(vae, factor(), factor(7), aim, seed=0, run=run, report=lambda _: None)
    states = [read_state(run / "state" / "step-00000024") for run in (once, twice)]
    names = [name for name in states[0] if name.startswith(("model.", "optimizer."))]
    assert len(names) > 20
    for name in names:
        torch.testing.assert_close(states[0][name], states[1][name], rtol=1e-5, atol=1e-6)
