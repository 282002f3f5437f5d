"""How well a score separates anomalies from normal sentences. Higher scores are more anomalous.

The figures of the field: the area under the ROC curve, average precision with anomalies as the
positive class, and the false-positive rate at which 95 % of the anomalies are detected. Equal
scores are flagged together: no order among them is invented. The intervals are
percentiles of the bootstrap (Efron 1979), which draws as many normal sentences and as many
anomalies as there are.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from textvae.errors import ConfigError, DataError
from textvae.randomness import key, uniforms

TRUE_POSITIVE_RATE = 0.95
"""The true-positive rate at which the false-positive rate is measured."""
CONFIDENCE = 0.95
CELLS = 2**20
"""Weights of a resampled sentence that are in memory at once."""


class Estimate(NamedTuple):
    """A figure, and the interval that holds CONFIDENCE of its values over the resamples."""

    value: float
    low: float
    high: float


class Detection(NamedTuple):
    """How well a score separates anomalies from normal sentences; each is from 0 to 1."""

    auroc: Estimate
    """The probability that an anomaly scores above a normal sentence, ties counted half."""
    average_precision: Estimate
    """Precision averaged over recall; chance is the fraction of anomalies."""
    fpr_at_95_tpr: Estimate
    """The least fraction of normal sentences that is flagged where 95 % of the anomalies are."""


def detection(
    normal: Tensor, anomalous: Tensor, *, seed: int = 0, num_resamples: int = 1000
) -> Detection:
    """Measure a score on sentences that are known to be normal or anomalous.

    Args:
        normal: scores `[N]`, higher is more anomalous.
        anomalous: scores `[M]`.
        seed: of the resamples.
        num_resamples: of the bootstrap; 0 leaves the intervals at the values.

    Raises:
        DataError: no scores on one side, or one that is not a number.
        ConfigError: fewer than no resamples.
    """
    if num_resamples < 0:
        raise ConfigError(f"num_resamples {num_resamples}: must be at least 0")
    for name, scores in (("normal", normal), ("anomalous", anomalous)):
        if scores.dim() != 1 or not len(scores):
            raise DataError(f"{name}: scores of shape {tuple(scores.shape)}; give one at least")
        if bool(scores.isnan().any()):
            raise DataError(f"{name}: a score is not a number; leave it out")
    # Numbered from the highest score down, equal ones alike: the curve has a point for each.
    both = torch.cat([normal.double(), anomalous.double()]).cpu()
    places: Tensor = (-both).unique(return_inverse=True)[1]  # type: ignore[no-untyped-call]
    sides = places[: len(normal)], places[len(normal) :]
    ones = [torch.ones(1, len(side), dtype=torch.float64) for side in sides]
    exact = _figures(*(_at_places(*pair, places) for pair in zip(ones, sides, strict=True)))
    drawn = [exact]
    step = max(1, CELLS // len(both))
    for first in range(0, num_resamples, step):
        numbers = torch.arange(first, min(first + step, num_resamples))
        weights = (_resampled(len(side), numbers, seed, i) for i, side in enumerate(sides))
        pairs = zip(weights, sides, strict=True)
        drawn.append(_figures(*(_at_places(*pair, places) for pair in pairs)))
    resampled = torch.cat(drawn[1:] or drawn, dim=1)
    outside = (1.0 - CONFIDENCE) / 2
    low, high = resampled.quantile(outside, dim=1), resampled.quantile(1.0 - outside, dim=1)
    rows = zip(exact[:, 0].tolist(), low.tolist(), high.tolist(), strict=True)
    return Detection(*(Estimate(*row) for row in rows))


def _figures(normal: Tensor, anomalous: Tensor) -> Tensor:
    """The three figures `[3, R]` for counts `[R, G]` at each score, the highest first."""
    false, true = normal.cumsum(1), anomalous.cumsum(1)
    num_normal, num_anomalies = false[:, -1], true[:, -1]
    above = true - 0.5 * anomalous
    auroc = (normal * above).sum(1) / (num_normal * num_anomalies)
    precision = true / (true + false).clamp(min=1.0)  # nothing flagged yet: its weight is 0
    average = (anomalous * precision).sum(1) / num_anomalies
    # Counts are whole: half of one is far from any rounding of the bound.
    enough = true >= (TRUE_POSITIVE_RATE * num_anomalies - 1e-6)[:, None]
    first = enough.to(torch.int8).argmax(1)
    rate = false.gather(1, first[:, None])[:, 0] / num_normal
    return torch.stack([auroc, average, rate])


def _at_places(weights: Tensor, side: Tensor, places: Tensor) -> Tensor:
    """Weights `[R, N]` of sentences added up over the places of their scores, `[R, G]`."""
    total = weights.new_zeros(weights.shape[0], int(places.max()) + 1)
    return total.index_add_(1, side, weights)


def _resampled(size: int, numbers: Tensor, seed: int, side: int) -> Tensor:
    """How often each of N sentences is drawn in the resamples of these numbers, `[R, N]`."""
    draws = uniforms(key(seed, "bootstrap", side), numbers, lanes=size)
    rows = (draws.double() * size).long()
    weights = torch.zeros(len(numbers), size, dtype=torch.float64)
    return weights.scatter_add_(1, rows, torch.ones(1, 1).double().expand_as(rows))
