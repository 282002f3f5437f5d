"""The path along the data goes round holes, and is the geodesic where that is known."""

import math

import pytest
import torch
from torch import Tensor

from textvae.errors import ConfigError
from textvae.generate.paths import (
    data_path,
    interpolation,
    path_length,
    path_through,
    straight_path,
)
from textvae.model.mixture import GaussianMixture
from textvae.model.prior_mixture import MixturePrior
from textvae.randomness import key, normals


def round_blobs(mean: Tensor, deviation: float) -> GaussianMixture:
    size, dim = mean.shape
    factor = deviation * torch.eye(dim, dtype=torch.float64).expand(size, dim, dim)
    return GaussianMixture(torch.full((size,), -math.log(size)).double(), mean.double(), factor)


def arc(center: tuple[float, float], first: float, last: float, size: int) -> Tensor:
    angles = torch.linspace(first, last, size, dtype=torch.float64)
    return 3.0 * torch.stack([angles.cos(), angles.sin()], dim=1) + torch.tensor(center).double()


RING = round_blobs(arc((0.0, 0.0), 0.0, 2 * math.pi * 16 / 17, 17), 0.5)
MOONS = round_blobs(
    torch.cat([arc((-1.5, -0.5), 0.0, math.pi, 11), arc((1.5, 0.5), math.pi, 2 * math.pi, 11)]), 0.4
)


def straight(path: Tensor) -> Tensor:
    return straight_path(path[0], path[-1], torch.linspace(0, 1, len(path)).to(path))


def test_on_a_ring_the_path_goes_round_the_hole() -> None:
    start, end = torch.tensor([3.0, 0.0]), torch.tensor([-2.9, 0.3])
    path = data_path(start, end, 13, RING)
    assert (path.dtype, path.shape) == (torch.float32, (13, 2))
    assert torch.equal(path[0], start)
    assert torch.equal(path[-1], end)
    assert float(path.norm(dim=1).min()) > 2.3
    assert float(straight(path).norm(dim=1).min()) < 0.3
    # Of the two ways round the shorter one, which turns through 174 degrees.
    assert bool((path[:, 1] > -0.1).all())
    found, line = path_length(path.double(), RING), path_length(straight(path).double(), RING)
    assert float(found) < 0.5 * float(line)


def test_between_the_ends_of_a_moon_the_path_follows_it() -> None:
    start, end = MOONS.mean[0], MOONS.mean[10]
    path = data_path(start, end, 17, MOONS)
    radii = (path - torch.tensor([-1.5, -0.5])).norm(dim=1)
    assert 2.2 < float(radii.min()) <= float(radii.max()) < 3.3
    assert float(MOONS.log_prob(path).min()) > float(MOONS.log_prob(straight(path)).min()) + 2


def test_through_the_mean_of_a_gaussian_the_path_is_straight() -> None:
    density = round_blobs(torch.tensor([[1.0, -2.0, 0.5]]), 0.7)
    away = torch.tensor([0.9, 0.4, -1.1]).double()
    path = data_path(density.mean[0] - away, density.mean[0] + 0.5 * away, 9, density)
    direction = away / away.norm()
    off = path - density.mean[0]
    assert float((off - (off @ direction)[:, None] * direction).norm(dim=1).max()) < 1e-3
    # Steps cost the same, so that they are longest at the mean.
    steps = path.diff(dim=0).norm(dim=1)
    assert 0 < int(steps.argmax()) < 7
    costs = torch.stack([path_length(path[i : i + 2], density) for i in range(8)])
    torch.testing.assert_close(costs, costs.mean().expand(8), rtol=1e-2, atol=0.0)


def test_around_the_mean_of_a_gaussian_it_is_the_geodesic() -> None:
    # Clairaut's relation: where the cost c depends on the radius alone, r c(r) sin(angle between
    # path and radius) is the same all along a geodesic.
    density = round_blobs(torch.zeros(1, 2), 1.0)
    path = data_path(
        torch.tensor([2.0, 0.3]).double(), torch.tensor([-0.8, 1.9]).double(), 65, density
    )
    middle, step = 0.5 * (path[1:] + path[:-1]), path.diff(dim=0)
    moment = (middle[:, 0] * step[:, 1] - middle[:, 1] * step[:, 0]) / step.norm(dim=1)
    constant = moment * (middle.square().sum(1) / 4).exp()  # m^(-1/2) = exp(r^2 / 4)
    assert float(constant.min()) > 0
    torch.testing.assert_close(constant, constant.mean().expand(64), rtol=0.03, atol=0.0)
    assert float(path.norm(dim=1).min()) < float(straight(path).norm(dim=1).min())


def test_under_a_flat_density_it_is_straight() -> None:
    density = round_blobs(torch.zeros(1, 3), 1000.0)
    start, end = torch.tensor([2.0, 0.3, 1.0]), torch.tensor([-0.8, 1.9, 0.0])
    path = data_path(start, end, 7, density)
    torch.testing.assert_close(path, straight(path), atol=1e-3, rtol=0.0)


def test_it_is_never_longer_than_the_line_and_the_same_both_ways() -> None:
    dim = 7
    density = round_blobs(1.5 * normals(key(1, "means"), torch.arange(5), lanes=dim), 0.6)
    points = normals(key(2, "ends"), torch.arange(4), lanes=dim).double()
    for start, end in zip(points[::2], points[1::2], strict=True):
        path = data_path(start, end, 33, density)
        line = straight_path(start, end, torch.linspace(0, 1, 33).double())
        assert float(path_length(path, density)) <= 1.001 * float(path_length(line, density))
        back = data_path(end, start, 33, density)
        torch.testing.assert_close(
            path_length(back, density), path_length(path, density), rtol=0.01, atol=0.0
        )


def test_far_from_all_data_numbers_stay_finite() -> None:
    path = data_path(torch.tensor([500.0, 0.0]), torch.tensor([-500.0, 1.0]), 5, RING)
    assert bool(path.isfinite().all())
    assert torch.equal(path[0], torch.tensor([500.0, 0.0]))
    same = data_path(RING.mean[3], RING.mean[3], 3, RING)
    assert torch.equal(same, RING.mean[3].expand(3, 2))


def test_it_is_one_of_the_paths() -> None:
    points, prior = RING.mean[[0, 8, 4]].float(), MixturePrior(2, max_components=17)
    with pytest.raises(ConfigError, match="--path data: the prior of this model is not a mixture"):
        path_through(points, steps=5, path="data", prior=prior)
    prior.set_mixture(RING)
    found = path_through(points, steps=5, path="data", prior=prior)
    assert torch.equal(found[::4], points)
    assert torch.equal(found[4:], interpolation(*points[1:], steps=5, path="data", prior=prior))
    torch.testing.assert_close(found[4:], data_path(*points[1:], 5, RING), atol=1e-3, rtol=0.0)
