"""A mixture's density and draws are those of its Gaussians, and EM finds what others find."""

import math

import pytest
import torch
from sklearn.mixture import GaussianMixture as Reference
from torch import Tensor
from torch.distributions import MultivariateNormal

from textvae.errors import DataError
from textvae.model.density import split_posteriors
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.mixture import (
    GaussianMixture,
    MixtureScore,
    fit_mixture,
    raise_likelihood,
    select_mixture,
)
from textvae.model.prior_gaussian import StandardNormalPrior
from textvae.randomness import key, normals

Z, M, N = 3, 2, 211


def mixture() -> GaussianMixture:
    noise = normals(key(1, "factor"), torch.arange(M * Z), lanes=Z).double().view(M, Z, Z)
    factor = 0.4 * noise.tril(-1) + torch.diag_embed(noise.diagonal(dim1=1, dim2=2).abs() + 0.3)
    mean = torch.tensor([[2.0, -1.0, 0.5], [-1.5, 0.0, 1.0]], dtype=torch.float64)
    return GaussianMixture(torch.tensor([0.3, 0.7]).double().log(), mean, factor)


def covariance(found: GaussianMixture) -> Tensor:
    return found.factor @ found.factor.mT


def test_the_density_is_that_of_its_gaussians() -> None:
    found, points = mixture(), normals(key(2, "points"), torch.arange(5), lanes=Z).double()
    parts = [
        MultivariateNormal(found.mean[m], scale_tril=found.factor[m]).log_prob(points)
        + found.log_weights[m]
        for m in range(M)
    ]
    torch.testing.assert_close(found.log_prob(points), torch.stack(parts).logsumexp(0))
    assert found.log_prob(points[:0]).shape == (0,)


def test_the_pieces_in_which_it_is_computed_do_not_show() -> None:
    found, points = mixture(), normals(key(2, "points"), torch.arange(4099), lanes=Z).double()
    whole = found.log_prob(points)
    torch.testing.assert_close(whole[2047:2050], found.log_prob(points[2047:2050]))


def test_draws_have_its_moments_and_do_not_depend_on_their_number() -> None:
    found = mixture()
    drawn = found.sample(40_009, seed=3)
    assert torch.equal(drawn[:7], found.sample(7, seed=3))
    assert torch.equal(drawn[4001:4008], found.sample(7, seed=3, start=4001))
    assert not torch.equal(drawn[:7], found.sample(7, seed=4))
    weights = found.log_weights.exp()
    mean = weights @ found.mean
    away = found.mean - mean
    spread = torch.einsum("m,mij->ij", weights, covariance(found))
    spread = spread + torch.einsum("m,mi,mj->ij", weights, away, away)
    torch.testing.assert_close(drawn.mean(0), mean, atol=0.03, rtol=0.0)
    torch.testing.assert_close(drawn.t().cov(), spread, atol=0.1, rtol=0.0)


def test_each_dimension_has_its_density_given_those_before_it() -> None:
    found, points = mixture(), normals(key(2, "points"), torch.arange(4099), lanes=Z).double()
    given = found.conditional_log_probs(points)
    joint = []
    for d in range(1, Z + 1):  # a mixture's first dimensions are a mixture, of what theirs are
        parts = [
            MultivariateNormal(found.mean[m, :d], covariance(found)[m, :d, :d]).log_prob(
                points[:, :d]
            )
            for m in range(M)
        ]
        joint.append((torch.stack(parts, 1) + found.log_weights).logsumexp(1))
    torch.testing.assert_close(given.cumsum(1), torch.stack(joint, 1))
    torch.testing.assert_close(given.sum(1), found.log_prob(points))


def test_em_in_products_of_matrices_is_em() -> None:
    """One step written as it reads, component by component, far from the origin."""
    points = mixture().sample(4099, seed=6) * 0.02 + 30.0
    start = fit_mixture(points, 3, seed=1, max_iterations=0)
    joint = start.mixture.component_log_probs(points)
    assert start.log_prob == pytest.approx(float(joint.logsumexp(1).mean()), rel=1e-9)
    fitted = raise_likelihood(points, start.mixture, max_iterations=1)
    shares, least = joint.softmax(1), 1e-6 * points.var(0, correction=0)
    for m in range(3):
        share = shares[:, m] / shares[:, m].sum()
        mean = share @ points
        away = points - mean
        second = (away * share[:, None]).t() @ away
        second = second + least.diag()
        assert float(fitted.mixture.log_weights[m].exp()) == pytest.approx(
            float(shares[:, m].mean()), rel=1e-9
        )
        torch.testing.assert_close(fitted.mixture.mean[m], mean)
        torch.testing.assert_close(covariance(fitted.mixture)[m], second, rtol=1e-6, atol=0.0)


def test_one_component_has_the_moments_of_the_points() -> None:
    points = mixture().sample(N, seed=5)
    found = fit_mixture(points, 1, seed=0)
    expected = points.t().cov(correction=0)
    torch.testing.assert_close(found.mixture.mean[0], points.mean(0))
    torch.testing.assert_close(covariance(found.mixture)[0], expected, rtol=1e-5, atol=1e-8)
    # What a Gaussian says, on average, of points that have its moments.
    entropy = 0.5 * (Z * (1 + math.log(2 * math.pi)) + float(torch.logdet(expected)))
    assert found.log_prob == pytest.approx(-entropy, abs=1e-5)
    assert found.iterations <= 2


