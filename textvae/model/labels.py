"""Models with labels: a new kind is a config with a `kind`, and a name in `LabelsConfig`.

M2 of Kingma et al. 2014 makes the label a second latent, which the decoder reads beside z:

p(x, y, z) = p(y) p(z) p(x|z, y),    q(y, z|x) = q(y|x) q(z|x, y)
"""

from typing import Annotated, ClassVar

import torch
from msgspec import Meta
from torch import Tensor, nn
from torch.nn import functional as F

from textvae.config import Config
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.inferred import Inferred
from textvae.model.initialization import Initializer, SeededModule
from textvae.model.interfaces import Features, Prior
from textvae.model.labelling import (
    Labelling,
    LabelTerms,
    label_kl,
    label_pairs,
    log_prior_of,
    unknown_labels,
)
from textvae.randomness import Noise, key, uniforms


class NoLabelsConfig(Config, tag_field="kind", tag="none"):
    """The model has no labels."""

    has_labels: ClassVar[bool] = False

    def build(self, feature_dim: int, latent_dim: int, num_labels: int) -> "NoLabels":
        """The labels of a model without labels."""
        return NoLabels()


class M2LabelsConfig(Config, tag_field="kind", tag="m2"):
    """The decoder reads the label beside the latent, and the encoder infers both."""

    has_labels: ClassVar[bool] = True
    summed_labels: Annotated[int, Meta(ge=1, le=1000)] = 8
    """Up to so many labels the bound of a sentence without one is summed over all of them; of more
    the likeliest are summed, and one of the others is drawn to stand for all of these."""
    dropout_rate: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.5
    """Dropout on the features from which the label is classified."""

    def build(self, feature_dim: int, latent_dim: int, num_labels: int) -> "M2Labels":
        """The part of the model that only M2 has, with uninitialized parameters."""
        return M2Labels(self, feature_dim, latent_dim, num_labels)


LabelsConfig = NoLabelsConfig | M2LabelsConfig


