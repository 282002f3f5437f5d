"""The GRU decoder: the condition sets the initial state and enters every step."""

from typing import Annotated, NamedTuple

import torch
from msgspec import Meta
from torch import Tensor, nn
from torch.nn import functional as F

from textvae.config import Config
from textvae.kernels.gru import (
    GRUWeights,
    gru_expanded,
    gru_sequence,
    gru_step,
    low_linear,
    product_dtype,
    step_weights,
)
from textvae.kernels.linear_cross_entropy import vocabulary_logits
from textvae.model.initialization import Initializer, SeededModule
from textvae.model.recurrent import GRULayer, activation_bytes, read_words
from textvae.randomness import Noise


class GRUDecoderConfig(Config, tag_field="kind", tag="gru"):
    """Sizes of the decoder."""

    embedding_dim: Annotated[int, Meta(ge=1, le=8192)] = 128
    """Size of a word's vector."""
    hidden_dim: Annotated[int, Meta(ge=1, le=8192)] = 256
    """Units of each layer."""
    num_layers: Annotated[int, Meta(ge=1, le=8)] = 1
    """Stacked layers."""
    tie_embeddings: bool = True
    """Predict words with the vectors that read them (Press and Wolf 2017), through a projection if
    the sizes differ."""
    dropout_rate: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.0
    """Dropout on the word vectors."""
    output_dropout_rate: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.2
    """Dropout on the states that go to the next layer and to the output."""
    skip_connection: bool = True
    """Add a linear map of the condition to what the words are predicted from, at each position
    (Dieng et al. 2019)."""
    locked_dropout: bool = False
    """Use one mask of these two for all positions of a sentence (Gal and Ghahramani 2016), not one
    per position."""
    embedding_dropout_rate: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.0
    """Fraction of the words whose vectors are zero wherever they occur in a sentence (Gal and
    Ghahramani 2016)."""
    weight_dropout_rate: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.0
    """Dropout on the recurrent matrices, one mask per step (Merity et al. 2018)."""

    def build(self, vocabulary_size: int, condition_dim: int) -> "GRUDecoder":
        """A decoder with uninitialised parameters; `condition_dim` 0 is a language model."""
        return GRUDecoder(self, vocabulary_size, condition_dim)


DECODERS: tuple[type[Config], ...] = (GRUDecoderConfig,)
"""The kinds of decoders: a new one is a config with a `kind`, and a name here."""


class GRUState(NamedTuple):
    """The state of a GRU decoder between two positions."""

    hidden: tuple[Tensor, ...]
    """A state `[B, H]` for each layer."""
    gates: tuple[Tensor, ...]
    """The contribution of condition and biases to the gates of each layer, `[B, 3H]`."""
    output: tuple[Tensor, ...] = ()
    """The contribution of the condition to the features, `[B, D]`; empty if there is none."""

    def select(self, rows: Tensor) -> "GRUState":
        """The state of some rows: int64 `[b]` of indices into the batch."""
        return GRUState(*(tuple(values[rows] for values in part) for part in self))

    def join(self, other: "GRUState") -> "GRUState":
        """The state of these rows followed by others."""
        pairs = [zip(a, b, strict=True) for a, b in zip(self, other, strict=True)]
        return GRUState(*(tuple(torch.cat(pair) for pair in part) for part in pairs))


