"""The loss by hand, floors that do not push, and word dropout that depends on its coordinates."""

import math
from typing import Any, get_args

import pytest
import torch

from textvae.config import decode
from textvae.errors import ConfigError
from textvae.kernels.linear_cross_entropy import CrossEntropy
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.inferred import ElboTerms
from textvae.randomness import hashes, key, uniforms
from textvae.train.objective import (
    FreeBitsConfig,
    FreeBitsPerDimension,
    FreeBitsPerSentence,
    FreeBitsPerSentenceAndDimension,
    FreeBitsTotal,
    NoFreeBits,
    ObjectiveConfig,
    drop_words,
    objective,
)
from textvae.train.rate import RateState
from textvae.train.schedules import Clock, ConstantSchedule, LinearSchedule

B, T, V, Z = 3, 7, 23, 2
KL = [[0.1, 2.0], [0.3, 1.0], [0.5, 6.0]]  # means over the batch: 0.3 and 3


def kl() -> torch.Tensor:
    return torch.tensor(KL, dtype=torch.float64, requires_grad=True)


def value_and_gradient(config: Any) -> tuple[float, torch.Tensor]:
    leaf = kl()
    value = config(leaf)
    assert value.shape == ()
    value.backward()
    assert leaf.grad is not None
    return float(value.detach()), leaf.grad


def test_without_free_bits_the_kl_is_the_mean_over_sentences_of_the_sum() -> None:
    value, gradient = value_and_gradient(NoFreeBits())
    assert value == pytest.approx(3.3)
    torch.testing.assert_close(gradient, torch.full((B, Z), 1 / B).double())


@pytest.mark.parametrize(
    ("nats", "expected", "pushes"),
    [(0.25, 3.3, [1, 1]), (0.5, 3.5, [0, 1]), (4.0, 8.0, [0, 0])],
)
def test_free_bits_per_dimension_put_a_floor_under_each_mean(
    nats: float, expected: float, pushes: list[int]
) -> None:
    value, gradient = value_and_gradient(FreeBitsPerDimension(nats=nats))
    assert value == pytest.approx(expected)
    torch.testing.assert_close(gradient, torch.tensor([pushes] * B).double() / B)


@pytest.mark.parametrize(("nats", "expected", "pushes"), [(3.0, 3.3, 1), (3.5, 3.5, 0)])
def test_free_bits_of_the_total_put_one_floor_under_the_sum(
    nats: float, expected: float, pushes: int
) -> None:
    value, gradient = value_and_gradient(FreeBitsTotal(nats=nats))
    assert value == pytest.approx(expected)
    torch.testing.assert_close(gradient, torch.full((B, Z), pushes / B).double())


@pytest.mark.parametrize(
    ("nats", "expected", "pushes"),
    [
        (0.05, 3.3, [[1, 1], [1, 1], [1, 1]]),
        (0.4, (0.4 + 2 + 0.4 + 1 + 0.5 + 6) / 3, [[0, 1], [0, 1], [1, 1]]),
        (2.5, (2.5 * 5 + 6) / 3, [[0, 0], [0, 0], [0, 1]]),
    ],
)
def test_free_bits_per_sentence_and_dimension_put_a_floor_under_each_cell(
    nats: float, expected: float, pushes: list[list[int]]
) -> None:
    value, gradient = value_and_gradient(FreeBitsPerSentenceAndDimension(nats=nats))
    assert value == pytest.approx(expected)
    torch.testing.assert_close(gradient, torch.tensor(pushes).double() / B)


@pytest.mark.parametrize(
    ("nats", "expected", "pushes"),
    [(1.0, 3.3, [1, 1, 1]), (2.0, (2.1 + 2 + 6.5) / 3, [1, 0, 1]), (9.0, 9.0, [0, 0, 0])],
)
def test_free_bits_per_sentence_put_a_floor_under_each_sentence(
    nats: float, expected: float, pushes: list[int]
) -> None:
    value, gradient = value_and_gradient(FreeBitsPerSentence(nats=nats))
    assert value == pytest.approx(expected)
    torch.testing.assert_close(gradient, torch.tensor([pushes] * Z).t().double() / B)


