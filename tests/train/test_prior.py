"""The prior that is saved fits the aggregate posterior, and training does not notice."""

import signal
from pathlib import Path

import pytest
import torch
from msgspec import structs
from small import small_config

from textvae.data.batching import TokenArray
from textvae.metrics.likelihood import encode_corpus
from textvae.model.gaussian import DiagonalGaussian, aggregate_covariance
from textvae.model.prior import PriorConfig
from textvae.model.prior_flow import FlowPrior, FlowPriorConfig
from textvae.model.prior_gaussian import (
    GaussianPrior,
    GaussianPriorConfig,
    StandardNormalPriorConfig,
)
from textvae.model.prior_mixture import MixturePrior, MixturePriorConfig
from textvae.model.vae import VAE
from textvae.randomness import key, normals
from textvae.train.config import TrainConfig
from textvae.train.loop import train
from textvae.train.objective import FreeBitsPerDimension, ObjectiveConfig
from textvae.train.optimizer import AdamWConfig
from textvae.train.prior import FIT_SENTENCES, fit_density, fitted_prior
from textvae.train.validation import Validation, validate

V, GAUSSIAN = 19, GaussianPriorConfig()


def model(prior: PriorConfig = GAUSSIAN) -> VAE:
    return small_config(3, 7, 11, encoder={"dropout_rate": 0.3}, prior=prior).build(V)


def corpus(size: int = 101) -> TokenArray:
    """Seven kinds of sentences, each fixed by its first word."""
    return TokenArray.from_lists([[2 + i % 7] * 2 + [9 + i % 7] * 2 for i in range(size)], V)


def held_out(size: int = 61) -> TokenArray:
    """The same kinds, the first three of them twice as often."""
    kinds = [(i % 10) % 7 for i in range(size)]
    return TokenArray.from_lists([[2 + k] * 2 + [9 + k] * 2 for k in kinds], V)


def test_a_run_ends_with_the_prior_of_its_best_parameters() -> None:
    aim = TrainConfig(batch_size=13, max_steps=40, validate_every=20, log_every=40)
    data, valid = corpus(), held_out()
    vae, plain = model(), model(prior=StandardNormalPriorConfig())
    found, without = (
        train(one, data, valid, aim, seed=0, run=None, report=lambda _: None)
        for one in (vae, plain)
    )
    for name, value in plain.state_dict().items():
        assert torch.equal(value, vae.state_dict()[name]), "its steps are those under N(0, 1)"
    assert isinstance(vae.prior, GaussianPrior)
    posterior = encode_corpus(vae, data)
    covariance = aggregate_covariance(posterior)
    torch.testing.assert_close(vae.prior.mean.double(), posterior.mean.double().mean(0))
    torch.testing.assert_close((vae.prior.factor @ vae.prior.factor.t()).double(), covariance)
    assert found.best == validate(vae, valid, seed=0)
    assert found.best.kl < without.best.kl
    assert found.best.elbo > without.best.elbo, "of the same parameters and the same sentences"


FLOOR = ObjectiveConfig(free_bits=FreeBitsPerDimension(nats=1.5))
MIXED = TrainConfig(
    batch_size=13,
    max_steps=150,
    validate_every=75,
    objective=FLOOR,
    optimizer=AdamWConfig(learning_rate=0.01),
)
"""After it the seven kinds of sentences are no Gaussian."""


FLOW = FlowPriorConfig(hidden_dim=64, num_steps=200, batch_size=97, learning_rate=0.01)


@pytest.mark.parametrize("prior", [MixturePriorConfig(max_components=8), FLOW])
def test_a_fitted_density_takes_the_place_of_the_gaussian_when_a_run_ends(
    prior: MixturePriorConfig | FlowPriorConfig,
) -> None:
    data, valid, lines = corpus(503), held_out(), list[str]()
    vae, plain = model(prior), model()
    found, without = (
        train(one, data, valid, MIXED, seed=0, run=None, report=lines.append)
        for one in (vae, plain)
    )
    own = vae.state_dict()
    for name, value in plain.state_dict().items():
        assert torch.equal(value, own[name]), "its steps and its moments are those of the Gaussian"
    assert isinstance(vae.prior, MixturePrior | FlowPrior)
    assert not vae.prior.kl_is_exact
    if isinstance(vae.prior, MixturePrior):
        assert float(own["prior.weights"].sum()) == pytest.approx(1.0)
    assert found.best == validate(vae, valid, seed=0)
    assert found.best.kl < without.best.kl
    assert found.best.elbo > without.best.elbo + 0.1
    assert any(line.startswith("prior: ") and "above N(m, C)" in line for line in lines)
    assert f"prior: validation nll <= {-found.best.elbo:.3f}  kl {found.best.kl:.2f}" in lines


@pytest.mark.parametrize(
    ("prior", "step"), [(MixturePriorConfig(), "1 Gaussian,"), (FLOW, "flow, step 25 ")]
)
def test_a_signal_ends_the_fit_and_not_the_run(
    prior: MixturePriorConfig | FlowPriorConfig, step: str
) -> None:
    data, lines = corpus(503), list[str]()

    def stop(line: str) -> None:
        lines.append(line)
        if line.startswith(f"prior: {step}") and " s: " in line:
            signal.raise_signal(signal.SIGINT)

    found = train(model(prior), data, held_out(), MIXED, seed=0, run=None, report=stop)
    assert found.signal is None
    assert any(line.endswith("; ended by a signal") for line in lines), lines


