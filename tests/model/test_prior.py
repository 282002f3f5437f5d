"""Every prior keeps the contract, and the standard normal is the standard normal."""

import math
from typing import get_args

import pytest
import torch
from scipy import stats
from torch.distributions import MultivariateNormal, kl_divergence

from textvae.model.flow import AutoregressiveFlow
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.interfaces import Prior
from textvae.model.mixture import GaussianMixture
from textvae.model.prior import PriorConfig
from textvae.model.prior_flow import BLOCK_ROWS, FlowPrior, FlowPriorConfig
from textvae.model.prior_gaussian import (
    GaussianPrior,
    GaussianPriorConfig,
    StandardNormalPrior,
    StandardNormalPriorConfig,
)
from textvae.model.prior_mixture import MixturePrior, MixturePriorConfig
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
    prior.fit_moments(posteriors(dim=dim))
    return prior


def as_torch(prior: GaussianPrior) -> MultivariateNormal:
    return MultivariateNormal(prior.mean, scale_tril=prior.factor)


def mixture() -> GaussianMixture:
    mean = torch.tensor([[1.3, -0.4], [-0.9, 0.8], [0.2, 2.1]], dtype=torch.float64)
    factor = torch.tensor([[0.6, 0.3, 0.4], [0.9, -0.5, 0.5], [0.4, 0.0, 0.8]]).double()
    lower = torch.stack([factor[:, 0], 0 * factor[:, 0], factor[:, 1], factor[:, 2]], 1)
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    return GaussianMixture(weights.log(), mean, lower.view(3, Z, Z))


def mixed(dtype: torch.dtype = torch.float64) -> MixturePrior:
    """With room for two more components."""
    prior = MixturePrior(Z, 5).to(dtype)
    prior.fit_moments(posteriors())
    prior.set_mixture(mixture())
    return prior


def flowing(dtype: torch.dtype = torch.float64) -> FlowPrior:
    """With a flow whose weights are far from where a fit begins."""
    config = FlowPriorConfig(hidden_dim=13, num_blocks=1, num_components=3)
    prior = FlowPrior(Z, config).to(dtype)
    prior.fit_moments(posteriors())
    sizes = config.shape(Z).sizes()
    weights = {
        name: 0.1 * normals(key(8, name), torch.arange(math.prod(size)), lanes=1).view(size)
        for name, size in sizes.items()
    }
    prior.set_flow(AutoregressiveFlow(**weights))
    return prior


KINDS = [*(kind().build(Z) for kind in get_args(PriorConfig)), fitted(), mixed(), flowing()]
every_prior = pytest.mark.parametrize("prior", KINDS, ids=lambda prior: type(prior).__name__)


@every_prior
def test_the_kl_is_the_mean_of_the_log_ratio_of_draws(prior: Prior) -> None:
    narrower = (
        0.0 if prior.kl_is_exact else 2.0
    )  # an estimate is for posteriors as models have them
    q = DiagonalGaussian(draws("mean", B), draws("log variance", B) - narrower)
    kl = prior.kl(q)
    assert kl.shape == (B, Z)
    z = q.sample(draws("z")[:, None])
    ratio = q.log_prob(z) - prior.log_prob(z)
    assert ratio.shape == (SIZE, B)
    error = (ratio.mean(0) - kl.sum(1)) / (ratio.std(0) / math.sqrt(SIZE))
    if prior.kl_is_exact:
        assert float(error.abs().max()) < 4
    else:
        torch.testing.assert_close(kl.sum(1), ratio.mean(0), rtol=0.0, atol=0.2)


@every_prior
def test_the_density_integrates_to_one(prior: Prior) -> None:
    line = torch.linspace(-9.0, 9.0, 401, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(line, line, indexing="ij"), dim=-1)
    total = torch.trapezoid(torch.trapezoid(prior.log_prob(grid).exp(), line), line)
    assert float(total) == pytest.approx(1.0, abs=1e-6)


