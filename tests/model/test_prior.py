"""Every prior keeps the contract, and the standard normal is the standard normal."""

import math
from typing import get_args

import pytest
import torch
from scipy import stats

from textvae.model.gaussian import DiagonalGaussian
from textvae.model.interfaces import Prior
from textvae.model.prior import PriorConfig, StandardNormalPriorConfig
from textvae.randomness import key, normals

B, Z, SIZE = 3, 2, 20011
KINDS = [kind().build(Z) for kind in get_args(PriorConfig) or (PriorConfig,)]
every_prior = pytest.mark.parametrize("prior", KINDS, ids=lambda prior: type(prior).__name__)


def draws(name: str, size: int = SIZE) -> torch.Tensor:
    return normals(key(3, name), torch.arange(size), lanes=Z).double()


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
