"""How far the aggregate posterior is from the prior: closed forms, scikit-learn, loops."""

import math

import pytest
import torch
from sklearn.covariance import empirical_covariance
from sklearn.neighbors import KernelDensity

from textvae.evaluate.latent import aggregate_covariance, aggregate_kl, moments_kl
from textvae.metrics.latent_usage import aggregate_draws, mutual_information
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.prior_gaussian import StandardNormalPrior
from textvae.randomness import key, normals


def posteriors(size: int, dim: int, spread: float, variance: float) -> DiagonalGaussian:
    mean = normals(key(3, "means"), torch.arange(size), lanes=dim).double() * spread
    return DiagonalGaussian(mean, torch.full_like(mean, math.log(variance)))


def test_the_aggregate_density_is_a_kernel_density() -> None:
    posterior = posteriors(53, 3, 0.8, 0.25)
    draws = aggregate_draws(posterior, seed=1)
    kernel = KernelDensity(bandwidth=0.5, rtol=0.0, atol=0.0).fit(posterior.mean.numpy())
    expected = torch.from_numpy(kernel.score_samples(draws.latents.numpy()))
    torch.testing.assert_close(draws.log_aggregate, expected, rtol=1e-9, atol=1e-9)
    value, stderr = aggregate_kl(draws, StandardNormalPrior(3))
    log_prior = torch.distributions.Normal(0.0, 1.0).log_prob(draws.latents).sum(1)
    terms = expected - log_prior
    assert value == pytest.approx(float(terms.mean()), rel=1e-9)
    assert stderr == pytest.approx(float(terms.std()) / math.sqrt(53), rel=1e-9)


def test_it_is_what_mutual_information_leaves_of_the_kl() -> None:
    posterior = posteriors(2003, 2, 1.1, 0.3)
    draws = aggregate_draws(posterior, seed=2)
    kl = float(posterior.kl_to_standard_normal().sum(1).mean())
    information = mutual_information(posterior, seed=2, draws=draws)
    assert information == mutual_information(posterior, seed=2)
    value, stderr = aggregate_kl(draws, StandardNormalPrior(2))
    assert stderr is not None
    assert information.stderr is not None
    assert abs(value - (kl - information.value)) < 4 * (stderr + information.stderr)


@pytest.mark.parametrize(("spread", "variance"), [(0.8, 0.36), (1.2, 0.5), (0.5, 0.2)])
def test_a_normal_aggregate_has_a_closed_form(spread: float, variance: float) -> None:
    # Means N(0, spread^2) and a variance make N(0, spread^2 + variance) in each dimension.
    posterior = posteriors(4001, 2, spread, variance)
    total = spread**2 + variance
    exact = 0.5 * 2 * (total - 1 - math.log(total))
    value, stderr = aggregate_kl(aggregate_draws(posterior, seed=4), StandardNormalPrior(2))
    assert stderr is not None
    assert abs(value - exact) < 4 * stderr + 0.02
    moments = moments_kl(
        posterior.mean.mean(0), aggregate_covariance(posterior), StandardNormalPrior(2)
    )
    assert moments == pytest.approx(exact, abs=0.02)
    assert moments <= value + 4 * stderr


def test_moments_are_those_of_the_library() -> None:
    posterior = posteriors(31, 3, 1.0, 0.5)
    shape = torch.tensor([[1.0, 0.5, 0.0], [0.0, 2.0, 0.3], [0.0, 0.0, 0.7]]).double()
    posterior = DiagonalGaussian(posterior.mean @ shape, posterior.log_variance)
    expected = torch.from_numpy(empirical_covariance(posterior.mean.numpy()))
    covariance = aggregate_covariance(posterior)
    torch.testing.assert_close(covariance, expected + 0.5 * torch.eye(3).double())
    mean = posterior.mean.mean(0)
    divergence = torch.distributions.kl_divergence(
        torch.distributions.MultivariateNormal(mean, covariance),
        torch.distributions.MultivariateNormal(mean * 0, torch.eye(3).double()),
    )
    assert moments_kl(mean, covariance, StandardNormalPrior(3)) == pytest.approx(
        float(divergence), rel=1e-9
    )


def test_a_single_sentence_has_no_error() -> None:
    value, stderr = aggregate_kl(
        aggregate_draws(posteriors(1, 2, 1.0, 0.5), seed=0), StandardNormalPrior(2)
    )
    assert math.isfinite(value)
    assert stderr is None
