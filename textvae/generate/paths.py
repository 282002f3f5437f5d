"""Paths that geometry gives: the line, and the arc around the origin."""

import torch
from torch import Tensor


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
