"""The nearest of a stream are those that sorting everything finds."""

import math

import pytest
import torch
from torch import Tensor

from textvae.errors import ConfigError, DataError
from textvae.generate.neighbors import AggregateMoments, Nearest, Neighbor
from textvae.model.gaussian import DiagonalGaussian
from textvae.randomness import key, normals

Z, N, Q = 5, 1009, 3


def points(purpose: str, size: int) -> Tensor:
    return normals(key(7, purpose), torch.arange(size), lanes=Z)


def brute(
    queries: Tensor, texts: list[str], latents: Tensor, size: int, scale: Tensor
) -> list[list[Neighbor]]:
    found = []
    for query in queries.tolist():
        rows = []
        for index, latent in enumerate(latents.tolist()):
            parts = zip(query, latent, scale.tolist(), strict=True)
            rows.append((math.sqrt(sum(((a - b) / s) ** 2 for a, b, s in parts)), index))
        best: dict[str, Neighbor] = {}
        for distance, index in sorted(rows):
            best.setdefault(texts[index], Neighbor(texts[index], index, distance))
        found.append(list(best.values())[:size])
    return found


def stream(
    queries: Tensor, texts: list[str], latents: Tensor, size: int, chunk: int, scale: Tensor | None
) -> list[list[Neighbor]]:
    nearest = Nearest(queries, size, scale)
    for rows in torch.arange(len(texts)).split(chunk):  # type: ignore[no-untyped-call]
        indices = rows.tolist()
        nearest.add([texts[i] for i in indices], indices, latents[rows])
    return nearest.ranked()


def same(found: list[list[Neighbor]], expected: list[list[Neighbor]]) -> None:
    for near, truth in zip(found, expected, strict=True):
        assert [one[:2] for one in near] == [one[:2] for one in truth]
        assert [one.distance for one in near] == pytest.approx([one.distance for one in truth])


@pytest.mark.parametrize("chunk", [1, 17, 2000])
@pytest.mark.parametrize("size", [1, 11, 2000])
@pytest.mark.parametrize("scaled", [False, True])
def test_a_stream_finds_what_sorting_finds(chunk: int, size: int, scaled: bool) -> None:
    queries, latents = points("queries", Q), points("corpus", N)
    texts = [f"text {i}" for i in range(N)]
    scale = torch.tensor([0.1, 1.0, 7.0, 2.0, 0.5], dtype=torch.float64) if scaled else None
    found = stream(queries, texts, latents, size, chunk, scale)
    same(found, brute(queries, texts, latents, size, torch.ones(Z) if scale is None else scale))
    assert [len(near) for near in found] == [min(size, N)] * Q


@pytest.mark.parametrize("chunk", [1, 7, 400])
def test_a_text_that_comes_again_is_listed_once(chunk: int) -> None:
    latents = points("few", 13).repeat(31, 1)
    texts = [f"text {i % 13}" for i in range(len(latents))]
    queries = points("queries", Q)
    found = stream(queries, texts, latents, 5, chunk, None)
    same(found, brute(queries, texts, latents, 5, torch.ones(Z)))
    assert all(one.number < 13 for near in found for one in near)


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_of_equal_distances_the_earlier_is_nearer(chunk: int) -> None:
    texts = [f"text {i}" for i in range(23)]
    found = stream(torch.zeros(1, Z), texts, torch.ones(23, Z), 7, chunk, None)
    assert [one.number for one in found[0]] == list(range(7))


def test_near_ones_are_told_apart_far_from_the_origin() -> None:
    # By |a|^2 - 2ab + |b|^2 in float32 all of these would be at distance 0 or 11.
    query = torch.full((1, Z), 1000.0)
    latents = query + torch.tensor([0.003, 0.001, 0.002])[:, None]
    found = stream(query, ["c", "a", "b"], latents, 3, 3, None)
    assert [one.text for one in found[0]] == ["a", "b", "c"]


def test_no_neighbors_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        Nearest(torch.zeros(1, Z), 0)


def test_moments_are_those_of_the_mixture() -> None:
    mean, log_variance = 3.0 + points("mean", N), points("log variance", N)
    moments = AggregateMoments()
    for rows in torch.arange(N).split(100):  # type: ignore[no-untyped-call]
        moments.add(DiagonalGaussian(mean[rows], log_variance[rows]))
    torch.testing.assert_close(moments.mean, mean.double().mean(0))
    expected = mean.double().var(0, correction=0) + log_variance.double().exp().mean(0)
    torch.testing.assert_close(moments.deviation, expected.sqrt())


def test_moments_of_posteriors_that_are_the_prior_are_its_own() -> None:
    moments = AggregateMoments()
    moments.add(DiagonalGaussian(torch.zeros(7, Z), torch.zeros(7, Z)))
    assert torch.equal(moments.mean, torch.zeros(Z, dtype=torch.float64))
    assert torch.equal(moments.deviation, torch.ones(Z, dtype=torch.float64))
    with pytest.raises(DataError, match="no sentence"):
        _ = AggregateMoments().deviation
