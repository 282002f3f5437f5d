"""The likelihoods are right: against exact answers, against brute force, and whatever the batch."""

import math
from itertools import product

import pytest
import torch
from small import small_config
from torch import Tensor
from torch.distributions import MultivariateNormal

from textvae.data.batching import TokenArray
from textvae.metrics.likelihood import (
    encode_corpus,
    importance_weighted,
    label_log_posteriors,
    log_likelihood,
    reconstruction_at,
)
from textvae.model.decoder import GRUDecoderConfig
from textvae.model.encoder import GRUEncoderConfig, NoEncoder
from textvae.model.flow import AutoregressiveFlow
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.labels import M2LabelsConfig
from textvae.model.mixture import GaussianMixture
from textvae.model.prior_flow import FlowPrior, FlowPriorConfig
from textvae.model.prior_gaussian import StandardNormalPrior
from textvae.model.prior_mixture import MixturePrior
from textvae.model.vae import VAE, ModelConfig
from textvae.randomness import Noise, hash64, key, normals

V, Z = 23, 2


def tiny(latent_dim: int = Z, vocabulary_size: int = V, scale: float = 4.0) -> VAE:
    """A model whose latent matters: initial weights, scaled up."""
    config = small_config(
        latent_dim, 5, 11, encoder={"dropout_rate": 0.5}, decoder={"dropout_rate": 0.5}
    )
    model = config.build(vocabulary_size, seed=3).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


def corpus(size: int = 31, vocabulary_size: int = V) -> TokenArray:
    k = key(4, "corpus")
    sentences = [
        [2 + hash64(k, i, t) % (vocabulary_size - 2) for t in range(hash64(k, i) % 8)]
        for i in range(size)
    ]
    return TokenArray.from_lists(sentences, vocabulary_size)


class GaussianLikelihood(torch.nn.Module):
    """p(</s>|z) = exp(-|z - a|^2 / 2 s^2), so that p of the empty sentence has a closed form."""

    def __init__(self, center: Tensor, scale: float) -> None:
        super().__init__()
        self.center, self.scale = center, scale
        self.output_weight = torch.nn.Parameter(torch.tensor([[1.0], [0.0]]))
        self.output_bias = torch.zeros(2)

    def log_prob(self, latents: Tensor) -> Tensor:
        return -0.5 * ((latents - self.center) / self.scale).square().sum(-1)

    def expanded(self, inputs: Tensor, conditions: Tensor, *, dtype: torch.dtype) -> Tensor:
        log_p = self.log_prob(conditions.double())
        return (log_p - torch.log(-torch.expm1(log_p))).float()[None, :, :, None]

    def exact(self) -> float:
        """log of the integral of N(z; 0, 1) exp(-|z - a|^2 / 2 s^2) over z."""
        variance = self.scale**2
        terms = 0.5 * math.log(variance / (1 + variance)) - 0.5 * self.center.square() / (
            1 + variance
        )
        return float(terms.sum())

    def posterior(self) -> DiagonalGaussian:
        variance = self.scale**2 / (1 + self.scale**2)
        mean = (self.center / (1 + self.scale**2))[None]
        return DiagonalGaussian(mean, torch.full_like(mean, math.log(variance)))


@pytest.fixture
def linear_gaussian() -> VAE:
    decoder = GaussianLikelihood(torch.tensor([0.7, -1.1, 0.4]), 0.6)
    return VAE(NoEncoder(0), StandardNormalPrior(3), decoder)  # type: ignore[arg-type]


def test_with_the_exact_posterior_one_sample_gives_the_exact_answer(linear_gaussian: VAE) -> None:
    empty = TokenArray.from_lists([[]], 2)
    decoder = linear_gaussian.decoder
    assert isinstance(decoder, GaussianLikelihood)
    found = importance_weighted(linear_gaussian, empty, decoder.posterior(), num_samples=1, seed=0)
    assert float(found.nll) == pytest.approx(-decoder.exact(), abs=1e-5)
    assert float(found.elbo) == pytest.approx(decoder.exact(), abs=1e-5)


