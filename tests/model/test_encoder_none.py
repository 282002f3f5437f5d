"""Without a latent the ELBO is the log-likelihood, and the model is its decoder."""

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from small import drawn_corpus

from textvae.config import decode
from textvae.data.batching import Batch, TokenArray
from textvae.errors import ConfigError
from textvae.metrics.latent_usage import diagnosis
from textvae.metrics.likelihood import encode_corpus, importance_weighted
from textvae.model.decoder import GRUDecoderConfig
from textvae.model.encoder import NoEncoderConfig
from textvae.model.vae import VAE, ModelConfig

V, E, H, N = 23, 5, 11, 31


def build(vocabulary_size: int = V, **decoder: Any) -> VAE:
    """Initial weights, scaled up so that words differ in probability."""
    config = ModelConfig(
        latent_dim=0,
        encoder=NoEncoderConfig(),
        decoder=GRUDecoderConfig(embedding_dim=E, hidden_dim=H, **decoder),
    )
    model = config.build(vocabulary_size, seed=1).eval()
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.mul_(4.0).add_(0.01 * number)
    return model


def corpus() -> TokenArray:
    return drawn_corpus("corpus", N, V)


def whole(data: TokenArray) -> Batch:
    return data.batch(torch.arange(data.num_sentences))


@torch.no_grad()
def by_hand(model: VAE, data: TokenArray) -> torch.Tensor:
    """-log p `[N]`: log-softmax by log-softmax over the targets of each sentence."""
    batch = whole(data)
    features = model.decoder(batch.inputs, None, noise=None, dtype=torch.float32).double()
    logits = features @ model.decoder.output_weight.t().double() + model.decoder.output_bias
    rows = logits.log_softmax(2).gather(2, batch.targets[:, :, None])[:, :, 0]
    return -torch.stack([row[:n].sum() for row, n in zip(rows, batch.lengths, strict=True)])


@pytest.mark.parametrize("num_samples", [1, 3])
def test_the_nll_is_the_sum_of_log_softmaxes_and_so_is_every_other_figure(num_samples: int) -> None:
    model, data = build(), corpus()
    found = importance_weighted(
        model, data, encode_corpus(model, data), num_samples=num_samples, seed=0
    )
    torch.testing.assert_close(found.nll, by_hand(model, data), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.elbo, -found.nll, rtol=1e-12, atol=0.0)
    torch.testing.assert_close(found.reconstruction, found.nll, rtol=1e-12, atol=0.0)
    assert float(found.kl.abs().max()) == 0.0
    assert float(found.monte_carlo_variance.max()) < 1e-11


def test_the_report_is_exact_with_one_sample_whatever_was_asked(
    evaluate_tokens: Callable[..., Any],
) -> None:
    model, data = build(), corpus()
    reports = [evaluate_tokens(model, data, num_samples=k, seed=k, rows=k) for k in (1, 500)]
    for found in reports:
        assert found.nll == -found.elbo == found.reconstruction
        assert found.nll == pytest.approx(float(by_hand(model, data).mean()), rel=1e-6)
        assert found.perplexity == found.perplexity_elbo
        assert found.nll_monte_carlo_stderr == found.kl == found.mutual_information == 0.0
        assert found.permutation_cost == found.permutation_cost_stderr == 0.0
        assert (found.num_samples, found.latent_dim, found.active_units) == (1, 0, 0)
        assert found.diagnosis() is None
        assert "exact: there is no latent" in found.table()
        assert not any(word in found.table() for word in ("kl", "elbo", "active", "mutual"))
    assert reports[0].nll == pytest.approx(reports[1].nll, rel=1e-6)
    assert diagnosis(0.0, 0, 0, 0.0) is None
    assert diagnosis(0.0, 0, 1, 0.0) is not None


def test_the_probabilities_of_all_sentences_add_to_the_probability_of_ending() -> None:
    words, longest = 3, 4
    model = build(words)
    sentences = [list(s) for n in range(longest + 1) for s in product(range(1, words), repeat=n)]
    data = TokenArray.from_lists(sentences, words)
    inside = float((-by_hand(model, data)).exp().sum())
    # What is left over is the mass of the beginnings of one word more.
    batch = whole(TokenArray.from_lists([[*s, 1] for s in sentences if len(s) == longest], words))
    with torch.no_grad():
        features = model.decoder(batch.inputs, None, noise=None, dtype=torch.float32).double()
        logits = features @ model.decoder.output_weight.t().double() + model.decoder.output_bias
    steps = logits.log_softmax(2)[:, : longest + 1]
    read = steps[:, :longest].gather(2, batch.targets[:, :longest, None]).sum((1, 2))
    going_on = (read + steps[:, longest, 1:].logsumexp(1)).exp().sum()
    assert inside + float(going_on) == pytest.approx(1.0, abs=1e-6)


def test_the_model_is_its_decoder_and_begins_as_the_decoder_of_an_autoencoder() -> None:
    alone = ModelConfig(latent_dim=0, encoder=NoEncoderConfig()).build(V, seed=3).state_dict()
    other = ModelConfig(latent_dim=2).build(V, seed=3).state_dict()
    assert all(name.startswith("decoder.") for name in alone)
    assert not any("condition" in name or "initial" in name for name in alone)
    assert all(torch.equal(value, other[name]) for name, value in alone.items())


def test_one_step_has_no_kl_and_the_gradient_of_the_likelihood() -> None:
    model, batch = build(), whole(corpus())
    terms = model(batch.inputs, batch.targets, batch.lengths, torch.empty(N, 0))
    assert terms.kl.shape == terms.posterior.mean.shape == (N, 0)
    terms.reconstruction.total.backward()
    total = float(by_hand(model, corpus()).sum())
    assert float(terms.reconstruction.total.detach()) == pytest.approx(total, rel=1e-6)
    assert all(float(p.grad.abs().max()) > 0.0 for p in model.parameters() if p.grad is not None)
    assert all(p.grad is not None for p in model.parameters())


def test_a_uniform_model_pays_log_v_per_target(evaluate_tokens: Callable[..., Any]) -> None:
    model, data = build(), corpus()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    found = evaluate_tokens(model, data, num_samples=1, seed=0)
    assert found.perplexity == pytest.approx(V, rel=1e-6)
    assert found.nll == pytest.approx(data.num_targets * math.log(V) / N, rel=1e-6)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"latent_dim": 0}, "latent_dim 0 is a language model, so encoder.kind must be none"),
        ({"encoder": {"kind": "none"}}, "so latent_dim must be 0, found 8"),
        ({"latent_dim": -1}, "found -1, expected an integer >= 0"),
        ({"latent_dim": 0, "encoder": {"kind": "none", "hidden_dim": 3}}, "hidden_dim"),
    ],
    ids=str,
)
def test_an_encoder_without_a_latent_and_the_reverse_are_refused(
    value: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        decode(value, ModelConfig, source="file.toml")
