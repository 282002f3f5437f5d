"""Principal components against what they are by definition."""

import math

import pytest
import torch

from textvae.randomness import key, normals
from textvae.report.projection import principal_plane


def _drawn(size: int, dim: int) -> torch.Tensor:
    return normals(key(3, "projection"), torch.arange(size), lanes=dim)


def test_the_axes_of_a_known_cloud() -> None:
    turn = torch.tensor([[math.cos(0.4), math.sin(0.4)], [-math.sin(0.4), math.cos(0.4)]])
    cross = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]]) @ turn
    found = principal_plane(cross + torch.tensor([5.0, -2.0]))
    assert found.fractions == pytest.approx((0.9, 0.1))
    assert found.points.abs() == pytest.approx(
        torch.tensor([[3.0, 0.0], [3.0, 0.0], [0.0, 1.0], [0.0, 1.0]]).double(), abs=1e-5
    )
    centre = torch.tensor([5.0, -2.0]).norm()
    assert math.hypot(*found.origin) == pytest.approx(float(centre), rel=1e-6)


def test_against_the_singular_values_and_distances() -> None:
    mean = _drawn(37, 5) * torch.tensor([1.0, 4.0, 0.5, 2.0, 0.1])
    found = principal_plane(mean)
    centred = (mean - mean.mean(0)).double()
    values = torch.linalg.svdvals(centred).square()
    assert found.fractions == pytest.approx((values[:2] / values.sum()).tolist())
    assert found.points.square().sum(0).tolist() == pytest.approx(values[:2].tolist())
    flat = principal_plane(mean[:, :2])  # two dimensions lose nothing
    assert torch.cdist(flat.points, flat.points) == pytest.approx(
        torch.cdist(mean[:, :2].double(), mean[:, :2].double()), abs=1e-4
    )


def test_the_picture_never_flips() -> None:
    mean = _drawn(23, 7)
    found, again = principal_plane(mean), principal_plane(mean.flip(0))
    assert again.points.flip(0) == pytest.approx(found.points, abs=1e-9)


@pytest.mark.parametrize("size", [1, 5])
def test_too_little_to_span_a_plane(size: int) -> None:
    found = principal_plane(_drawn(size, 1))
    assert found.points.shape == (size, 2)
    assert found.points[:, 1].abs().max() == 0.0
    assert found.fractions == ((1.0 if size > 1 else 0.0), 0.0)
