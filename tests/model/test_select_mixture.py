"""The number of components is the one that the data have, and the gain is a divergence."""

import math

import pytest
import torch

from textvae.errors import DataError
from textvae.model.density import split_posteriors
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.mixture import MixtureScore, select_mixture
from textvae.model.prior_gaussian import StandardNormalPrior
from textvae.randomness import key, normals

Z = 2
PRIOR = StandardNormalPrior(Z)


def posteriors(size: int, centers: torch.Tensor, variance: float) -> DiagonalGaussian:
    noise = normals(key(1, "means"), torch.arange(size), lanes=Z)
    mean = centers[torch.arange(size) % len(centers)] + 0.3 * noise
    return DiagonalGaussian(mean, torch.full((size, Z), math.log(variance)))


def test_as_many_components_as_there_are_clusters() -> None:
    centers = torch.tensor([[-3.0, -3.0], [3.0, -3.0], [-3.0, 3.0], [3.0, 3.0]])
    found = select_mixture(posteriors(401, centers, 0.05), PRIOR, seed=0)
    assert [one.num_components for one in found.scores[:3]] == [1, 2, 4]
    assert found.best.num_components == found.fit.mixture.num_components == 4
    assert found.best.gain.nats == max(one.gain.nats for one in found.scores)
    split = split_posteriors(posteriors(401, centers, 0.05), seed=0)
    assert (len(split.fitted.mean), split.held_out.shape) == (361, (2, 40, Z))
    # Four Gaussians of variance 0.14, far apart: -E log q = log 4 + log(2 pi e 0.14).
    assert found.best.log_prob == pytest.approx(
        -math.log(4) - math.log(2 * math.pi * math.e * 0.14), abs=0.15
    )


def test_of_one_gaussian_the_gain_is_its_divergence_from_the_prior() -> None:
    center = torch.tensor([[0.7, -0.4]])
    found = select_mixture(posteriors(2003, center, 0.11), PRIOR, seed=0, max_components=1)
    variance = 0.09 + 0.11
    exact = 0.5 * (float(center.square().sum()) + Z * (variance - 1 - math.log(variance)))
    assert found.best.gain.nats == pytest.approx(exact, abs=5 * found.best.gain.stderr)
    assert 0.0 < found.best.gain.stderr < 0.05


def test_a_larger_number_is_not_tried() -> None:
    posterior = posteriors(31, torch.zeros(1, Z), 0.5)
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
    posterior = posteriors(11, torch.zeros(1, Z), 0.5)
    with pytest.raises(DataError, match="at least 2 sentences, found 1"):
        select_mixture(posterior.select(torch.tensor([3])), PRIOR, seed=0)
