"""Paths from latent to latent: the line, the arc around the origin, and through the data.

The path through the data is the shortest one if a step dz costs m(z)^(-1/Z) |dz| for a density m:
up to a constant, |dz| times the distance between samples of m there. Shortest paths through samples
that pay the square of each hop tend to it (Hwang, Damelin and Hero 2016, power 2). As elsewhere
with such metrics (Sajama and Orlitsky 2005) a graph finds the way round a hole; as for geodesics of
latent spaces (Arvanitidis, Hansen and Hauberg 2018) the points on it move until its energy is
least.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

from textvae.errors import ConfigError, DataError
from textvae.model.interfaces import Prior
from textvae.model.mixture import GaussianMixture
from textvae.storage.files import require_memory

PathKind = Literal["straight", "spherical", "data"]
SEGMENTS = 32
NODES = 128
"""Draws from the density that a way may lead through, besides the means of its components."""
MEANS = 64
FINE = 8
"""Pieces of a segment where a length is measured, not minimised."""
ITERATIONS = 60
STEEPEST = 300.0
"""The largest logarithm of a cost, where that at the densest of the components' means is 0."""


def interpolation(
    start: Tensor,
    end: Tensor,
    *,
    steps: int,
    path: PathKind,
    prior: Prior | None = None,
) -> Tensor:
    """A path `[steps, Z]` from `[Z]` to `[Z]`, both ends included.

    Args:
        start: the first point.
        end: the last point.
        steps: how many points.
        path: `straight`, `spherical`, or `data`, which stays where the density of the prior is
            high.
        prior: of the model; `data` needs one that is a mixture.

    Raises:
        ConfigError: fewer than two steps, an unknown path, or `data` without a mixture.
    """
    if steps < 2:
        raise ConfigError(f"--steps {steps}: an interpolation has at least 2, its ends")
    if path not in get_args(PathKind):
        raise ConfigError(f"--path {path}: must be one of {', '.join(get_args(PathKind))}")
    if path == "data":
        mixture = None if prior is None else prior.mixture
        if mixture is None:
            raise ConfigError(
                "--path data: the prior of this model is not a mixture; train with "
                "--set model.prior.kind=mixture"
            )
        return data_path(start, end, steps, mixture)
    fractions = torch.linspace(0.0, 1.0, steps, device=start.device)
    between = straight_path if path == "straight" else spherical_path
    return between(start, end, fractions)


def path_through(
    points: Tensor, *, steps: int, path: PathKind, prior: Prior | None = None
) -> Tensor:
    """A path through points `[M, Z]`, M >= 2: `[(M - 1) (steps - 1) + 1, Z]`.

    Raises:
        DataError: fewer than two points.
        ConfigError: as `interpolation`, which it is between each two.
    """
    return torch.cat(list(path_blocks(points, steps=steps, path=path, prior=prior, block=steps)))


def path_blocks(
    points: Tensor, *, steps: int, path: PathKind, prior: Prior | None = None, block: int
) -> Iterator[Tensor]:
    """The points of `path_through`, at most `block` at a time: `[any number, Z]` each.

    A path through data is in memory as a whole.

    Raises:
        DataError, ConfigError: as `path_through`.
        MemoryLimitError: more points at once than fit into memory.
    """
    if len(points) < 2:
        raise DataError(
            f"an interpolation passes through at least 2 sentences, found {len(points)}"
        )
    whole = path == "data" or steps <= block
    if whole:
        require_memory(16 * steps * points.shape[1], f"--steps {steps}", "ask for fewer steps")
    for number, (start, end) in enumerate(pairwise(points)):
        first = min(number, 1)  # of the others the first is the last of the leg before
        if whole:
            leg = interpolation(start, end, steps=steps, path=path, prior=prior)[first:]
            yield from leg.split(block)  # type: ignore[no-untyped-call]
            continue
        interpolation(start, end, steps=2, path=path, prior=prior)  # which checks the path
        between = straight_path if path == "straight" else spherical_path
        for begin in range(first, steps, block):
            numbers = torch.arange(begin, min(begin + block, steps), dtype=torch.float64)
            yield between(start, end, (numbers / (steps - 1)).to(start))


def straight_path(start: Tensor, end: Tensor, fractions: Tensor) -> Tensor:
    """Points on the line: `[Z]`, `[Z]`, fractions `[S]` in [0, 1] -> `[S, Z]`."""
    return torch.lerp(start, end, fractions[:, None])


def spherical_path(start: Tensor, end: Tensor, fractions: Tensor) -> Tensor:
    """Points on the arc (Shoemake 1985): `[Z]`, `[Z]`, fractions `[S]` in [0, 1] -> `[S, Z]`.

    The angle is that between the directions, and the norm is interpolated linearly, so
    that the ends are met. Opposite, parallel or zero vectors have no one arc: the straight path.
    """
    norms = torch.stack([start.norm(), end.norm()])
    if float(norms.min()) < 1e-6:
        return straight_path(start, end, fractions)
    first, second = start / norms[0], end / norms[1]
    # Not the arccos of the product, which near 0 and pi keeps half the digits and bulges the arc.
    angle = 2 * torch.atan2((first - second).norm(), (first + second).norm())
    if float(angle.sin()) < 1e-4:
        return straight_path(start, end, fractions)
    near, far = ((1 - fractions) * angle).sin(), (fractions * angle).sin()
    direction = (near[:, None] * first + far[:, None] * second) / angle.sin()
    return direction * torch.lerp(norms[0], norms[1], fractions)[:, None]