def test_under_a_mixture_it_is_the_sum_of_its_exact_answers(linear_gaussian: VAE) -> None:
    """The integral of a mixture times the likelihood: N(a; mean, C + s^2 I) of each Gaussian."""
    decoder = linear_gaussian.decoder
    assert isinstance(decoder, GaussianLikelihood)
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    mean = torch.tensor([[1.0, -0.6, 0.2], [-0.3, 0.1, 0.9]], dtype=torch.float64)
    factor = torch.tensor([[0.6, 0.0, 0.0], [0.2, 0.5, 0.0], [-0.1, 0.3, 0.8]]).double()
    prior = MixturePrior(3, 4)
    prior.set_mixture(GaussianMixture(weights.log(), mean, torch.stack([factor, 0.7 * factor])))
    model = VAE(linear_gaussian.encoder, prior, linear_gaussian.decoder)
    variance = decoder.scale**2
    exact = torch.stack(
        [
            weights[m].log()
            + MultivariateNormal(
                mean[m], part @ part.t() + variance * torch.eye(3, dtype=torch.float64)
            ).log_prob(decoder.center.double())
            for m, part in enumerate((factor, 0.7 * factor))
        ]
    ).logsumexp(0) + 1.5 * math.log(2 * math.pi * variance)
    empty = TokenArray.from_lists([[]] * 53, 2)
    near = DiagonalGaussian(torch.tensor([[0.7, -0.6, 0.4]] * 53), torch.full((53, 3), -1.0))
    found = importance_weighted(model, empty, near, num_samples=1009, seed=2)
    error = float(found.nll.std()) / math.sqrt(53)
    assert float(found.nll.mean()) == pytest.approx(-float(exact), abs=4 * error + 1e-3)
    assert error < 0.01


def test_under_a_flow_the_bound_rises_to_the_integral_over_a_grid() -> None:
    decoder = GaussianLikelihood(torch.tensor([0.7, -1.1]), 0.6)
    shape = FlowPriorConfig(hidden_dim=13, num_components=3)
    prior = FlowPrior(2, shape)
    weights = {
        name: 0.3 * normals(key(8, name), torch.arange(math.prod(size)), lanes=1).view(size)
        for name, size in shape.shape(2).sizes().items()
    }
    prior.set_flow(AutoregressiveFlow(**weights))
    model = VAE(NoEncoder(0), prior, decoder)  # type: ignore[arg-type]
    line = torch.linspace(-9.0, 9.0, 601, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(line, line, indexing="ij"), dim=-1)
    joint = (prior.double().log_prob(grid) + decoder.log_prob(grid)).exp()
    exact = float(torch.trapezoid(torch.trapezoid(joint, line), line).log())
    prior.float()
    empty = TokenArray.from_lists([[]] * 53, 2)
    near = DiagonalGaussian(torch.tensor([[0.6, -0.8]] * 53), torch.full((53, 2), -0.5))
    bounds = []
    for num_samples in (1, 11, 1009):
        found = importance_weighted(model, empty, near, num_samples=num_samples, seed=2)
        bounds.append(-float(found.nll.mean()))
        error = float(found.nll.std()) / math.sqrt(53)
    assert bounds == sorted(bounds)
    assert bounds[-1] == pytest.approx(exact, abs=4 * error + 1e-3)
    assert error < 0.02
    kl = prior.kl(near).sum(1)
    terms = -(found.elbo + found.reconstruction)
    assert float(kl.mean()) == pytest.approx(float(terms.mean()), abs=0.1)