@pytest.mark.parametrize("nats", [0.05, 0.3, 0.7, 1.9, 5.0])
def test_floors_under_sentences_or_dimensions_are_no_lower_than_under_their_mean_or_sum(
    nats: float,
) -> None:
    cells = float(FreeBitsPerSentenceAndDimension(nats=nats)(kl()).detach())
    dimensions = float(FreeBitsPerDimension(nats=nats)(kl()).detach())
    sentences = float(FreeBitsPerSentence(nats=Z * nats)(kl()).detach())
    total = float(FreeBitsTotal(nats=Z * nats)(kl()).detach())
    assert cells >= max(dimensions, sentences) - 1e-12
    assert min(dimensions, sentences) >= total - 1e-12


def test_without_variation_over_sentences_each_floor_is_that_of_the_mean() -> None:
    same = torch.tensor([[0.3, 3.0]] * B).double()
    for nats in (0.1, 1.0, 7.0):
        pairs = [
            (FreeBitsPerSentenceAndDimension(nats=nats), FreeBitsPerDimension(nats=nats)),
            (FreeBitsPerSentence(nats=nats), FreeBitsTotal(nats=nats)),
        ]
        for each, mean in pairs:
            assert float(each(same)) == pytest.approx(float(mean(same)))


def test_the_names_in_files_stay_what_they_are() -> None:
    assert [kind.__struct_config__.tag for kind in get_args(FreeBitsConfig)] == [
        "none",
        "per_dimension",
        "per_sentence_and_dimension",
        "total",
        "per_sentence",
    ]


@pytest.mark.parametrize("kind", get_args(FreeBitsConfig), ids=lambda kind: kind.__name__)
def test_every_kind_is_at_least_the_kl_and_a_mean_over_the_batch(kind: Any) -> None:
    config, leaf = kind(), kl().detach()
    assert float(config(leaf)) >= float(leaf.sum(1).mean()) - 1e-12
    assert float(config(leaf.repeat(5, 1))) == pytest.approx(float(config(leaf)))
    assert float(config(100 * leaf)) == pytest.approx(100 * float(leaf.sum(1).mean()))


def terms() -> ElboTerms:
    total = torch.tensor(21.0, dtype=torch.float64, requires_grad=True)
    zeros = torch.zeros(B, Z).double()
    return ElboTerms(CrossEntropy(total, zeros[:, 0]), kl(), DiagonalGaussian(zeros, zeros))


def test_the_loss_is_reconstruction_plus_the_weighted_kl_of_a_sentence() -> None:
    config = ObjectiveConfig(kl_weight=LinearSchedule(share=0.5), beta=0.4, free_bits=NoFreeBits())
    for step, weight in ((0, 0.0), (25, 0.2), (50, 0.4), (99, 0.4)):
        loss = objective(config, terms(), Clock(step, step, 100), RateState())
        assert loss.kl_weight == pytest.approx(weight)
        assert float(loss.value.detach()) == pytest.approx(21 / B + weight * 3.3)


def test_the_loss_at_weight_one_is_minus_the_elbo() -> None:
    config = ObjectiveConfig(kl_weight=ConstantSchedule(), free_bits=NoFreeBits())
    loss = objective(config, terms(), Clock(0, 0, 1), RateState())
    assert float(loss.value.detach()) == pytest.approx(7.0 + 3.3)


def test_the_floor_comes_before_the_weight() -> None:
    config = ObjectiveConfig(
        kl_weight=ConstantSchedule(value=0.5), free_bits=FreeBitsTotal(nats=4.0)
    )
    given = terms()
    loss = objective(config, given, Clock(0, 0, 1), RateState())
    assert float(loss.value.detach()) == pytest.approx(7.0 + 0.5 * 4.0)
    reconstruction, kl_gradient = torch.autograd.grad(
        loss.value, [given.reconstruction.total, given.kl]
    )
    assert float(reconstruction) == pytest.approx(1 / B)
    assert float(kl_gradient.abs().max()) == 0.0, "below the floor nothing pushes"


