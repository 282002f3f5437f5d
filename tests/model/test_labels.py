"""M2: sums over labels against enumeration, bounds against integrals, what labels do."""

import math
from typing import Any

import pytest
import torch
from msgspec import structs
from small import small_config

from textvae.config import decode
from textvae.data.batching import TokenArray
from textvae.errors import ConfigError
from textvae.metrics.likelihood import encode_corpus, importance_weighted
from textvae.model.encoder import GRUEncoderConfig
from textvae.model.labelling import Labelled, Labelling, label_pairs
from textvae.model.labels import M2LabelsConfig
from textvae.model.vae import VAE, ModelConfig, sum_by_sentence
from textvae.randomness import Noise, key, normals

B, V, E, H, Z, L = 3, 11, 5, 7, 1, 5
SENTENCES = [[2, 7, 3, 9], [], [10, 4]]
UNKNOWN = torch.full((B,), -1)


CONFIG = small_config(Z, E, H, encoder={"bidirectional": True}, labels=M2LabelsConfig())


def build() -> VAE:
    model = CONFIG.build(V, num_labels=L, seed=3)
    model.labels.set_counts(torch.arange(L).repeat_interleave(torch.tensor([3, 0, 1, 2, 7])))
    return model.double()


def corpus() -> TokenArray:
    return TokenArray.from_lists(SENTENCES, V)


def noise(lanes: int = Z, name: str = "z") -> torch.Tensor:
    return normals(key(1, name), torch.arange(B), lanes=lanes).double()


def terms(model: VAE, labelling: Labelling | None = None) -> Any:
    batch = corpus().batch(torch.arange(B))
    return model(batch.inputs, batch.targets, batch.lengths, noise(), labelling=labelling)


def test_labels_see_the_last_states_and_their_mean_once_however_they_are_pooled() -> None:
    model = build()
    encoder = GRUEncoderConfig(
        embedding_dim=E, hidden_dim=H, bidirectional=True, pooling="last_and_mean"
    )
    other = structs.replace(CONFIG, encoder=encoder).build(V, num_labels=L, seed=3).double()
    pooled = {name: value for name, value in other.state_dict().items() if "posterior_w" in name}
    other.load_state_dict(model.state_dict() | pooled)
    batch = corpus().batch(torch.arange(B))
    found = other.label_log_posterior(batch.targets, batch.lengths)
    assert torch.equal(found, model.label_log_posterior(batch.targets, batch.lengths))


def by_hand(model: VAE, row: int, label: int, normal: torch.Tensor) -> tuple[float, float]:
    """-log p(x|z, y) and KL(q(z|x, y) || p(z)) of one sentence and one label."""
    batch = corpus().batch(torch.tensor([row]))
    labels = torch.tensor([label])
    posterior = model.posterior(batch.targets, batch.lengths, labels, dtype=torch.float64)
    condition = model.condition(posterior.sample(normal), labels)
    found = model.reconstruct(batch.inputs, batch.targets, batch.lengths, condition)
    return float(found.total), float(posterior.kl_to_standard_normal().sum())


