"""Schedules by arithmetic: start, middle and end of the share, and what comes after."""

import math
from itertools import pairwise
from typing import Any, get_args

import pytest

from textvae.config import decode
from textvae.errors import ConfigError
from textvae.train.schedules import (
    ConstantSchedule,
    CosineRestartsSchedule,
    CosineSchedule,
    CyclicalSchedule,
    LinearSchedule,
    LogisticSchedule,
    ScheduleConfig,
    progress,
)

TOTAL = 200  # a share of 0.25 ends at step 50
KINDS = get_args(ScheduleConfig)
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
RISING = [LinearSchedule, LogisticSchedule, CosineSchedule]
every_rise = pytest.mark.parametrize("kind", RISING, ids=lambda kind: kind.__name__)
CONFIGS = [
    *(kind() for kind in KINDS),
    CosineRestartsSchedule(),
    LinearSchedule(start=1.0, end=0.0, share=1.0),
    LogisticSchedule(steepness=3.0, share=0.7),
    CyclicalSchedule(num_cycles=3, rise=1.0),
    CyclicalSchedule(num_cycles=1, rise=0.25),
    CosineRestartsSchedule(num_cycles=3),
]


def test_progress_goes_from_nothing_to_one_and_stays() -> None:
    assert [progress(s, TOTAL, 0.25) for s in (0, 10, 25, 50, 51, 200)] == [0, 0.2, 0.5, 1, 1, 1]
    assert progress(0, 1, 0.25) == 0.0, "a share shorter than a step lasts one"
    assert progress(1, 1, 0.25) == 1.0


def test_a_constant_is_constant() -> None:
    assert {ConstantSchedule(value=0.3)(s, TOTAL) for s in range(TOTAL)} == {0.3}


@every_rise
def test_a_rise_meets_its_ends_exactly_and_its_middle_half_way(kind: Any) -> None:
    schedule = kind(start=0.2, end=0.6, share=0.25)
    assert schedule(0, TOTAL) == pytest.approx(0.2, abs=1e-12)
    assert schedule(25, TOTAL) == pytest.approx(0.4, abs=1e-12)
    for step in (50, 51, TOTAL - 1, TOTAL):
        assert schedule(step, TOTAL) == pytest.approx(0.6, abs=1e-12)


@every_rise
def test_a_rise_rises_and_a_fall_falls(kind: Any) -> None:
    up = [kind(start=0.0, end=1.0, share=0.25)(s, TOTAL) for s in range(51)]
    down = [kind(start=1.0, end=0.0, share=0.25)(s, TOTAL) for s in range(51)]
    assert all(a < b for a, b in pairwise(up))
    assert down == pytest.approx([1 - value for value in up], abs=1e-12)


def test_each_rise_has_its_own_quarter() -> None:
    step = 10  # a fifth of the share
    assert LinearSchedule(share=0.25)(step, TOTAL) == pytest.approx(0.2)
    assert CosineSchedule(share=0.25)(step, TOTAL) == pytest.approx((1 - math.cos(math.pi / 5)) / 2)
    low, high = 1 / (1 + math.exp(5)), 1 / (1 + math.exp(-5))
    expected = (1 / (1 + math.exp(3)) - low) / (high - low)
    assert LogisticSchedule(steepness=10.0, share=0.25)(step, TOTAL) == pytest.approx(expected)


def test_a_steeper_logistic_is_more_like_a_step() -> None:
    soft, hard = (LogisticSchedule(steepness=s, share=0.25) for s in (5.0, 50.0))
    assert hard(15, TOTAL) < soft(15, TOTAL) < 0.5 < soft(35, TOTAL) < hard(35, TOTAL)


