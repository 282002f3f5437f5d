"""Scores: closed forms, and higher is stranger whichever is taken."""

import math

import pytest
import torch

from textvae.data.batching import TokenArray
from textvae.metrics.scores import (
    SCORE_KINDS,
    SCORES,
    Aggregate,
    ScoreFeatures,
    aggregate_of,
    fit_score,
    measure_features,
    unigram_log_probs,
)
from textvae.model.decoder import GRUDecoderConfig
from textvae.model.encoder import GRUEncoderConfig, NoEncoderConfig
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.vae import ModelConfig
from textvae.randomness import key, normals

V, Z = 13, 3
DATA = TokenArray.from_lists([[2, 3, 4], [5], [], [2, 2, 12, 7, 3], [6, 11]], V)
CONFIG = ModelConfig(
    latent_dim=Z,
    encoder=GRUEncoderConfig(embedding_dim=5, hidden_dim=7),
    decoder=GRUDecoderConfig(embedding_dim=5, hidden_dim=11),
)
LANGUAGE_MODEL = ModelConfig(
    latent_dim=0,
    encoder=NoEncoderConfig(),
    decoder=GRUDecoderConfig(embedding_dim=5, hidden_dim=11),
)


def features(size: int = 101, seed: int = 1) -> ScoreFeatures:
    """Sentences whose nll is 3 + 2 for each token + 0.5 of the background nll, and noise."""
    noise = normals(key(seed, "features"), torch.arange(size), lanes=6).double()
    length = (noise[:, 0].abs() * 5).ceil() + 1
    background = 7 * length + 4 * noise[:, 1]
    nll = 3 + 2 * length + 0.5 * background + 0.1 * length.sqrt() * noise[:, 2]
    kl = noise[:, 3].abs()
    return ScoreFeatures(nll, -nll - 0.1, nll - kl, kl, length, background, noise[:, 4].abs())


def test_unigrams_count_every_token_and_every_end() -> None:
    found = unigram_log_probs(DATA)
    counts = [5, 0, 3, 2, 1, 1, 1, 1, 0, 0, 0, 1, 1]  # the first is </s>
    assert found.exp().tolist() == pytest.approx([(c + 1) / (16 + V) for c in counts])
    measured = measure_features(CONFIG.build(V).eval(), DATA, num_samples=2, seed=3, unigram=found)
    wanted = [
        -sum(found[[*s, 0]].tolist()) for s in ([2, 3, 4], [5], [], [2, 2, 12, 7, 3], [6, 11])
    ]
    assert measured.background_nll.tolist() == pytest.approx(wanted, rel=1e-12)
    assert measured.num_tokens.tolist() == [4, 2, 1, 6, 3]


def test_the_distance_is_that_of_mahalanobis() -> None:
    draws = normals(key(5, "posteriors"), torch.arange(29), lanes=2 * Z).double()
    posterior = DiagonalGaussian(draws[:, :Z], draws[:, Z:] - 2)
    aggregate = aggregate_of(posterior)
    # One draw from each posterior, many times: the aggregate posterior itself.
    many = normals(
        key(6, "draws"), torch.arange(40_000).view(-1, 1) * 29 + torch.arange(29), lanes=Z
    )
    sample = posterior.sample(many.double()).reshape(-1, Z)
    covariance = aggregate.factor @ aggregate.factor.t()
    torch.testing.assert_close(covariance, sample.t().cov(), rtol=0.02, atol=0.02)
    torch.testing.assert_close(aggregate.mean, draws[:, :Z].mean(0))
    model = CONFIG.build(V).eval()
    found = measure_features(model, DATA, num_samples=2, seed=3, aggregate=aggregate).distance
    mean = torch.cat(
        [
            model.encoder(b.targets, b.lengths, noise=None, dtype=torch.float32).mean
            for b in (DATA.batch(torch.tensor([i])) for i in range(5))
        ]
    )
    away = mean.detach().double() - aggregate.mean
    wanted = (away @ torch.linalg.inv(covariance) * away).sum(1).sqrt()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_dimension_that_carries_nothing_adds_no_distance() -> None:
    mean = torch.tensor([[1.0, 1e-6], [-1.0, -1e-6], [0.5, 1e-6], [-0.5, -1e-6]])
    posterior = DiagonalGaussian(mean, torch.tensor([-4.0, 0.0]).expand(4, 2))
    factor = aggregate_of(posterior).factor
    assert factor[1, 1].item() == pytest.approx(1.0, abs=1e-4)