@torch.no_grad()
def test_the_bound_of_a_sentence_without_label_is_the_sum_over_all_labels() -> None:
    model = build()
    found = terms(model)
    batch = corpus().batch(torch.arange(B))
    log_q = model.label_log_posterior(batch.targets, batch.lengths, dtype=torch.float64)
    log_p = ((torch.tensor([3.0, 0, 1, 2, 7]) + 1) / 18).double().log()
    torch.testing.assert_close(model.labels.log_prior(), log_p)
    reconstruction, kl = 0.0, torch.zeros(B)
    for row in range(B):
        for label in range(L):
            weight = float(log_q[row, label].exp())
            nats, latent = by_hand(model, row, label, noise()[row : row + 1])
            reconstruction += weight * nats
            kl[row] += weight * (latent + float(log_q[row, label] - log_p[label]))
    assert float(found.reconstruction.total) == pytest.approx(reconstruction, rel=1e-9)
    torch.testing.assert_close(found.bound_kl.float(), kl, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_a_known_label_is_the_only_one_and_costs_its_prior() -> None:
    model, labels = build(), torch.tensor([4, -1, 1])
    found, free = terms(model, Labelling(labels)), terms(model)
    for row in (0, 2):
        label = int(labels[row])
        _, latent = by_hand(model, row, label, noise()[row : row + 1])
        assert float(found.kl[row].sum()) == pytest.approx(latent)
        assert float(found.labels.kl[row]) == pytest.approx(math.log(18 / [4, 1, 2, 3, 8][label]))
    torch.testing.assert_close(found.bound_kl[1], free.bound_kl[1])
    expected = sum(
        by_hand(model, row, int(labels[row]), noise()[row : row + 1])[0] for row in (0, 2)
    )
    rest = float(free.reconstruction.total) - sum(
        float(weight) * by_hand(model, row, label, noise()[row : row + 1])[0]
        for row in (0, 2)
        for label, weight in enumerate(_q(model)[row])
    )
    assert float(found.reconstruction.total) == pytest.approx(expected + rest, rel=1e-8)


def _q(model: VAE) -> torch.Tensor:
    batch = corpus().batch(torch.arange(B))
    return model.label_log_posterior(batch.targets, batch.lengths, dtype=torch.float64).exp()


def test_gradients_of_the_sum_are_those_of_enumeration() -> None:
    """The kernel's gradient of row weights is what reaches q(y|x)."""
    model = build()
    batch = corpus().batch(torch.arange(B))
    parameters = [model.labels.classifier_weight, model.decoder.output_bias]  # type: ignore[attr-defined, list-item]
    found = torch.autograd.grad(terms(model).reconstruction.total, parameters)
    log_q = model.label_log_posterior(batch.targets, batch.lengths, dtype=torch.float64)
    total = log_q.new_zeros(())
    for label in range(L):
        labels = torch.full((B,), label)
        posterior = model.posterior(batch.targets, batch.lengths, labels, dtype=torch.float64)
        condition = model.condition(posterior.sample(noise()), labels)
        for row in range(B):
            one = corpus().batch(torch.tensor([row]))
            nats = model.reconstruct(
                one.inputs, one.targets, one.lengths, condition[row : row + 1]
            ).total
            total = total + log_q[row, label].exp().detach() * nats
            total = total + log_q[row, label].exp() * nats.detach()
    expected = torch.autograd.grad(total, parameters)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("summed", [1, 2, 4, 5])
def test_one_drawn_label_stands_for_the_rest_in_expectation(summed: int) -> None:
    """Value and gradient of sum_y q(y) f(y), averaged exactly over what may be drawn."""
    logits = (3 * normals(key(5, "q"), torch.arange(1), lanes=L)).double().requires_grad_()
    values = normals(key(5, "f"), torch.arange(1), lanes=L)[0].double()
    log_q = logits.log_softmax(1)
    (exact,) = torch.autograd.grad((log_q.exp()[0] * values).sum(), logits, retain_graph=True)
    draws = (torch.arange(20_000) + 0.5) / 20_000
    many = log_q.expand(len(draws), -1)
    found = label_pairs(many, Labelling(torch.full((len(draws),), -1), draws), summed=summed)
    assert len(found.rows) == len(draws) * min(summed, L)
    mean = (found.weights * values[found.labels]).sum() / len(draws)
    truth = float((log_q.detach().exp()[0] * values).sum())
    assert float(mean.detach()) == pytest.approx(truth, abs=3e-4)
    (gradient,) = torch.autograd.grad(mean, logits)
    torch.testing.assert_close(gradient, exact, rtol=0.0, atol=5e-4)


@torch.no_grad()
def test_bounds_are_below_the_integral_over_the_latent() -> None:
    """log p(x, y) and log p(x) on a grid of z, one dimension; the bounds are averaged over z."""
    model = build()
    grid = torch.linspace(-8.0, 8.0, 1601, dtype=torch.float64)
    log_p = model.labels.log_prior().double()
    cells = model.prior.log_prob(grid[:, None]) + math.log(16.0 / 1600)
    batch = corpus().batch(torch.arange(B))
    exact = torch.zeros(B, L, dtype=torch.float64)
    for row in range(B):
        for label in range(L):
            one = corpus().batch(torch.full((len(grid),), row))
            condition = model.condition(grid[:, None], torch.full((len(grid),), label))
            rows = model.reconstruct(one.inputs, one.targets, one.lengths, condition).rows
            nats = sum_by_sentence(rows, one.lengths)
            exact[row, label] = log_p[label] + (cells - nats).logsumexp(0)
    draws, known = 64, torch.tensor([2, 0, 4])
    free, fixed = torch.zeros(B).double(), torch.zeros(B).double()
    for number in range(draws):
        z = normals(key(7, number), torch.arange(B), lanes=Z).double()
        for target, labels in ((free, UNKNOWN), (fixed, known)):
            found = model(
                batch.inputs, batch.targets, batch.lengths, z, labelling=Labelling(labels)
            )
            target -= found.bound_kl / draws
            weights = label_pairs(_q(model).log(), Labelling(labels), summed=L)
            lengths = batch.lengths[weights.rows]
            nats = sum_by_sentence(found.reconstruction.rows, lengths) * weights.weights
            target -= torch.zeros(B).double().index_add(0, weights.rows, nats) / draws
    evidence = exact.logsumexp(1)
    assert bool((free < evidence).all())
    assert bool((fixed < exact[torch.arange(B), known]).all())
    assert bool((free > evidence - 1.0).all()), "a bound near a model that has not been trained"
    data = corpus()
    model = model.float()
    tight = importance_weighted(
        model, data, encode_corpus(model, data), num_samples=2000, seed=1, rows=4096
    )
    assert bool(((-tight.nll - evidence).abs() < 4 * tight.monte_carlo_variance.sqrt()).all())
    torch.testing.assert_close(tight.elbo, free, rtol=0.0, atol=0.1)


def test_the_labelled_sentences_teach_q_alone() -> None:
    model = build()
    batch = corpus().batch(torch.tensor([0, 2]))
    labels = torch.tensor([1, 4])
    more = Labelled(batch.targets, batch.lengths, labels, Noise(1, 2, torch.tensor([5, 3])))
    with_more = terms(model, Labelling(UNKNOWN, None, more))
    without = terms(model, Labelling(UNKNOWN))
    assert float(without.labels.cross_entropy) == 0.0
    assert torch.equal(with_more.bound_kl, without.bound_kl)
    still = terms(model, Labelling(UNKNOWN, None, more._replace(noise=None)))
    log_q = model.label_log_posterior(batch.targets, batch.lengths, dtype=torch.float64)
    expected = float(-(log_q[0, 1] + log_q[1, 4]).detach() / 2)
    assert float(still.labels.cross_entropy.detach()) == pytest.approx(expected, rel=1e-5)
    assert not torch.equal(with_more.labels.cross_entropy, still.labels.cross_entropy)


def test_a_language_model_has_no_labels() -> None:
    values = {"latent_dim": 0, "encoder": {"kind": "none"}, "labels": {"kind": "m2"}}
    with pytest.raises(ConfigError, match=r"no encoder to classify labels"):
        decode(values, ModelConfig, source="here")
