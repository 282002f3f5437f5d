"""Latents in, sentences of ids out: the one batched loop behind every verb that writes text."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from textvae.generate.rules import Written, check_rules, refuse_nothing, steer
from textvae.generate.strategies import Strategy
from textvae.model.interfaces import END, DecoderState, Writer
from textvae.model.vae import VAE
from textvae.randomness import Draws, key

ROWS = 256
"""Sentences decoded side by side."""
REFILL = ROWS // 8
"""Rows that must be free before new sentences begin: joining states costs more than a few idle
rows, and at the end of a corpus the batch shrinks anyway."""
CUDA_ROWS, CUDA_POSITIONS = 2048, 8
"""On CUDA: sentences decoded side by side, and positions after which the host reads the words."""
WORDS = 10
"""A sentence has at least about this many words: decides if a table of the vocabulary pays off."""


class Decoded(NamedTuple):
    """Sentences written for N latents."""

    sentences: list[list[int]]
    """Ids without `</s>`."""
    finished: list[bool]
    """False if the sentence was cut at `max_length` words."""


class _Active(NamedTuple):
    """The sentences being written, each at its position."""

    rows: Tensor
    """int64 `[A]`: which of the latents."""
    positions: Tensor
    """int64 `[A]`: words written so far."""
    tokens: Tensor
    """int64 `[A]`: the last of them, or `<s>`."""
    state: DecoderState

    def select(self, indices: Tensor) -> "_Active":
        """The sentences at int64 indices."""
        rows, positions, tokens = (part[indices] for part in self[:3])
        return _Active(rows, positions, tokens, self.state.select(indices))

    def join(self, other: "_Active") -> "_Active":
        """These sentences and others."""
        rows, positions, tokens = (
            torch.cat(pair) for pair in zip(self[:3], other[:3], strict=True)
        )
        return _Active(rows, positions, tokens, self.state.join(other.state))


def decode_latents(
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
    other sentences nor their number changes it. Finished sentences make room for new ones.

    Args:
        model: whose decoder writes.
        latents: `[N, Z]`, moved to the model's device.
        strategy: how a word is chosen.
        seed: of the draws.
        max_length: the most words of a sentence.
        first_index: the index of the first sentence; the others follow.
        dtype: of the matrix products.

    Raises:
        ConfigError: rules that cannot be met.
    """
    check_rules(strategy.rules, max_length)
    count, device = latents.shape[0], model.device
    written = torch.zeros(count, max_length, dtype=torch.int64, device=device)
    lengths = torch.full((count,), max_length, dtype=torch.int64, device=device)
    finished = torch.zeros(count, dtype=torch.bool, device=device)
    draws_key, vocabulary_size = key(seed, "word"), model.decoder.output_bias.shape[0]
    writer = model.decoder.writer(dtype=dtype, tabulate=count * WORDS > vocabulary_size)
    if device.type == "cuda" and not strategy.rules:
        draws = Draws(draws_key, torch.arange(count, device=device) + first_index, written[:, 0])
        return _decode_on_cuda(writer, latents, strategy, draws, max_length, vocabulary_size)
    with torch.inference_mode():
        active = _begin(writer, latents[:ROWS].to(device), 0, vocabulary_size)
        begun = active.rows.shape[0]
        while active.rows.shape[0]:
            logits, state = writer.step(active.tokens, active.state)
            rows, positions = active.rows, active.positions
            logits = _steered(logits, strategy, written, active)
            tokens = strategy(logits, Draws(draws_key, rows + first_index, positions))
            ended = tokens == END
            lengths[rows[ended]] = positions[ended]
            finished[rows[ended]] = True
            unfinished = (~ended & (positions < max_length)).nonzero()[:, 0]
            written[rows[unfinished], positions[unfinished]] = tokens[unfinished]
            active = _Active(rows, positions + 1, tokens, state)
            if unfinished.shape[0] < rows.shape[0]:
                active = active.select(unfinished)
            free = min(ROWS - unfinished.shape[0], count - begun)
            if free >= min(REFILL, count - begun) > 0:
                new = latents[begun : begun + free].to(device)
                active = active.join(_begin(writer, new, begun, vocabulary_size))
                begun += free
    sentences = [
        ids[:length] for ids, length in zip(written.tolist(), lengths.tolist(), strict=True)
    ]
    return Decoded(sentences, finished.tolist())


def _decode_on_cuda(
    writer: Writer[Any],
    latents: Tensor,
    strategy: Strategy,
    draws: Draws,
    max_length: int,
    start: int,
) -> Decoded:
    """Write as `decode_latents` does, but test for ended sentences once in several positions.

    What comes after the end of a sentence is dropped. No draw depends on another, so the sentences
    are those of a loop that looks at every position.
    """
    count, device = latents.shape[0], draws.indices.device
    sentences, finished = [list[int]() for _ in range(count)], [False] * count
    with torch.inference_mode():
        active = _begin(writer, latents[:CUDA_ROWS].to(device), 0, start)
        rows = list(range(active.rows.shape[0]))
        begun = len(rows)
        while rows:
            longest = max_length + 1 - min(len(sentences[row]) for row in rows)
            words = []
            for _ in range(min(CUDA_POSITIONS, longest)):
                logits, state = writer.step(active.tokens, active.state)
                row_draws = Draws(draws.key, draws.indices[active.rows], active.positions)
                tokens = strategy(logits, row_draws)
                active = _Active(active.rows, active.positions + 1, tokens, state)
                words.append(tokens)
            going = []
            for place, ids in enumerate(torch.stack(words, 1).tolist()):
                sentence = sentences[rows[place]]
                room = max_length - len(sentence)
                length = ids.index(END) if END in ids else len(ids)
                sentence += ids[: min(length, room)]
                finished[rows[place]] = length < len(ids) and length <= room
                if length == len(ids) and length <= room:
                    going.append(place)
            if len(going) < len(rows):
                places = torch.tensor(going, dtype=torch.int64).pin_memory()
                active = active.select(places.to(device, non_blocking=True))
                rows = [rows[place] for place in going]
            free = min(CUDA_ROWS - len(rows), count - begun)
            if free >= min(max(1, CUDA_ROWS // 8), count - begun) > 0:
                new = latents[begun : begun + free].to(device)
                active = active.join(_begin(writer, new, begun, start))
                rows += range(begun, begun + free)
                begun += free
    return Decoded(sentences, finished)


def _steered(logits: Tensor, strategy: Strategy, written: Tensor, active: _Active) -> Tensor:
    """Logits `[A, V]` under the strategy's rules; `written` `[N, L]` holds every sentence."""
    if not strategy.rules:
        return logits
    longest = int(active.positions.max())
    history = Written(written[active.rows, :longest], active.positions)
    logits = steer(logits, strategy.rules, history)
    refuse_nothing(logits)
    return logits


def _begin(writer: Writer[Any], latents: Tensor, first: int, start: int) -> _Active:
    """Sentences before their first word, for latents `[A, Z]`, the first of them number `first`."""
    rows = torch.arange(first, first + latents.shape[0], device=latents.device)
    tokens = torch.full_like(rows, start)
    return _Active(rows, torch.zeros_like(rows), tokens, writer.start(latents))