@every_prior
def test_draws_have_the_moments_of_the_density(prior: Prior) -> None:
    assert prior.latent_dim == Z
    z = prior.sample(SIZE, seed=3).double()
    assert torch.equal(z[:7], prior.sample(7, seed=3).double())
    assert torch.equal(z[101:108], prior.sample(7, seed=3, start=101).double())
    assert not torch.equal(z[:7], prior.sample(7, seed=4).double())
    assert prior.sample(0, seed=3).shape == (0, Z)
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
    z = StandardNormalPriorConfig().build(Z).sample(SIZE, seed=3)
    for d in range(Z):
        assert stats.kstest(z[:, d].numpy(), "norm").pvalue > 1e-4


def test_the_kl_of_the_standard_normal_to_itself_is_zero() -> None:
    q = DiagonalGaussian(torch.zeros(B, Z), torch.zeros(B, Z))
    assert float(StandardNormalPriorConfig().build(Z).kl(q).abs().sum()) == 0.0


@pytest.mark.parametrize("prior", KINDS[:-2], ids=lambda prior: type(prior).__name__)
def test_draws_are_standard_normals_in_units_of_the_prior(prior: Prior) -> None:
    noise = StandardNormalPrior(Z).sample(7, seed=3)
    torch.testing.assert_close(prior.to_normals(prior.sample(7, seed=3)), noise)


@pytest.mark.parametrize(
    "gaussian", [GaussianPrior(5), MixturePrior(5, 3), FlowPrior(5, FlowPriorConfig())]
)
def test_before_it_is_fitted_it_is_the_standard_normal_to_the_bit(gaussian: GaussianPrior) -> None:
    q, standard = posteriors(17, 5), StandardNormalPrior(5)
    assert torch.equal(gaussian.kl(q), standard.kl(q))
    for noise in (q.mean, q.mean.float()):
        assert torch.equal(gaussian.log_prob(noise), standard.log_prob(noise))
        assert torch.equal(gaussian.to_normals(noise), noise)
    assert torch.equal(gaussian.sample(7, seed=2), standard.sample(7, seed=2))
    gaussian.fit_moments(q)
    gaussian.reset()
    assert torch.equal(gaussian.kl(q), standard.kl(q))


@pytest.mark.parametrize("config", [GaussianPriorConfig(), MixturePriorConfig(), FlowPriorConfig()])
def test_a_language_model_has_nothing_to_fit(config: PriorConfig) -> None:
    assert isinstance(config.build(0), StandardNormalPrior)


def test_without_components_a_mixture_is_the_gaussian_and_a_file_says_which() -> None:
    prior, q = mixed(), posteriors(23)
    state = {name: value.clone() for name, value in prior.state_dict().items()}
    assert not prior.kl_is_exact
    prior.fit_moments(posteriors())
    assert prior.kl_is_exact
    for found, gaussian in (
        (prior.kl(q), fitted().kl(q)),
        (prior.log_prob(q.mean), fitted().log_prob(q.mean)),
        (prior.sample(3, seed=1), fitted().sample(3, seed=1)),
    ):
        assert torch.equal(found, gaussian)
    other = MixturePrior(Z, 5).double()
    other.load_state_dict(state)
    assert not other.kl_is_exact
    assert torch.equal(other.kl(q), mixed().kl(q))
    assert torch.equal(other.sample(9, seed=2), mixed().sample(9, seed=2))


def test_to_one_gaussian_the_estimate_is_exact_dimension_by_dimension() -> None:
    """What is quadratic in a latent has its exact mean, however far from N(m, C) it is."""
    q, other = posteriors(23, 3), GaussianPrior(3).double()
    other.fit_moments(
        DiagonalGaussian(posteriors(dim=3).mean.flip(1) * 1.5, torch.zeros(501, 3).double())
    )
    prior = MixturePrior(3, 2).double()
    prior.fit_moments(posteriors(dim=3))
    assert float((prior.kl(q) - other.kl(q)).abs().min()) > 1e-3
    prior.set_mixture(
        GaussianMixture(torch.zeros(1).double(), other.mean[None], other.factor[None])
    )
    assert not prior.kl_is_exact
    torch.testing.assert_close(prior.kl(q), other.kl(q))