def test_with_a_wrong_posterior_the_bound_rises_to_the_exact_answer(linear_gaussian: VAE) -> None:
    empty = TokenArray.from_lists([[]] * 101, 2)
    decoder = linear_gaussian.decoder
    assert isinstance(decoder, GaussianLikelihood)
    wrong = DiagonalGaussian(torch.zeros(101, 3), torch.zeros(101, 3))  # the prior itself
    bounds, errors = [], []
    for num_samples in (1, 7, 53, 1009):
        found = importance_weighted(
            linear_gaussian, empty, wrong, num_samples=num_samples, seed=num_samples
        )
        bounds.append(-float(found.nll.mean()))
        errors.append(float(found.nll.std()) / math.sqrt(101))
    assert bounds == sorted(bounds)
    exact = decoder.exact()
    assert bounds[0] < exact - 0.5
    assert abs(bounds[-1] - exact) < 4 * errors[-1] + 1e-3
    predicted = float(found.monte_carlo_variance.mean().sqrt())
    assert predicted == pytest.approx(float(found.nll.std()), rel=0.3)


@torch.no_grad()
def quadrature(model: VAE, data: TokenArray) -> Tensor:
    """Exact log p(x) `[N]`, by the trapezoid rule over a one-dimensional latent."""
    grid = torch.linspace(-9.0, 9.0, 1201)
    batch = data.batch(torch.arange(data.num_sentences))
    latents = grid[:, None, None].expand(-1, data.num_sentences, 1).contiguous()
    joint = log_likelihood(model, batch, latents).double() + model.prior.log_prob(latents).double()
    return joint.logsumexp(0) + math.log(18.0 / 1200)


@torch.no_grad()
def test_sentences_of_an_enumerable_model_sum_to_one() -> None:
    model, words, longest = tiny(latent_dim=1, vocabulary_size=4), (1, 2, 3), 4
    sentences = [list(s) for n in range(longest + 1) for s in product(words, repeat=n)]
    exact = quadrature(model, TokenArray.from_lists(sentences, 4)).exp()
    shorter = float(exact[: -(3**longest)].sum())
    at_limit = [list(s) for s in product(words, repeat=longest)]
    data = TokenArray.from_lists(at_limit, 4)
    batch = data.batch(torch.arange(len(at_limit)))
    prefix_only = batch._replace(lengths=batch.lengths - 1)  # without the final </s>
    grid = torch.linspace(-9.0, 9.0, 1201)
    latents = grid[:, None, None].expand(-1, len(at_limit), 1).contiguous()
    joint = log_likelihood(model, prefix_only, latents) + model.prior.log_prob(latents)
    beyond = float(joint.double().exp().sum() * 18.0 / 1200)
    assert shorter + beyond == pytest.approx(1.0, abs=1e-5)


def test_the_bound_rises_with_k_to_the_exact_answer_of_an_enumerable_model() -> None:
    model = tiny(latent_dim=1, vocabulary_size=5)
    data = corpus(61, 5)
    exact = float(quadrature(model, data).mean())
    posterior = encode_corpus(model, data)
    nlls = [
        importance_weighted(model, data, posterior, num_samples=k, seed=1) for k in (1, 11, 997)
    ]
    values = [-float(found.nll.mean()) for found in nlls]
    assert values == sorted(values)
    error = float(nlls[-1].monte_carlo_variance.sum().sqrt()) / 61
    assert abs(values[-1] - exact) < 4 * error + 1e-4


def test_streaming_equals_the_formula_written_out() -> None:
    model, data, num_samples = tiny(), corpus(), 13
    posterior = encode_corpus(model, data)
    found = importance_weighted(model, data, posterior, num_samples=num_samples, seed=5, rows=7)
    for i in range(data.num_sentences):
        batch = data.batch(torch.tensor([i]))
        q = posterior[torch.tensor([i])]
        k = key(5, "importance")
        noise = normals(k, torch.tensor([i]), torch.arange(num_samples)[:, None], lanes=Z)
        z = q.sample(noise)
        with torch.no_grad():
            features = torch.stack(
                [
                    model.decoder(batch.inputs, z[j], noise=None, dtype=torch.float32)[0]
                    for j in range(num_samples)
                ]
            )
            logits = features @ model.decoder.output_weight.t() + model.decoder.output_bias
        log_p = logits.log_softmax(-1).gather(2, batch.targets.expand(num_samples, -1)[..., None])
        log_p = log_p.sum((1, 2)).double()
        normal = torch.distributions.Normal(0.0, 1.0)
        own = torch.distributions.Normal(q.mean, (0.5 * q.log_variance).exp())
        log_w = log_p + (normal.log_prob(z) - own.log_prob(z)).sum((1, 2)).double()
        assert float(found.nll[i]) == pytest.approx(
            math.log(num_samples) - float(log_w.logsumexp(0)), abs=2e-4
        )
        assert float(found.elbo[i]) == pytest.approx(float(log_w.mean()), abs=2e-4)
        assert float(found.reconstruction[i]) == pytest.approx(-float(log_p.mean()), abs=2e-4)


