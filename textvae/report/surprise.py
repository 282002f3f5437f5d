"""Where in a sentence a model is surprised: nats token by token, on pieces of its text."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from textvae.data.batching import TokenArray
from textvae.data.tokenizer import Tokenizer
from textvae.model.vae import VAE


class Piece(NamedTuple):
    """Some characters of a sentence."""

    text: str
    """With the blanks around it; empty for the end of the sentence."""
    nats: float
    """-log p of its tokens, given those before and the latent."""


def surprises(
    model: VAE, tokenizer: Tokenizer, data: TokenArray, rows: Tensor, conditions: Tensor
) -> list[list[Piece]]:
    """The pieces of some sentences, with their nats at one condition each.

    `rows` are int64 `[B]` of the N sentences, `conditions` `[N, C]` what the decoder reads. A piece
    is a token, or as many as it takes for whole characters, and the last is the end of the
    sentence; their nats add up to -log p(x|z).
    """
    batch = data.batch(rows)
    with torch.inference_mode():
        nats = model.reconstruct(
            batch.inputs, batch.targets, batch.lengths, conditions[rows]
        ).rows.tolist()
    pieces, first = [], 0
    for targets, length in zip(batch.targets.tolist(), batch.lengths.tolist(), strict=True):
        pieces.append(_pieces(tokenizer, targets[: length - 1], nats[first : first + length]))
        first += length
    return pieces


def _pieces(tokenizer: Tokenizer, ids: Sequence[int], nats: Sequence[float]) -> list[Piece]:
    """Cut the text where decoding the tokens so far ends with whole characters.

    A token may be part of a character, which decodes to U+FFFD until the last of its bytes is
    there; a literal one in the text merely joins two pieces.
    """
    pieces: list[Piece] = []
    written, waiting = "", 0.0
    for place, amount in enumerate(nats[:-1], start=1):
        waiting += amount
        so_far = tokenizer.decode(ids[:place])
        if so_far.endswith("\ufffd") and place < len(ids):
            continue
        if so_far.startswith(written):
            pieces.append(Piece(so_far[len(written) :], waiting))
            written, waiting = so_far, 0.0
    return [*pieces, Piece("", waiting + nats[-1])]
