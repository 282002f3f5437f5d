"""The prior that is saved fits the aggregate posterior, and training does not notice."""

import pytest
import torch

from textvae.data.batching import TokenArray
from textvae.evaluate.likelihood import encode_corpus
from textvae.model.decoder import GRUDecoderConfig
from textvae.model.encoder import GRUEncoderConfig
from textvae.model.gaussian import aggregate_covariance
from textvae.model.prior import PriorConfig
from textvae.model.prior_gaussian import (
    GaussianPrior,
    GaussianPriorConfig,
    StandardNormalPriorConfig,
)
from textvae.model.prior_mixture import MixturePrior, MixturePriorConfig
from textvae.model.vae import VAE, ModelConfig
from textvae.train.loop import TrainConfig, train
from textvae.train.objective import FreeBitsPerDimension, ObjectiveConfig
from textvae.train.optimizer import AdamWConfig
from textvae.train.prior import FIT_SENTENCES, fitted_prior
from textvae.train.validation import validate

V, GAUSSIAN = 19, GaussianPriorConfig()


def model(prior: PriorConfig = GAUSSIAN) -> VAE:
    return ModelConfig(
        latent_dim=3,
        encoder=GRUEncoderConfig(embedding_dim=7, hidden_dim=11, dropout_rate=0.3),
        decoder=GRUDecoderConfig(embedding_dim=7, hidden_dim=11),
        prior=prior,
    ).build(V)


def corpus(size: int = 101) -> TokenArray:
    """Seven kinds of sentences, each fixed by its first word."""
    return TokenArray.from_lists([[2 + i % 7] * 2 + [9 + i % 7] * 2 for i in range(size)], V)


def test_a_run_ends_with_the_prior_of_its_best_parameters() -> None:
    aim = TrainConfig(batch_size=13, max_steps=40, validate_every=20, log_every=40)
    data = corpus()
    vae, plain = model(), model(prior=StandardNormalPriorConfig())
    found, without = (
        train(one, data, data, aim, seed=0, run=None, report=lambda _: None) for one in (vae, plain)
    )
    for name, value in plain.state_dict().items():
        assert torch.equal(value, vae.state_dict()[name]), "its steps are those under N(0, 1)"
    assert isinstance(vae.prior, GaussianPrior)
    posterior = encode_corpus(vae, data)
    covariance = aggregate_covariance(posterior)
    torch.testing.assert_close(vae.prior.mean.double(), posterior.mean.double().mean(0))
    torch.testing.assert_close((vae.prior.factor @ vae.prior.factor.t()).double(), covariance)
    assert found.best == validate(vae, data, seed=0)
    assert found.best.kl < without.best.kl
    assert found.best.elbo > without.best.elbo, "of the same parameters and the same sentences"


def test_a_mixture_takes_the_place_of_the_gaussian_when_a_run_ends() -> None:
    floor = ObjectiveConfig(free_bits=FreeBitsPerDimension(nats=1.5))
    rate = AdamWConfig(learning_rate=0.01)
    aim = TrainConfig(
        batch_size=13, max_steps=150, validate_every=75, objective=floor, optimizer=rate
    )
    data, lines = corpus(503), list[str]()
    vae, plain = model(MixturePriorConfig(max_components=8)), model()
    found, without = (
        train(one, data, data, aim, seed=0, run=None, report=lines.append) for one in (vae, plain)
    )
    own = vae.state_dict()
    for name, value in plain.state_dict().items():
        assert torch.equal(value, own[name]), "its steps and its moments are those of the Gaussian"
    assert isinstance(vae.prior, MixturePrior)
    assert not vae.prior.kl_is_exact
    assert float(own["prior.weights"].sum()) == pytest.approx(1.0)
    assert found.best == validate(vae, data, seed=0)
    assert found.best.kl < without.best.kl
    assert found.best.elbo > without.best.elbo + 0.1, "seven kinds of sentences are no Gaussian"
    assert any(line.startswith("prior: ") and "above N(m, C)" in line for line in lines)


def test_where_sentences_are_few_the_gaussian_stays() -> None:
    vae, lines = model(MixturePriorConfig()), list[str]()
    few = corpus(3)
    aim = TrainConfig(batch_size=3, max_steps=2, validate_every=2)
    train(vae, few, few, aim, seed=0, run=None, report=lines.append)
    assert vae.prior.kl_is_exact
    assert any("which stays" in line for line in lines)


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
