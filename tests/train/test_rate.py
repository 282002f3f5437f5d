"""Target rates: the updates by hand, the fixed points of a toy with a known answer, the bounds."""

import json
import math
from typing import Any, get_args

import pytest
import torch

from textvae.config import decode
from textvae.errors import ConfigError
from textvae.kernels.linear_cross_entropy import CrossEntropy
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.inferred import ElboTerms
from textvae.train.objective import FreeBitsTotal, NoFreeBits, ObjectiveConfig, objective
from textvae.train.rate import (
    ControlledRate,
    KLWeights,
    LagrangianRate,
    NoTargetRate,
    RateConfig,
    RateState,
)
from textvae.train.schedules import Clock, ConstantSchedule

B, Z = 3, 2
every_kind = pytest.mark.parametrize("kind", get_args(RateConfig), ids=lambda kind: kind.__name__)
SEEKING = [
    LagrangianRate(nats=5.0, step_size=0.005),
    ControlledRate(nats=5.0, integral_gain=0.005),
]
every_seeker = pytest.mark.parametrize("rate", SEEKING, ids=lambda rate: type(rate).__name__)


def kl(nats: float) -> torch.Tensor:
    """Three sentences whose KL is `nats` on average, unequal over sentences and dimensions."""
    shares = torch.tensor([[0.1, 0.2], [0.7, 0.5], [1.2, 0.3]]).double()
    return shares * nats


def weight(rate: Any, state: RateState) -> float:
    penalty, reward = rate.weights(1.0, state)
    return float(penalty - reward)


def settle(rate: Any, demand: float, steps: int = 2000) -> tuple[float, float]:
    """Gradient descent on demand * exp(-k) + weight * k, where k is the KL: its k and weight.

    The first term is what a reconstruction gains from k nats. At a fixed weight w the answer is
    k = log(demand / w).
    """
    state, k = rate.start(), 3.0
    for _ in range(steps):
        k -= 0.05 * (weight(rate, state) - demand * math.exp(-k))
        k = max(k, 0.0)
        state = rate.observe(kl(k), state)
    return k, weight(rate, state)


# -- what all of them do ---------------------------------------------------------------------------


@every_kind
def test_every_kind_can_be_named_in_a_file_and_its_state_survives_one(kind: Any) -> None:
    rate = decode({"kind": kind.__struct_config__.tag}, RateConfig, source="test")
    assert rate == kind()
    state = rate.start()
    for nats in (0.1, 17.3, 5.9, 1 / 3):
        state = rate.observe(kl(nats).float(), state)
    assert RateState(*json.loads(json.dumps(list(state)))) == state


@every_kind
def test_what_is_seen_is_the_mean_over_the_batch_of_the_sum_over_dimensions(kind: Any) -> None:
    rate = kind()
    found = rate.observe(kl(3.7), rate.start())
    assert rate.observe(kl(3.7).repeat(5, 1), rate.start()) == pytest.approx(found)
    assert rate.observe(torch.full((B, Z), 3.7 / Z).double(), rate.start()) == pytest.approx(found)


@every_kind
def test_a_wild_batch_leaves_finite_weights(kind: Any) -> None:
    rate, state = kind(), kind().start()
    for nats in (0.0, 1e30, 0.0):
        state = rate.observe(kl(nats), state)
        assert all(math.isfinite(value) for value in (*state, *rate.weights(1.0, state)))


def test_without_a_target_the_schedule_is_the_weight() -> None:
    rate = NoTargetRate()
    state = rate.observe(kl(3.0), rate.start())
    assert rate.weights(0.7, state) == KLWeights(0.7, 0.0)
    assert state == RateState()


@every_seeker
def test_too_few_nats_lower_the_weight_and_too_many_raise_it(rate: Any) -> None:
    state = RateState(0.5, 0.5)
    same = weight(rate, rate.observe(kl(5.0), state))
    assert weight(rate, rate.observe(kl(3.0), state)) < same
    assert weight(rate, rate.observe(kl(8.0), state)) > same


@every_seeker
@pytest.mark.parametrize("demand", [30.0, 100.0])
def test_the_toy_settles_at_the_target_with_the_weight_of_its_closed_form(
    rate: Any, demand: float
) -> None:
    found, at = settle(rate, demand)  # demand exp(-5) is 0.20 or 0.67, within the bounds
    assert found == pytest.approx(5.0, abs=1e-3)
    assert at == pytest.approx(demand * math.exp(-5.0), abs=1e-3)


@every_seeker
def test_a_latent_worth_more_than_the_target_keeps_the_full_weight(rate: Any) -> None:
    demand = math.exp(6.5)
    found, at = settle(rate, demand)
    assert at == pytest.approx(1.0)
    assert found == pytest.approx(6.5, abs=1e-3), "a KL above the target by itself"


# -- the Lagrangian --------------------------------------------------------------------------------


def test_the_multiplier_ascends_by_what_is_missing_and_never_below_zero() -> None:
    rate = LagrangianRate(nats=5.0, step_size=0.1, damping=0.0, start_multiplier=0.3)
    state = rate.start()
    found = []
    for nats in (3.0, 4.0, 9.0, 9.0, 4.5):
        state = rate.observe(kl(nats), state)
        found.append(state.multiplier)
    assert found == pytest.approx([0.5, 0.6, 0.2, 0.0, 0.05])


