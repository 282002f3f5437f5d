"""The parameters of one GRU layer, and how parameters of all kinds begin."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textvae.kernels.gru import GRUWeights, gru_sequence, gru_words
from textvae.randomness import Noise, key, uniforms

EMBEDDING_RANGE = 0.1
"""Embeddings begin uniform in +-0.1, as in He et al. 2019 and Li et al. 2019."""


class GRULayer(nn.Module):
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

    def weights(self) -> GRUWeights:
        """The parameters as the kernels take them."""
        return GRUWeights(
            self.input_weight,
            self.recurrent_weight,
            self.bias,
            self.recurrent_bias,
            self.condition_weight,
        )


def initialize(module: nn.Module, seed: int) -> None:
    """Fill every parameter as a function of the seed and its name alone.

    Biases and buffers are zero, embeddings uniform in +-EMBEDDING_RANGE, and other matrices
    `[out, in]` uniform in +-1/sqrt(in).
    """
    with torch.no_grad():
        for buffer in module.buffers():
            buffer.zero_()
        for name, parameter in module.named_parameters():
            if parameter.dim() < 2:
                parameter.zero_()
                continue
            is_embedding = name.rsplit(".", 1)[-1].endswith("embedding")
            bound = EMBEDDING_RANGE if is_embedding else 1.0 / math.sqrt(parameter.shape[1])
            rows = torch.arange(parameter.shape[0])
            draws = uniforms(key(seed, "initialize", name), rows, lanes=parameter.shape[1])
            parameter.copy_(draws.mul_(2.0 * bound).sub_(bound))


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


def last_states(states: Tensor, lengths: Tensor) -> Tensor:
    """The state after the true last token: `[B, T, H]`, int64 `[B]` -> `[B, H]`."""
    index = (lengths - 1)[:, None, None].expand(-1, 1, states.shape[2])
    return states.gather(1, index)[:, 0]


def reverse_sentences(tokens: Tensor, lengths: Tensor) -> Tensor:
    """Each sentence back to front within its own length: `[B, T]`; cells beyond stay as 0."""
    positions = lengths[:, None] - 1 - torch.arange(tokens.shape[1], device=tokens.device)
    return tokens.gather(1, positions.clamp(min=0)) * (positions >= 0)