def test_calibration_sees_the_mixture_and_a_stopped_run_ends_alike(tmp_path: Path) -> None:
    data, valid, aim = corpus(503), held_out(), structs.replace(MIXED, calibrate=True)
    stopped = structs.replace(aim, save_every=50)
    straight, parts = model(MixturePriorConfig(max_components=8)), []
    expected = train(straight, data, valid, aim, seed=0, run=None, report=lambda _: None)
    assert expected.best.elbo > validate(straight, valid, seed=0).elbo - 1e-6

    def stop(line: str) -> None:
        if line.startswith("step 100/"):
            signal.raise_signal(signal.SIGTERM)

    for report in (stop, lambda _: None):
        vae = model(MixturePriorConfig(max_components=8))
        parts.append(train(vae, data, valid, stopped, seed=0, run=tmp_path, report=report))
    assert parts[0].signal == signal.SIGTERM
    assert parts[1].best == expected.best
    for name, value in straight.state_dict().items():
        assert torch.equal(value, vae.state_dict()[name]), name


def posterior(size: int, spread: float) -> DiagonalGaussian:
    """Two clusters that are this far apart."""
    noise = normals(key(1, "posterior"), torch.arange(size), lanes=3).double()
    noise[::2, 0] += spread
    return DiagonalGaussian(noise, torch.full_like(noise, -2.0))


@pytest.mark.parametrize("elbo", [1.0, -1.0])
def test_a_flow_stays_where_it_is_better_on_both_held_out_sets(
    monkeypatch: pytest.MonkeyPatch, elbo: float
) -> None:
    vae, data, lines = model(FLOW), corpus(403), list[str]()

    def encoded(_: VAE, some: TokenArray) -> DiagonalGaussian:
        return posterior(some.num_sentences, 9.0).apply(torch.Tensor.float)

    monkeypatch.setattr("textvae.train.prior.encode_corpus", encoded)
    prior = vae.prior
    assert isinstance(prior, FlowPrior)
    prior.fit_moments(encoded(vae, data))
    before, after = Validation(0.0, 3.0, 3), Validation(elbo, 2.0, 3)
    found = fit_density(vae, data, before, lambda: after, seed=0, seconds=0.0, report=lines.append)
    assert found == (after if elbo > 0 else before)
    assert prior.has_density is (elbo > 0)
    steps = [line for line in lines if line.startswith("prior: flow, step ")]
    assert len(steps) == 8
    assert " of at most 200, " in steps[0]


@pytest.mark.parametrize(
    ("size", "spread", "elbo", "said"),
    [
        (403, 9.0, 1.0, "prior: validation nll <= -1.000  kl 2.00"),
        (403, 9.0, -1.0, "prior: N(m, C) stays, for its validation is no worse: nll <= -0.000"),
        (403, 0.0, 1.0, "above N(m, C), which stays"),
        (101, 2.8, 1.0, "prior: 4 Gaussians, 0.040 +- 0.350 nats per latent above N(m, C), which"),
        (403, 1e160, 1.0, "prior: N(m, C) stays: latents are too far from zero"),
    ],
)
def test_the_gaussian_stays_where_the_mixture_is_not_surely_better(
    monkeypatch: pytest.MonkeyPatch, size: int, spread: float, elbo: float, said: str
) -> None:
    vae, data, lines = model(MixturePriorConfig()).double(), corpus(size), list[str]()
    monkeypatch.setattr(
        "textvae.train.prior.encode_corpus", lambda _, some: posterior(some.num_sentences, spread)
    )
    prior = vae.prior
    assert isinstance(prior, MixturePrior)
    prior.fit_moments(posterior(size, min(spread, 9.0)))
    before, after = Validation(0.0, 3.0, 3), Validation(elbo, 2.0, 3)
    found = fit_density(vae, data, before, lambda: after, seed=0, seconds=0.0, report=lines.append)
    taken = said.startswith("prior: validation")
    assert found == (after if taken else before)
    assert bool(prior.num_components) is taken
    assert any(said in line for line in lines), lines


def test_of_a_large_corpus_ten_times_as_many_sentences_are_read_as_for_the_gaussian(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vae, sizes = model(MixturePriorConfig()).double(), []

    def encoded(_: VAE, some: TokenArray) -> DiagonalGaussian:
        sizes.append(some.num_sentences)
        return posterior(53, 0.0)

    monkeypatch.setattr("textvae.train.prior.encode_corpus", encoded)
    many = corpus().select(torch.arange(4 * FIT_SENTENCES + 1) % 101)
    fit_density(
        vae,
        many,
        Validation(0.0, 0.0, 3),
        list,
        seed=0,
        seconds=0.0,
        report=lambda _: None,  # type: ignore[arg-type]
    )
    with fitted_prior(vae, many):
        pass
    assert sizes == [4 * FIT_SENTENCES + 1, 8001]


def test_it_is_fitted_while_a_validation_lasts_and_in_evaluation_mode() -> None:
    vae, data = model(), corpus()
    vae.train()
    with fitted_prior(vae, data) as buffers:
        assert vae.training
        own = dict(vae.named_buffers())
        assert set(buffers) == set(own)
        assert all(torch.equal(value, own[name]) for name, value in buffers.items())
        assert bool(buffers["prior.factor"].any())
    assert not any(bool(value.any()) for value in vae.buffers())
    with fitted_prior(model(prior=StandardNormalPriorConfig()), data) as buffers:
        assert buffers == {}


def test_a_large_corpus_gives_a_part_of_its_sentences_evenly_spaced() -> None:
    vae, data = model(), corpus()
    count = 2 * FIT_SENTENCES + 1
    many = data.select(torch.arange(count) % data.num_sentences)
    with fitted_prior(vae, many) as buffers:
        some = many.select(torch.arange(0, count, 3))
        vae.eval()
        mean = encode_corpus(vae, some).mean.double().mean(0)
        torch.testing.assert_close(buffers["prior.mean"].double(), mean)