def test_what_is_said_of_a_sentence_does_not_depend_on_the_others() -> None:
    model, aggregate = (
        CONFIG.build(V).eval(),
        Aggregate(torch.zeros(Z).double(), torch.eye(Z).double()),
    )
    whole = measure_features(model, DATA, num_samples=5, seed=3, aggregate=aggregate)
    alone = TokenArray.from_lists([[2, 2, 12, 7, 3]], V)
    found = measure_features(model, alone, num_samples=5, seed=3, aggregate=aggregate)
    for one, all_ in zip(found, whole, strict=True):
        torch.testing.assert_close(one, all_[3:4], rtol=1e-5, atol=1e-5, equal_nan=True)
    other = measure_features(model, alone, num_samples=5, seed=4)
    assert abs(float(other.nll - found.nll)) > 1e-6


def test_a_language_model_is_exact_and_can_be_a_background() -> None:
    language = LANGUAGE_MODEL.build(V).eval()
    found = measure_features(language, DATA, num_samples=9, seed=3)
    assert found.kl.tolist() == [0.0] * 5
    torch.testing.assert_close(found.nll, -found.elbo)
    against = measure_features(CONFIG.build(V), DATA, num_samples=2, seed=3, background=language)
    torch.testing.assert_close(against.background_nll, found.nll)
    ratio = SCORES["likelihood_ratio"](against)
    torch.testing.assert_close(ratio, against.nll - found.nll)


STRANGER = {
    "nll": {"nll": 1.0},
    "elbo": {"elbo": -1.0},
    "nll_per_token": {"nll": 1.0},
    "likelihood_ratio": {"nll": 1.0, "background_nll": 0.5},
    "kl": {"kl": 1.0},
    "mahalanobis": {"distance": 1.0},
    "combined": {"nll": 1.0},
}


@pytest.mark.parametrize("kind", SCORE_KINDS)
def test_higher_is_stranger(kind: str) -> None:
    normal = features()
    fitted = fit_score(kind, normal)
    moved = {name: getattr(normal, name) + by for name, by in STRANGER[kind].items()}
    before, after = fitted(normal), fitted(normal._replace(**moved))
    assert before.shape == (101,)
    assert bool((after > before).all())


def test_the_combination_is_two_residuals_in_units_of_their_spread() -> None:
    normal, fresh = features(size=2003, seed=2), features(seed=3)
    fitted = fit_score("combined", normal)
    scores = fitted(fresh)
    assert float(scores.mean()) == pytest.approx(0.0, abs=0.3)
    # What the fit does not know leaves 0.1 with the rarity of the words, and 2 without it.
    root = fresh.num_tokens.sqrt()
    second = (fresh.nll - 3 - 2 * fresh.num_tokens - 0.5 * fresh.background_nll) / root / 0.1
    slope = torch.stack([normal.num_tokens, torch.ones_like(normal.nll)], 1)
    weight = normal.num_tokens.rsqrt()[:, None]
    line = torch.linalg.lstsq(slope * weight, normal.nll[:, None] * weight).solution
    left = (normal.nll - (slope @ line)[:, 0]) * weight[:, 0]
    first = (fresh.nll - fresh.num_tokens * line[0] - line[1]) / root / left.square().mean().sqrt()
    torch.testing.assert_close(scores, first + second, rtol=0.1, atol=0.2)
    # A surprise of one nat counts less in a long sentence.
    surprise = fitted(fresh._replace(nll=fresh.nll + 1)) - scores
    ratio = surprise * root
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))


def test_the_combination_of_sentences_as_long_as_each_other_is_finite() -> None:
    normal = features()
    equal = normal._replace(num_tokens=torch.full_like(normal.nll, 5.0))
    assert math.isfinite(float(fit_score("combined", equal)(equal).abs().max()))
    alike = ScoreFeatures(*(torch.full_like(values, 5.0) for values in normal))
    assert float(fit_score("combined", alike)(alike).abs().max()) < 1e-3
