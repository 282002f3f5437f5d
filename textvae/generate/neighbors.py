"""Exact nearest neighbours in a stream of latents, in memory for n per query."""

import heapq
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from textvae.errors import ConfigError, DataError
from textvae.model.gaussian import DiagonalGaussian


class Neighbor(NamedTuple):
    """A sentence near another in the latent space."""

    text: str
    number: int
    """Its row in the corpus, from 0."""
    distance: float
    """From posterior mean to posterior mean, in units of the latent (or of its scale)."""


class Nearest:
    """The n nearest different texts to each of Q queries, from a corpus added in blocks.

    Distances are sums of squared differences in float64, not the cheaper |a|^2 - 2ab + |b|^2,
    whose cancellation reorders near neighbours. Of equal distances the earlier text is nearer; a
    text that comes again is not listed again.
    """

    def __init__(
        self, queries: Tensor, size: int, scale: Tensor | None = None, *, cosine: bool = False
    ) -> None:
        """Start without candidates for queries `[Q, Z]`, n = `size` >= 1 neighbours each.

        Every difference is divided by `scale` `[Z]`; None is 1. With `cosine` the distance is
        1 - cos of the angle between two latents.
        """
        if size < 1:
            raise ConfigError(f"the nearest {size}: must be at least 1")
        self._scale = torch.ones(queries.shape[1]) if scale is None else scale.cpu()
        self._cosine = cosine
        self._queries = self._points(queries)
        self._size = size
        self._nearest: list[list[Neighbor]] = [[] for _ in range(queries.shape[0])]

    def _points(self, latents: Tensor) -> Tensor:
        """Latents as distances are taken between them: scaled, or of length 1."""
        points = latents.cpu().double()
        return F.normalize(points, dim=1) if self._cosine else points / self._scale

    def add(self, texts: Sequence[str], numbers: Sequence[int], latents: Tensor) -> None:
        """Add B texts, with their numbers in the corpus and latents `[B, Z]`."""
        first: dict[str, int] = {}
        for place, text in enumerate(texts):
            first.setdefault(text, place)
        rows = list(first.values())
        points = self._points(latents)[rows]
        distances = torch.cdist(self._queries, points, compute_mode="donot_use_mm_for_euclid_dist")
        if self._cosine:
            distances = distances.square() / 2
        for query, nearest in enumerate(self._nearest):
            row = distances[query]
            near = torch.arange(len(rows))
            if len(nearest) == self._size:
                near = (row < nearest[-1].distance).nonzero()[:, 0]
            # The first copy stands: by rounding in another batch a later one may seem nearer.
            known = {one.text for one in nearest}
            order = near[row[near].argsort(stable=True)].tolist()
            candidates = (
                Neighbor(texts[rows[i]], numbers[rows[i]], float(row[i]))
                for i in order
                if texts[rows[i]] not in known
            )
            merged = heapq.merge(nearest, candidates, key=lambda one: one.distance)
            self._nearest[query] = list(islice(merged, self._size))

    def ranked(self) -> list[list[Neighbor]]:
        """For each query, the nearest first; fewer than n where the corpus has fewer texts."""
        return [list(nearest) for nearest in self._nearest]


class AggregateMoments:
    """Mean and standard deviation of the aggregate posterior (1/N) sum_i q(z|x_i), by the stream.

    Its variance is that of the posterior means plus the mean of the posterior variances (the law
    of total variance), so a dimension that carries nothing has about the prior's 1, and not the
    tiny spread of its means.
    """

    def __init__(self) -> None:
        self._count = 0
        self._sums: tuple[Tensor, Tensor, Tensor] | None = None

    def add(self, posterior: DiagonalGaussian) -> None:
        """Let B posteriors `[B, Z]` go by."""
        mean = posterior.mean.cpu().double()
        parts = (mean, mean.square(), posterior.log_variance.cpu().double().exp())
        sums = [part.sum(0) for part in parts]
        before = self._sums or (torch.zeros_like(sums[0]),) * 3
        first, second, third = (a + b for a, b in zip(before, sums, strict=True))
        self._sums = (first, second, third)
        self._count += mean.shape[0]

    @property
    def mean(self) -> Tensor:
        """Float64 `[Z]`; DataError before anything went by."""
        return self._found()[0] / self._count

    @property
    def deviation(self) -> Tensor:
        """Float64 `[Z]`, with divisor N; DataError before anything went by."""
        first, second, variance = self._found()
        spread = (second / self._count - (first / self._count).square()).clamp(min=0.0)
        return (spread + variance / self._count).sqrt()

    def _found(self) -> tuple[Tensor, Tensor, Tensor]:
        if self._sums is None:
            raise DataError("no sentence to take the moments of; give a corpus")
        return self._sums
