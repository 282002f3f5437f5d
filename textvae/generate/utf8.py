"""A mask that lets byte-level tokenizers write nothing but valid UTF-8.

A token of bytes may end within a character. Which tokens may follow is a function of where in a
character the sentence is: a table on the device, so that decoding never waits for the host. The
mask belongs to decoding alone; likelihoods are those of the model's own distribution. Letters: S
states, V words.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from textvae.data.tokenizer import Tokenizer
from textvae.model.interfaces import END, UNKNOWN

_ANY = range(0x80, 0xC0)
_STATES: list[tuple[int, dict[range, int]]] = [
    (
        0,
        {
            range(0x00, 0x80): 0,
            range(0xC2, 0xE0): 1,
            range(0xE0, 0xE1): 3,
            range(0xE1, 0xED): 2,
            range(0xED, 0xEE): 4,
            range(0xEE, 0xF0): 2,
            range(0xF0, 0xF1): 6,
            range(0xF1, 0xF4): 5,
            range(0xF4, 0xF5): 7,
        },
    ),
    (1, {_ANY: 0}),
    (2, {_ANY: 1}),
    (2, {range(0xA0, 0xC0): 1}),
    (2, {range(0x80, 0xA0): 1}),
    (3, {_ANY: 2}),
    (3, {range(0x90, 0xC0): 2}),
    (3, {range(0x80, 0x90): 2}),
]
"""Well-formed byte sequences (Unicode, table 3-7): for each state, the bytes that are missing until
the character ends, and the next state by ranges of the next byte. 0 is between characters."""
_NEXT = [{byte: to for part, to in ways.items() for byte in part} for _, ways in _STATES]
_MOST_MISSING = 3


class TextMask(NamedTuple):
    """The tokens that may come next in a sentence of bytes."""

    forbidden: Tensor
    """bool `[4 * S, V]`: for each number of tokens that may still come after the next, up to 3, and
    each state, the tokens that break a character or leave no room to end it."""
    following: Tensor
    """uint8 `[S, V]`: the state after each token."""

    def apply(self, logits: Tensor, states: Tensor, room: Tensor | int) -> Tensor:
        """Logits `[B, V]` with -infinity for all tokens that may not come.

        Args:
            logits: of the next token.
            states: int64 `[B]`.
            room: tokens that may come after it, int64 `[B]` or one for all.
        """
        after = torch.as_tensor(room).clamp(0, _MOST_MISSING).to(states)
        return logits.masked_fill(self.forbidden[after * len(_STATES) + states], -torch.inf)

    def follow(self, states: Tensor, tokens: Tensor) -> Tensor:
        """The states after tokens, int64, of any shape."""
        return self.following[states, tokens].long()

    def to(self, device: torch.device) -> "TextMask":
        """The tables on a device."""
        return TextMask(*(table.to(device) for table in self))


@lru_cache(maxsize=8)
def text_mask(tokenizer: Tokenizer, device: torch.device) -> TextMask | None:
    """The mask of a byte-level tokenizer, or None for other tokenizers."""
    pieces = tokenizer.token_bytes()
    if pieces is None:
        return None
    size, states = tokenizer.vocabulary_size, len(_STATES)
    following = torch.zeros(states, size, dtype=torch.uint8)
    valid = torch.zeros(states, size, dtype=torch.bool)
    valid[0, END] = True
    seen = frozenset(range(256)) if tokenizer.seen_bytes is None else tokenizer.seen_bytes
    # A character is begun only if bytes that were seen can end it, whatever a file says was seen.
    ends = {0}
    for _ in range(_MOST_MISSING):
        ends |= {s for s, ways in enumerate(_NEXT) if ends & {ways.get(byte) for byte in seen}}
    for token in range(UNKNOWN + 1, size):
        piece = pieces[token]
        if not seen.issuperset(piece):
            continue
        for begin in range(states):
            state: int | None = begin
            for byte in piece:
                state = None if state is None else _NEXT[state].get(byte)
            if state in ends:
                valid[begin, token], following[begin, token] = True, state
    missing = torch.tensor([count for count, _ in _STATES])[following.long()]
    rooms = range(_MOST_MISSING + 1)
    forbidden = torch.cat([~valid | (missing > room) for room in rooms])
    return TextMask(forbidden, following).to(device)
