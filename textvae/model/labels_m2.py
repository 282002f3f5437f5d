"""M2 of Kingma et al. 2014: the label is a second latent, which the decoder reads beside z.

p(x, y, z) = p(y) p(z) p(x|z, y),    q(y, z|x) = q(y|x) q(z|x, y)
"""

from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor, nn
from torch.nn import functional as F

from textvae.config import Config
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.interfaces import Features
from textvae.model.labelling import log_prior_of
from textvae.randomness import Noise


class M2LabelsConfig(Config, tag_field="kind", tag="m2"):
    """The decoder reads the label beside the latent, and the encoder tells both."""

    summed_labels: Annotated[int, Meta(ge=1, le=1000)] = 8
    """Up to so many labels the bound of a sentence without one is summed over all of them; of more
    the likeliest are summed, and one of the others is drawn to stand for all of these."""
    dropout_rate: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.5
    """Dropout on the features from which the label is told."""

    def build(self, feature_dim: int, latent_dim: int, num_labels: int) -> "M2Labels":
        """The parts that only M2 has, with uninitialised parameters."""
        return M2Labels(self, feature_dim, latent_dim, num_labels)


class M2Labels(nn.Module):
    """p(y), q(y|x), and what a label does to q(z|x, y)."""

    counts: Tensor
    """`[L]`: labelled sentences of each label, which p(y) follows."""

    def __init__(
        self, config: M2LabelsConfig, feature_dim: int, latent_dim: int, num_labels: int
    ) -> None:
        super().__init__()
        self.config, self.num_labels, self.condition_dim = config, num_labels, num_labels
        self.classifier_weight = nn.Parameter(torch.empty(num_labels, 2 * feature_dim))
        self.classifier_bias = nn.Parameter(torch.empty(num_labels))
        self.posterior_embedding = nn.Parameter(torch.empty(num_labels, 2 * latent_dim))
        self.register_buffer("counts", torch.zeros(num_labels))

    def log_prior(self) -> Tensor:
        """Log p(y) `[L]`."""
        return log_prior_of(self.counts)

    def log_posterior(
        self, features: Features, lengths: Tensor, *, noise: Noise | None = None
    ) -> Tensor:
        """Log q(y|x) `[B, L]`: linear in the last states and in their mean over positions.

        The mean is there because a few labels are learnt sooner from words than from order.
        """
        mean = features.mean(lengths)
        told = torch.cat([features.last[:, : mean.shape[1]], mean], dim=1)
        if noise is not None:
            told = noise.dropout(told, self.config.dropout_rate, "labels")
        logits = F.linear(told, self.classifier_weight, self.classifier_bias)
        return logits.log_softmax(1)

    def posterior(self, base: DiagonalGaussian, labels: Tensor) -> DiagonalGaussian:
        """q(z|x, y): moments `[..., Z]` without a label, shifted by those of labels `[...]`."""
        mean, log_variance = self.posterior_embedding[labels].chunk(2, dim=-1)
        return DiagonalGaussian(base.mean + mean, base.log_variance + log_variance)