def test_damping_adds_what_is_missing_now_and_is_not_remembered() -> None:
    plain = LagrangianRate(nats=5.0, step_size=0.1, damping=0.0, start_multiplier=0.3)
    damped = LagrangianRate(nats=5.0, step_size=0.1, damping=0.2, start_multiplier=0.3)
    before, state = plain.start(), damped.start()
    for nats, extra in ((3.0, 0.4), (4.0, 0.2), (5.5, -0.1), (5.0, 0.0)):
        before, state = plain.observe(kl(nats), before), damped.observe(kl(nats), state)
        assert state.integral == pytest.approx(before.multiplier)
        assert state.multiplier == pytest.approx(before.multiplier + extra)


def test_without_damping_the_toy_circles_longer() -> None:
    """The saddle point is the same; the distance from it after 400 steps is not."""
    near, far = (settle(LagrangianRate(nats=5.0, damping=d), 30.0, 400)[0] for d in (0.1, 0.0))
    assert abs(near - 5.0) < abs(far - 5.0)


def test_the_multiplier_goes_above_one_where_nothing_else_raises_the_kl() -> None:
    rate = LagrangianRate(nats=5.0, step_size=0.1)
    state = rate.start()
    for _ in range(7):
        state = rate.observe(kl(0.0), state)
    assert weight(rate, state) < 0.0


def terms(nats: float) -> ElboTerms:
    total = torch.tensor(21.0, dtype=torch.float64, requires_grad=True)
    zeros = torch.zeros(B, Z).double()
    values = kl(nats).requires_grad_()
    return ElboTerms(CrossEntropy(total, zeros[:, 0]), values, DiagonalGaussian(zeros, zeros))


def test_the_loss_is_the_lagrangian_without_its_constant() -> None:
    config = ObjectiveConfig(
        kl_weight=ConstantSchedule(value=0.5),
        free_bits=NoFreeBits(),
        rate=LagrangianRate(nats=5.0),
    )
    loss = objective(config, terms(3.0), Clock(0, 0, 1), RateState(0.4))
    assert loss.kl_weight == pytest.approx(0.5 * (1 - 0.4))
    assert float(loss.value.detach()) == pytest.approx(7.0 + 0.3 * 3.0)


def test_the_constraint_is_on_the_kl_not_on_its_floor() -> None:
    config = ObjectiveConfig(
        kl_weight=ConstantSchedule(),
        free_bits=FreeBitsTotal(nats=4.0),
        rate=LagrangianRate(nats=5.0),
    )
    given = terms(3.0)
    loss = objective(config, given, Clock(0, 0, 1), RateState(0.4))
    assert float(loss.value.detach()) == pytest.approx(7.0 + 4.0 - 0.4 * 3.0)
    (gradient,) = torch.autograd.grad(loss.value, given.kl)
    torch.testing.assert_close(gradient, torch.full((B, Z), -0.4 / B).double())


# -- the controller --------------------------------------------------------------------------------


def test_the_weight_is_a_sigmoid_of_the_error_plus_the_sum_of_errors() -> None:
    rate = ControlledRate(
        nats=5.0, proportional_gain=0.1, integral_gain=0.01, min_weight=0.05, max_weight=0.9
    )
    state, total = rate.start(), 0.0
    assert state.multiplier == 0.05
    for nats in (9.0, 4.0, 13.0, 5.0, 4.5):
        state = rate.observe(kl(nats), state)
        error = 5.0 - nats
        total -= 0.01 * error
        expected = 0.05 + 0.1 / (1 + math.exp(error)) + total
        assert state.multiplier == pytest.approx(expected)


def test_the_weight_stays_within_its_bounds_and_leaves_them_at_once() -> None:
    rate = ControlledRate(nats=5.0, integral_gain=0.01, min_weight=0.1, max_weight=0.8)
    state = rate.start()
    for _ in range(500):
        state = rate.observe(kl(15.0), state)
        assert 0.1 <= state.multiplier <= 0.8
    assert state.multiplier == 0.8
    assert rate.observe(kl(1.0), state).multiplier < 0.78, "no integral wound up beyond the bound"
    for _ in range(500):
        state = rate.observe(kl(0.0), state)
        assert 0.1 <= state.multiplier <= 0.8
    assert state.multiplier == pytest.approx(0.1, abs=1e-4)
    assert rate.observe(kl(9.0), state).multiplier > 0.13


def test_the_controller_multiplies_the_schedule() -> None:
    config = ObjectiveConfig(
        kl_weight=ConstantSchedule(value=0.5),
        beta=0.4,
        free_bits=NoFreeBits(),
        rate=ControlledRate(),
    )
    loss = objective(config, terms(3.0), Clock(0, 0, 1), RateState(0.7))
    assert loss.kl_weight == pytest.approx(0.5 * 0.4 * 0.7)
    assert float(loss.value.detach()) == pytest.approx(7.0 + 0.14 * 3.0)


@pytest.mark.parametrize(
    "value",
    [
        {"kind": "lagrangian", "nats": 0.0},
        {"kind": "lagrangian", "step_size": 0.0},
        {"kind": "control", "nats": -1.0},
        {"kind": "control", "min_weight": 1.0},
        {"kind": "control", "max_weight": 0.0},
        {"kind": "geco"},
    ],
)
def test_values_that_mean_nothing_are_refused(value: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        decode(value, RateConfig, source="test")
