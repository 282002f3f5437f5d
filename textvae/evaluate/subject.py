"""The input of evaluators: a model, its sentences, and results that several of them need."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from textvae.data.batching import TokenArray
from textvae.data.grammar import embedded_grammar
from textvae.data.tokenizer import Tokenizer
from textvae.evaluate.measurements import MeasuredCorpus
from textvae.generate.strategies import Strategy
from textvae.generate.writing import write
from textvae.metrics.likelihood import encode_corpus
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.interfaces import UNKNOWN
from textvae.model.vae import VAE
from textvae.randomness import key, permutation

TOGETHER = 100_000
"""Sentences of a corpus that are lists at the same time."""


class TokenizedCorpus(NamedTuple):
    """N sentences, tokenized, and their counts."""

    array: TokenArray
    facts: MeasuredCorpus


class Subject:
    """A model in evaluation mode and the sentences it is measured on.

    Evaluators do not change it. Posteriors and samples are computed on first use.
    """

    def __init__(
        self,
        model: VAE,
        tokenizer: Tokenizer,
        corpus: TokenizedCorpus,
        *,
        max_length: int,
        texts: Sequence[str] | None = None,
        embedded: bool = False,
        split: Callable[[str], TokenizedCorpus | None] = lambda name: None,
        seed: int = 0,
        rows: int | None = None,
        dtype: torch.dtype = torch.float32,
        report: Callable[[str], object] = lambda line: None,
    ) -> None:
        """Hold the arguments.

        Args:
            model: on its device.
            tokenizer: of the model.
            corpus: N sentences.
            max_length: the most tokens of a generated sentence.
            texts: of the same sentences, where they are available.
            embedded: whether they are of the embedded corpus, whose grammar is known.
            split: finds the `train` and `valid` sentences that the model was made with.
            seed: of every draw.
            rows: latents decoded at once.
            dtype: of the matrix products.
            report: takes lines of progress.
        """
        self.model, self.tokenizer = model, tokenizer
        self.data, self.facts = corpus.array.to(model.device), corpus.facts
        self.max_length, self.seed, self.rows, self.dtype = max_length, seed, rows, dtype
        self.grammar = embedded_grammar() if embedded else None
        self._texts, self._split, self.report = texts, split, report
        self._samples: dict[Strategy, list[list[int]]] = {}

    @cached_property
    def texts(self) -> list[str]:
        """The sentences, or their decoded tokens (`facts.decoded`)."""
        if self._texts is not None:
            return list(self._texts)
        return [self.tokenizer.decode(ids) for ids in token_lists(self.data)]

    @cached_property
    def posterior(self) -> DiagonalGaussian:
        """The posteriors of the sentences, `[N, Z]`."""
        return encode_corpus(self.model, self.data, dtype=self.dtype)

    @cached_property
    def training(self) -> TokenizedCorpus | None:
        """The sentences that the model was trained on, where they can be found."""
        return self._split("train")

    @property
    def training_if_read(self) -> TokenizedCorpus | None:
        """The same if an evaluator has asked for it."""
        return self.training if "training" in self.__dict__ else None

    @cached_property
    def validation(self) -> TokenizedCorpus | None:
        """The sentences that its parameters were selected by, where they can be found."""
        return self._split("valid")

    def samples(self, size: int, strategy: Strategy) -> list[list[int]]:
        """So many sentences from the prior, as tokens without `</s>`; sample i of (seed, i)."""
        known = self._samples.get(strategy, [])
        if len(known) < size:
            latents = self.model.prior.sample(size, seed=self.seed)
            labels = self.model.labels.sample(size, seed=self.seed)
            with torch.inference_mode():
                read = self.model.condition(latents.to(self.model.device), labels)
            known = write(
                self.model,
                self.tokenizer,
                read,
                strategy,
                seed=self.seed,
                max_length=self.max_length,
            )
            self._samples[strategy] = known
        return known[:size]

    def subset(self, size: int | None, purpose: str) -> Tensor:
        """Indices of at most so many sentences, drawn for a purpose, in their order: int64."""
        total = self.data.num_sentences
        if size is None or size >= total:
            return torch.arange(total)
        return permutation(key(self.seed, "subset", purpose), total)[:size].sort().values


def token_lists(data: TokenArray) -> Iterator[list[int]]:
    """The tokens of each sentence, without `</s>`; in memory that does not grow with them."""
    for first in range(0, data.num_sentences, TOGETHER):
        ends = data.offsets[first : first + TOGETHER + 1].tolist()
        flat = data.tokens[ends[0] : ends[-1]].tolist()
        yield from (flat[begin - ends[0] : end - ends[0]] for begin, end in pairwise(ends))


def count_unknown(data: TokenArray) -> int:
    """Tokens that are `<unk>`, which cost less than the words they stand for."""
    return int((data.tokens == UNKNOWN).sum())


class SourceTruth(NamedTuple):
    """The exact likelihood of sentences of the embedded corpus, nats per sentence."""

    nll: float
    """-log of their probability, averaged: no model does better on average over draws."""
    entropy: float
    """The expectation of `nll`."""


def source_truth(texts: Sequence[str]) -> SourceTruth:
    """The truth about sentences of the embedded corpus."""
    grammar = embedded_grammar()
    nll = -math.fsum(map(grammar.log_probability, texts)) / len(texts)
    return SourceTruth(nll, grammar.entropy())
