"""How evenly sentences change along a path: edits between neighbours."""

from collections.abc import Sequence
from itertools import pairwise


def edit_distance(first: Sequence[object], second: Sequence[object]) -> int:
    """Fewest tokens to insert, delete or replace (Levenshtein 1966), in time |a| |b|."""
    row = list(range(len(second) + 1))
    for number, token in enumerate(first, start=1):
        diagonal, row[0] = row[0], number
        for place, other in enumerate(second, start=1):
            replaced = diagonal + (token != other)
            diagonal = row[place]
            row[place] = min(replaced, row[place] + 1, row[place - 1] + 1)
    return row[-1]


def changes(sentences: Sequence[Sequence[int]]) -> list[float]:
    """The change at each step but the first: edit distance over the longer sentence's length.

    0 is no change, 1 a sentence without a common token; two empty ones are equal.

    Args:
        sentences: the tokens of S sentences.

    Returns:
        S - 1 numbers in [0, 1].
    """
    return [
        edit_distance(first, second) / max(len(first), len(second), 1)
        for first, second in pairwise(sentences)
    ]
