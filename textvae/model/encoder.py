"""Encoders: a sentence in, a diagonal Gaussian over its latent out; and none, for language models.

A new kind is a config with a `kind`, and a name in `EncoderConfig`.
"""

from typing import Annotated, Literal

import torch
from msgspec import Meta
from torch import Tensor, nn
from torch.nn import functional as F

from textvae.config import Config
from textvae.kernels.gru import gru_sequence
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.initialization import Initializer, SeededModule
from textvae.model.interfaces import Decoder, Features
from textvae.model.posterior import NoConstraintConfig, PosteriorConstraintConfig
from textvae.model.recurrent import (
    GRULayer,
    activation_bytes,
    last_states,
    read_words,
    reverse_sentences,
)
from textvae.randomness import Noise


class GRUEncoderConfig(Config, tag_field="kind", tag="gru"):
    """Sizes of the encoder."""

    embedding_dim: Annotated[int, Meta(ge=1, le=8192)] | None = None
    """Size of a word's vector; None shares the input vectors of the decoder."""
    hidden_dim: Annotated[int, Meta(ge=1, le=8192)] = 256
    """Units of each layer, in each direction."""
    num_layers: Annotated[int, Meta(ge=1, le=8)] = 1
    """Stacked layers."""
    bidirectional: bool = False
    """Read the sentence back to front as well; the posterior sees both last states."""
    pooling: Literal["last", "mean", "last_and_mean"] = "last"
    """Input of the posterior: the last states; or the mean of the states over positions, with more
    of the words and less of their order; or both, concatenated."""
    dropout_rate: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.0
    """Dropout on the word vectors and between layers."""
    posterior: PosteriorConstraintConfig = NoConstraintConfig()
    """Constraint on the posterior."""

    def build(self, vocabulary_size: int, latent_dim: int, word_dim: int) -> "GRUEncoder":
        """An encoder with uninitialised parameters; `word_dim` is the size of shared vectors."""
        return GRUEncoder(self, vocabulary_size, latent_dim, word_dim)


class NoEncoderConfig(Config, tag_field="kind", tag="none"):
    """No encoder: a language model, whose `latent_dim` is 0."""

    def build(self, vocabulary_size: int, latent_dim: int, word_dim: int) -> "NoEncoder":
        """An encoder without parameters, for latents of dimension 0."""
        return NoEncoder(latent_dim)


EncoderConfig = GRUEncoderConfig | NoEncoderConfig


