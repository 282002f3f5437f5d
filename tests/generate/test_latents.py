"""Paths meet their ends, the arc keeps the norm, and draws depend on their index alone."""

import math
import re

import pytest
import torch
from torch import Tensor

from textvae.errors import ConfigError
from textvae.generate.latents import sample_latents
from textvae.generate.paths import interpolation, spherical_path, straight_path
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.prior_gaussian import StandardNormalPrior
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


def posterior() -> DiagonalGaussian:
    mean, log_variance = normals(key(7, "posterior"), torch.arange(2), lanes=Z)
    return DiagonalGaussian(3.0 * mean[None], log_variance[None])


@pytest.mark.parametrize("scale", [None, 0.5, 1.0, 2.0])
def test_draws_near_a_sentence_have_its_mean_and_its_scaled_deviation(scale: float | None) -> None:
    prior, near, count = StandardNormalPrior(Z), posterior(), 1009
    found = sample_latents(prior, count, seed=5, posterior=near, scale=scale)
    deviation = (1.0 if scale is None else scale) * (0.5 * near.log_variance).exp()
    standard = ((found - near.mean) / deviation).double()
    assert float(standard.mean(0).abs().max()) < 5.0 / math.sqrt(count)
    assert float((standard.var(0) - 1.0).abs().max()) < 5.0 * math.sqrt(2.0 / count)
    for start in (0, 1000):
        few = sample_latents(prior, 3, seed=5, start=start, posterior=near, scale=scale)
        assert torch.equal(found[start : start + 3], few)
    other = sample_latents(prior, count, seed=6, posterior=near, scale=scale)
    assert not torch.equal(found, other)


def test_draws_near_a_sentence_at_scale_0_are_its_mean() -> None:
    near = posterior()
    found = sample_latents(StandardNormalPrior(Z), 3, seed=5, posterior=near, scale=0.0)
    assert torch.equal(found, near.mean.expand(3, -1))


def test_without_a_posterior_draws_are_those_of_the_prior() -> None:
    prior = StandardNormalPrior(Z)
    assert torch.equal(sample_latents(prior, 11, seed=5), prior.sample(11, seed=5))
    with pytest.raises(ConfigError, match=r"--scale 0\.5: belongs to --near"):
        sample_latents(prior, 11, seed=5, scale=0.5)


@pytest.mark.parametrize("scale", [-0.1, 1000.5, math.nan, math.inf])
def test_a_scale_out_of_bounds_is_refused(scale: float) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"--scale {scale}: must be from 0 to 1000")):
        sample_latents(StandardNormalPrior(Z), 3, seed=5, posterior=posterior(), scale=scale)


@pytest.mark.parametrize("steps", [1, 0, -3])
def test_fewer_than_two_steps_are_refused(steps: int) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"--steps {steps}: an interpolation has")):
        interpolation(*points(), steps=steps, path="straight")


def test_an_unknown_path_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="--path round: must be one of straight, spherical"):
        interpolation(*points(), steps=3, path="round")  # type: ignore[arg-type]
