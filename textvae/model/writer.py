"""The GRU decoder at work: one token in, logits of the next word out."""

from collections.abc import Callable

import torch
from torch import Tensor

from textvae.kernels.gru import GRUWeights, gru_step, low_linear, product_dtype, step_weights
from textvae.kernels.linear_cross_entropy import vocabulary_logits
from textvae.model.interfaces import DecoderState


class GRUWriter:
    """The contract is `model.interfaces.Writer`; made by `GRUDecoder.writer`."""

    @torch.no_grad()
    def __init__(
        self,
        embedding: Tensor,
        layers: list[GRUWeights],
        start: Callable[[Tensor], DecoderState],
        projection: Tensor | None,
        output: tuple[Tensor, Tensor],
        *,
        dtype: torch.dtype,
        tabulate: bool,
    ) -> None:
        """Cast the weights of the products.

        Args:
            embedding: `[V + 1, E]`.
            layers: from the words upwards.
            start: from conditions `[B, C]` to the state before the first word.
            projection: `[D, H]`, if features are not the states themselves.
            output: weight `[V, D]` and bias `[V]`.
            dtype: of the matrix products.
            tabulate: keep `[V + 1, 3H]` of what the words contribute to the gates.
        """
        dtype = product_dtype(embedding, dtype)
        self.dtype, self.embedding, self._start = dtype, embedding, start
        self.layers = [step_weights(layer, dtype=dtype) for layer in layers]
        self.projection = None if projection is None else projection.to(dtype)
        self.output_weight, self.output_bias = output[0].to(dtype), output[1]
        self.table = None
        if tabulate:
            self.table = low_linear(self.embedding, self.layers[0].input, dtype=dtype)

    @torch.no_grad()
    def start(self, condition: Tensor) -> DecoderState:
        """The state before the first word, for conditions `[B, C]`."""
        return self._start(condition)

    @torch.no_grad()
    def step(self, tokens: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
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
