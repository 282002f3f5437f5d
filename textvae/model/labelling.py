"""Labels of a batch, and sums over the labels of sentences of which none is known.

Kingma et al. 2014, "Semi-supervised learning with deep generative models". Letters as in
`model.interfaces`, and: L labels; R pairs of a sentence and one of its possible labels.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from textvae.randomness import Noise

UNKNOWN_LABEL = -1


class Labelled(NamedTuple):
    """Labelled sentences in addition to the batch, from which only q(y|x) learns."""

    tokens: Tensor
    """int64 `[M, T]`, the words and the final `</s>`."""
    lengths: Tensor
    """int64 `[M]`."""
    labels: Tensor
    """int64 `[M]`, each known."""
    noise: Noise | None
    """Dropout masks; None in evaluation."""

    def part(self, rows: slice) -> "Labelled":
        """A slice of the sentences."""
        noise = self.noise
        if noise is not None:
            noise = noise._replace(examples=noise.examples[rows])
        return Labelled(self.tokens[rows], self.lengths[rows], self.labels[rows], noise)


class Labelling(NamedTuple):
    """The known labels of a batch."""

    labels: Tensor
    """int64 `[B]`, UNKNOWN_LABEL where none is known."""
    draws: Tensor | None = None
    """`[B]` in [0, 1): selects the label that stands for those not summed; None sums over all."""
    labelled: Labelled | None = None


def unknown_labels(rows: Tensor) -> Tensor:
    """The labels of sentences `[B, ...]` of which none is known, int64 `[B]`."""
    return torch.full(rows.shape[:1], UNKNOWN_LABEL, dtype=torch.int64, device=rows.device)


class LabelTerms(NamedTuple):
    """The terms of a batch that come from labels."""

    kl: Tensor
    """`[B]` nats, part of the bound: KL(q(y|x) || p(y)), or -log p(y) of a known label."""
    cross_entropy: Tensor
    """Scalar nats: -log q(y|x) averaged over the labelled sentences; 0 where there are none."""


class Pairs(NamedTuple):
    """The labels that are summed over for each sentence."""

    rows: Tensor
    """int64 `[R]`: the sentence, ascending."""
    labels: Tensor
    """int64 `[R]`."""
    weights: Tensor
    """`[R]`: weights of the pairs in the expectation over q(y|x), which carry its gradient."""


def label_pairs(log_posterior: Tensor, labelling: Labelling, *, summed: int) -> Pairs:
    """Labels for each sentence, and weights that make sums over the pairs expectations.

    From log q(y|x) `[B, L]` and the labels of the batch; `summed` is at least 1.

    A known label is the only one, with weight 1. Otherwise all L are summed, weighted by q(y|x). If
    L exceeds `summed` (and there are draws), the `summed` - 1 likeliest are, and one of the rest
    that is drawn from q restricted to them, with their mass as its weight: values and gradients
    are right in expectation, without the variance of drawing all (Liu et al. 2019,
    "Rao-Blackwellized stochastic gradients for discrete distributions").
    """
    size, count = log_posterior.shape
    known = labelling.labels >= 0
    labels = torch.arange(count, device=known.device).expand(size, count)
    weights = log_posterior.exp()
    if labelling.draws is not None and count > summed:
        labels, weights = _shortened(log_posterior, labelling.draws, summed)
    first = torch.zeros_like(labels, dtype=torch.bool)
    first[:, 0] = True
    used = first | ~known[:, None]
    labels = torch.where(known[:, None], labelling.labels[:, None], labels)
    weights = torch.where(known[:, None], torch.ones_like(weights), weights)
    return Pairs(used.nonzero()[:, 0], labels[used], weights[used])


def _shortened(log_posterior: Tensor, draws: Tensor, summed: int) -> tuple[Tensor, Tensor]:
    """The likeliest labels and one of the rest: labels and weights `[B, summed]`."""
    with torch.no_grad():
        order = log_posterior.argsort(dim=1, descending=True, stable=True)
        rest = log_posterior.gather(1, order[:, summed - 1 :]).double().exp()
        cumulative = rest.cumsum(1)
        mass = cumulative[:, -1:]
        place = (cumulative <= draws[:, None] * mass).sum(1, keepdim=True)
        place.clamp_(max=rest.shape[1] - 1)
    labels = torch.cat([order[:, : summed - 1], order.gather(1, summed - 1 + place)], dim=1)
    logs = log_posterior.gather(1, labels)
    drawn = logs[:, -1:]
    # Of value 1, and with the gradient of log q, as the score function estimator needs it.
    weight = mass.to(logs) * (drawn - drawn.detach()).exp()
    return labels, torch.cat([logs[:, :-1].exp(), weight], dim=1)


def label_kl(log_posterior: Tensor, log_prior: Tensor, labels: Tensor) -> Tensor:
    """KL(q(y|x) || p(y)) in nats, or -log p(y) of a known label: `[B, L]`, `[L]` -> `[B]`."""
    unknown = (log_posterior.exp() * (log_posterior - log_prior)).sum(1)
    return torch.where(labels >= 0, -log_prior[labels.clamp(min=0)], unknown)


def log_prior_of(counts: Tensor) -> Tensor:
    """Log p(y) `[L]` from counts `[L]` of labelled sentences, one added to each (Laplace)."""
    smoothed = counts + 1.0
    return (smoothed / smoothed.sum()).log()