def test_processes_take_the_mixture_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = mixed(), MixturePrior(Z, 5).double()
    second.fit_moments(posteriors())
    second.set_mixture(
        GaussianMixture(torch.zeros(1).double(), torch.ones(1, Z), torch.eye(Z)[None])
    )
    parts = [first.weights.clone(), first.means.clone(), first.factors.clone()]
    for rank, prior in enumerate((first, second)):
        sent = iter(parts)
        monkeypatch.setattr("textvae.distributed.rank", lambda rank=rank: rank)
        if rank:  # the sum over processes, seen from the second
            monkeypatch.setattr(
                "textvae.distributed.all_reduce_sum", lambda own, sent=sent: own + next(sent)
            )
        prior.broadcast()
        assert prior.num_components == 3
        assert torch.equal(prior.log_prob(draws("z", 5)), mixed().log_prob(draws("z", 5)))


def test_the_kl_to_a_mixture_does_not_depend_on_other_sentences() -> None:
    prior, q = mixed(), posteriors(23)
    some = torch.tensor([5, 2, 17])
    torch.testing.assert_close(prior.kl(q[some]), prior.kl(q)[some])
    stacked = q.apply(lambda part: torch.stack([part, part]))
    torch.testing.assert_close(prior.kl(stacked), torch.stack([prior.kl(q)] * 2))


def test_of_many_sentences_the_estimates_are_right_on_average() -> None:
    prior, q = mixed(), posteriors(1009)
    z = q.sample(normals(key(6, "many"), torch.arange(401), lanes=Z).double()[:, None])
    expected = (q.log_prob(z) - prior.log_prob(z)).mean()
    assert float(prior.kl(q).sum(1).mean()) == pytest.approx(float(expected), abs=0.1)


def test_in_single_precision_a_mixture_says_the_same() -> None:
    single, q = mixed(torch.float32), posteriors(23).apply(torch.Tensor.float)
    assert single.log_prob(q.mean).dtype == single.kl(q).dtype == torch.float32
    assert single.sample(3, seed=0).dtype == torch.float32
    double = mixed().kl(posteriors(23))
    torch.testing.assert_close(single.kl(q).double(), double, rtol=1e-4, atol=1e-4)


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
    prior.fit_moments(DiagonalGaussian(mean, torch.zeros(31, 2)))
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


def test_without_a_flow_it_is_the_gaussian_and_a_file_says_which() -> None:
    prior, q = flowing(), posteriors(23)
    state = {name: value.clone() for name, value in prior.state_dict().items()}
    assert not prior.kl_is_exact
    prior.fit_moments(posteriors())
    assert prior.kl_is_exact
    for found, gaussian in (
        (prior.kl(q), fitted().kl(q)),
        (prior.log_prob(q.mean), fitted().log_prob(q.mean)),
        (prior.sample(3, seed=1), fitted().sample(3, seed=1)),
        (prior.to_base(q.mean), fitted().to_normals(q.mean)),
    ):
        assert torch.equal(found, gaussian)
    other = FlowPrior(Z, prior.config).double()
    other.load_state_dict(state)
    assert not other.kl_is_exact
    assert torch.equal(other.kl(q), flowing().kl(q))
    assert torch.equal(other.sample(9, seed=2), flowing().sample(9, seed=2))


def test_a_draw_of_a_flow_has_the_same_bits_among_any_number_and_from_any_on() -> None:
    prior = flowing(torch.float32)
    many = prior.sample(3 * BLOCK_ROWS - 7, seed=4)
    assert many.dtype == torch.float32
    assert len(prior.sample(0, seed=4)) == 0
    for start, size in ((0, 1), (BLOCK_ROWS - 1, 2), (5, 2 * BLOCK_ROWS + 3)):
        some = prior.sample(size, seed=4, start=start)
        assert torch.equal(some, many[start : start + size])


def test_draws_of_a_flow_are_standard_normals_in_its_base_space() -> None:
    prior = flowing()
    noise = StandardNormalPrior(Z).sample(7, seed=3).double()
    torch.testing.assert_close(
        prior.from_base(noise), prior.sample(7, seed=3).double(), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(prior.to_base(prior.from_base(noise)), noise)


def test_a_file_whose_flow_looks_ahead_is_read_without_what_looks_ahead() -> None:
    prior, other = flowing(), flowing()
    state = prior.state_dict() | {"direct_weight": torch.ones_like(prior.direct_weight)}
    other.load_state_dict(state)
    assert float(other.direct_weight[:9].abs().max()) == 0.0, "dimension 0 sees nothing"
    assert float(other.direct_weight[9:, 1].abs().max()) == 0.0