class NoLabels:
    """The contract is `model.interfaces.Labels`, for a model without labels; no parameters."""

    num_labels = 0
    condition_dim = 0

    def set_counts(self, labels: Tensor) -> None:
        """Do nothing: there is no p(y)."""

    def log_prior(self) -> Tensor:
        """Log p(y) of no labels, `[0]`."""
        return torch.zeros(0)

    def sample(self, num_samples: int, *, seed: int, start: int = 0) -> None:
        """None: samples have no labels."""

    def log_posterior(
        self, features: Features, lengths: Tensor, *, noise: Noise | None = None
    ) -> Tensor:
        """Log q(y|x) of no labels, `[B, 0]`."""
        return features.last.new_empty(lengths.shape[0], 0)

    def likeliest(self, log_posterior: Tensor) -> None:
        """None: sentences have no labels."""

    def posterior(self, base: DiagonalGaussian, labels: Tensor | None) -> DiagonalGaussian:
        """q(z|x), unchanged."""
        return base

    def infer(
        self,
        base: DiagonalGaussian,
        log_posterior: Tensor,
        normals: Tensor,
        labelling: Labelling | None,
        prior: Prior,
    ) -> Inferred:
        """One draw from each posterior, and its KL."""
        return Inferred(base.sample(normals), prior.kl(base), base)

    def kl(self, base: DiagonalGaussian, log_posterior: Tensor, prior: Prior) -> Tensor:
        """KL(q(z|x) || p(z)) `[B]`, nats."""
        return prior.kl(base).sum(1)

    def condition(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """The latents alone, `[..., Z]`."""
        return latents


class M2Labels(SeededModule):
    """The contract is `model.interfaces.Labels`: p(y), q(y|x), and the shift of q(z|x, y)."""

    counts: Tensor
    """`[L]`: labelled training sentences of each label, which determine p(y)."""

    def __init__(
        self, config: M2LabelsConfig, feature_dim: int, latent_dim: int, num_labels: int
    ) -> None:
        super().__init__()
        self.config, self.num_labels, self.condition_dim = config, num_labels, num_labels
        self.classifier_weight = nn.Parameter(torch.empty(num_labels, 2 * feature_dim))
        self.classifier_bias = nn.Parameter(torch.empty(num_labels))
        self.posterior_embedding = nn.Parameter(torch.empty(num_labels, 2 * latent_dim))
        self.register_buffer("counts", torch.zeros(num_labels))

    def reset_parameters(self, initializer: Initializer) -> None:
        """Uniform matrices, zero biases."""
        initializer.linear("classifier_weight")
        initializer.embedding("posterior_embedding")
        initializer.constant(0.0, "classifier_bias")

    def buffer_fault(self) -> str | None:
        """Counts are not negative."""
        return "counts holds a number below 0" if bool((self.counts < 0).any()) else None

    def set_counts(self, labels: Tensor) -> None:
        """Let p(y) follow training labels, int64 `[N]`; negative ones are unknown."""
        self.counts.copy_(labels[labels >= 0].bincount(minlength=self.num_labels))

    def log_prior(self) -> Tensor:
        """Log p(y) `[L]`."""
        return log_prior_of(self.counts)

    def sample(self, num_samples: int, *, seed: int, start: int = 0) -> Tensor:
        """Draws `start` to `start + N - 1` of p(y), int64 `[N]`, on the CPU."""
        cumulative = self.log_prior().double().exp().cumsum(0).cpu()
        numbers = torch.arange(start, start + num_samples)
        draws = uniforms(key(seed, "prior label"), numbers).double()
        labels = torch.searchsorted(cumulative, draws, right=True)
        return labels.clamp_(max=self.num_labels - 1)

    def log_posterior(
        self, features: Features, lengths: Tensor, *, noise: Noise | None = None
    ) -> Tensor:
        """Log q(y|x) `[B, L]`: linear in the last states and in their mean over positions.

        The mean is there because a few labels are learned sooner from words than from order.
        """
        mean = features.mean(lengths)
        inputs = torch.cat([features.last[:, : mean.shape[1]], mean], dim=1)
        if noise is not None:
            inputs = noise.dropout(inputs, self.config.dropout_rate, "labels")
        logits = F.linear(inputs, self.classifier_weight, self.classifier_bias)
        return logits.log_softmax(1)

    def likeliest(self, log_posterior: Tensor) -> Tensor:
        """The label with the largest log q(y|x): `[B, L]` -> int64 `[B]`."""
        return log_posterior.argmax(1)

    def posterior(self, base: DiagonalGaussian, labels: Tensor | None) -> DiagonalGaussian:
        """q(z|x, y): moments `[..., Z]` without a label, shifted by those of labels `[...]`."""
        mean, log_variance = self.posterior_embedding[labels].chunk(2, dim=-1)
        return DiagonalGaussian(base.mean + mean, base.log_variance + log_variance)

    def infer(
        self,
        base: DiagonalGaussian,
        log_posterior: Tensor,
        normals: Tensor,
        labelling: Labelling | None,
        prior: Prior,
    ) -> Inferred:
        """Draws for the labels of each sentence: the known one, or those that are summed over."""
        if labelling is None:
            labelling = Labelling(unknown_labels(log_posterior))
        pairs = label_pairs(log_posterior, labelling, summed=self.config.summed_labels)
        posterior = self.posterior(base[pairs.rows], pairs.labels)
        kl = pairs.weights[:, None] * prior.kl(posterior)
        labels = torch.where(labelling.labels >= 0, labelling.labels, log_posterior.argmax(1))
        cost = label_kl(log_posterior, self.log_prior(), labelling.labels)
        return Inferred(
            posterior.sample(normals[pairs.rows]),
            torch.zeros_like(base.mean).index_add(0, pairs.rows, kl),
            self.posterior(base, labels),
            pairs,
            LabelTerms(cost, cost.new_zeros(())),
        )

    def kl(self, base: DiagonalGaussian, log_posterior: Tensor, prior: Prior) -> Tensor:
        """KL(q(y, z|x) || p(y) p(z)) `[B]`, nats, summed over all labels."""
        size, count = log_posterior.shape
        every = torch.arange(count, device=log_posterior.device)[:, None].expand(-1, size)
        latent = prior.kl(self.posterior(base, every)).sum(2).t()
        label = label_kl(log_posterior, self.log_prior(), unknown_labels(log_posterior))
        return label + (log_posterior.exp() * latent).sum(1)

    def condition(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """Latents `[..., Z]` and one-hot labels, int64 `[...]`: `[..., Z + L]`."""
        assert labels is not None, "the decoder of M2 reads a label"
        return torch.cat([latents, F.one_hot(labels, self.num_labels).to(latents)], dim=-1)
