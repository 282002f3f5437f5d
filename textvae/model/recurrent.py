"""The parameters of one GRU layer, and reading tokens with it."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textvae.kernels.gru import GRUWeights, gru_sequence, gru_words
from textvae.model.initialization import Initializer, SeededModule
from textvae.randomness import Noise


class GRULayer(SeededModule):
    """Holds the weights of one layer; the arithmetic is in kernels/gru.py."""

    def __init__(self, input_dim: int, hidden_dim: int, condition_dim: int = 0) -> None:
        super().__init__()
        self.input_weight = nn.Parameter(torch.empty(3 * hidden_dim, input_dim))
        self.recurrent_weight = nn.Parameter(torch.empty(3 * hidden_dim, hidden_dim))
        self.bias = nn.Parameter(torch.empty(3 * hidden_dim))
        self.recurrent_bias = nn.Parameter(torch.empty(hidden_dim))
        self.condition_weight = (
            nn.Parameter(torch.empty(3 * hidden_dim, condition_dim)) if condition_dim else None
        )

    def reset_parameters(self, initializer: Initializer) -> None:
        """Uniform matrices, zero biases."""
        initializer.linear("input_weight", "recurrent_weight", "condition_weight")
        initializer.constant(0.0, "bias", "recurrent_bias")

    def weights(self) -> GRUWeights:
        """The parameters as the kernels take them."""
        return GRUWeights(
            self.input_weight,
            self.recurrent_weight,
            self.bias,
            self.recurrent_bias,
            self.condition_weight,
        )


def read_words(
    tokens: Tensor,
    embedding: Tensor,
    initial: Tensor,
    weights: GRUWeights,
    condition: Tensor | None = None,
    *,
    noise: Noise | None,
    rate: float,
    purpose: str,
    dtype: torch.dtype,
    locked: bool = False,
    type_rate: float = 0.0,
) -> Tensor:
    """The states `[B, T, H]` of a first layer that reads tokens `[B, T]`, dropout on their vectors.

    On a CPU each word of the batch is projected once, unless dropout makes every token another
    vector. Elsewhere counting the words would make the host wait for the device. `locked` and
    `type_rate` are those of `Noise.dropout` and `Noise.drop_types`.
    """
    if tokens.device.type == "cpu" and (noise is None or rate == type_rate == 0.0):
        return gru_words(tokens, embedding, initial, weights, condition, dtype=dtype)
    words = F.embedding(tokens.t(), embedding).transpose(0, 1)
    if noise is not None:
        words = noise.dropout(words, rate, purpose, locked=locked)
        words = noise.drop_types(words, tokens, type_rate, purpose)
    return gru_sequence(words, initial, weights, condition, dtype=dtype)


def activation_bytes(sizes: list[int], hidden_dim: int, batch: int, length: int) -> int:
    """Memory for training layers with inputs of these sizes on sentences `[B, T]`, in bytes.

    For each position and layer float32 values and their gradients: the input, three projections
    of it, three gates, the recurrent part of the candidate, and the state.
    """
    values = sum(size + 8 * hidden_dim for size in sizes)
    return 2 * 4 * batch * length * values


def last_states(states: Tensor, lengths: Tensor) -> Tensor:
    """The state after the true last token: `[B, T, H]`, int64 `[B]` -> `[B, H]`."""
    index = (lengths - 1)[:, None, None].expand(-1, 1, states.shape[2])
    return states.gather(1, index)[:, 0]


def reverse_sentences(tokens: Tensor, lengths: Tensor) -> Tensor:
    """Each sentence reversed within its length: `[B, T]`; cells beyond are 0."""
    positions = lengths[:, None] - 1 - torch.arange(tokens.shape[1], device=tokens.device)
    return tokens.gather(1, positions.clamp(min=0)) * (positions >= 0)