class GRUEncoder(SeededModule):
    """The contract is `model.interfaces.Encoder`; it reads the words and the final `</s>`."""

    def __init__(
        self, config: GRUEncoderConfig, vocabulary_size: int, latent_dim: int, word_dim: int
    ) -> None:
        super().__init__()
        self.config = config
        self.embedding = None
        self._decoder: tuple[Decoder, ...] = ()  # in a tuple, so that it is no part of this module
        if config.embedding_dim is not None:
            word_dim = config.embedding_dim
            self.embedding = nn.Parameter(torch.empty(vocabulary_size, word_dim))
        sizes = [word_dim] + [config.hidden_dim] * (config.num_layers - 1)
        self.forward_layers = nn.ModuleList(GRULayer(s, config.hidden_dim) for s in sizes)
        self.backward_layers = nn.ModuleList(
            GRULayer(s, config.hidden_dim) for s in (sizes if config.bidirectional else [])
        )
        self.feature_dim = config.hidden_dim * (2 if config.bidirectional else 1)
        pooled_dim = self.feature_dim * (2 if config.pooling == "last_and_mean" else 1)
        self.posterior_weight = nn.Parameter(torch.empty(2 * latent_dim, pooled_dim))
        self.posterior_bias = nn.Parameter(torch.empty(2 * latent_dim))
        self.constraint = config.posterior.build(latent_dim)

    def reset_parameters(self, initializer: Initializer) -> None:
        """Uniform matrices, zero biases."""
        initializer.embedding("embedding")
        initializer.linear("posterior_weight")
        initializer.constant(0.0, "posterior_bias")

    @property
    def description(self) -> str:
        """For a reader."""
        both = ", both directions" if self.config.bidirectional else ""
        return f"GRU, {self.config.num_layers} x {self.config.hidden_dim}{both}"

    def activation_bytes(self, batch: int, length: int) -> int:
        """Memory for training, estimated."""
        layers = (*self.forward_layers, *self.backward_layers)
        sizes = [layer.get_parameter("input_weight").shape[1] for layer in layers]
        return activation_bytes(sizes, self.config.hidden_dim, batch, length)

    def attach(self, decoder: Decoder) -> None:
        """Share the word vectors of a decoder, unless the encoder has its own."""
        self._decoder = (decoder,)

    @property
    def shares_words(self) -> bool:
        """True if words are read by the decoder's vectors."""
        return self.embedding is None

    @property
    def word_vectors(self) -> Tensor:
        """`[V, E]`, or more rows: its own, or the decoder's."""
        if self.embedding is not None:
            return self.embedding
        assert self._decoder, "no decoder to share word vectors with: call attach"
        return self._decoder[0].word_vectors

    @torch.no_grad()
    def follow_word_vectors(self, factor: float) -> None:
        """Undo in the weights that the decoder's vectors were multiplied by a factor."""
        if self.shares_words:
            for layer in (*self.forward_layers[:1], *self.backward_layers[:1]):
                layer.get_parameter("input_weight").div_(factor)

    def forward(
        self,
        tokens: Tensor,
        lengths: Tensor,
        *,
        noise: Noise | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> DiagonalGaussian:
        """q(z|x) from tokens `[B, T]` and int64 lengths `[B]`; see the contract."""
        features = self.read(tokens, lengths, noise=noise, dtype=dtype)
        return self.posterior(self.moments_of(features), training=noise is not None)

    def read(
        self, tokens: Tensor, lengths: Tensor, *, noise: Noise | None, dtype: torch.dtype
    ) -> Features:
        """The states of each sentence, pooled; see the contract."""
        states = [self._read(self.forward_layers, tokens, lengths, noise, dtype, "forward")]
        if len(self.backward_layers):
            backwards = reverse_sentences(tokens, lengths)
            states.append(
                self._read(self.backward_layers, backwards, lengths, noise, dtype, "backward")
            )
        # A sum over positions does not mind their order, so that both directions have one mask.
        features = Features(
            torch.cat([last_states(part, lengths) for part in states], dim=1), tuple(states)
        )
        if self.config.pooling == "last":
            return features
        pooled = features.mean(lengths)
        if self.config.pooling == "last_and_mean":
            pooled = torch.cat([features.last, pooled], dim=1)
        return features._replace(last=pooled)

    def moments_of(self, features: Features) -> Tensor:
        """The moments `[B, 2Z]` from what `read` returned."""
        # The bias comes after a normalisation, which would take it away again.
        bias = self.posterior_bias if self.constraint is None else None
        return F.linear(features.last, self.posterior_weight, bias)

    def posterior(self, moments: Tensor, *, training: bool) -> DiagonalGaussian:
        """q(z|x) from the moments `[B, 2Z]` of a batch; see the contract."""
        mean, log_variance = moments.chunk(2, dim=1)
        if self.constraint is None:
            return DiagonalGaussian(mean, log_variance)
        mean = self.constraint(mean, training=training)
        return DiagonalGaussian(
            *(torch.cat([mean, log_variance], 1) + self.posterior_bias).chunk(2, 1)
        )

    def _read(
        self,
        layers: nn.ModuleList,
        tokens: Tensor,
        lengths: Tensor,
        noise: Noise | None,
        dtype: torch.dtype,
        direction: str,
    ) -> Tensor:
        """The states `[B, T, H]` of a stack of layers."""
        first, *others = [layer for layer in layers if isinstance(layer, GRULayer)]
        rate = self.config.dropout_rate
        initial = self.posterior_bias.new_zeros(tokens.shape[0], self.config.hidden_dim)
        states = read_words(
            tokens,
            self.word_vectors,
            initial,
            first.weights(),
            noise=noise,
            rate=rate,
            purpose=f"encoder.{direction}.0",
            dtype=dtype,
        )
        for number, layer in enumerate(others, start=1):
            if noise is not None:
                states = noise.dropout(states, rate, f"encoder.{direction}.{number}")
            states = gru_sequence(states, initial, layer.weights(), dtype=dtype)
        return states


class NoEncoder(nn.Module):
    """The contract is `model.interfaces.Encoder`, for a latent of no dimension.

    The space of such latents has one point, which has density 1 under posterior and prior. So the
    KL is 0, and the ELBO is the log-likelihood itself, without an approximation
    (docs/concepts/math.md).
    """

    description = "none"
    feature_dim = 0
    shares_words = False

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        assert latent_dim == 0, f"no encoder for a latent of {latent_dim} dimensions"

    def attach(self, decoder: Decoder) -> None:
        """Do nothing: no words are read."""

    def follow_word_vectors(self, factor: float) -> None:
        """Do nothing: no words are read."""

    def activation_bytes(self, batch: int, length: int) -> int:
        """0: nothing is computed."""
        return 0

    def read(
        self, tokens: Tensor, lengths: Tensor, *, noise: Noise | None, dtype: torch.dtype
    ) -> Features:
        """Features of size 0, `[B, 0]`."""
        return Features(torch.empty(tokens.shape[0], 0, device=tokens.device), ())

    def moments_of(self, features: Features) -> Tensor:
        """Moments of size 0, `[B, 0]`."""
        return features.last

    def posterior(self, moments: Tensor, *, training: bool) -> DiagonalGaussian:
        """The posterior of the one point, `[B, 0]`."""
        return DiagonalGaussian(moments, moments)
