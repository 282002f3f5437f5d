"""The plane in which posterior means differ most (principal components, Pearson 1901)."""

from typing import NamedTuple

import torch
from torch import Tensor


class Projection(NamedTuple):
    """Points in a plane."""

    points: Tensor
    """float64 `[N, 2]`, in units of the prior."""
    fractions: tuple[float, float]
    """The fraction of the variance of the means on each axis."""
    origin: tuple[float, float]
    """Where the centre of the prior falls."""


def principal_plane(mean: Tensor) -> Projection:
    """Project `[N, Z]`, Z >= 1, on the two axes of largest variance; a lacking axis is 0.

    From the eigenvectors of the covariance in float64. The sign of an eigenvector is not
    determined, so that of its largest entry is made positive: the picture never flips.
    """
    values = mean.detach().cpu().double()
    centre = values.mean(0)
    centred = values - centre
    variances, vectors = torch.linalg.eigh(centred.t() @ centred / max(1, len(values) - 1))
    order = variances.argsort(descending=True)[:2]
    axes = torch.zeros(values.shape[1], 2, dtype=torch.float64)
    fractions = [0.0, 0.0]
    total = float(variances.clamp(min=0.0).sum())
    for place, index in enumerate(order.tolist()):
        axis = vectors[:, index]
        largest = axis[axis.abs().argmax()]
        axes[:, place] = axis if float(largest) >= 0.0 else -axis
        fractions[place] = float(variances[index].clamp(min=0.0)) / total if total > 0.0 else 0.0
    origin = (-centre) @ axes
    return Projection(
        centred @ axes, (fractions[0], fractions[1]), (float(origin[0]), float(origin[1]))
    )
