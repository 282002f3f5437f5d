"""Every prior keeps the contract, and the standard normal is the standard normal."""

import math
from typing import get_args

import pytest
import torch
from scipy import stats
from torch.distributions import MultivariateNormal, kl_divergence

from textvae.model.gaussian import DiagonalGaussian
from textvae.model.interfaces import Prior
from textvae.model.prior import (
    GaussianPrior,
    GaussianPriorConfig,
    PriorConfig,
    StandardNormalPrior,
    StandardNormalPriorConfig,
)
from textvae.randomness import key, normals

B, Z, SIZE = 3, 2, 20011


def draws(name: str, size: int = SIZE) -> torch.Tensor:
    return normals(key(3, name), torch.arange(size), lanes=Z).double()


def posteriors(size: int = 501, dim: int = Z) -> DiagonalGaussian:
    """Means that depend on each other, away from zero, and variances of their own."""
    index = torch.arange(size)
    noise = [normals(key(4, name), index, lanes=dim).double() for name in ("means", "variances")]
    mixed = torch.eye(dim).double() + 0.7 * torch.ones(dim, dim).double().tril(-1)
    return DiagonalGaussian(0.3 + 0.8 * noise[0] @ mixed.t(), 0.5 * noise[1] - 1.0)


def fitted(dim: int = Z, dtype: torch.dtype = torch.float64) -> GaussianPrior:
    prior = GaussianPrior(dim).to(dtype)
    prior.fit(posteriors(dim=dim))
    return prior


def as_torch(prior: GaussianPrior) -> MultivariateNormal:
    return MultivariateNormal(prior.mean, scale_tril=prior.factor)


KINDS = [*(kind().build(Z) for kind in get_args(PriorConfig)), fitted()]
every_prior = pytest.mark.parametrize("prior", KINDS, ids=lambda prior: type(prior).__name__)


@every_prior
def test_the_kl_is_the_mean_of_the_log_ratio_of_draws(prior: Prior) -> None:
    q = DiagonalGaussian(draws("mean", B), draws("log variance", B))
    kl = prior.kl(q)
    assert kl.shape == (B, Z)
    z = q.sample(draws("z")[:, None])
    ratio = q.log_prob(z) - prior.log_prob(z)
    assert ratio.shape == (SIZE, B)
    error = (ratio.mean(0) - kl.sum(1)) / (ratio.std(0) / math.sqrt(SIZE))
    assert float(error.abs().max()) < 4


@every_prior
def test_the_density_integrates_to_one(prior: Prior) -> None:
    line = torch.linspace(-9.0, 9.0, 401, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(line, line, indexing="ij"), dim=-1)
    total = torch.trapezoid(torch.trapezoid(prior.log_prob(grid).exp(), line), line)
    assert float(total) == pytest.approx(1.0, abs=1e-6)


@every_prior
def test_draws_have_the_moments_of_the_density(prior: Prior) -> None:
    assert prior.latent_dim == Z
    z = prior.from_normals(draws("prior"))
    line = torch.linspace(-9.0, 9.0, 401, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(line, line, indexing="ij"), dim=-1)
    density = prior.log_prob(grid).exp()
    for power in (1, 2):
        for d in range(Z):
            integrand = density * grid[..., d] ** power
            expected = torch.trapezoid(torch.trapezoid(integrand, line), line)
            values = z[:, d] ** power
            error = (values.mean() - expected) / (values.std() / math.sqrt(SIZE))
            assert abs(float(error)) < 4


def test_the_standard_normal_has_its_distribution() -> None:
    z = StandardNormalPriorConfig().build(Z).from_normals(draws("standard"))
    for d in range(Z):
        assert stats.kstest(z[:, d].numpy(), "norm").pvalue > 1e-4


def test_the_kl_of_the_standard_normal_to_itself_is_zero() -> None:
    q = DiagonalGaussian(torch.zeros(B, Z), torch.zeros(B, Z))
    assert float(StandardNormalPriorConfig().build(Z).kl(q).abs().sum()) == 0.0