def data_path(start: Tensor, end: Tensor, steps: int, density: GaussianMixture) -> Tensor:
    """`steps` points `[steps, Z]` of the shortest path, both ends included, at equal distances.

    From `[Z]` to `[Z]` under a density of the latents of data; of the type and on the device of
    `start`.

    Never longer than the straight line. The same both ways, but for rounding.
    """
    first, last = (point.detach().cpu().double().clone() for point in (start, end))
    fractions = torch.linspace(0.0, 1.0, SEGMENTS + 1, dtype=torch.float64)
    straight = straight_path(first, last, fractions)
    if float((last - first).norm()) < 1e-9:
        return straight_path(start, end, torch.linspace(0.0, 1.0, steps).to(start))
    around = _resampled(_through_graph(first, last, density), SEGMENTS + 1, density)
    ways = [straight, around, *(_relaxed(way, density) for way in (straight, around))]
    lengths = [float(path_length(way, density)) for way in ways]
    path = _resampled(ways[lengths.index(min(lengths))], steps, density)
    path[0], path[-1] = first, last
    return path.to(start)


def path_length(points: Tensor, density: GaussianMixture) -> Tensor:
    """The cost of a polyline `[S, Z]`, a scalar: 1 a unit of length at the densest of the means."""
    return _pieces(points, density)[1].sum()


def _log_cost(points: Tensor, density: GaussianMixture) -> Tensor:
    """-log m(z) / Z, `[N, Z]` -> `[N]`, above that of the densest mean."""
    log_prob = density.log_prob(torch.cat([points, density.mean]))
    return (log_prob[len(points) :].max() - log_prob[: len(points)]) / points.shape[1]


def _cost(points: Tensor, density: GaussianMixture) -> Tensor:
    return _log_cost(points, density).clamp(max=STEEPEST).exp()


def _pieces(points: Tensor, density: GaussianMixture) -> tuple[Tensor, Tensor]:
    """A polyline cut finely, `[FINE (S - 1) + 1, Z]`, and the length of each piece."""
    fractions = torch.arange(FINE, dtype=points.dtype) / FINE
    cut = torch.lerp(points[:-1, None], points[1:, None], fractions[:, None]).flatten(0, 1)
    cut = torch.cat([cut, points[-1:]])
    cost = _cost(cut, density)
    return cut, 0.5 * (cost[:-1] + cost[1:]) * cut.diff(dim=0).norm(dim=1)


def _resampled(points: Tensor, size: int, density: GaussianMixture) -> Tensor:
    """`size` points on a polyline, equally far from each other along it."""
    cut, lengths = _pieces(points, density)
    behind = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    distance = torch.linspace(0.0, 1.0, size, dtype=points.dtype) * behind[-1]
    piece = (torch.searchsorted(behind, distance, right=True) - 1).clamp(0, len(lengths) - 1)
    rest = (distance - behind[piece]) / lengths[piece].clamp(min=1e-300)
    return torch.lerp(cut[piece], cut[piece + 1], rest.clamp(0.0, 1.0)[:, None])


def _through_graph(start: Tensor, end: Tensor, density: GaussianMixture) -> Tensor:
    """The shortest way from node to node, `[at least 2, Z]`: Bellman's equation, all pairs."""
    heaviest = density.log_weights.argsort(descending=True, stable=True)[:MEANS]
    drawn = density.sample(NODES, seed=0)
    nodes = torch.cat([start[None], end[None], density.mean[heaviest], drawn])
    rows, columns = torch.triu_indices(len(nodes), len(nodes), 1)
    fractions = torch.linspace(0.0, 1.0, FINE + 1, dtype=nodes.dtype)
    between = torch.lerp(nodes[rows, None], nodes[columns, None], fractions[:, None])
    cost = _cost(between.flatten(0, 1), density).view(between.shape[:2])
    mean_cost = 0.5 * (cost[:, :-1] + cost[:, 1:]).mean(1)
    edges = torch.zeros(len(nodes), len(nodes), dtype=nodes.dtype)
    edges[rows, columns] = mean_cost * (nodes[rows] - nodes[columns]).norm(dim=1)
    edges = edges + edges.t()
    distance, before = edges[0], torch.zeros(len(nodes), dtype=torch.int64)
    while True:
        best, via = (distance[:, None] + edges).min(0)
        shorter = best < distance * (1 - 1e-12)
        if not bool(shorter.any()):
            break
        before = torch.where(shorter, via, before)
        distance = torch.where(shorter, best, distance)
    way = [1]
    while way[-1] != 0:
        way.append(int(before[way[-1]]))
    return nodes[way[::-1]]


def _relaxed(points: Tensor, density: GaussianMixture) -> Tensor:
    """Move the inner points until the energy sum c^2 |dz|^2 is least; the ends stay.

    A path of least energy is one of least length whose points are equally far from each other. Its
    logarithm is what is lowered: costs may differ by hundreds of orders of magnitude.
    """
    inner = points[1:-1].clone().requires_grad_()
    optimizer = torch.optim.LBFGS([inner], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def log_energy() -> Tensor:
        optimizer.zero_grad()
        path = torch.cat([points[:1], inner, points[-1:]])
        twice = 2 * _log_cost(path, density)
        squares = path.diff(dim=0).square().sum(1)
        energy = (torch.logaddexp(twice[:-1], twice[1:]) + (squares + 1e-300).log()).logsumexp(0)
        energy.backward()  # type: ignore[no-untyped-call]
        return energy

    with torch.enable_grad():
        optimizer.step(log_energy)  # type: ignore[no-untyped-call]
    moved = torch.cat([points[:1], inner.detach(), points[-1:]])
    return moved if bool(moved.isfinite().all()) else points
