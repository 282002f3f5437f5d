"""Restrictions on text: words that are not written, and words that a sentence begins with.

They depend on how the tokenizer cuts text. A word may have many tokenizations; all of them count.
"""

import heapq
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from textvae.data.tokenizer import Tokenizer
from textvae.errors import ConfigError, DataError
from textvae.generate.rules import AnyRule, BannedTokens, Written
from textvae.generate.strategies import Greedy, Strategy
from textvae.model.interfaces import END, UNKNOWN, Writer
from textvae.randomness import key, uniforms

MOST_BYTES = 4_000
"""The most bytes of banned words together: each is a state of the automaton, times V."""
ROWS = 256
"""Latents whose beginnings are weighed side by side."""
NEGLIGIBLE = 25.0
"""Nats: beginnings of a word that are less likely than this against all are below the resolution of
float32 and are not followed further."""
MOST_BEGINNINGS = 4_096
"""Beginnings that are followed before a last word is refused as too long; a trained model needs a
few dozen."""
# Bytes that begin a character which is no part of a word of letters: blanks and punctuation of
# ASCII, of U+0080-00BF and U+2000-2FFF, fullwidth forms, emoji, and the ideographs and kana, whose
# words have no blanks between them.
_LETTERS = frozenset(
    [byte for byte in range(128) if chr(byte).isalnum() or byte == ord("_")]
    + [*range(0xC3, 0xE2), *range(0xEA, 0xEE)]
)


_State = tuple[frozenset[tuple[int, int]], bool]


class Prefix(NamedTuple):
    """The words that a sentence begins with."""

    tokens: list[int]
    """The tokens of the words that are finished."""
    partial: bytes
    """The last word, which may continue; empty for tokenizers of whole words or characters."""


class Constraint(NamedTuple):
    """Restrictions on the text of a sentence."""

    rules: tuple[AnyRule, ...] = ()
    prefix: Prefix | None = None
    pieces: Sequence[bytes] = ()
    """The UTF-8 of each token, `[V]`; empty where the prefix has no partial word."""


FREE = Constraint()


def constraint_of(
    tokenizer: Tokenizer, ban: Sequence[str] | None, prefix: str | None, max_length: int
) -> Constraint:
    """The restrictions for a vocabulary; `<unk>` is never written.

    Raises:
        ConfigError: a banned word that is blank or several, or a prefix that is too long.
        DataError: a prefix with words that the model does not know.
    """
    banned = ban_words(tokenizer, ban or (), max_length)
    if prefix is None:
        return Constraint(banned)
    if not prefix.strip():
        raise ConfigError("--prefix: is blank; give the words that a sentence begins with")
    tokens, partial = tokenizer.split_prefix(prefix)
    if UNKNOWN in tokens:
        raise DataError(f"--prefix {prefix!r}: holds a word that is not in the model's vocabulary")
    if len(tokens) + bool(partial) > max_length:
        raise ConfigError(
            f"--prefix: has {len(tokens) + bool(partial)} tokens, a sentence at most {max_length}"
        )
    pieces = _pieces(tokenizer) if partial else ()
    return Constraint(banned, Prefix(tokens, partial), pieces)


def ban_words(tokenizer: Tokenizer, words: Sequence[str], max_length: int) -> tuple[AnyRule, ...]:
    """Rules under which neither `<unk>` nor one of some words is written.

    A word is banned as it is written, after what the tokenizer does to every text. It is a whole
    word where no letter, digit or underscore stands beside it; words of scripts without blanks are
    banned wherever they stand.

    Raises:
        ConfigError: a word that is blank or several.
    """
    words = (words,) if isinstance(words, str) else words
    for word in words:
        if len(word.split()) != 1:
            raise ConfigError(f"--ban {word!r}: must be one word; give the option once for each")
    encoded = [tokens for tokens in tokenizer.encode_batch(words) if UNKNOWN not in tokens]
    if tokenizer.kind in ("bpe", "char") and encoded:
        pieces = _pieces(tokenizer)
        texts = {b"".join(pieces[token] for token in tokens) for tokens in encoded}
        return BannedTokens(), BannedWords(sorted(texts), pieces, max_length)
    if several := [word for word, tokens in zip(words, encoded, strict=False) if len(tokens) > 1]:
        raise ConfigError(f"--ban {several[0]!r}: is several tokens of this model; ban one of them")
    return (BannedTokens(tokens=(UNKNOWN, *sorted({tokens[0] for tokens in encoded}))),)


