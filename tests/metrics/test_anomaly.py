"""Detection figures: against scikit-learn, with ties, and the bootstrap against theory."""

import math

import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from torch import Tensor

from textvae.errors import ConfigError, DataError
from textvae.metrics.anomaly import detection
from textvae.randomness import key, normals


def drawn(size: int, shift: float, digits: int, seed: int) -> Tensor:
    """Scores, rounded so that with few digits many are equal."""
    values = normals(key(seed, "scores"), torch.arange(size), lanes=1)[:, 0].double() + shift
    return (values * 10**digits).round() / 10**digits


@pytest.mark.parametrize("digits", [0, 1, 6])
@pytest.mark.parametrize(("num_normal", "num_strange"), [(97, 41), (11, 211), (1, 1), (3, 20)])
def test_the_figures_are_those_of_scikit_learn(
    num_normal: int, num_strange: int, digits: int
) -> None:
    normal, strange = drawn(num_normal, 0.0, digits, 1), drawn(num_strange, 0.7, digits, 2)
    found = detection(normal, strange, num_resamples=0)
    truth = [0] * num_normal + [1] * num_strange
    scores = torch.cat([normal, strange]).numpy()
    assert found.auroc.value == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    precision = average_precision_score(truth, scores)
    assert found.average_precision.value == pytest.approx(precision, abs=1e-12)
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    assert found.fpr_at_95_tpr.value == pytest.approx(min(false[true >= 0.95 - 1e-12]), abs=1e-12)


def test_equal_scores_are_chance_and_separate_ones_perfect() -> None:
    same = detection(torch.zeros(7), torch.zeros(3), num_resamples=11)
    assert [one.value for one in same] == pytest.approx([0.5, 0.3, 1.0])
    apart = detection(torch.arange(7.0), torch.arange(3.0) + 7, num_resamples=11)
    assert [tuple(one) for one in apart] == [(1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)]
    infinite = detection(torch.tensor([0.0, math.inf]), torch.tensor([math.inf]), num_resamples=0)
    assert infinite.auroc.value == 0.75


def test_the_interval_is_as_wide_as_theory_says() -> None:
    # Hanley and McNeil 1982: the variance of an AUROC of 1/2 under one distribution on both sides.
    size, other = 211, 149
    normal, strange = drawn(size, 0.0, 6, 3), drawn(other, 0.0, 6, 4)
    found = detection(normal, strange, seed=5, num_resamples=1000).auroc
    wanted = 2 * 1.96 * math.sqrt((size + other + 1) / (12 * size * other))
    assert found.high - found.low == pytest.approx(wanted, rel=0.1)
    assert found.low < found.value < found.high


def test_the_interval_is_a_function_of_the_seed() -> None:
    normal, strange = drawn(53, 0.0, 6, 5), drawn(31, 1.0, 6, 6)
    first, again = (detection(normal, strange, seed=7, num_resamples=101) for _ in range(2))
    assert first == again
    assert detection(normal, strange, seed=8, num_resamples=101).auroc.low != first.auroc.low


def test_what_cannot_be_measured_is_refused() -> None:
    some = torch.ones(3)
    for bad in (torch.ones(0), torch.ones(2, 2)):
        with pytest.raises(DataError, match="anomalous: scores of shape"):
            detection(some, bad)
    with pytest.raises(DataError, match="normal: a score is not a number"):
        detection(torch.tensor([0.0, math.nan]), some)
    with pytest.raises(ConfigError, match="num_resamples -1: must be at least 0"):
        detection(some, some, num_resamples=-1)
