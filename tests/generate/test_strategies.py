"""Each rule draws from its own distribution, and never a word it does not allow."""

import math
from typing import NamedTuple

import pytest
import torch

from textvae.generate.strategies import Greedy, Nucleus, Strategy, Temperature, TopK, Typical
from textvae.randomness import Draws, key, uniforms

B, V, DRAWS = 7, 13, 5003


class Fixed(NamedTuple):
    """Numbers that were not drawn, the same in every round."""

    numbers: torch.Tensor

    def uniforms(self, number: int = 0) -> torch.Tensor:
        return self.numbers

    def select(self, rows: torch.Tensor) -> "Fixed":
        return Fixed(self.numbers[rows])


def some_draws(name: str, count: int) -> Draws:
    return Draws(key(2, name), torch.arange(count), torch.zeros(count, dtype=torch.int64))


BELOW_ONE = 1.0 - 2.0**-24


def logits(rows: int = B, words: int = V) -> torch.Tensor:
    flat = uniforms(key(1, "logits"), torch.arange(rows * words))
    return (6.0 * flat - 3.0).view(rows, words)


def draws(strategy: Strategy, row: torch.Tensor, name: str = "draws") -> torch.Tensor:
    """How often each word comes out of DRAWS draws from one row `[V]`."""
    found = strategy(row.expand(DRAWS, -1), some_draws(name, DRAWS))
    assert found.shape == (DRAWS,)
    assert found.dtype == torch.int64
    return found.bincount(minlength=row.shape[0])


def assert_drawn_from(expected: torch.Tensor, counts: torch.Tensor) -> None:
    """Pearson's chi-square, within five standard deviations; nothing where nothing may be."""
    assert int(counts[expected == 0].sum()) == 0
    kept = expected > 0
    mean = expected[kept].double() * counts.sum()
    chi_square = float(((counts[kept] - mean).square() / mean).sum())
    freedom = int(kept.sum()) - 1
    assert chi_square <= freedom + 5.0 * math.sqrt(2.0 * freedom)


def only(probabilities: torch.Tensor, kept: list[int]) -> torch.Tensor:
    """The probabilities of some words, normalised, and zero for all others."""
    result = torch.zeros_like(probabilities)
    result[kept] = probabilities[kept]
    return result / result.sum()


# -- distributions -----------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_temperature_draws_from_the_softmax_of_the_divided_logits(temperature: float) -> None:
    row = logits()[0]
    expected = (row.double() / temperature).softmax(0)
    assert_drawn_from(expected, draws(Temperature(temperature=temperature), row))


@pytest.mark.parametrize(("k", "temperature"), [(2, 1.0), (5, 0.7), (V, 1.0), (V + 4, 1.3)])
def test_top_k_draws_from_the_k_likeliest_words(k: int, temperature: float) -> None:
    row = logits()[1]
    likeliest = row.argsort(descending=True)[:k].tolist()
    expected = only((row.double() / temperature).softmax(0), likeliest)
    assert_drawn_from(expected, draws(TopK(k=k, temperature=temperature), row))


@pytest.mark.parametrize(("p", "temperature"), [(0.3, 1.0), (0.8, 1.0), (0.8, 2.0), (0.97, 0.6)])
def test_the_nucleus_draws_from_the_smallest_set_with_its_mass(
    p: float, temperature: float
) -> None:
    row = logits()[2]
    probabilities = (row.double() / temperature).softmax(0)
    order = probabilities.argsort(descending=True).tolist()
    size = next(n for n in range(1, V + 1) if float(probabilities[order[:n]].sum()) >= p)
    assert 0 < size < V
    expected = only(probabilities, order[:size])
    assert_drawn_from(expected, draws(Nucleus(p=p, temperature=temperature), row))


@pytest.mark.parametrize(("p", "temperature"), [(0.3, 1.0), (0.8, 1.0), (0.8, 2.0), (0.97, 0.6)])
def test_typical_draws_from_the_words_nearest_to_the_entropy(p: float, temperature: float) -> None:
    row = logits()[3]
    probabilities = (row.double() / temperature).softmax(0)
    entropy = -float((probabilities * probabilities.log()).sum())
    order = sorted(range(V), key=lambda v: abs(-math.log(float(probabilities[v])) - entropy))
    size = next(n for n in range(1, V + 1) if float(probabilities[order[:n]].sum()) >= p)
    assert 0 < size < V
    expected = only(probabilities, order[:size])
    assert_drawn_from(expected, draws(Typical(p=p, temperature=temperature), row))