def _pieces(tokenizer: Tokenizer) -> list[bytes]:
    """The UTF-8 of each token, `[V]`; none for `</s>`."""
    pieces = tokenizer.token_bytes()
    return pieces or [b"", b"", *(word.encode() for word in tokenizer.words())]


class BannedWords:
    """No token that would complete a banned word: a finite automaton over the bytes of the text.

    A complete word waits for the character behind it, which decides whether it was whole.
    """

    def __init__(self, words: Sequence[bytes], pieces: Sequence[bytes], max_length: int) -> None:
        if sum(map(len, words)) > MOST_BYTES:
            raise ConfigError(f"--ban: the words have more than {MOST_BYTES:,} bytes; ban fewer")
        table, forbidden, pending = _automaton(words)
        after = torch.arange(len(table))[:, None].repeat(1, len(pieces))
        self.forbidden = torch.zeros(after.shape, dtype=torch.bool)
        longest = max(map(len, pieces))
        padded = torch.tensor([[*piece, *[-1] * (longest - len(piece))] for piece in pieces])
        for column in padded.unbind(1):
            byte, there = column.clamp(min=0), column >= 0
            self.forbidden |= forbidden[after, byte] & there
            after = torch.where(there, table[after, byte], after)
        self.forbidden[:, END] = pending
        self.after, self.pending, self.max_length = after, pending, max_length

    def __call__(self, logits: Tensor, written: Written) -> None:
        """Change logits `[B, V]` in place."""
        words, lengths = written
        after, states = self.after.to(logits.device), torch.zeros_like(lengths)
        for position, tokens in enumerate(words.unbind(1)):
            states = torch.where(position < lengths, after[states, tokens], states)
        banned = self.forbidden.to(logits.device)[states]
        # A sentence that is cut may not end in a word that waits, either.
        waits = self.pending.to(logits.device)[after[states]]
        banned |= waits & (lengths == self.max_length - 1)[:, None]
        logits.masked_fill_(banned, -torch.inf)


def _automaton(words: Sequence[bytes]) -> tuple[Tensor, Tensor, Tensor]:
    """Next states `[S, 256]`, whether a byte completes a word `[S, 256]`, states that wait `[S]`.

    A state is the set of words begun, with the bytes of each that have come, and whether the last
    character was a letter. State 0 is the beginning of a sentence.
    """
    leads = [[byte for byte in word if not 0x80 <= byte < 0xC0] for word in words]
    needs_left = [lead[0] in _LETTERS for lead in leads]
    needs_right = [lead[-1] in _LETTERS for lead in leads]

    def step(state: _State, byte: int) -> tuple[_State, bool]:
        begun, inside = state
        continues = 0x80 <= byte < 0xC0
        letter = inside if continues else byte in _LETTERS
        complete = any(place == len(words[word]) for word, place in begun) and not letter
        matched = {(w, i + 1) for w, i in begun if i < len(words[w]) and words[w][i] == byte}
        if not continues:
            matched |= {
                (number, 1)
                for number, word in enumerate(words)
                if word[0] == byte and not (inside and needs_left[number])
            }
        ended = {(w, i) for w, i in matched if i == len(words[w]) and not needs_right[w]}
        return (frozenset(matched - ended), letter), complete or bool(ended)

    states: dict[_State, int] = {(frozenset[tuple[int, int]](), False): 0}
    table: list[list[int]] = []
    forbidden: list[list[bool]] = []
    queue = list(states)
    for state in queue:
        row = [step(state, byte) for byte in range(256)]
        for following, _ in row:
            if following not in states:
                states[following] = len(states)
                queue.append(following)
        table.append([states[following] for following, _ in row])
        forbidden.append([ends for _, ends in row])
    pending = [any(place == len(words[word]) for word, place in begun) for begun, _ in queue]
    return torch.tensor(table), torch.tensor(forbidden), torch.tensor(pending)


