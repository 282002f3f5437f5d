"""The evaluator `interpolation`: how even and how fluent the ways between sentences are."""

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from typing import Annotated, NamedTuple

import torch
from msgspec import Meta

from textvae.config import Config
from textvae.data.batching import TokenArray
from textvae.evaluate.bounds import clamped_exp
from textvae.evaluate.measurements import Figure
from textvae.evaluate.subject import Subject
from textvae.generate.interpolation import PathKind, path_through
from textvae.generate.strategies import Greedy
from textvae.generate.writing import AnyStrategy, write
from textvae.metrics.latent_usage import standard_error
from textvae.metrics.likelihood import encode_corpus, importance_weighted, likeliest_labels
from textvae.metrics.smoothness import changes, edit_distance
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
    """K of the importance-weighted bound that judges fluency."""

    def run(self, subject: Subject) -> Iterator[Figure]:
        """The figures; none of a language model, and unknown where there is but one sentence."""
        if subject.model.is_language_model:
            return
        order = permutation(key(subject.seed, "pairs"), subject.data.num_sentences)
        pairs = order[: 2 * min(self.num_paths, len(order) // 2)].view(-1, 2)
        if not len(pairs):
            for name in ("path_change", "path_largest_change", "path_detour", "path_perplexity"):
                yield Figure(name=name, value=None, stderr=None, settings="there is no pair")
            return
        paths = self._paths(subject, pairs)
        settings = f"{len(paths):,} {self.path} paths of {self.steps} sentences"
        yield from _smooth(paths, settings)
        middles = [ids for path in paths for ids in path[1:-1]]
        yield Figure(
            name="path_perplexity",
            value=self._perplexity(subject, TokenArray.from_lists(middles, subject.data.start)),
            unit="per token",
            settings=f"fluency: of the {len(middles):,} sentences between the ends, read as new "
            f"ones by the model itself, K = {self.num_samples}",
        )
        ends = subject.data.select(pairs.flatten().to(subject.data.offsets.device))
        yield Figure(
            name="path_ends_perplexity",
            value=self._perplexity(subject, ends),
            unit="per token",
            settings=f"to compare: of the {ends.num_sentences:,} sentences of the corpus that "
            f"were paired, K = {self.num_samples}",
        )
        if subject.grammar is not None:
            accepts = subject.grammar.accepts
            good = torch.tensor([accepts(subject.tokenizer.decode(ids)) for ids in middles])
            yield Figure(
                name="path_grammatical",
                value=float(good.double().mean()),
                unit="share",
                settings=f"of the {len(middles):,} between the ends, by the grammar of the corpus",
            )

    def _paths(self, subject: Subject, pairs: torch.Tensor) -> list[list[list[int]]]:
        mean = subject.posterior.mean
        latents = torch.cat(
            [
                path_through(
                    mean[pair.to(mean.device)],
                    steps=self.steps,
                    path=self.path,
                    prior=subject.model.prior,
                )
                for pair in pairs
            ]
        )
        labels = likeliest_labels(subject.model, subject.data)
        if labels is not None:  # a path keeps the label of its first sentence
            first = pairs[:, 0].to(labels.device)
            labels = labels[first].repeat_interleave(self.steps)
        written = write(
            subject.model,
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
    still = len(figures) - len(detours)
    note = f"{settings}, {still:,} with one sentence at both ends left out" if still else settings
    columns = {
        "path_change": ([one.mean_change for one in figures], "share", f"a step, {settings}"),
        "path_largest_change": (
            [one.largest_change for one in figures],
            "share",
            f"the largest step, {settings}",
        ),
        "path_detour": (detours, "", f"edits of the steps over edits end to end, {note}"),
    }
    for name, (values, unit, how) in columns.items():
        column = torch.tensor(values, dtype=torch.float64)
        yield Figure(
            name=name,
            value=float(column.mean()) if len(column) else None,
            stderr=standard_error(column),
            unit=unit,
            settings=how,
        )
    different = [len(set(map(tuple, path))) for path in paths]
    total = len(list(chain.from_iterable(paths)))
    yield Figure(
        name="path_distinct",
        value=sum(different) / total,
        unit="share",
        settings=f"different sentences of a path, {settings}",
    )
