"""How good a classifier's labels and probabilities are, from log-probabilities and the truth."""

from typing import NamedTuple

import torch
from torch import Tensor

from textvae.errors import DataError

BINS = 15
"""The bins of the expected calibration error, as in Guo et al. 2017."""


class Classification(NamedTuple):
    """Figures of a classifier on N sentences."""

    accuracy: float
    macro_f1: float
    """The mean over labels of F1, over the labels that are in the truth or were predicted."""
    log_loss: float
    """The mean of -log q(true label|x), nats."""
    calibration_error: float
    """Expected calibration error: sum over bins of the fraction of sentences in a bin times the
    distance of their mean confidence from their accuracy; BINS bins of equal width."""
    num_sentences: int


def classification(log_probabilities: Tensor, labels: Tensor) -> Classification:
    """The figures of log-probabilities `[N, L]` in nats, and of the true labels, int64 `[N]`.

    DataError where there is no sentence.
    """
    count, kinds = log_probabilities.shape
    if count == 0:
        raise DataError("no sentence with a label: there is nothing to measure")
    log_q, labels = log_probabilities.double().cpu(), labels.cpu()
    confidence, predicted = log_q.exp().max(1)
    right = predicted == labels
    table = torch.zeros(kinds, kinds, dtype=torch.float64)
    table.index_put_((labels, predicted), torch.ones(count, dtype=torch.float64), accumulate=True)
    return Classification(
        accuracy=float(right.double().mean()),
        macro_f1=_macro_f1(table),
        log_loss=-float(log_q.gather(1, labels[:, None]).mean()),
        calibration_error=_calibration_error(confidence, right),
        num_sentences=count,
    )


def _macro_f1(table: Tensor) -> float:
    """From counts `[L, L]`, the true label first: 2 right / (true + predicted), label by label."""
    both = table.sum(0) + table.sum(1)
    f1 = 2 * table.diagonal() / both.clamp(min=1.0)
    return float(f1[both > 0].mean())


def _calibration_error(confidence: Tensor, right: Tensor) -> float:
    """Over bins that are open below: a confidence of exactly k / BINS is in bin k."""
    bins = ((confidence * BINS).ceil().long() - 1).clamp_(0, BINS - 1)
    gaps = torch.zeros(BINS, dtype=torch.float64).index_add_(0, bins, confidence - right.double())
    return float(gaps.abs().sum()) / len(right)
