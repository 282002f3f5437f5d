"""Figures of classifiers against scikit-learn and loops; prototypes against Bayes' rule."""

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from textvae.errors import DataError
from textvae.metrics.classification import BINS, classification
from textvae.metrics.prototypes import fit_logistic_regression, fit_prototypes
from textvae.model.gaussian import DiagonalGaussian
from textvae.randomness import hashes, key, normals

N, L, Z = 311, 5, 3


def case(labels: int = L) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities that know something of the truth, of which one label never is."""
    truth = hashes(key(1, "truth"), torch.arange(N)) % (labels - 1)
    logits = normals(key(1, "logits"), torch.arange(N), lanes=labels).double()
    logits[torch.arange(N), truth] += 1.5
    return logits.log_softmax(1), truth


def test_accuracy_f1_and_log_loss_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    log_q, truth = case()
    found, told = classification(log_q, truth), log_q.argmax(1)
    assert found.accuracy == pytest.approx(metrics.accuracy_score(truth, told))
    assert 0.4 < found.accuracy < 0.9
    assert bool((told == L - 1).any()), "a label that is told and never true counts as F1 0"
    assert found.macro_f1 == pytest.approx(metrics.f1_score(truth, told, average="macro"))
    loss = metrics.log_loss(truth, log_q.exp(), labels=list(range(L)))
    assert found.log_loss == pytest.approx(loss)
    assert found.num_sentences == N


def test_the_calibration_error_is_that_of_a_loop_over_bins() -> None:
    log_q, truth = case()
    confidence, told = log_q.exp().max(1)
    total = 0.0
    for number in range(BINS):
        low, high = number / BINS, (number + 1) / BINS
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            accuracy = (told == truth)[inside].double().mean()
            total += float(inside.double().mean() * (accuracy - confidence[inside].mean()).abs())
    assert classification(log_q, truth).calibration_error == pytest.approx(total)
    sure = torch.tensor([[0.0, -math.inf], [0.0, -math.inf]])
    assert classification(sure, torch.tensor([0, 1])).calibration_error == pytest.approx(0.5)
    assert classification(sure, torch.tensor([0, 0])).calibration_error == 0.0
    with pytest.raises(DataError, match="nothing to measure"):
        classification(sure[:0], torch.zeros(0, dtype=torch.int64))


def latents(labels: int) -> tuple[DiagonalGaussian, torch.Tensor]:
    truth = hashes(key(2, "truth"), torch.arange(N)) % labels
    centers = 2 * normals(key(2, "centers"), torch.arange(labels), lanes=Z)
    mean = centers[truth] + normals(key(2, "latents"), torch.arange(N), lanes=Z)
    return DiagonalGaussian(mean, torch.full((N, Z), -1.0)), truth


def test_prototypes_are_bayes_rule_for_gaussians_of_one_variance() -> None:
    posterior, truth = latents(L)
    found = fit_prototypes(posterior, truth, L)
    means = posterior.mean.double()
    counts = truth.bincount().double()
    for label in range(L):
        torch.testing.assert_close(found.means[label], means[truth == label].mean(0))
    within = sum((means[truth == y] - found.means[y]).square().sum(0) for y in range(L)) / (N - L)
    torch.testing.assert_close(found.variance, within + math.exp(-1.0))
    parts = Independent(Normal(found.means, found.variance.sqrt()), 1)
    shares = (counts + 1) / (N + L)
    mixture = MixtureSameFamily(Categorical(shares), parts)
    expected = parts.log_prob(means[:, None]) + shares.log() - mixture.log_prob(means)[:, None]
    torch.testing.assert_close(found.log_posterior(posterior.mean), expected)
    assert classification(found.log_posterior(posterior.mean), truth).accuracy > 0.7


@pytest.mark.parametrize("labels", [2, 3])
def test_logistic_regression_gives_the_probabilities_of_scikit_learn(labels: int) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    posterior, truth = latents(labels)
    found = fit_logistic_regression(posterior, truth, labels).log_posterior(posterior.mean)
    means = posterior.mean.double().numpy()
    expected = linear_model.LogisticRegression(max_iter=10_000).fit(means, truth.numpy())
    probabilities = torch.from_numpy(expected.predict_proba(means))
    torch.testing.assert_close(found.exp(), probabilities, rtol=1e-9, atol=1e-12)
