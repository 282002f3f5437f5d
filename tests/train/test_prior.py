"""The prior that is saved fits the aggregate posterior, and training does not notice."""

import torch

from textvae.data.batching import TokenArray
from textvae.evaluate.likelihood import encode_corpus
from textvae.model.decoder import GRUDecoderConfig
from textvae.model.encoder import GRUEncoderConfig
from textvae.model.gaussian import aggregate_covariance
from textvae.model.prior import (
    GaussianPrior,
    GaussianPriorConfig,
    PriorConfig,
    StandardNormalPriorConfig,
)
from textvae.model.vae import VAE, ModelConfig
from textvae.train.loop import TrainConfig, train, validate
from textvae.train.prior import FIT_SENTENCES, fitted_prior

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
