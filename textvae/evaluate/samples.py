"""The evaluator `samples`: how varied, new and true to the corpus sentences from the prior are."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated

import torch
from msgspec import Meta

from textvae.config import Config
from textvae.evaluate.measurements import NO_TRAINING_SET, Figure, mean_figure
from textvae.evaluate.subject import Subject, token_lists
from textvae.generate.strategies import Strategy, Temperature
from textvae.metrics.text_quality import (
    ORDER,
    Tokenization,
    cut,
    distinct,
    pooled_bleu,
    self_bleu,
    tokenization_for,
)

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class SamplesEvaluator(Config, tag_field="kind", tag="samples"):
    """Self-BLEU, corpus BLEU, distinct n-grams, novelty and lengths of sentences from the prior."""

    num_samples: Annotated[int, Meta(ge=2)] = 1000
    """Sentences drawn; most of these figures depend on how many."""
    max_sentences: Annotated[int, Meta(ge=1)] = 10_000
    """References of corpus BLEU: a random subset of this size where there are more."""
    strategy: Strategy = Temperature()
    """How words are chosen."""
    tokenize: Tokenization | None = None
    """Tokenizer of sacrebleu; None is none for words, 13a for bpe, char for
    characters and for text without blanks between words."""

    def run(self, subject: Subject) -> Iterator[Figure]:
        """The figures; of a language model too, whose samples have no latent."""
        drawn = subject.samples(self.num_samples, self.strategy)
        texts = [subject.tokenizer.decode(ids) for ids in drawn]
        how = self.tokenize or tokenization_for(subject.tokenizer.kind, subject.texts)
        tokens, size = cut(texts, how), f"{len(texts):,} samples"
        between = self_bleu(tokens, how)
        assert between is not None
        settings = f"{between.signature}, mean of {size}, each against the others"
        yield Figure("self_bleu", between.value, "0 to 100", settings)
        yield self._self_bleu_of_data(subject, how)
        rows = subject.subset(self.max_sentences, "references").tolist()
        against = pooled_bleu(tokens, cut([subject.texts[i] for i in rows], how), how)
        settings = f"{against.signature}, {size} against {len(rows):,} sentences"
        yield Figure("corpus_bleu", against.value, "0 to 100", settings)
        for order in range(1, ORDER + 1):
            settings = f"of all {order}-grams of {size}"
            yield Figure(f"distinct_{order}", distinct(tokens, order), "share", settings)
        yield Figure("unique", len(set(texts)) / len(texts), "share", f"of {size}")
        yield self._novelty(subject, texts)
        yield from _lengths(drawn, subject, size)
        if subject.grammar is not None:
            accepted = torch.tensor([subject.grammar.accepts(text) for text in texts])
            settings = f"of {size}, by the grammar of the corpus"
            yield mean_figure("grammatical", accepted, "share", settings)

    def _self_bleu_of_data(self, subject: Subject, how: Tokenization) -> Figure:
        """Self-BLEU of as many real sentences, to compare."""
        rows = subject.subset(self.num_samples, "self-bleu").tolist()
        score = self_bleu(cut([subject.texts[i] for i in rows], how), how)
        settings = f"to compare, of {len(rows):,} sentences"
        if score is None:
            return Figure("data_self_bleu", None, "0 to 100", settings)
        return Figure("data_self_bleu", score.value, "0 to 100", f"{settings}, {score.signature}")

    def _novelty(self, subject: Subject, texts: Sequence[str]) -> Figure:
        """The fraction of the samples that are no training sentence, as the tokenizer sees both."""
        training, size = subject.training, f"{len(texts):,} samples"
        if training is None:
            return Figure("novelty", None, "share", NO_TRAINING_SET, stderr=None)
        # Encoded again: a sub-word model may write a sentence in other pieces than it has read.
        samples = [tuple(ids) for ids in subject.tokenizer.encode_batch(texts)]
        known = set(samples).intersection(map(tuple, token_lists(training.array)))
        new = torch.tensor([ids not in known for ids in samples])
        settings = f"of {size} not among {training.facts.num_sentences:,} training sentences"
        return mean_figure("novelty", new, "share", settings)


def _lengths(drawn: Sequence[Sequence[int]], subject: Subject, size: str) -> Iterator[Figure]:
    """Lengths of the samples and of the corpus; tokens of the model, `</s>` counted."""
    ours = torch.tensor([len(ids) + 1 for ids in drawn]).double()
    theirs = subject.data.lengths.double()
    points, at = torch.tensor(QUANTILES).double(), ", ".join(map(str, QUANTILES))
    for name, values, whose in (
        ("length", ours, size),
        ("data_length", theirs, f"{len(theirs):,} sentences"),
    ):
        quantiles = torch.quantile(values, points).tolist()
        counts = histogram([int(value) for value in values.tolist()])
        yield mean_figure(f"{name}_mean", values, "tokens", f"{whose}, </s> counted")
        yield Figure(f"{name}_quantiles", quantiles, "tokens", f"{whose}, at {at}")
        yield Figure(f"{name}_histogram", counts, "sentences", f"{whose}, of 1, 2, 3, ... tokens")
    settings = "Wasserstein-1, lengths of samples and of the sentences"
    yield Figure("length_distance", wasserstein(ours, theirs), "tokens", settings)
    full = sum(len(ids) >= subject.max_length for ids in drawn)
    settings = f"of {size} that fill the model's {subject.max_length:,} tokens"
    yield Figure("truncated", full / len(drawn), "share", settings)


def histogram(lengths: Sequence[int]) -> list[float]:
    """The counts of 1, 2, 3, ... up to the longest."""
    counts = Counter(lengths)
    return [float(counts[length]) for length in range(1, max(lengths) + 1)]


def wasserstein(first: torch.Tensor, second: torch.Tensor) -> float:
    """The area between the distribution functions of two sets of numbers (Vallender 1974)."""
    points = torch.cat([first, second]).sort().values
    at = points[:-1].contiguous()
    fractions = [
        torch.searchsorted(values.sort().values, at, right=True).double() / len(values)
        for values in (first, second)
    ]
    return float(((fractions[0] - fractions[1]).abs() * points.diff()).sum())
