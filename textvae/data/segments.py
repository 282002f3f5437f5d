"""A segment of a corpus that is streamed: lines in, ids and counts out, in a process of its own.

Nothing here imports torch: a worker takes 30 MB and begins at once.
"""

import hashlib
import os
import signal
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

from textvae.data.tokenizer import Tokenizer

WAITING = 2
"""Segments that wait for each worker, so that memory is bounded."""


def sentence_rank(text: str, secret: bytes) -> int:
    """64 bits of a hash of a sentence, by which splits are carved."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=secret).digest()
    return int.from_bytes(digest, "little")


class Cut(NamedTuple):
    """What becomes of a sentence: where it goes, and what is dropped."""

    secret: bytes
    edges: tuple[tuple[str, float], ...]
    """Splits that are carved, each with the share of the hashes at which it ends."""
    max_characters: int
    max_length: int

    def split_of(self, text: str) -> str:
        """The split of a sentence, a function of its text: copies stay together."""
        if self.edges and (rank := sentence_rank(text, self.secret)) < self.edges[-1][1] * 2**64:
            return next(name for name, edge in self.edges if rank < edge * 2**64)
        return "train"


class Part(NamedTuple):
    """What a segment has for one split."""

    tokens: "array[int]"
    lengths: "array[int]"
    texts: list[str]
    """Of the test split alone."""
    num_words: int
    num_characters: int
    too_long_tokens: int


class Segment(NamedTuple):
    """What became of some rows."""

    rows: int
    blank: int
    too_long_characters: int
    parts: dict[str, Part]


def encode(rows: list[str], tokenizer: Tokenizer, cut: Cut) -> Segment:
    """Tokenize one segment; blank and over-long rows are counted."""
    texts = [text for text in rows if 0 < len(text) <= cut.max_characters]
    blank = rows.count("")
    chosen: dict[str, list[str]] = {name: [] for name in ("train", *(n for n, _ in cut.edges))}
    for text in texts:
        chosen[cut.split_of(text)].append(text)
    parts = {}
    for name, some in chosen.items():
        tokens, lengths, kept, words, characters = array("i"), array("q"), [], 0, 0
        for text, ids in zip(some, tokenizer.encode_batch(some), strict=True):
            if len(ids) <= cut.max_length:
                tokens.extend(ids)
                lengths.append(len(ids))
                words += len(text.split()) + 1
                characters += len(text) + 1
                if name == "test":
                    kept.append(text)
        dropped = len(some) - len(lengths)
        parts[name] = Part(tokens, lengths, kept, words, characters, dropped)
    return Segment(len(rows), blank, len(rows) - blank - len(texts), parts)


def encode_all(
    segments: Iterable[list[str]], tokenizer: Tokenizer, cut: Cut, workers: int
) -> Iterator[Segment]:
    """`encode` of each, in order, by so many processes; 1 is this one alone."""
    if workers <= 1:
        for rows in segments:
            yield encode(rows, tokenizer, cut)
        return
    arguments = (tokenizer.to_json(), cut)
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _prepare, arguments)
    waiting: deque[Future[Segment]] = deque()
    try:
        for rows in segments:
            waiting.append(pool.submit(_encode, rows))
            if len(waiting) > WAITING * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


_prepared: tuple[Tokenizer, Cut]


def _prepare(tokenizer: str, cut: Cut) -> None:
    """Begin as a worker: interrupts are for the process that waits for it."""
    global _prepared  # what a pool keeps in a worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are what is parallel
    _prepared = Tokenizer.from_json(tokenizer), cut


def _encode(rows: list[str]) -> Segment:
    return encode(rows, *_prepared)
