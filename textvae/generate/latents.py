"""Where latents come from: the prior, and paths between two of them."""

from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

from textvae.errors import ConfigError
from textvae.model.interfaces import Prior
from textvae.randomness import key, normals

PathKind = Literal["straight", "spherical"]


def prior_latents(prior: Prior, num_samples: int, *, seed: int) -> Tensor:
    """Draws from the prior `[N, Z]`; draw i is a function of (seed, i)."""
    return prior.from_normals(
        normals(key(seed, "prior"), torch.arange(num_samples), lanes=prior.latent_dim)
    )


def straight_path(start: Tensor, end: Tensor, shares: Tensor) -> Tensor:
    """Points on the line: `[Z]`, `[Z]`, shares `[S]` in [0, 1] -> `[S, Z]`."""
    return torch.lerp(start, end, shares[:, None])


def spherical_path(start: Tensor, end: Tensor, shares: Tensor) -> Tensor:
    """Points on the arc (Shoemake 1985): `[Z]`, `[Z]`, shares `[S]` in [0, 1] -> `[S, Z]`.

    The angle is that between the directions, and the norm goes straight from one to the other, so
    that the ends are met. Opposite, parallel or zero vectors have no one arc: the straight path.
    """
    norms = torch.stack([start.norm(), end.norm()])
    if float(norms.min()) < 1e-6:
        return straight_path(start, end, shares)
    first, second = start / norms[0], end / norms[1]
    # Not the arccos of the product, which near 0 and pi keeps half the digits and bulges the arc.
    angle = 2 * torch.atan2((first - second).norm(), (first + second).norm())
    if float(angle.sin()) < 1e-4:
        return straight_path(start, end, shares)
    near, far = ((1 - shares) * angle).sin(), (shares * angle).sin()
    direction = (near[:, None] * first + far[:, None] * second) / angle.sin()
    return direction * torch.lerp(norms[0], norms[1], shares)[:, None]


def interpolation(start: Tensor, end: Tensor, *, steps: int, path: PathKind) -> Tensor:
    """A path `[steps, Z]` from `[Z]` to `[Z]`, both ends included.

    Raises:
        ConfigError: fewer than two steps, or an unknown path.
    """
    if steps < 2:
        raise ConfigError(f"--steps {steps}: an interpolation has at least 2, its ends")
    if path not in get_args(PathKind):
        raise ConfigError(f"--path {path}: must be one of {', '.join(get_args(PathKind))}")
    shares = torch.linspace(0.0, 1.0, steps, device=start.device)
    between = straight_path if path == "straight" else spherical_path
    return between(start, end, shares)


def path_through(points: Tensor, *, steps: int, path: PathKind) -> Tensor:
    """A path through points `[M, Z]`, M >= 2: `[(M - 1) (steps - 1) + 1, Z]`.

    Raises:
        ConfigError: as `interpolation`, which it is between each two.
    """
    legs = [
        interpolation(start, end, steps=steps, path=path)[bool(number) :]
        for number, (start, end) in enumerate(pairwise(points))
    ]
    return torch.cat(legs)
