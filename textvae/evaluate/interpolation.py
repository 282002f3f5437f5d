"""The evaluator `interpolation`: how even and how fluent the ways between sentences are."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Annotated, NamedTuple

import torch
from msgspec import Meta

from textvae.config import Config
from textvae.data.batching import TokenArray
from textvae.evaluate.bounds import clamped_exp
from textvae.evaluate.measurements import Figure, mean_figure
from textvae.evaluate.subject import Subject
from textvae.generate.paths import PathKind, path_through
from textvae.generate.strategies import Greedy
from textvae.generate.writing import AnyStrategy, write
from textvae.metrics.likelihood import encode_corpus, importance_weighted, likeliest_labels
from textvae.metrics.text_quality import changes, edit_distance
from textvae.randomness import key, permutation


class Smoothness(NamedTuple):
    """How evenly the sentences of one path change."""

    mean_change: float
    """The mean over steps of the edit distance over the longer sentence, 0 to 1."""
    largest_change: float
    detour: float | None
    """Edits of all steps over edits from end to end: 1 is the least there can be (the triangle
    inequality). None where both ends are one sentence."""


def smoothness(path: Sequence[Sequence[int]]) -> Smoothness:
    """The figures of a path of S >= 2 sentences, as tokens."""
    changed = changes(path)
    whole = edit_distance(path[0], path[-1])
    steps = sum(edit_distance(first, second) for first, second in pairwise(path))
    return Smoothness(sum(changed) / len(changed), max(changed), steps / whole if whole else None)


class InterpolationEvaluator(Config, tag_field="kind", tag="interpolation"):
    """Smoothness and fluency of interpolations between random pairs of sentences."""

    num_paths: Annotated[int, Meta(ge=1)] = 200
    """Pairs, no sentence in two of them; fewer where there are fewer sentences."""
    steps: Annotated[int, Meta(ge=3)] = 7
    """Sentences of a path, both ends included."""
    path: PathKind = "straight"
    """`data` follows the density of the prior, which has to be a mixture."""
    strategy: AnyStrategy = Greedy()
    """How words are chosen."""
    num_samples: Annotated[int, Meta(ge=1)] = 10
    """K of the importance-weighted bound that measures fluency."""

    def run(self, subject: Subject) -> Iterator[Figure]:
        """The figures; none of a language model, and unknown where there is but one sentence."""
        if subject.model.is_language_model:
            return
        order = permutation(key(subject.seed, "pairs"), subject.data.num_sentences)
        pairs = order[: 2 * min(self.num_paths, len(order) // 2)].view(-1, 2)
        if not len(pairs):
            for name in ("path_change", "path_largest_change", "path_detour", "path_perplexity"):
                yield Figure(name, None, settings="there is no pair", stderr=None)
            return
        paths = self._paths(subject, pairs)
        settings = f"{len(paths):,} {self.path} paths of {self.steps} sentences"
        yield from _smooth(paths, settings)
        middles = [ids for path in paths for ids in path[1:-1]]
        between, bound = f"the {len(middles):,} sentences between the ends", self.num_samples
        perplexity = self._perplexity(subject, TokenArray.from_lists(middles, subject.data.start))
        note = f"fluency: of {between}, read as new ones by the model itself, K = {bound}"
        yield Figure("path_perplexity", perplexity, "per token", note)
        ends = subject.data.select(pairs.flatten())
        note = f"to compare: of the {ends.num_sentences:,} paired sentences, K = {bound}"
        yield Figure("path_ends_perplexity", self._perplexity(subject, ends), "per token", note)
        if subject.grammar is not None:
            accepts = subject.grammar.accepts
            good = [accepts(subject.tokenizer.decode(ids)) for ids in middles]
            note = f"of {between}, by the grammar of the corpus"
            yield Figure("path_grammatical", sum(good) / len(good), "share", note)

    def _paths(self, subject: Subject, pairs: torch.Tensor) -> list[list[list[int]]]:
        mean, pairs = subject.posterior.mean, pairs.to(subject.posterior.mean.device)
        steps, path, prior = self.steps, self.path, subject.model.prior
        latents = torch.cat(
            [path_through(mean[i], steps=steps, path=path, prior=prior) for i in pairs]
        )
        labels = likeliest_labels(subject.model, subject.data)
        if labels is not None:  # a path keeps the label of its first sentence
            labels = labels[pairs[:, 0]].repeat_interleave(self.steps)
        written = write(
            subject.model,
            subject.tokenizer,
            subject.model.condition(latents, labels),
            self.strategy,
            seed=subject.seed,
            max_length=subject.max_length,
        )
        return [written[i : i + self.steps] for i in range(0, len(written), self.steps)]

    def _perplexity(self, subject: Subject, array: TokenArray) -> float:
        data = array.to(subject.model.device)
        likelihoods = importance_weighted(
            subject.model,
            data,
            encode_corpus(subject.model, data, dtype=subject.dtype),
            num_samples=self.num_samples,
            seed=subject.seed,
            rows=subject.rows,
            dtype=subject.dtype,
        )
        return clamped_exp(float(likelihoods.nll.sum()) / data.num_targets)


def _smooth(paths: Sequence[Sequence[Sequence[int]]], settings: str) -> Iterator[Figure]:
    figures = [smoothness(path) for path in paths]
    detours = [one.detour for one in figures if one.detour is not None]
    note = f"edits of the steps over edits end to end, {settings}"
    if len(detours) < len(figures):
        note += f", {len(figures) - len(detours):,} with one sentence at both ends left out"
    mean = torch.tensor([one.mean_change for one in figures], dtype=torch.float64)
    largest = torch.tensor([one.largest_change for one in figures], dtype=torch.float64)
    yield mean_figure("path_change", mean, "share", f"per step, {settings}")
    yield mean_figure("path_largest_change", largest, "share", f"the largest step, {settings}")
    yield mean_figure("path_detour", torch.tensor(detours, dtype=torch.float64), "", note)
    distinct = sum(len(set(map(tuple, path))) for path in paths) / sum(map(len, paths))
    note = f"different sentences of a path, {settings}"
    yield Figure("path_distinct", distinct, "share", note)
