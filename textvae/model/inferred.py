"""The terms of the bound, and what is known of them before anything is decoded."""

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
    """Of a model with labels; the other terms are then expectations over q(y|x)."""

    @property
    def bound_kl(self) -> Tensor:
        """`[B]` nats: all of the bound but the reconstruction, the KL of the label with it."""
        latent = self.kl.sum(1)
        return latent if self.labels is None else latent + self.labels.kl


class Inferred(NamedTuple):
    """What the decoder is to read of a batch, and what it costs.

    The decoder reads a latent for each sentence, R = B; of M2 one for each label that is tried.
    """

    latents: Tensor
    """`[R, Z]`, drawn."""
    kl: Tensor
    """As in `ElboTerms`."""
    posterior: DiagonalGaussian
    """As in `ElboTerms`."""
    pairs: Pairs | None = None
    """Of M2."""
    labels: LabelTerms | None = None
    """As in `ElboTerms`, but for the cross-entropy."""

    def terms(self, reconstruction: CrossEntropy, cross_entropy: Tensor) -> ElboTerms:
        """The terms of the batch, with what is still missing."""
        labels = self.labels
        if labels is not None:
            labels = labels._replace(cross_entropy=cross_entropy)
        return ElboTerms(reconstruction, self.kl, self.posterior, labels)

    def detached(self) -> "Inferred":
        """Without gradients, but for those of the posterior."""
        labels = self.labels
        if labels is not None:
            labels = LabelTerms(*(value.detach() for value in labels))
        return self._replace(kl=self.kl.detach(), labels=labels)

    @property
    def passed_on(self) -> tuple[Tensor, ...]:
        """Through which gradients come back from the decoder: `[R, Z]` and, of M2, `[R]`."""
        return (self.latents,) if self.pairs is None else (self.latents, self.pairs.weights)

    def rows_of(self, some: slice) -> slice:
        """Which of the R belong to some sentences, all in one piece."""
        if self.pairs is None:
            return some
        ends = torch.tensor([some.start, some.stop], device=self.latents.device)
        return slice(*torch.searchsorted(self.pairs.rows, ends).tolist())

    def part(self, some: slice) -> "Inferred":
        """What is to be read of some sentences, cut off from what it was worked out from."""
        own = self.rows_of(some)
        latents, pairs = self.latents[own].detach().requires_grad_(), None
        if self.pairs is not None:
            weights = self.pairs.weights[own].detach().requires_grad_()
            pairs = Pairs(self.pairs.rows[own] - some.start, self.pairs.labels[own], weights)
        return self._replace(latents=latents, pairs=pairs)
