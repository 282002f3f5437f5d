"""The fast draws are the plain ones: the same word at the same number, or the same distribution."""

import math

import pytest
import torch

from textvae.kernels.sampling import (
    BLOCK,
    ROUNDS,
    draw,
    draw_reference,
    nucleus,
    nucleus_reference,
    top_k,
    top_k_reference,
    typical,
    typical_reference,
)
from textvae.randomness import Draws, key, normals, uniforms

BELOW_ONE = 1.0 - 2.0**-24
ROWS, COUNT = 31, 5003


def probabilities(words: int, rows: int = ROWS, spread: float = 2.0) -> torch.Tensor:
    logits = spread * normals(key(1, "logits"), torch.arange(rows), lanes=words)
    return logits.softmax(1)


def numbers(count: int, name: str = "numbers") -> torch.Tensor:
    return uniforms(key(2, name), torch.arange(count))


def some_draws(count: int, name: str = "draws") -> Draws:
    return Draws(key(3, name), torch.arange(count), torch.zeros(count, dtype=torch.int64))


def chi_square_agrees(expected: torch.Tensor, counts: torch.Tensor) -> bool:
    """Pearson's chi-square within five standard deviations, words of under 5 draws put together."""
    mean = expected.double() * counts.sum()
    rare = mean < 5.0
    found = torch.cat([counts[~rare].double(), counts[rare].sum()[None].double()])
    mean = torch.cat([mean[~rare], mean[rare].sum()[None]])
    found, mean = found[mean > 0], mean[mean > 0]
    freedom = mean.shape[0] - 1
    value = float(((found - mean).square() / mean).sum())
    return value <= freedom + 5.0 * math.sqrt(2.0 * freedom)


# -- two levels ------------------------------------------------------------------------------------

SIZES = [2 * BLOCK, 2 * BLOCK + 1, 5 * BLOCK - 1, 5 * BLOCK, 1009, 10_007]


@pytest.mark.parametrize("words", [1, 7, BLOCK, *SIZES])
def test_two_levels_draw_the_same_word_as_one(words: int) -> None:
    p = probabilities(words)
    same = [
        torch.equal(draw(p, number), draw_reference(p, number))
        for number in numbers(ROWS * 97).view(97, ROWS)
    ]
    assert all(same)