def test_em_goes_where_scikit_learn_goes_from_the_same_start() -> None:
    points = mixture().sample(N, seed=7)
    start = fit_mixture(points, M, seed=1, max_iterations=0).mixture
    found = raise_likelihood(points, start, max_iterations=17, tolerance=0.0)
    inverse = torch.linalg.inv(covariance(start))
    reference = Reference(
        M,
        covariance_type="full",
        tol=0.0,
        reg_covar=0.0,
        max_iter=17,
        weights_init=start.log_weights.exp().numpy(),
        means_init=start.mean.numpy(),
        precisions_init=inverse.numpy(),
    )
    with pytest.warns(UserWarning, match="did not converge"):
        reference.fit(points.numpy())
    expected = torch.from_numpy(reference.covariances_)
    torch.testing.assert_close(
        found.mixture.mean, torch.from_numpy(reference.means_), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(covariance(found.mixture), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        found.mixture.log_weights.exp(), torch.from_numpy(reference.weights_), rtol=1e-4, atol=1e-5
    )
    assert found.log_prob == pytest.approx(reference.score(points.numpy()), abs=1e-5)


def test_every_iteration_raises_the_likelihood() -> None:
    points = mixture().sample(N, seed=11)
    values = [
        fit_mixture(points, 5, seed=2, max_iterations=count, tolerance=0.0).log_prob
        for count in range(11)
    ]
    assert values == sorted(values)
    assert values[-1] > values[0] + 0.01
    stopped = fit_mixture(points, 5, seed=2, tolerance=0.01)
    assert 1 < stopped.iterations < 11


def test_clusters_are_found_from_any_seed() -> None:
    corners = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [9.0, 9.0], [30.0, 4.0]]).double()
    noise = normals(key(3, "noise"), torch.arange(505), lanes=2).double()
    points = corners.repeat(101, 1) + 0.5 * noise
    for seed in range(7):
        found = fit_mixture(points, 5, seed=seed).mixture
        distances = torch.cdist(corners, found.mean)
        assert float(distances.min(1).values.max()) < 0.2
        torch.testing.assert_close(found.log_weights.exp(), torch.full((5,), 0.2).double())


def test_points_that_coincide_are_one_component() -> None:
    points = torch.tensor([[1.0, 2.0]], dtype=torch.float64).repeat(13, 1)
    found = fit_mixture(points, 3, seed=0).mixture
    assert found.num_components == 1
    torch.testing.assert_close(found.mean, points[:1])
    assert bool(found.log_prob(points).isfinite().all())


# -- the number of components is the one that the data have, and the gain is a divergence


PRIOR = StandardNormalPrior(2)


def posteriors(size: int, centers: torch.Tensor, variance: float) -> DiagonalGaussian:
    noise = normals(key(1, "means"), torch.arange(size), lanes=2)
    mean = centers[torch.arange(size) % len(centers)] + 0.3 * noise
    return DiagonalGaussian(mean, torch.full((size, 2), math.log(variance)))


def test_as_many_components_as_there_are_clusters() -> None:
    centers = torch.tensor([[-3.0, -3.0], [3.0, -3.0], [-3.0, 3.0], [3.0, 3.0]])
    found = select_mixture(posteriors(401, centers, 0.05), PRIOR, seed=0)
    assert [one.num_components for one in found.scores[:3]] == [1, 2, 4]
    assert found.best.num_components == found.fit.mixture.num_components == 4
    assert found.best.gain.nats == max(one.gain.nats for one in found.scores)
    split = split_posteriors(posteriors(401, centers, 0.05), seed=0)
    assert (len(split.fitted.mean), split.held_out.shape) == (361, (2, 40, 2))
    # Four Gaussians of variance 0.14, far apart: -E log q = log 4 + log(2 pi e 0.14).
    assert found.best.log_prob == pytest.approx(
        -math.log(4) - math.log(2 * math.pi * math.e * 0.14), abs=0.15
    )


def test_of_one_gaussian_the_gain_is_its_divergence_from_the_prior() -> None:
    center = torch.tensor([[0.7, -0.4]])
    found = select_mixture(posteriors(2003, center, 0.11), PRIOR, seed=0, max_components=1)
    variance = 0.09 + 0.11
    exact = 0.5 * (float(center.square().sum()) + 2 * (variance - 1 - math.log(variance)))
    assert found.best.gain.nats == pytest.approx(exact, abs=5 * found.best.gain.stderr)
    assert 0.0 < found.best.gain.stderr < 0.05


def test_a_larger_number_is_not_tried() -> None:
    posterior = posteriors(31, torch.zeros(1, 2), 0.5)
    assert max(one.num_components for one in select_mixture(posterior, PRIOR, seed=0).scores) <= 16
    assert len(select_mixture(posterior, PRIOR, seed=0, max_components=1).scores) == 1


def test_a_fit_whose_time_is_over_ends_with_the_best_so_far() -> None:
    centers = torch.tensor([[-3.0, -3.0], [3.0, -3.0], [-3.0, 3.0], [3.0, 3.0]])
    reported = list[MixtureScore]()
    found = select_mixture(
        posteriors(401, centers, 0.05),
        PRIOR,
        seed=0,
        is_over=lambda: len(reported) == 2,
        report=reported.append,
    )
    assert [one.num_components for one in reported] == [1, 2]
    assert reported == found.scores
    assert found.best.num_components == found.fit.mixture.num_components == 2


def test_a_single_sentence_is_refused() -> None:
    posterior = posteriors(11, torch.zeros(1, 2), 0.5)
    with pytest.raises(DataError, match="at least 2 sentences, found 1"):
        select_mixture(posterior[torch.tensor([3])], PRIOR, seed=0)
