"""The order of a corpus that is too large for its order to be held: every sentence, once."""

import pytest
import torch

from textvae.data import batching
from textvae.data.batching import BatchesConfig, EqualLengthBatches, Lengths, PooledBatches
from textvae.randomness import hashes, key, shuffled


@pytest.mark.parametrize("size", [1, 2, 3, 7, 97, 1024, 3001])
def test_shuffled_is_a_permutation_that_needs_no_other_position(size: int) -> None:
    found = shuffled(5, size, torch.arange(size))
    assert found.sort().values.tolist() == list(range(size))
    some = torch.arange(0, size, 3)
    assert shuffled(5, size, some).tolist() == found[some].tolist()


def test_shuffled_is_uniform_and_forgets_neighbours() -> None:
    """Chi-square of where a position goes, and of how far apart two neighbours come to lie."""
    size, keys = 11, 2200
    found = torch.stack(
        [shuffled(key(number, "test"), size, torch.arange(size)) for number in range(keys)]
    )
    gaps = (found[:, 1:] - found[:, :-1]) % size
    for values, cells in ((found, size), (gaps - 1, size - 1)):
        for column in values.t():
            counts = column.bincount(minlength=cells).double()
            expected = keys / cells
            chi_square = float(((counts - expected) ** 2 / expected).sum())
            assert chi_square < 36, "the 0.0001 tail of 10 degrees of freedom"


def lengths(size: int) -> Lengths:
    drawn = hashes(1, torch.arange(size)) % 29
    return Lengths(torch.cat([torch.zeros(1, dtype=torch.int64), drawn.cumsum(0)]))


@pytest.mark.parametrize("config", [PooledBatches(pool=3), EqualLengthBatches()])
def test_a_large_corpus_has_every_sentence_once_an_epoch(
    config: BatchesConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "WINDOW", 2)
    sizes = lengths(211)
    for epoch in (0, 1):
        order = config.order(sizes, 7, seed=3, epoch=epoch)
        assert len(order) == config.count(sizes, 7)
        assert torch.cat(list(order)).sort().values.tolist() == list(range(211))
        again = config.order(sizes, 7, seed=3, epoch=epoch)
        assert again[len(order) - 1].tolist() == order[len(order) - 1].tolist(), "from anywhere"
    first, second = (config.order(sizes, 7, seed=3, epoch=epoch) for epoch in (0, 1))
    assert torch.cat(list(first)).tolist() != torch.cat(list(second)).tolist()


def test_windows_pool_similar_lengths() -> None:
    sizes = lengths(4001)
    order = PooledBatches().order(sizes, 20, seed=3, epoch=0)
    padded = sum(len(batch) * int(sizes.of(batch).max()) for batch in order)
    assert padded < 1.05 * float(sizes.of(torch.arange(4001)).sum())