@pytest.mark.parametrize(
    "value",
    [
        {"free_bits": {"kind": "total", "nats": 0.0}},
        {"beta": -1.0},
        {"word_dropout": {"kind": "constant", "value": 1.5}},
        {"word_dropout": {"kind": "linear", "start": 0.5, "end": 1.5}},
    ],
)
def test_values_that_mean_nothing_are_refused(value: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        decode(value, ObjectiveConfig, source="test")


# -- word dropout ----------------------------------------------------------------------------------


def inputs(rows: int = B, steps: int = T) -> torch.Tensor:
    words = hashes(key(1, "words"), torch.arange(rows), lanes=steps) % (V - 2) + 2
    words[:, 0] = V
    return words


def test_words_are_replaced_by_unknown_at_the_rate_and_the_start_is_spared() -> None:
    words, rate = inputs(499, 41), 0.3
    found = drop_words(words, torch.arange(499), rate, seed=1, step=2)
    assert torch.equal(found[:, 0], words[:, 0])
    dropped = found != words
    assert set(found[dropped].tolist()) == {1}
    share = float(dropped[:, 1:].double().mean())
    assert abs(share - rate) < 4 * math.sqrt(rate * (1 - rate) / dropped[:, 1:].numel())
    for axis in (0, 1):  # no sentence and no position is favoured
        spread = dropped[:, 1:].double().mean(axis).var() * dropped[:, 1:].shape[axis]
        assert float(spread) == pytest.approx(rate * (1 - rate), rel=0.6)


def test_a_rate_of_nothing_drops_nothing_and_of_one_everything_but_the_start() -> None:
    words = inputs()
    assert drop_words(words, torch.arange(B), 0.0, seed=1, step=2) is words
    all_gone = drop_words(words, torch.arange(B), 1.0, seed=1, step=2)
    assert all_gone.tolist() == [[V] + [1] * (T - 1)] * B
    assert torch.equal(words, inputs()), "the inputs are not written to"


def test_what_is_dropped_follows_seed_step_sentence_and_position_alone() -> None:
    words, indices = torch.full((B, T), 5), torch.tensor([5, 3, 8])
    words[:, 0] = V
    found = drop_words(words, indices, 0.5, seed=1, step=2)
    order = torch.tensor([2, 0, 1])
    assert torch.equal(drop_words(words[order], indices[order], 0.5, seed=1, step=2), found[order])
    alone = drop_words(words[:1, :4], indices[:1], 0.5, seed=1, step=2)
    assert torch.equal(alone, found[:1, :4])
    other_words = torch.full((B, T), 7)
    again = drop_words(other_words, indices, 0.5, seed=1, step=2)
    assert torch.equal(again[:, 1:] == 1, found[:, 1:] == 1)
    wide, many = torch.full((31, 41), 5), torch.arange(31)
    base = drop_words(wide, many, 0.5, seed=1, step=2)
    for changed in (
        drop_words(wide, many, 0.5, seed=2, step=2),
        drop_words(wide, many, 0.5, seed=1, step=3),
        drop_words(wide, many + 31, 0.5, seed=1, step=2),
    ):
        assert float((changed == base)[:, 1:].double().mean()) == pytest.approx(0.5, abs=0.06)


def test_a_higher_rate_drops_what_a_lower_one_drops_and_more() -> None:
    words, indices = inputs(31, 41), torch.arange(31)
    few = drop_words(words, indices, 0.2, seed=1, step=2) != words
    many = drop_words(words, indices, 0.6, seed=1, step=2) != words
    assert bool(many[few].all())
    assert int(many.sum()) > int(few.sum())


def test_word_dropout_is_not_the_noise_of_something_else() -> None:
    words, indices = torch.full((31, 41), 5), torch.arange(31)
    dropped = drop_words(words, indices, 0.5, seed=1, step=2)[:, 1:] == 1
    other = uniforms(key(1, "dropout", 2), indices[:, None], torch.arange(41))[:, 1:] < 0.5
    assert float((dropped == other).double().mean()) == pytest.approx(0.5, abs=0.06)


def test_selection_takes_the_weight_at_the_end_or_the_target_rate() -> None:
    config = decode({"beta": 0.2, "kl_weight": {"kind": "linear"}}, ObjectiveConfig, source="test")
    assert config.selection_loss(-50.0, 40.0) == pytest.approx(10.0 + 0.2 * 40.0)
    assert not config.selects_by_elbo
    assert ObjectiveConfig().selects_by_elbo
    assert ObjectiveConfig().selection_loss(-50.0, 40.0) == 50.0
    for kind in ("lagrangian", "control"):
        rate = {"rate": {"kind": kind, "nats": 30.0}}
        target = decode(rate, ObjectiveConfig, source="test")
        assert not target.selects_by_elbo
        assert target.selection_loss(-50.0, 40.0) == 50.0
        assert target.selection_loss(-50.0, 20.0) == 60.0, "10 nats less than the target"