def forced_tokens(
    writer: Writer[Any],
    latents: Tensor,
    constraint: Constraint,
    strategy: Strategy | None,
    *,
    seed: int,
    max_length: int,
    first_index: int = 0,
) -> Tensor | None:
    """The tokens that sentences for latents `[N, Z]` have to begin with, `[N, F]`; -1 is free.

    An unfinished last word is continued by the exact p(tokens | z, the sentence begins with the
    prefix): all token sequences that cover it are weighed, each of which ends with the token that
    reaches its end. A draw is at the temperature of the strategy, a function of (seed, index).
    Greedy decoding and a beam (None) take the likeliest.
    """
    prefix, device = constraint.prefix, latents.device
    if prefix is None:
        return None
    fixed = torch.tensor(prefix.tokens, dtype=torch.int64, device=device)
    fixed = fixed.expand(latents.shape[0], -1)
    if not prefix.partial:
        return fixed
    parts = []
    for numbers in torch.arange(latents.shape[0], device=device).split(ROWS):  # type: ignore[no-untyped-call]
        sequences, scores = _covers(writer, latents[numbers], constraint, strategy, max_length)
        if strategy is None or isinstance(strategy, Greedy):
            picks = scores.argmax(1)
        else:
            cumulative = scores.softmax(1).cumsum(1)
            drawn = uniforms(key(seed, "prefix"), numbers + first_index).double()[:, None]
            picks = (drawn * cumulative[:, -1:] >= cumulative).sum(1)
        parts += [sequences[number] for number in picks.tolist()]
    longest = max(map(len, parts), default=0)
    padded = [[*tokens, *[-1] * (longest - len(tokens))] for tokens in parts]
    words = torch.tensor(padded, dtype=torch.int64, device=device).view(latents.shape[0], longest)
    return torch.cat([fixed, words], dim=1)


def _covers(
    writer: Writer[Any],
    latents: Tensor,
    constraint: Constraint,
    strategy: Strategy | None,
    max_length: int,
) -> tuple[list[tuple[int, ...]], Tensor]:
    """The token sequences that cover the partial word, and the log-probability of each, `[B, C]`.

    Beginnings of the word are followed best first, each for all latents at once.
    """
    prefix, pieces = constraint.prefix, constraint.pieces
    assert prefix is not None
    temperature = getattr(strategy, "temperature", 1.0)
    state = writer.start(latents)
    # The id of `<s>` is the number of the others.
    tokens = torch.full((latents.shape[0],), len(pieces), device=latents.device)
    for token in prefix.tokens:
        _, state = writer.step(tokens, state)
        tokens = torch.full_like(tokens, token)
    sequences: list[tuple[int, ...]] = []
    columns: list[Tensor] = []
    total = latents.new_full((latents.shape[0],), -torch.inf, dtype=torch.float64)
    queue: list[tuple[float, tuple[int, ...], Tensor, Tensor, Any]] = []
    heapq.heappush(queue, (0.0, (), torch.zeros_like(total), tokens, state))
    count = 0
    while queue:
        _, begun, score, tokens, state = heapq.heappop(queue)
        if bool((score < total - NEGLIGIBLE).all()):
            continue
        count += 1
        if count > MOST_BEGINNINGS:
            raise ConfigError(
                "--prefix: its last word can be cut into tokens in too many ways; end it with a "
                "blank, or make it shorter"
            )
        rest = prefix.partial[sum(map(len, map(pieces.__getitem__, begun))) :]
        logits, state = writer.step(tokens, state)
        for rule in constraint.rules:
            if isinstance(rule, BannedTokens):
                rule(logits, Written(tokens[:, None], tokens))
        log_probs = (logits.double() / temperature).log_softmax(1)
        cover = [number for number, piece in enumerate(pieces) if piece.startswith(rest)]
        if cover:
            columns.append(score[:, None] + log_probs[:, cover])
            sequences += [(*begun, number) for number in cover]
            total = torch.logaddexp(total, columns[-1].logsumexp(1))
        if len(prefix.tokens) + len(begun) + 2 > max_length:
            continue
        for number, piece in enumerate(pieces):
            if piece and len(piece) < len(rest) and rest.startswith(piece):
                below = score + log_probs[:, number]
                entry = ((*begun, number), below, torch.full_like(tokens, number), state)
                heapq.heappush(queue, (-float(below.max()), *entry))
    if not columns or not math.isfinite(float(total.min())):
        raise ConfigError("--prefix: its last word cannot be written within the limits set")
    # Sorted, so that a draw does not depend on the order in which the beginnings were followed.
    order = sorted(range(len(sequences)), key=sequences.__getitem__)
    return [sequences[place] for place in order], torch.cat(columns, dim=1)[:, order]