class GRUDecoder(SeededModule):
    """The contract is `model.interfaces.Decoder`."""

    architecture = "GRU"

    def __init__(self, config: GRUDecoderConfig, vocabulary_size: int, condition_dim: int) -> None:
        super().__init__()
        self.config, self.vocabulary_size = config, vocabulary_size
        self.condition_dim = condition_dim
        hidden, embedding = config.hidden_dim, config.embedding_dim
        self.input_embedding = nn.Parameter(torch.empty(vocabulary_size + 1, embedding))
        sizes = [embedding] + [hidden] * (config.num_layers - 1)
        self.layers = nn.ModuleList(GRULayer(size, hidden, condition_dim) for size in sizes)
        self.initial_weight, self.initial_bias = None, None
        if condition_dim:
            self.initial_weight = nn.Parameter(
                torch.empty(config.num_layers * hidden, condition_dim)
            )
            self.initial_bias = nn.Parameter(torch.empty(config.num_layers * hidden))
        self.projection = None
        self.skip_weight = None
        if condition_dim and config.skip_connection:
            size = embedding if config.tie_embeddings else hidden
            self.skip_weight = nn.Parameter(torch.empty(size, condition_dim))
        self.output_embedding = None
        if not config.tie_embeddings:
            self.output_embedding = nn.Parameter(torch.empty(vocabulary_size, hidden))
        elif hidden != embedding:
            self.projection = nn.Parameter(torch.empty(embedding, hidden))
        self.output_bias = nn.Parameter(torch.empty(vocabulary_size))

    def reset_parameters(self, initializer: Initializer) -> None:
        """Uniform matrices, zero biases."""
        initializer.embedding("input_embedding", "output_embedding")
        initializer.linear("initial_weight", "projection", "skip_weight")
        initializer.constant(0.0, "initial_bias", "output_bias")

    @property
    def description(self) -> str:
        """For a reader."""
        return f"{self.architecture}, {self.config.num_layers} x {self.config.hidden_dim}"

    def activation_bytes(self, batch: int, length: int) -> int:
        """Memory for training, estimated: the layers, and the features with their gradient."""
        sizes = [layer.input_weight.shape[1] for layer in self._layers()]
        layers = activation_bytes(sizes, self.config.hidden_dim, batch, length)
        return layers + 2 * 4 * batch * length * self.output_weight.shape[1]

    @property
    def output_weight(self) -> Tensor:
        """`[V, D]`: its own matrix, or the input embeddings without the one of `<s>`."""
        if self.output_embedding is None:
            return self.input_embedding[: self.vocabulary_size]
        return self.output_embedding

    @property
    def word_vectors(self) -> Tensor:
        """`[V + 1, E]`: input vectors of words and `<s>`."""
        return self.input_embedding

    def forward(
        self,
        inputs: Tensor,
        condition: Tensor | None,
        *,
        noise: Noise | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Features `[B, T, D]` under teacher forcing; see the contract."""
        initial = self._initial(inputs.shape[0], condition)
        first, *others = self._dropped_weights(noise)
        states = read_words(
            inputs,
            self.input_embedding,
            initial[0],
            first,
            condition,
            noise=noise,
            rate=self.config.dropout_rate,
            purpose="decoder.0",
            dtype=dtype,
            locked=self.config.locked_dropout,
            type_rate=self.config.embedding_dropout_rate,
        )
        for number, weights in enumerate(others, start=1):
            states = self._dropped(states, f"decoder.{number}", noise)
            states = gru_sequence(states, initial[number], weights, condition, dtype=dtype)
        features = self._features(self._dropped(states, "decoder.output", noise), dtype)
        skipped = self._skipped(condition)
        return features if skipped is None else features + skipped[:, None]

    @torch.no_grad()
    def expanded(
        self, inputs: Tensor, conditions: Tensor, *, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Features `[T, K, B, D]` for K conditions a sentence `[K, B, C]`; see the contract."""
        samples, batch = conditions.shape[:2]
        flat = conditions.reshape(samples * batch, -1)
        state = self.start(flat)
        layers = self._layers()
        words = F.embedding(inputs, self.input_embedding)
        projected = low_linear(words.transpose(0, 1), layers[0].input_weight, dtype=dtype)
        states = projected.new_empty(0)
        for number, layer in enumerate(layers):
            gates = state.gates[number].view(samples, batch, -1)
            initial = state.hidden[number].view(samples, batch, -1)
            if number:
                projected = low_linear(states.flatten(1, 2), layer.input_weight, dtype=dtype)
                gates, initial = gates.view(1, samples * batch, -1), initial.flatten(0, 1)[None]
            states = gru_expanded(projected, gates, initial, layer.weights(), dtype=dtype)
            states = states.view(-1, samples, batch, states.shape[-1])
        features, skipped = self._features(states, dtype), self._skipped(conditions)
        return features if skipped is None else features.add_(skipped)

    def start(self, condition: Tensor) -> GRUState:
        """The state before the first word, for conditions `[B, C]`."""
        hidden = self._initial(condition.shape[0], condition)
        gates = []
        for layer in self._layers():
            bias = layer.bias.expand(condition.shape[0], -1)
            if layer.condition_weight is not None:
                bias = F.linear(condition, layer.condition_weight, layer.bias)
            gates.append(bias)
        skipped = self._skipped(condition)
        return GRUState(tuple(hidden), tuple(gates), () if skipped is None else (skipped,))

    def writer(self, *, dtype: torch.dtype = torch.float32, tabulate: bool = False) -> "GRUWriter":
        """For generation; see the contract."""
        weights = [layer.weights() for layer in self._layers()]
        return GRUWriter(self, weights, dtype=dtype, tabulate=tabulate)

    @torch.no_grad()
    def scale_logits(self, factor: float) -> float:
        """Multiply all logits, in the weights; see the contract."""
        self.output_bias.mul_(factor)
        if self.output_embedding is not None:
            self.output_embedding.mul_(factor)
            return 1.0
        self.input_embedding.mul_(factor)  # predicts the words, and reads them
        self._layers()[0].input_weight.div_(factor)
        return factor

    def _layers(self) -> list[GRULayer]:
        return [layer for layer in self.layers if isinstance(layer, GRULayer)]

    def _dropped(self, states: Tensor, purpose: str, noise: Noise | None) -> Tensor:
        """States `[B, T, H]` after dropout."""
        if noise is None:
            return states
        rate, locked = self.config.output_dropout_rate, self.config.locked_dropout
        return noise.dropout(states, rate, purpose, locked=locked)

    def _dropped_weights(self, noise: Noise | None) -> list[GRUWeights]:
        """The weights of each layer, after dropout of the recurrent matrix."""
        weights, rate = (
            [layer.weights() for layer in self._layers()],
            self.config.weight_dropout_rate,
        )
        if noise is None:
            return weights
        return [
            layer._replace(recurrent=noise.drop_weights(layer.recurrent, rate, f"decoder.{number}"))
            for number, layer in enumerate(weights)
        ]

    def _initial(self, batch: int, condition: Tensor | None) -> list[Tensor]:
        """A state `[B, H]` for each layer: tanh of a linear map of the condition, else zeros."""
        size = 0 if condition is None else condition.shape[1]
        assert size == self.condition_dim, f"condition of {size}, not {self.condition_dim}"
        if self.initial_weight is None or condition is None:
            zeros = self.output_bias.new_zeros(batch, self.config.hidden_dim)
            return [zeros] * self.config.num_layers
        stacked = F.linear(condition, self.initial_weight, self.initial_bias).tanh()
        return list(stacked.chunk(self.config.num_layers, dim=1))

    def _skipped(self, condition: Tensor | None) -> Tensor | None:
        """The contribution of the condition `[..., C]` to the features, `[..., D]`."""
        if self.skip_weight is None or condition is None:
            return None
        return F.linear(condition, self.skip_weight)

    def _features(self, states: Tensor, dtype: torch.dtype) -> Tensor:
        return (
            states if self.projection is None else low_linear(states, self.projection, dtype=dtype)
        )


class GRUWriter:
    """The contract is `model.interfaces.Writer`; made by `GRUDecoder.writer`."""

    @torch.no_grad()
    def __init__(
        self, decoder: GRUDecoder, layers: list[GRUWeights], *, dtype: torch.dtype, tabulate: bool
    ) -> None:
        """Cast the weights of the products; `layers` from the words upwards.

        `tabulate` keeps the contribution of every word to the gates, `[V + 1, 3H]`.
        """
        self.embedding: Tensor = decoder.input_embedding
        self.dtype = dtype = product_dtype(self.embedding, dtype)
        self._decoder = decoder
        self.layers = [step_weights(layer, dtype=dtype) for layer in layers]
        projection = decoder.projection
        self.projection = None if projection is None else projection.to(dtype)
        self.output_weight = decoder.output_weight.to(dtype)
        self.output_bias = decoder.output_bias
        self.table = None
        if tabulate:
            self.table = low_linear(self.embedding, self.layers[0].input, dtype=dtype)

    @torch.no_grad()
    def start(self, condition: Tensor) -> GRUState:
        """The state before the first word, for conditions `[B, C]`."""
        return self._decoder.start(condition)

    @torch.no_grad()
    def step(self, tokens: Tensor, state: GRUState) -> tuple[Tensor, GRUState]:
        """Logits `[B, V]` after one more token `[B]`, and the new state."""
        below, hidden = self.embedding, []
        for number, layer in enumerate(self.layers):
            if number == 0 and self.table is not None:
                words = self.table[tokens]
            else:
                below = self.embedding[tokens] if number == 0 else below
                words = low_linear(below, layer.input, dtype=self.dtype)
            gates = words.add_(state.gates[number])
            below = gru_step(gates, state.hidden[number], layer, dtype=self.dtype)
            hidden.append(below)
        if self.projection is not None:
            below = low_linear(below, self.projection, dtype=self.dtype)
        for skipped in state.output:
            below = below + skipped
        logits = vocabulary_logits(below.to(self.dtype), self.output_weight, self.output_bias)
        return logits, state._replace(hidden=tuple(hidden))