def test_cycles_rise_stay_and_start_again() -> None:
    schedule = CyclicalSchedule(start=0.0, end=0.8, num_cycles=4, rise=0.5)  # cycles of 50 steps
    for cycle in range(4):
        first = 50 * cycle
        assert schedule(first, TOTAL) == pytest.approx(0.0, abs=1e-12)
        assert schedule(first + 5, TOTAL) == pytest.approx(0.16)
        assert schedule(first + 25, TOTAL) == pytest.approx(0.8)
        assert schedule(first + 49, TOTAL) == pytest.approx(0.8)
    assert schedule(TOTAL, TOTAL) == pytest.approx(0.8), "the end is not a new start"
    assert schedule(TOTAL + 7, TOTAL) == pytest.approx(0.8)


def test_a_cosine_that_restarts_is_the_cosine_of_a_run_as_long_as_its_cycle() -> None:
    once = CosineSchedule(start=0.8, end=0.1, share=1.0)
    again = CosineRestartsSchedule(start=0.8, end=0.1, num_cycles=3)
    for step in range(3 * TOTAL):
        expected = once(step % TOTAL, TOTAL)
        assert again(step, 3 * TOTAL) == pytest.approx(expected, abs=1e-12)
    assert again(3 * TOTAL, 3 * TOTAL) == pytest.approx(0.1), "the end is not a new start"
    alone = CosineRestartsSchedule(start=0.8, end=0.1, num_cycles=1)
    for step in range(TOTAL + 9):
        assert alone(step, TOTAL) == pytest.approx(once(step, TOTAL), abs=1e-12)


@pytest.mark.parametrize("cycles", [3, 7, 29, 58])
def test_a_cycle_begins_with_its_first_step(cycles: int) -> None:
    restarts, rises = CosineRestartsSchedule(num_cycles=cycles), CyclicalSchedule(num_cycles=cycles)
    for cycle in range(cycles):
        assert restarts(333 * cycle, 333 * cycles) == 1.0
        assert rises(333 * cycle, 333 * cycles) == 0.0


@pytest.mark.parametrize("schedule", CONFIGS, ids=str)
def test_nothing_changes_after_it_has_settled_and_something_did_before(schedule: Any) -> None:
    total = 12 * TOTAL
    settled = math.ceil(schedule.settled() * total - 1e-9)
    last = schedule(total, total)
    for step in range(settled, total + 1):
        assert schedule(step, total) == pytest.approx(last, abs=1e-12)
    if settled:
        assert schedule(settled - 1, total) != pytest.approx(last, abs=1e-12)
    assert 0.0 <= schedule.settled() <= 1.0


@pytest.mark.parametrize("schedule", CONFIGS, ids=str)
def test_a_longer_run_has_the_same_shape(schedule: Any) -> None:
    short = [schedule(s, TOTAL) for s in range(TOTAL + 1)]
    long = [schedule(3 * s, 3 * TOTAL) for s in range(TOTAL + 1)]
    assert long == pytest.approx(short, abs=1e-12)


@pytest.mark.parametrize("schedule", CONFIGS, ids=str)
@pytest.mark.parametrize("total", [1, 2, 3])
def test_the_shortest_runs_have_finite_values(schedule: Any, total: int) -> None:
    assert all(0.0 <= schedule(step, total) <= 1.0 for step in range(total + 1))


@every_kind
def test_every_kind_can_be_named_in_a_file(kind: Any) -> None:
    tag = kind.__struct_config__.tag
    assert decode({"kind": tag}, ScheduleConfig, source="test") == kind()


@pytest.mark.parametrize(
    "value",
    [
        {"kind": "linear", "share": 0.0},
        {"kind": "cosine", "share": 1.5},
        {"kind": "linear", "start": -1.0},
        {"kind": "logistic", "steepness": 0.0},
        {"kind": "cyclical", "num_cycles": 0},
        {"kind": "cosine_restarts"},  # of the learning rate alone
        {"kind": "sawtooth"},
    ],
)
def test_values_that_mean_nothing_are_refused(value: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        decode(value, ScheduleConfig, source="test")
