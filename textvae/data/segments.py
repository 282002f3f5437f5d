"""Tokenizing a corpus that is streamed: segments of rows in, token ids and counts out.

Workers are processes. Nothing here imports torch: a worker takes 30 MB and starts at once.
"""

import hashlib
import os
import signal
from array import array
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from typing import NamedTuple, TypeVar

from textvae.data.rows import Exclusion, TooLong, select_rows
from textvae.data.tokenizer import Tokenizer
from textvae.errors import RankError

T = TypeVar("T")
WAITING = 2
"""Segments that wait for each worker, so that memory is bounded."""


def sentence_rank(text: str, secret: bytes) -> int:
    """64 bits of a hash of a sentence, by which splits are carved."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=secret).digest()
    return int.from_bytes(digest, "little")


class SplitRule(NamedTuple):
    """Decides to which split a sentence goes, and which sentences are dropped."""

    secret: bytes
    edges: tuple[tuple[str, float], ...]
    """Splits that are carved, each with the fraction of the hashes at which it ends."""
    max_characters: int
    max_length: int
    too_long: TooLong = "drop"

    @property
    def character_limit(self) -> int | None:
        """Characters over which a row is no sentence; None where long ones are cut or split."""
        return None if self.too_long in ("cut", "split") else self.max_characters

    def split_of(self, text: str) -> str:
        """The split of a sentence, a function of its text: copies stay together."""
        if self.edges and (rank := sentence_rank(text, self.secret)) < self.edges[-1][1] * 2**64:
            return next(name for name, edge in self.edges if rank < edge * 2**64)
        return "train"

    def split_names(self) -> list[str]:
        """`train`, and the splits that are carved."""
        return ["train", *(name for name, _ in self.edges)]


class EncodedSentences(NamedTuple):
    """Sentences as token ids; those over the limit of tokens are left out, cut or split."""

    tokens: "array[int]"
    lengths: "array[int]"
    num_words: int
    num_characters: int
    too_long: list[int]
    """The indices of the sentences over the limit."""
    sources: "array[int]"
    """The index of the sentence that each is, or is a piece of."""
    cut: "array[int]"
    """1 for each that is the beginning of a longer text, and so has no `</s>`."""


class Segment(NamedTuple):
    """Some rows, tokenized."""

    rows: int
    blank: int
    too_long_characters: int
    splits: dict[str, EncodedSentences]
    test_texts: list[str]
    """The encoded sentences of the test split."""


def encode_segment(rows: list[str], tokenizer: Tokenizer, rule: SplitRule) -> Segment:
    """Tokenize one segment; blank and over-long rows are counted."""
    selection = select_rows(rows, rule.character_limit)
    by_split: dict[str, list[str]] = {name: [] for name in rule.split_names()}
    for row in selection.rows:
        by_split[rule.split_of(rows[row])].append(rows[row])
    splits = {
        name: encode_sentences(sentences, tokenizer, rule.max_length, rule.too_long)
        for name, sentences in by_split.items()
    }
    test_texts: list[str] = []
    if "test" in splits:
        test_texts = by_split["test"]
        if rule.too_long == "drop":
            test_texts = without(test_texts, splits["test"].too_long)
    blank = selection.count(Exclusion.BLANK)
    return Segment(len(rows), blank, len(selection.excluded) - blank, splits, test_texts)


def encode_sentences(
    sentences: Sequence[str], tokenizer: Tokenizer, max_length: int, too_long: TooLong = "drop"
) -> EncodedSentences:
    """Tokenize sentences; those over `max_length` tokens are left out, cut or split."""
    tokens, lengths, words, characters = array("i"), array("q"), 0, 0
    sources, cut, over = array("q"), array("b"), list[int]()
    for index, ids in enumerate(tokenizer.encode_batch(sentences)):
        pieces = [(ids, sentences[index])]
        if len(ids) > max_length:
            over.append(index)
            pieces = shortened(sentences[index], tokenizer, max_length, too_long)
        for number, (piece, text) in enumerate(pieces, start=1):
            is_cut = len(ids) > max_length and (too_long == "cut" or number < len(pieces))
            tokens.extend(piece)
            lengths.append(len(piece))
            words += len(text.split()) + (not is_cut)
            characters += len(text) + (not is_cut)
            sources.append(index)
            cut.append(is_cut)
    return EncodedSentences(tokens, lengths, words, characters, over, sources, cut)


def shortened(
    sentence: str, tokenizer: Tokenizer, max_length: int, too_long: TooLong
) -> list[tuple[list[int], str]]:
    """The part of a sentence over the limit that is read: beginning, all pieces, or nothing."""
    if too_long not in ("cut", "split"):
        return []
    pieces = tokenizer.pieces(sentence, max_length)
    return pieces[:1] if too_long == "cut" else pieces


def shorten_texts(
    texts: Sequence[str], tokenizer: Tokenizer, max_length: int, too_long: TooLong
) -> Sequence[str]:
    """The texts as a model reads them: of one that is cut or split, the parts of it."""
    if too_long not in ("cut", "split"):
        return texts
    read: list[str] = []
    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        parts = [(ids, text)]
        if len(ids) > max_length:
            parts = shortened(text, tokenizer, max_length, too_long)
        read += [part for _, part in parts]
    return read


def without(items: Sequence[T], indices: Iterable[int]) -> list[T]:
    """The items that are not at `indices`."""
    excluded = set(indices)
    return [item for index, item in enumerate(items) if index not in excluded]


def encode_segments(
    segments: Iterable[list[str]], tokenizer: Tokenizer, rule: SplitRule, workers: int
) -> Iterator[Segment]:
    """`encode_segment` of each, in order, by `workers` processes; 1 is this process alone."""
    if workers <= 1:
        for rows in segments:
            yield encode_segment(rows, tokenizer, rule)
        return
    arguments = (tokenizer.to_json(), rule)
    others = set(active_children())
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _initialize_worker, arguments)
    waiting: deque[Future[Segment]] = deque()
    try:
        for rows in segments:
            try:
                waiting.append(pool.submit(_encode_in_worker, rows))
            except OSError as error:  # the pool closes its pipe before it calls itself broken
                raise BrokenProcessPool from error
            if len(waiting) > WAITING * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        # One that was being started when another was lost is joined by the pool, but not ended.
        for child in set(active_children()) - others:
            child.kill()
        raise RankError(
            "a process that tokenizes was lost (killed, or out of memory); the same command "
            "tokenizes again, with less memory if data.workers is lower"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
        if isinstance(segments, Generator):
            segments.close()  # the file that it reads


_worker: tuple[Tokenizer, SplitRule]


def _initialize_worker(tokenizer: str, rule: SplitRule) -> None:
    """Ignore interrupts, which are for the process that waits for this one."""
    global _worker  # what a pool keeps in a worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are what is parallel
    _worker = Tokenizer.from_json(tokenizer), rule


def _encode_in_worker(rows: list[str]) -> Segment:
    return encode_segment(rows, *_worker)
