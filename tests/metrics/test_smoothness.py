"""Edit distances against their definition by recursion, and the changes of known paths."""

from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import pytest

from textvae.metrics.smoothness import changes, edit_distance
from textvae.randomness import hash64


def recursive(first: Sequence[int], second: Sequence[int]) -> int:
    @cache
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        replaced = distance(i - 1, j - 1) + (first[i - 1] != second[j - 1])
        return min(replaced, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    return distance(len(first), len(second))


def sentence(number: int) -> list[int]:
    return [hash64(number, place) % 3 for place in range(hash64(number) % 11)]


def test_distances_are_those_of_the_recursion() -> None:
    sentences = [sentence(number) for number in range(23)]
    for first in sentences:
        for second in sentences:
            found = edit_distance(first, second)
            assert found == recursive(first, second) == edit_distance(second, first)
            assert (found == 0) == (first == second)


@pytest.mark.parametrize(
    ("sentences", "expected"),
    [
        ([[1, 2, 3], [1, 2, 3]], [0.0]),
        ([[1, 2], [3, 4], [3, 4, 5, 6]], [1.0, 0.5]),
        ([[], [], [7]], [0.0, 1.0]),
        ([[1, 2, 3, 4], [2, 3, 4]], [0.25]),
        ([[1]], []),
    ],
)
def test_a_change_is_a_share_of_the_longer_sentence(
    sentences: list[list[int]], expected: list[float]
) -> None:
    assert changes(sentences) == expected


def test_changes_are_between_neighbours() -> None:
    sentences = [sentence(number) for number in range(23)]
    found = changes(sentences)
    assert found == [changes([first, second])[0] for first, second in pairwise(sentences)]
    assert all(0.0 <= change <= 1.0 for change in found)
