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
    """The change at each step of S sentences but the first, `[S - 1]` in [0, 1].

    The edit distance over the length of the longer sentence: 0 is no change, 1 a sentence without a
    common token; two empty ones are equal.
    """
    return [
        edit_distance(first, second) / max(len(first), len(second), 1)
        for first, second in pairwise(sentences)
    ]