@pytest.mark.parametrize("rows", [1, 17, 64, 4999])
def test_the_result_does_not_depend_on_the_batch(rows: int) -> None:
    model, data = tiny(), corpus()
    posterior = encode_corpus(model, data)
    expected = importance_weighted(model, data, posterior, num_samples=29, seed=2)
    found = importance_weighted(model, data, posterior, num_samples=29, seed=2, rows=rows)
    for left, right in zip(found, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-5)


def test_every_sentence_counts_once_in_the_order_of_the_corpus() -> None:
    model, data = tiny(), corpus()
    latents = normals(key(6, "z"), torch.arange(31), lanes=Z)
    together = reconstruction_at(model, data, latents)
    for i in range(31):
        alone = data.batch(torch.tensor([i]))
        expected = -log_likelihood(model, alone, latents[i][None, None])
        assert float(together[i]) == pytest.approx(float(expected), abs=1e-4)


def test_dropout_is_off_whatever_the_mode_of_the_model() -> None:
    model, data = tiny(), corpus()
    expected = encode_corpus(model, data).mean
    model.train()
    torch.testing.assert_close(encode_corpus(model, data).mean, expected)
    batch = data.batch(torch.arange(31))
    noisy = model.encoder(
        batch.targets, batch.lengths, noise=Noise(0, 0, batch.indices), dtype=torch.float32
    )
    assert not torch.allclose(noisy.mean, expected)


def test_a_constant_model_pays_log_v_for_each_word_and_for_the_end() -> None:
    model, data = tiny(scale=0.0), corpus()
    posterior = encode_corpus(model, data)
    found = importance_weighted(model, data, posterior, num_samples=3, seed=0)
    torch.testing.assert_close(found.nll, data.lengths.double() * math.log(V), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.kl, torch.zeros(31).double())


def test_the_elbo_is_at_most_the_weighted_bound_and_agrees_with_its_terms() -> None:
    model, data = tiny(), corpus(211)
    found = importance_weighted(model, data, encode_corpus(model, data), num_samples=101, seed=0)
    difference = -found.nll - found.elbo
    assert float(difference.min()) > -1e-6
    gap = found.elbo + found.reconstruction + found.kl
    assert abs(float(gap.mean())) < 3 * float(gap.std()) / math.sqrt(211)


def test_a_corpus_is_measured_in_the_precision_of_the_model() -> None:
    data = corpus()
    single, double = (encode_corpus(vae, data) for vae in (tiny(), tiny().double()))
    assert single.mean.dtype == torch.float32
    assert double.mean.dtype == torch.float64
    torch.testing.assert_close(double.mean.float(), single.mean, rtol=1e-5, atol=1e-5)
    sizes = {"embedding_dim": 5, "hidden_dim": 11}
    config = ModelConfig(
        latent_dim=Z,
        encoder=GRUEncoderConfig(**sizes),
        decoder=GRUDecoderConfig(**sizes),
        labels=M2LabelsConfig(),
    )
    vae = config.build(V, num_labels=3, seed=3).double().eval()
    assert label_log_posteriors(vae, data).dtype == torch.float64
    found = importance_weighted(vae, data, encode_corpus(vae, data), num_samples=3, seed=1)
    assert bool(found.nll.isfinite().all())
