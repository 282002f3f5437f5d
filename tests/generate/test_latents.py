"""Paths meet their ends, the arc keeps the norm, and draws depend on their index alone."""

import math
import re

import pytest
import torch
from torch import Tensor

from textvae.errors import ConfigError
from textvae.generate.latents import (
    interpolation,
    prior_latents,
    spherical_path,
    straight_path,
)
from textvae.model.prior import StandardNormalPrior
from textvae.randomness import key, normals

Z, STEPS = 7, 11


def points() -> tuple[Tensor, Tensor]:
    start, end = normals(key(1, "points"), torch.arange(2), lanes=Z)
    return start, 3.0 * end


def shares() -> Tensor:
    return torch.linspace(0.0, 1.0, STEPS)


@pytest.mark.parametrize("path", ["straight", "spherical"])
@pytest.mark.parametrize("steps", [2, 3, STEPS])
def test_paths_meet_their_ends(path: str, steps: int) -> None:
    start, end = points()
    found = interpolation(start, end, steps=steps, path=path)  # type: ignore[arg-type]
    assert found.shape == (steps, Z)
    torch.testing.assert_close(found[0], start)
    torch.testing.assert_close(found[-1], end)


def test_a_straight_path_has_equal_steps() -> None:
    start, end = points()
    steps = interpolation(start, end, steps=STEPS, path="straight").diff(dim=0)
    torch.testing.assert_close(steps, ((end - start) / (STEPS - 1)).expand(STEPS - 1, -1))


def test_the_arc_of_a_right_angle_is_the_circle() -> None:
    start, end = torch.zeros(Z), torch.zeros(Z)
    start[2], end[5] = 2.0, 2.0
    found = spherical_path(start, end, shares())
    expected = torch.zeros(STEPS, Z)
    expected[:, 2] = 2.0 * (shares() * math.pi / 2).cos()
    expected[:, 5] = 2.0 * (shares() * math.pi / 2).sin()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_the_arc_keeps_the_norm_of_equal_norms_and_its_angle_is_even() -> None:
    start, end = points()
    end = end * (start.norm() / end.norm())
    found = spherical_path(start, end, shares())
    torch.testing.assert_close(found.norm(dim=1), start.norm().expand(STEPS))
    unit = found / found.norm(dim=1, keepdim=True)
    angles = (unit[1:] * unit[:-1]).sum(1).double().clamp(-1, 1).arccos()
    torch.testing.assert_close(angles, angles.mean().expand(STEPS - 1), rtol=1e-3, atol=0.0)


def test_the_norm_goes_straight_between_unequal_norms() -> None:
    start, end = points()
    found = spherical_path(start, end, shares())
    torch.testing.assert_close(found.norm(dim=1), torch.lerp(start.norm(), end.norm(), shares()))


@pytest.mark.parametrize(
    "factor", [0.0, 1.0, 2.5, -1.0, -0.3], ids=["zero", "same", "parallel", "opposite", "shrunk"]
)
def test_without_one_arc_the_path_is_straight(factor: float) -> None:
    start, _ = points()
    for first, second in ((start, factor * start), (factor * start, start)):
        found = spherical_path(first, second, shares())
        assert torch.equal(found, straight_path(first, second, shares()))
    zero = torch.zeros(Z)
    assert torch.equal(spherical_path(zero, zero, shares()), torch.zeros(STEPS, Z))


@pytest.mark.parametrize("tilt", [1e-6, 1e-4, 3e-4, 1e-3, 1e-2])
def test_nearly_parallel_vectors_stay_between_their_ends(tilt: float) -> None:
    start, end = torch.zeros(Z), torch.zeros(Z)
    start[0], end[0], end[1] = 1.0, 1.0, tilt
    for sign in (1.0, -1.0):
        found = spherical_path(start, sign * end, shares())
        assert bool(found.isfinite().all())
        torch.testing.assert_close(found[0], start)
        torch.testing.assert_close(found[-1], sign * end)
        assert float(found.norm(dim=1).max()) < 1.003


def test_a_path_back_is_the_path_reversed() -> None:
    start, end = points()
    for path in (straight_path, spherical_path):
        back = path(end, start, 1.0 - shares())
        torch.testing.assert_close(path(start, end, shares()), back)


def test_draws_from_the_prior_depend_on_their_index_alone() -> None:
    prior = StandardNormalPrior(Z)
    three, many = (prior_latents(prior, size, seed=5) for size in (3, 1009))
    assert torch.equal(three, many[:3])
    assert not torch.equal(three, prior_latents(prior, 3, seed=6))
    assert prior_latents(prior, 0, seed=5).shape == (0, Z)
    assert abs(float(many.mean())) < 5.0 / math.sqrt(1009 * Z)
    assert abs(float(many.var()) - 1.0) < 5.0 * math.sqrt(2.0 / (1009 * Z))


@pytest.mark.parametrize("steps", [1, 0, -3])
def test_fewer_than_two_steps_are_refused(steps: int) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"--steps {steps}: an interpolation has")):
        interpolation(*points(), steps=steps, path="straight")


def test_an_unknown_path_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="--path round: must be one of straight, spherical"):
        interpolation(*points(), steps=3, path="round")  # type: ignore[arg-type]
