"""Latents in, sentences of ids out: the one batched loop behind every verb that writes text."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from textvae.generate.constraints import FREE, Constraint, forced_tokens
from textvae.generate.rules import (
    AnyRule,
    BannedTokens,
    Written,
    check_rules,
    refuse_nothing,
    steer,
)
from textvae.generate.strategies import Strategy
from textvae.generate.utf8 import TextMask
from textvae.model.interfaces import END, DecoderState, Writer
from textvae.model.vae import VAE
from textvae.randomness import Draws, key

ROWS = 256
"""Sentences decoded side by side."""
REFILL = 8
"""The fraction of the rows, one in so many, that must be free before new sentences begin: joining
states costs more than a few idle rows, and at the end of a corpus the batch shrinks anyway."""
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
    log_probs: list[float] | None = None
    """log p(x|z) of the words and `</s>`, nats, whether or not it was cut; where it was wanted."""


class _Active(NamedTuple):
    """The sentences being written, each at its position."""

    rows: Tensor
    """int64 `[A]`: which of the latents."""
    positions: Tensor
    """int64 `[A]`: words written so far."""
    tokens: Tensor
    """int64 `[A]`: the last of them, or `<s>`."""
    text_states: Tensor
    """int64 `[A]`: of a `TextMask`."""
    words: Tensor
    """int64 `[A, W]`: the words so far, `</s>` beyond them; W is 0 where no rule reads them."""
    state: DecoderState

    def select(self, indices: Tensor) -> "_Active":
        """The sentences at int64 indices."""
        rows, positions, tokens, text_states, words = (part[indices] for part in self[:5])
        state = self.state.select(indices)
        return _Active(rows, positions, tokens, text_states, words, state)

    def join(self, other: "_Active") -> "_Active":
        """These sentences and others, whose words may be fewer."""
        words = F.pad(other.words, (0, self.words.shape[1] - other.words.shape[1]), value=END)
        pairs = zip(self[:5], other._replace(words=words)[:5], strict=True)
        rows, positions, tokens, text_states, words = (torch.cat(pair) for pair in pairs)
        state = self.state.join(other.state)
        return _Active(rows, positions, tokens, text_states, words, state)

    def follow(self, tokens: Tensor, state: DecoderState, mask: TextMask | None) -> "_Active":
        """The sentences with another word each."""
        text_states, words = self.text_states, self.words
        if mask is not None:
            text_states = mask.follow(text_states, tokens)
        if words.shape[1]:
            words = words.scatter(1, self.positions[:, None], tokens[:, None])
        return _Active(self.rows, self.positions + 1, tokens, text_states, words, state)


def decode_latents(
    model: VAE,
    latents: Tensor,
    strategy: Strategy,
    *,
    seed: int,
    max_length: int,
    first_index: int = 0,
    constraint: Constraint = FREE,
    with_log_probs: bool = False,
    dtype: torch.dtype = torch.float32,
    mask: TextMask | None = None,
) -> Decoded:
    """Write a sentence for each latent `[N, Z]`.

    The draw of a word is a function of (seed, the sentence's index, position), so that neither the
    other sentences nor their number changes it. Finished sentences make room for new ones. Memory
    grows with what is written, not with `max_length`.

    On CUDA, without rules about what is written, the host reads the words once in several
    positions: what comes after the end of a sentence is dropped, and no draw depends on another.

    Args:
        model: whose decoder writes.
        latents: `[N, Z]`, moved to the model's device.
        strategy: how a word is chosen.
        seed: of the draws.
        max_length: the most words of a sentence.
        first_index: the index of the first sentence; the others follow.
        constraint: words that are not written, and words to begin with.
        with_log_probs: measure log p(x|z), of the model without rules and temperature.
        dtype: of the matrix products.
        mask: of a byte-level tokenizer, on the model's device.

    Raises:
        ConfigError: rules that cannot be met.
    """
    check_rules(strategy.rules, max_length)
    rules = (*strategy.rules, *constraint.rules)
    with_history = not all(isinstance(rule, BannedTokens) for rule in rules)
    count, device = latents.shape[0], model.device
    draws_key, start = key(seed, "word"), model.decoder.output_bias.shape[0]
    writer = model.decoder.writer(dtype=dtype, tabulate=count * WORDS > start)
    on_cuda = device.type == "cuda" and not with_history and not with_log_probs
    most_rows, num_positions = (CUDA_ROWS, CUDA_POSITIONS) if on_cuda else (ROWS, 1)
    log_probs = torch.zeros(count, dtype=torch.float64, device=device)
    sentences, finished = [list[int]() for _ in range(count)], [False] * count
    with torch.inference_mode():
        forced = forced_tokens(
            writer,
            latents.to(device),
            constraint,
            strategy,
            seed=seed,
            max_length=max_length,
            first_index=first_index,
        )
        active = _begin(writer, latents[:most_rows].to(device), 0, start)
        rows = list(range(active.rows.shape[0]))
        begun = len(rows)
        while rows:
            lengths = [len(sentences[row]) for row in rows]
            if with_history:
                active = active._replace(words=_widened(active.words, max(lengths) + 1))
            words = []
            for _ in range(min(num_positions, max_length + 1 - min(lengths))):
                logits, state = writer.step(active.tokens, active.state)
                steered = _steered(logits, active, rules, mask, max_length, max(lengths))
                draws = Draws(draws_key, active.rows + first_index, active.positions)
                tokens = _forced(strategy(steered, draws), forced, active)
                if with_log_probs:
                    # The end of a sentence that is cut counts, too.
                    scored = torch.where(active.positions < max_length, tokens, END)[:, None]
                    log_probs[active.rows] += logits.double().log_softmax(1).gather(1, scored)[:, 0]
                words.append(tokens)
                active = active.follow(tokens, state, mask)
            going = _extend(sentences, finished, rows, words, max_length)
            if len(going) < len(rows):
                places = torch.tensor(going, dtype=torch.int64)
                if on_cuda:
                    places = places.pin_memory()
                active = active.select(places.to(device, non_blocking=True))
                rows = [rows[place] for place in going]
            free = min(most_rows - len(rows), count - begun)
            if free >= min(max(1, most_rows // REFILL), count - begun) > 0:
                new = latents[begun : begun + free].to(device)
                active = active.join(_begin(writer, new, begun, start))
                rows += range(begun, begun + free)
                begun += free
    return Decoded(sentences, finished, log_probs.tolist() if with_log_probs else None)


def _extend(
    sentences: list[list[int]],
    finished: list[bool],
    rows: list[int],
    words: list[Tensor],
    max_length: int,
) -> list[int]:
    """Add words `[A]` of some positions to the sentences of `rows`; the places that are open."""
    going = []
    for place, ids in enumerate(torch.stack(words, 1).tolist()):
        sentence = sentences[rows[place]]
        room = max_length - len(sentence)
        length = ids.index(END) if END in ids else len(ids)
        sentence += ids[: min(length, room)]
        finished[rows[place]] = length < len(ids) and length <= room
        if length == len(ids) and length <= room:
            going.append(place)
    return going


def _steered(
    logits: Tensor,
    active: _Active,
    rules: Sequence[AnyRule],
    mask: TextMask | None,
    max_length: int,
    longest: int,
) -> Tensor:
    """Logits `[A, V]` under a mask and rules; at most `longest` words are written."""
    if mask is not None:
        logits = mask.apply(logits, active.text_states, max_length - 1 - active.positions)
    if rules:
        logits = steer(logits, rules, Written(active.words[:, :longest], active.positions))
        if active.words.shape[1]:  # without a history there is `</s>`; to look would wait
            refuse_nothing(logits)
    return logits


def _forced(tokens: Tensor, forced: Tensor | None, active: _Active) -> Tensor:
    """Tokens `[A]`, or those that their sentences have to begin with, `[N, F]`; -1 is free."""
    if forced is None:
        return tokens
    place = active.positions.clamp(max=forced.shape[1] - 1)
    first = torch.where(active.positions == place, forced[active.rows, place], -1)
    return torch.where(first >= 0, first, tokens)


def _widened(words: Tensor, width: int) -> Tensor:
    """Words `[A, W]` with room for `width` of them: twice as many as there are, if need be."""
    missing = max(width, 2 * words.shape[1]) - words.shape[1] if width > words.shape[1] else 0
    return F.pad(words, (0, missing), value=END) if missing else words


def _begin(writer: Writer[Any], latents: Tensor, first: int, start: int) -> _Active:
    """Sentences before their first word, for latents `[A, Z]`, the first of them number `first`."""
    rows = torch.arange(first, first + latents.shape[0], device=latents.device)
    tokens, positions = torch.full_like(rows, start), torch.zeros_like(rows)
    words = rows.new_zeros(rows.shape[0], 0)
    return _Active(rows, positions, tokens, positions, words, writer.start(latents))