@every_prior
def test_units_of_the_prior_are_the_inverse_of_draws(prior: Prior) -> None:
    noise = draws("round trip", 7)
    torch.testing.assert_close(prior.to_normals(prior.from_normals(noise)), noise)


def test_before_it_is_fitted_a_gaussian_is_the_standard_normal_to_the_bit() -> None:
    q, standard, gaussian = posteriors(17, 5), StandardNormalPrior(5), GaussianPrior(5)
    assert torch.equal(gaussian.kl(q), standard.kl(q))
    for noise in (q.mean, q.mean.float()):
        assert torch.equal(gaussian.log_prob(noise), standard.log_prob(noise))
        assert torch.equal(gaussian.from_normals(noise), noise)
        assert torch.equal(gaussian.to_normals(noise), noise)
    gaussian.fit(q)
    gaussian.forget()
    assert torch.equal(gaussian.kl(q), standard.kl(q))
    assert isinstance(GaussianPriorConfig().build(0), StandardNormalPrior)


def test_the_fitted_gaussian_is_that_of_the_library() -> None:
    prior, q = fitted(4), posteriors(23, 4)
    exact = as_torch(prior)
    torch.testing.assert_close(prior.log_prob(q.mean), exact.log_prob(q.mean))
    diagonal = MultivariateNormal(q.mean, q.log_variance.exp().diag_embed())
    torch.testing.assert_close(prior.kl(q).sum(1), kl_divergence(diagonal, exact))
    single = fitted(4, torch.float32)
    torch.testing.assert_close(single.kl(q).double(), prior.kl(q), rtol=1e-4, atol=1e-4)


def test_each_dimension_is_charged_what_those_before_it_do_not_say() -> None:
    """KL(q(z_d) || p(z_d | the others before it)) over draws of those, and never below zero."""
    prior, q = fitted(3), posteriors(4, 3)
    z = q.sample(normals(key(5, "chain"), torch.arange(40_009), lanes=3).double()[:, None])
    covariance, found = prior.factor @ prior.factor.t(), prior.kl(q)
    assert float(found.min()) >= 0.0
    for d in range(3):
        slope = torch.linalg.solve(covariance[:d, :d], covariance[:d, d])
        centre = prior.mean[d] + (z[..., :d] - prior.mean[:d]) @ slope
        spread = (covariance[d, d] - covariance[d, :d] @ slope).sqrt()
        own = torch.distributions.Normal(q.mean[:, d], (0.5 * q.log_variance[:, d]).exp())
        terms = kl_divergence(own, torch.distributions.Normal(centre, spread))
        torch.testing.assert_close(found[:, d], terms.mean(0), rtol=0.03, atol=0.0)


@pytest.mark.parametrize("size", [1e12, 1e200, float("nan")])
def test_of_what_diverges_no_prior_is_fitted(size: float) -> None:
    """Two dimensions that are the same, so that their variances are lost to rounding; or worse."""
    prior, mean = GaussianPrior(2), size * draws("singular", 31)[:, :1].expand(-1, 2)
    prior.fit(DiagonalGaussian(mean, torch.zeros(31, 2)))
    assert not any(bool(value.any()) for value in prior.buffers())


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_no_other_gaussian_costs_the_sentences_it_is_fitted_to_less(factor: float) -> None:
    q, prior = posteriors(dim=4), fitted(4)
    least = float(prior.kl(q).sum(1).mean())
    assert least < float(StandardNormalPrior(4).kl(q).sum(1).mean())
    for name in ("mean", "factor"):
        other = fitted(4)
        other.get_buffer(name).mul_(factor)
        assert least < float(other.kl(q).sum(1).mean())
    # what it saves is the distance of the aggregate's moments from N(0, 1), exactly
    standard = MultivariateNormal(torch.zeros(4).double(), torch.eye(4).double())
    saved = float(kl_divergence(as_torch(prior), standard))
    assert least + saved == pytest.approx(float(StandardNormalPrior(4).kl(q).sum(1).mean()))