def test_the_likeliest_word_may_be_untypical() -> None:
    row = torch.tensor([0.4, 0.06, 0.06, 0.06, 0.06, 0.06, 0.06, 0.06, 0.06, 0.06, 0.06]).log()
    counts = draws(Typical(p=0.5), row)  # entropy 2.05: log(1/0.4) is 0.92, log(1/0.06) 2.81
    assert int(counts[0]) == 0
    assert_drawn_from(only(row.exp().double(), list(range(1, 10))), counts)


def test_a_nucleus_smaller_than_the_likeliest_word_holds_that_word() -> None:
    rows = logits()
    found = Nucleus(p=1e-9)(rows, Fixed(torch.full((B,), BELOW_ONE)))
    assert found.tolist() == rows.argmax(1).tolist()


def test_of_equally_likely_words_the_nucleus_takes_the_first() -> None:
    row = torch.zeros(V)
    expected = only(row.softmax(0), [0, 1, 2, 3])
    assert_drawn_from(expected, draws(Nucleus(p=3.5 / V), row))


def test_ties_at_the_edge_of_top_k_all_stay() -> None:
    row = torch.tensor([1.0, 0.0, 1.0, -1.0, 0.0])
    assert_drawn_from(only(row.softmax(0), [0, 1, 2, 4]), draws(TopK(k=3), row))


# -- what a draw may never be --------------------------------------------------------------------

EVERY = [
    Greedy(),
    Temperature(),
    Temperature(temperature=0.1),
    TopK(k=3),
    Nucleus(p=0.8),
    Nucleus(p=1.0),
    Typical(p=0.7),
    Typical(p=1.0, temperature=1.3),
]


@pytest.mark.parametrize("strategy", EVERY, ids=str)
@pytest.mark.parametrize("number", [0.0, 2.0**-24, 0.5, BELOW_ONE])
def test_a_word_without_probability_is_never_drawn(strategy: Strategy, number: float) -> None:
    rows = logits()
    rows[:, [0, 1, 5, V - 2, V - 1]] = -torch.inf
    found = strategy(rows, Fixed(torch.full((B,), number)))
    assert bool(((found >= 0) & (found < V)).all())
    assert bool(rows.gather(1, found[:, None]).isfinite().all())


@pytest.mark.parametrize("strategy", EVERY, ids=str)
@pytest.mark.parametrize("place", [0, 5, V - 1])
def test_the_only_word_left_is_drawn_at_every_number(strategy: Strategy, place: int) -> None:
    rows = torch.full((3, V), -torch.inf)
    rows[:, place] = -11.0
    assert strategy(rows, Fixed(torch.tensor([0.0, 0.5, BELOW_ONE]))).tolist() == [place] * 3


# -- relations -----------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1e-3, 1e-12, 1e-38, 1e-300])
def test_temperature_to_zero_is_greedy(temperature: float) -> None:
    rows = logits(101)
    numbers = some_draws("cold", 101)
    expected = Greedy()(rows, numbers)
    strategies: tuple[Strategy, ...] = (
        Temperature(temperature=temperature),
        TopK(k=5, temperature=temperature),
        Nucleus(p=0.9, temperature=temperature),
        Typical(p=0.9, temperature=temperature),
    )
    for strategy in strategies:
        assert torch.equal(strategy(rows, numbers), expected)


def test_top_1_is_greedy() -> None:
    rows, numbers = logits(101), some_draws("one", 101)
    assert torch.equal(TopK(k=1, temperature=3.0)(rows, numbers), Greedy()(rows, numbers))


def test_top_k_of_every_word_and_the_whole_nucleus_are_temperature() -> None:
    rows, numbers = logits(DRAWS), some_draws("all", DRAWS)
    expected = Temperature(temperature=1.3)(rows, numbers)
    assert torch.equal(TopK(k=V, temperature=1.3)(rows, numbers), expected)
    assert torch.equal(Nucleus(p=1.0, temperature=1.3)(rows, numbers), expected)
    assert torch.equal(Typical(p=1.0, temperature=1.3)(rows, numbers), expected)


def test_the_whole_nucleus_of_many_words_loses_none_to_rounding() -> None:
    words = 10_007
    row = 8.0 * uniforms(key(7, "many"), torch.arange(words))
    row[0] = -9.0
    at_zero = Fixed(torch.zeros(1))
    assert Temperature()(row[None], at_zero).tolist() == [0]
    assert Nucleus(p=1.0)(row[None], at_zero).tolist() == [0]


def test_a_row_is_drawn_alone_as_among_others() -> None:
    rows, numbers = logits(31), some_draws("alone", 31)
    for strategy in EVERY:
        together = strategy(rows, numbers).tolist()
        one_by_one = [
            int(strategy(rows[i : i + 1], numbers.select(torch.tensor([i]))))
            for i in range(rows.shape[0])
        ]
        assert together == one_by_one
