"""Latents in, sentences of ids out: the one batched loop behind every verb that writes text."""

from typing import NamedTuple

import torch
from torch import Tensor

from textvae.generate.strategies import Strategy
from textvae.kernels.linear_cross_entropy import vocabulary_logits
from textvae.model.interfaces import END
from textvae.model.vae import VAE
from textvae.randomness import key, uniforms

ROWS = 256
"""Sentences decoded side by side."""


class Decoded(NamedTuple):
    """What the decoder wrote for N latents."""

    sentences: list[list[int]]
    """Ids without `</s>`."""
    finished: list[bool]
    """False where `max_length` words came without a `</s>`."""


def decode(
    model: VAE,
    latents: Tensor,
    strategy: Strategy,
    *,
    seed: int,
    max_length: int,
    first_index: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Decoded:
    """Write a sentence for each latent `[N, Z]`.

    The draw of a word is a function of (seed, the sentence's index, position), so that neither the
    other sentences nor their number changes it. Finished sentences leave the batch.

    Args:
        model: whose decoder writes.
        latents: `[N, Z]`, moved to the model's device.
        strategy: how a word is chosen.
        seed: of the draws.
        max_length: the most words of a sentence.
        first_index: the index of the first sentence; the others follow.
        dtype: of the matrix products.
    """
    written = torch.zeros(latents.shape[0], max_length, dtype=torch.int64)
    lengths = torch.full((latents.shape[0],), max_length, dtype=torch.int64)
    finished = torch.zeros(latents.shape[0], dtype=torch.bool)
    with torch.inference_mode():
        for rows in torch.arange(latents.shape[0]).split(ROWS):  # type: ignore[no-untyped-call]
            _decode_rows(
                model, latents, rows, strategy, seed, first_index, dtype, written, lengths, finished
            )
    sentences = [
        ids[:length] for ids, length in zip(written.tolist(), lengths.tolist(), strict=True)
    ]
    return Decoded(sentences, finished.tolist())


def _decode_rows(
    model: VAE,
    latents: Tensor,
    rows: Tensor,
    strategy: Strategy,
    seed: int,
    first_index: int,
    dtype: torch.dtype,
    written: Tensor,
    lengths: Tensor,
    finished: Tensor,
) -> None:
    """Fill `written`, `lengths` and `finished` for some rows of the latents."""
    decoder, device = model.decoder, model.device
    state = decoder.start(latents[rows].to(device))
    weight, bias = decoder.output_weight.to(dtype), decoder.output_bias
    tokens = torch.full((rows.shape[0],), weight.shape[0], dtype=torch.int64, device=device)
    draws_key = key(seed, "word")
    for position in range(written.shape[1] + 1):
        features, state = decoder.step(tokens, state, dtype=dtype)
        logits = vocabulary_logits(features.to(dtype), weight, bias)
        indices = (rows + first_index).to(device)
        tokens = strategy(logits, uniforms(draws_key, indices, indices.new_tensor(position)))
        done = (tokens == END).cpu()
        lengths[rows[done]] = position
        finished[rows[done]] = True
        if position == written.shape[1] or bool(done.all()):
            return
        if bool(done.any()):
            alive = (~done).nonzero()[:, 0]
            rows, tokens, state = (
                rows[alive],
                tokens[alive.to(device)],
                state.select(alive.to(device)),
            )
        written[rows, position] = tokens.cpu()
