"""The autoregressive flow: a density, its map to normals and back, and its fit."""

import math

import pytest
import torch

from textvae.model.flow import (
    AutoregressiveFlow,
    Conditionals,
    FlowProgress,
    FlowShape,
    fit_flow,
    initial_flow,
    masked,
)
from textvae.model.gaussian import LOG_TWO_PI, DiagonalGaussian
from textvae.randomness import key, normals, uniforms

Z, N = 5, 97


def noise(name: str, size: int = N, dim: int = Z) -> torch.Tensor:
    return normals(key(7, name), torch.arange(size), lanes=dim).double()


def bent(dim: int = Z, num_blocks: int = 2) -> AutoregressiveFlow:
    """A flow in float64 with weights far from where a fit begins, masks applied."""
    shape = FlowShape(dim, 23, num_blocks, 3)
    sizes = shape.sizes()
    return masked(
        AutoregressiveFlow(
            **{
                name: 0.25 * noise(name, math.prod(size), 1).view(size)
                for name, size in sizes.items()
            }
        )
    )


@pytest.mark.parametrize("num_blocks", [0, 2])
def test_density_of_two_dimensions_integrates_to_one(num_blocks: int) -> None:
    line = torch.linspace(-12.0, 12.0, 1201, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(line, line, indexing="ij"), dim=-1).view(-1, 2)
    density = bent(2, num_blocks).conditional_log_probs(grid).sum(1).exp().view(1201, 1201)
    total = torch.trapezoid(torch.trapezoid(density, line), line)
    assert float(total) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("dim", [1, 2, Z])
def test_inverse_of_the_map_is_the_identity(dim: int) -> None:
    flow, there = bent(dim), 1.5 * noise("there", dim=dim)
    torch.testing.assert_close(flow.to_normals(flow.from_normals(there)), there)
    torch.testing.assert_close(flow.from_normals(flow.to_normals(there)), there)
    far = torch.full((1, dim), -9.0).double()  # in a tail, where 1 - F(y) is lost to rounding
    torch.testing.assert_close(flow.to_normals(flow.from_normals(far)), far)


def test_inverse_crosses_a_gap_between_gaussians() -> None:
    mixture = Conditionals(
        torch.tensor([0.3, 0.7]).double().log()[None, None],
        torch.tensor([-8.0, 8.0]).double()[None, None],
        torch.tensor([-3.0, -1.0]).double()[None, None],
    )
    there = torch.linspace(-5.0, 5.0, 101).double()[:, None]
    points = mixture.from_normals(there)
    assert bool((points.diff(dim=0) > 0).all())
    torch.testing.assert_close(mixture.to_normals(points), there, rtol=1e-6, atol=1e-6)


def test_density_is_that_of_the_normals_times_the_jacobian() -> None:
    flow, points = bent(), noise("points", 11)
    found = flow.conditional_log_probs(points).sum(1)
    for point, log_prob in zip(points, found, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda y: flow.to_normals(y[None])[0], point)
        assert float(jacobian.triu(1).abs().max()) < 1e-12, "a dimension sees those before it"
        base = flow.to_normals(point[None])[0]
        normal = -0.5 * (base.square() + LOG_TWO_PI).sum()
        torch.testing.assert_close(log_prob, normal + torch.linalg.slogdet(jacobian).logabsdet)


def test_conditionals_are_those_of_fewer_dimensions() -> None:
    flow, points = bent(), noise("points")
    found = flow.conditional_log_probs(points)
    changed = points.clone()
    changed[:, 3:] = 17.0
    torch.testing.assert_close(flow.conditional_log_probs(changed)[:, :3], found[:, :3])
    assert float((flow.conditional_log_probs(changed)[:, 4] - found[:, 4]).abs().median()) > 0.1


@pytest.mark.parametrize("components", [1, 8])
def test_it_begins_as_nearly_the_standard_normal(components: int) -> None:
    flow = initial_flow(FlowShape(Z, 23, 1, components), seed=3)
    points = noise("points", 4001).float()
    gap = flow.conditional_log_probs(points) + 0.5 * (points.square() + LOG_TWO_PI)
    assert abs(float(gap.mean())) < (1e-6 if components == 1 else 0.01)


def moons(size: int, name: str) -> torch.Tensor:
    """Two half circles, each inside the other's opening."""
    draws = uniforms(key(5, name), torch.arange(size), lanes=2)
    angle, upper = math.pi * draws[:, 0], draws[:, 1] < 0.5
    first = torch.stack([angle.cos(), angle.sin()], dim=1)
    second = torch.stack([1.0 - angle.cos(), 0.5 - angle.sin()], dim=1)
    return torch.where(upper[:, None], first, second) - torch.tensor([0.5, 0.25])


SHAPE = FlowShape(2, 64, 1, 5)


def fits(**changes: object) -> list[FlowProgress]:
    means = moons(2003, "train")
    posterior = DiagonalGaussian(means, torch.full_like(means, math.log(0.1**2)))
    held = moons(997, "held out") + 0.1 * noise("held out", 997, 2).float()
    arguments = {"num_steps": 400, "batch_size": 211, "learning_rate": 0.01} | changes
    return list(fit_flow(posterior, lambda z: z, held, SHAPE, seed=3, **arguments))


def test_fit_finds_two_moons_that_no_gaussian_has() -> None:
    progress = fits()
    assert [one.step for one in progress] == sorted({one.step for one in progress})
    assert len(progress) == 8
    assert progress[-1].step == 400
    held = moons(997, "held out") + 0.1 * noise("held out", 997, 2).float()
    gaussian = torch.distributions.MultivariateNormal(held.mean(0), held.t().cov())
    assert progress[-1].log_prob > float(gaussian.log_prob(held).mean()) + 0.6
    again = fits()[-1]
    assert again.log_prob == progress[-1].log_prob
    assert all(torch.equal(a, b) for a, b in zip(again.flow, progress[-1].flow, strict=True))
    drawn = progress[-1].flow.from_normals(noise("draws", 997, 2).float())
    nearest = torch.cdist(drawn, moons(4001, "circles")).amin(1)
    assert float(nearest.median()) < 0.15, "draws lie on the moons"


def test_fit_ends_when_the_time_is_over() -> None:
    calls = iter(range(1000))
    progress = fits(fraction_of_time=lambda: next(calls) / 40)
    assert progress[-1].step == 40
    assert len(progress) == 8
