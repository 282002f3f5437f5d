"""The terms of the ELBO, and the part of them that is known before decoding."""

from typing import NamedTuple

import torch
from torch import Tensor

from textvae.kernels.linear_cross_entropy import CrossEntropy
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.labelling import LabelTerms, Pairs


class ElboTerms(NamedTuple):
    """The two halves of the ELBO, and what they came from."""

    reconstruction: CrossEntropy
    """-log p(x|z): total over the batch (with gradient), and a row for each target."""
    kl: Tensor
    """KL(q(z|x) || p(z)) `[B, Z]`, nats."""
    posterior: DiagonalGaussian
    """`[B, Z]`; of M2 at the label that is known or likeliest."""
    labels: LabelTerms | None = None
    """None without labels; with labels the other terms are expectations over q(y|x)."""

    @property
    def bound_kl(self) -> Tensor:
        """`[B]` nats: the KL of latent and label, all of the bound but the reconstruction."""
        latent = self.kl.sum(1)
        return latent if self.labels is None else latent + self.labels.kl


class Inferred(NamedTuple):
    """The latents of a batch, and their KL.

    The decoder reads R = B latents; with labels one for each pair of a sentence and a label.
    """

    latents: Tensor
    """`[R, Z]`, drawn."""
    kl: Tensor
    """As in `ElboTerms`."""
    posterior: DiagonalGaussian
    """As in `ElboTerms`."""
    pairs: Pairs | None = None
    """Sentence and label of each latent; None without labels."""
    labels: LabelTerms | None = None
    """As in `ElboTerms`, but for the cross-entropy."""

    def terms(self, reconstruction: CrossEntropy, cross_entropy: Tensor) -> ElboTerms:
        """The terms of the batch, given the reconstruction and the cross-entropy of labels."""
        labels = self.labels
        if labels is not None:
            labels = labels._replace(cross_entropy=cross_entropy)
        return ElboTerms(reconstruction, self.kl, self.posterior, labels)

    def detached(self) -> "Inferred":
        """A copy without gradients, except those of the posterior."""
        labels = self.labels
        if labels is not None:
            labels = LabelTerms(*(value.detach() for value in labels))
        return self._replace(kl=self.kl.detach(), labels=labels)

    @property
    def passed_on(self) -> tuple[Tensor, ...]:
        """The inputs of the decoder that have gradients: `[R, Z]` and, with labels, `[R]`."""
        return (self.latents,) if self.pairs is None else (self.latents, self.pairs.weights)

    def rows_of(self, sentences: slice) -> slice:
        """The rows among R that belong to a slice of the sentences."""
        if self.pairs is None:
            return sentences
        ends = torch.tensor([sentences.start, sentences.stop], device=self.latents.device)
        return slice(*torch.searchsorted(self.pairs.rows, ends).tolist())

    def part(self, sentences: slice) -> "Inferred":
        """The same for a slice of the sentences, with latents and weights as new leaves."""
        rows = self.rows_of(sentences)
        latents, pairs = self.latents[rows].detach().requires_grad_(), None
        if self.pairs is not None:
            weights = self.pairs.weights[rows].detach().requires_grad_()
            numbers = self.pairs.rows[rows] - sentences.start
            pairs = Pairs(numbers, self.pairs.labels[rows], weights)
        return self._replace(latents=latents, pairs=pairs)
