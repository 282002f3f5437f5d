"""M1+M2 of Kingma et al. 2014: M2 over the latents of M1, which is the model without labels.

    p(x, z, y, u) = p(y) p(u) p(z|u, y) p(x|z),    q(z, y, u|x) = q(z|x) q(y|z) q(u|z, y)

As in the paper M2 does not reach into M1: its data are draws from q(z|x), through which no gradient
goes. Both learn in the same steps, since M2 can follow an M1 that settles. z is the latent of the
model, and its encoder and decoder are those of M1; u is what z says besides the label.
"""

from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor, nn
from torch.nn import functional as F

from textvae.config import Config
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.labelling import Labelling, label_kl, log_prior_of, one_hot, pairs
from textvae.randomness import Noise


class StackedLabelsConfig(Config, tag_field="kind", tag="m1_m2"):
    """A small M2 whose sentences are the latents of M1, trained beside it."""

    summed_labels: Annotated[int, Meta(ge=1, le=1000)] = 8
    """As for `m2`."""
    hidden_dim: Annotated[int, Meta(ge=1, le=4096)] = 64
    """Units of its networks, each of one hidden layer."""
    latent_dim: Annotated[int, Meta(ge=1, le=4096)] = 8
    """Dimensions of u."""
    dropout_rate: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.2
    """Dropout on the hidden layer of q(y|z)."""

    def build(self, feature_dim: int, latent_dim: int, num_labels: int) -> "StackedLabels":
        """The networks of M2, with uninitialised parameters."""
        return StackedLabels(self, latent_dim, num_labels)


class StackedLabels(nn.Module):
    """p(y), q(y|z), q(u|z, y) and p(z|u, y)."""

    counts: Tensor
    """`[L]`: labelled sentences of each label, which p(y) follows."""

    def __init__(self, config: StackedLabelsConfig, latent_dim: int, num_labels: int) -> None:
        super().__init__()
        self.config, self.num_labels, self.condition_dim = config, num_labels, 0
        hidden, inner = config.hidden_dim, config.latent_dim
        self.classifier = _Network(latent_dim, hidden, num_labels)
        self.encoder = _Network(latent_dim + num_labels, hidden, 2 * inner)
        self.decoder = _Network(inner + num_labels, hidden, 2 * latent_dim)
        self.register_buffer("counts", torch.zeros(num_labels))

    def log_prior(self) -> Tensor:
        """Log p(y) `[L]`."""
        return log_prior_of(self.counts)

    def log_posterior(self, latents: Tensor, *, noise: Noise | None = None) -> Tensor:
        """Log q(y|z) `[B, L]` for latents `[B, Z]`."""
        hidden = self.classifier.hidden(latents)
        if noise is not None:
            hidden = noise.dropout(hidden, self.config.dropout_rate, "labels")
        return self.classifier.output(hidden).log_softmax(1)

    def inner_posterior(self, latents: Tensor, labels: Tensor) -> DiagonalGaussian:
        """q(u|z, y) `[..., U]` for latents `[..., Z]` and labels `[...]`."""
        told = torch.cat([latents, one_hot(labels, self.num_labels, latents)], dim=-1)
        return DiagonalGaussian(*self.encoder(told).chunk(2, dim=-1))

    def outer(self, inner: Tensor, labels: Tensor) -> DiagonalGaussian:
        """p(z|u, y) `[..., Z]` for u `[..., U]` and labels `[...]`."""
        told = torch.cat([inner, one_hot(labels, self.num_labels, inner)], dim=-1)
        return DiagonalGaussian(*self.decoder(told).chunk(2, dim=-1))

    def loss(
        self, latents: Tensor, labelling: Labelling, normals: Tensor, *, noise: Noise | None
    ) -> Tensor:
        """Minus the bound of M2 on log p(z), or log p(z, y): `[B]` nats for latents `[B, Z]`.

        `normals` are the standard normals of u, `[B, U]`, the same for all labels of a sentence.
        """
        log_q = self.log_posterior(latents, noise=noise)
        tried = pairs(log_q, labelling, summed=self.config.summed_labels)
        some = latents[tried.rows]
        inner = self.inner_posterior(some, tried.labels)
        outer = self.outer(inner.sample(normals[tried.rows]), tried.labels)
        cost = inner.kl_to_standard_normal().sum(1) - outer.log_prob(some)
        total = torch.zeros_like(log_q[:, 0]).index_add(0, tried.rows, tried.weights * cost)
        return total + label_kl(log_q, self.log_prior(), labelling.labels)

    def draw(self, labels: Tensor, inner_normals: Tensor, normals: Tensor) -> Tensor:
        """Latents `[N, Z]` drawn from p(z|y), for labels `[N]`, normals `[N, U]` and `[N, Z]`."""
        return self.outer(inner_normals, labels).sample(normals)


class _Network(nn.Module):
    """One hidden layer of softplus units, as in the paper."""

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int) -> None:
        super().__init__()
        self.hidden_weight = nn.Parameter(torch.empty(hidden_dim, input_dim))
        self.hidden_bias = nn.Parameter(torch.empty(hidden_dim))
        self.output_weight = nn.Parameter(torch.empty(output_dim, hidden_dim))
        self.output_bias = nn.Parameter(torch.empty(output_dim))

    def hidden(self, values: Tensor) -> Tensor:
        return F.softplus(F.linear(values, self.hidden_weight, self.hidden_bias))

    def output(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.output_weight, self.output_bias)

    def forward(self, values: Tensor) -> Tensor:
        return self.output(self.hidden(values))
