"""Paths from latent to latent."""

from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

from textvae.errors import ConfigError
from textvae.generate.data_path import data_path
from textvae.generate.paths import spherical_path, straight_path
from textvae.model.interfaces import Prior

PathKind = Literal["straight", "spherical", "data"]


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
        start: where it begins.
        end: where it ends.
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
    shares = torch.linspace(0.0, 1.0, steps, device=start.device)
    between = straight_path if path == "straight" else spherical_path
    return between(start, end, shares)


def path_through(
    points: Tensor, *, steps: int, path: PathKind, prior: Prior | None = None
) -> Tensor:
    """A path through points `[M, Z]`, M >= 2: `[(M - 1) (steps - 1) + 1, Z]`.

    Raises:
        ConfigError: as `interpolation`, which it is between each two.
    """
    legs = [
        interpolation(start, end, steps=steps, path=path, prior=prior)[bool(number) :]
        for number, (start, end) in enumerate(pairwise(points))
    ]
    return torch.cat(legs)