@pytest.mark.parametrize("words", SIZES)
@pytest.mark.parametrize("number", [0.0, 2.0**-24, BELOW_ONE])
def test_extreme_numbers_never_reach_a_word_without_probability(words: int, number: float) -> None:
    p = probabilities(words)
    p[:, :3] = 0.0
    p[:, BLOCK - 2 : 2 * BLOCK - 5] = 0.0
    p[:, -4:] = 0.0
    p[5] = 0.0
    p[5, words // 2] = 1e-30
    found = draw(p, torch.full((ROWS,), number))
    assert bool((p.gather(1, found[:, None]) > 0).all())
    assert int(found[5]) == words // 2


def test_the_extreme_numbers_reach_the_first_and_the_last_possible_word() -> None:
    few = torch.tensor([[0.0, 0.3, 0.0, 0.7, 0.0]]).expand(2, -1)
    assert draw(few, torch.tensor([0.0, BELOW_ONE])).tolist() == [1, 3]
    many = torch.zeros(2, 1009)
    many[:, [1, 500, 1007]] = torch.tensor([0.3, 0.3, 0.4])
    assert draw(many, torch.tensor([0.0, BELOW_ONE])).tolist() == [1, 1007]


def test_a_number_at_an_edge_belongs_to_the_word_above_it() -> None:
    p = torch.tensor([[1.0, 2.0, 1.0]]).expand(4, -1)
    at = torch.tensor([0.25 - 2.0**-24, 0.25, 0.75 - 2.0**-24, 0.75])
    assert draw(p, at).tolist() == [0, 1, 1, 2]
    many = torch.zeros(4, 3 * BLOCK)
    many[:, [0, BLOCK, 2 * BLOCK]] = torch.tensor([1.0, 2.0, 1.0])
    assert draw(many, at).tolist() == [0, BLOCK, BLOCK, 2 * BLOCK]


@pytest.mark.parametrize("words", [13, 1009])
def test_probabilities_need_not_add_to_one(words: int) -> None:
    p = probabilities(words, 997)
    for scale in (2.0**-40, 4.0):
        assert torch.equal(draw(p * scale, numbers(997)), draw(p, numbers(997)))


@pytest.mark.parametrize("words", [13, 1009])
def test_two_levels_draw_from_the_distribution(words: int) -> None:
    p = probabilities(words)[2]
    counts = draw(p.expand(COUNT, -1), numbers(COUNT)).bincount(minlength=words)
    assert chi_square_agrees(p, counts)
    assert not chi_square_agrees(p.flip(0), counts)  # the test can fail


# -- rejection -------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("words", [13, 1009])
def test_the_nucleus_by_rejection_draws_what_sorting_draws(share: float, words: int) -> None:
    p = probabilities(words)[3].expand(COUNT, -1)
    fast = nucleus(p, share, some_draws(COUNT)).bincount(minlength=words)
    ordered, order = p[0].double().sort(descending=True)
    kept = ordered.cumsum(0) - ordered < share * ordered.sum()
    expected = torch.zeros_like(ordered).scatter_(0, order, ordered * kept)
    assert chi_square_agrees(expected / expected.sum(), fast)
    assert int(fast[expected == 0].sum()) == 0
    plain = nucleus_reference(p, share, numbers(COUNT)).bincount(minlength=words)
    assert chi_square_agrees(expected / expected.sum(), plain)
    assert int(plain[expected == 0].sum()) == 0


@pytest.mark.parametrize("size", [1, 3, 50])
@pytest.mark.parametrize("words", [13, 1009])
def test_top_k_by_rejection_draws_what_topk_draws(size: int, words: int) -> None:
    p = probabilities(words)[4].expand(COUNT, -1)
    fast = top_k(p, size, some_draws(COUNT)).bincount(minlength=words)
    expected = p[0].double()
    expected[expected < expected.sort(descending=True).values[min(size, words) - 1]] = 0.0
    assert chi_square_agrees(expected / expected.sum(), fast)
    assert int(fast[expected == 0].sum()) == 0
    plain = top_k_reference(p, size, numbers(COUNT)).bincount(minlength=words)
    assert chi_square_agrees(expected / expected.sum(), plain)
    assert int(plain[expected == 0].sum()) == 0


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("words", [13, 1009])
def test_typical_by_rejection_draws_what_sorting_draws(share: float, words: int) -> None:
    p = probabilities(words)[5].expand(COUNT, -1)
    fast = typical(p, share, some_draws(COUNT)).bincount(minlength=words)
    exact = p[0].double()
    order = (-exact.log() + (exact * exact.log()).sum()).abs().argsort()
    ordered = exact[order]
    kept = ordered.cumsum(0) - ordered < share * ordered.sum()
    expected = torch.zeros_like(ordered).scatter_(0, order, ordered * kept)
    plain = typical_reference(p, share, numbers(COUNT)).bincount(minlength=words)
    for counts in (fast, plain):
        assert chi_square_agrees(expected / expected.sum(), counts)
        assert int(counts[expected == 0].sum()) == 0


def test_of_equally_typical_words_the_first_are_kept() -> None:
    p = torch.full((COUNT, 1009), 1.0 / 1009)
    found = typical(p, 0.1, some_draws(COUNT)).unique().tolist()
    assert found == list(range(101))  # 101 of 1009 are the first to reach a tenth


def test_of_equally_likely_words_the_nucleus_keeps_the_first() -> None:
    p = torch.full((COUNT, 1009), 1.0 / 1009)
    p[:, 7] = 5.0 / 1009  # comes first; then words 0, 1, 2, ... in turn
    found = nucleus(p / p.sum(1, keepdim=True), 0.1, some_draws(COUNT)).unique().tolist()
    assert found == list(range(98))  # 5 + 97 of 1013 are the first to reach a tenth


def test_rows_that_are_always_rejected_come_from_the_plain_path() -> None:
    p = probabilities(1009, spread=0.01)  # nearly flat: the likeliest word is drawn once in 1009
    found = nucleus(p, 1e-9, some_draws(ROWS))
    assert found.tolist() == p.argmax(1).tolist()
    assert top_k(p, 1, some_draws(ROWS)).tolist() == p.argmax(1).tolist()
    sharpest = (-p.log() - torch.special.entr(p).sum(1, keepdim=True)).abs().argmin(1)
    assert typical(p, 1e-9, some_draws(ROWS)).tolist() == sharpest.tolist()


@pytest.mark.parametrize("share", [0.1, 0.6])
def test_a_row_is_rejected_and_drawn_again_whoever_is_beside_it(share: float) -> None:
    p, draws = probabilities(1009), some_draws(ROWS)
    for rule in (nucleus, typical):
        together = rule(p, share, draws).tolist()
        alone = [
            int(rule(p[i : i + 1], share, draws.select(torch.tensor([i])))) for i in range(ROWS)
        ]
        assert together == alone


def test_rounds_draw_different_numbers() -> None:
    draws = some_draws(COUNT)
    rounds = torch.stack([draws.uniforms(number) for number in range(ROUNDS + 1)])
    correlations = torch.corrcoef(rounds) - torch.eye(ROUNDS + 1)
    assert float(correlations.abs().max()) < 5.0 / math.sqrt(COUNT)
