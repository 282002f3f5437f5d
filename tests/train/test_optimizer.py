"""Optimizers by arithmetic on a few parameters; the learning rate over a run and on plateaus."""

import math
from typing import Any, get_args

import pytest
import torch
from torch import nn

from textvae.config import decode
from textvae.errors import ConfigError
from textvae.train.config import TrainConfig
from textvae.train.optimizer import (
    AdamWConfig,
    DivideOnPlateau,
    LearningRateConfig,
    NoPlateau,
    OptimizerConfig,
    SGDConfig,
    set_learning_rate,
)
from textvae.train.schedules import ConstantSchedule, CosineSchedule, LinearSchedule

KINDS = get_args(OptimizerConfig)
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


class Two(nn.Module):
    """A matrix and a bias, all ones, and the gradient of both all twos."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 2))
        self.bias = nn.Parameter(torch.ones(3))

    def loss(self) -> torch.Tensor:
        return 2 * (self.weight.sum() + self.bias.sum())


def after(config: Any, steps: int = 1) -> Two:
    module = Two()
    optimizer = config.build(module)
    for _ in range(steps):
        optimizer.zero_grad()
        module.loss().backward()
        optimizer.step()
    return module


def test_the_first_step_of_adam_has_the_length_of_the_rate() -> None:
    module = after(AdamWConfig(learning_rate=0.01))
    for parameter in module.parameters():
        torch.testing.assert_close(parameter.detach(), torch.full_like(parameter, 0.99))


def test_weight_decay_shrinks_matrices_and_leaves_biases() -> None:
    module = after(AdamWConfig(learning_rate=0.01, weight_decay=0.5))
    expected = (1 - 0.01 * 0.5) * 1.0 - 0.01
    torch.testing.assert_close(module.weight.detach(), torch.full((3, 2), expected))
    torch.testing.assert_close(module.bias.detach(), torch.full((3,), 0.99))


def test_plain_descent_goes_down_by_rate_times_gradient() -> None:
    module = after(SGDConfig(learning_rate=0.1), steps=3)
    torch.testing.assert_close(module.weight.detach(), torch.full((3, 2), 1 - 3 * 0.1 * 2))


def test_momentum_adds_what_is_left_of_earlier_gradients() -> None:
    module = after(SGDConfig(learning_rate=0.1, momentum=0.5), steps=3)
    expected = 1 - 0.1 * 2 * (1 + 1.5 + 1.75)
    torch.testing.assert_close(module.bias.detach(), torch.full((3,), expected))


@every_kind
def test_every_parameter_is_in_the_optimizer_once(kind: Any) -> None:
    module = Two()
    optimizer = kind().build(module)
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in module.parameters())


@every_kind
def test_the_learning_rate_is_set_in_every_group(kind: Any) -> None:
    module = Two()
    optimizer = kind().build(module)
    set_learning_rate(optimizer, 0.0)
    module.loss().backward()
    optimizer.step()
    assert all(torch.equal(p, torch.ones_like(p)) for p in module.parameters())


def test_the_factor_rises_over_the_warm_up_and_stays() -> None:
    config = LearningRateConfig(warmup_share=0.25, decay=ConstantSchedule())
    factors = [config.factor(step, 12) for step in range(12)]
    assert factors == pytest.approx([0.25, 0.5, 0.75] + [1.0] * 9)


def test_without_a_warm_up_the_first_step_has_the_whole_rate() -> None:
    config = LearningRateConfig(warmup_share=0.0, decay=ConstantSchedule())
    assert config.factor(0, 100) == 1.0


def test_the_factor_is_warm_up_times_decay() -> None:
    config = LearningRateConfig(
        warmup_share=0.5, decay=LinearSchedule(start=1.0, end=0.0, share=1.0)
    )
    assert config.factor(1, 4) == pytest.approx(2 / 3 * 0.75)
    assert config.factor(3, 4) == pytest.approx(0.25)


def test_a_short_warm_up_is_followed_by_a_cosine_to_a_fiftieth() -> None:
    decay = CosineSchedule(start=1.0, end=0.02, share=1.0)
    config = LearningRateConfig(warmup_share=0.02, decay=decay)
    assert config.factor(0, 1000) == pytest.approx(1 / 21)
    assert config.factor(500, 1000) == pytest.approx(0.51)
    assert config.factor(1000, 1000) == pytest.approx(0.02)
    step = 250
    assert config.factor(step, 1000) == pytest.approx(
        1 - 0.98 * (1 - math.cos(math.pi * step / 1000)) / 2
    )


@pytest.mark.parametrize("total", [1, 2, 3, 7])
def test_no_step_of_a_short_run_is_wasted(total: int) -> None:
    config = LearningRateConfig()
    assert all(0.0 < config.factor(step, total) <= 1.0 for step in range(total))


# -- plateaus --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("validations", "expected"), [(1, [1, 2, 3, 4, 5, 6]), (3, [3, 6])])
def test_the_rate_falls_at_each_multiple_of_bad_validations(
    validations: int, expected: list[int]
) -> None:
    plateau = DivideOnPlateau(validations=validations)
    assert [bad for bad in range(7) if plateau.due(bad)] == expected
    assert not any(NoPlateau().due(bad) for bad in range(7))


def test_each_fall_divides_the_factor_of_the_schedule() -> None:
    rates = LearningRateConfig(warmup_share=0.5, plateau=DivideOnPlateau(divisor=3.0))
    plain = LearningRateConfig(warmup_share=0.5)
    for step in range(23):
        assert rates.factor(step, 23) == plain.factor(step, 23)
        assert plain.factor(step, 23, 2) == plain.factor(step, 23)
        assert rates.factor(step, 23, 2) == pytest.approx(plain.factor(step, 23) / 9.0, rel=1e-12)
    constant = LearningRateConfig(
        warmup_share=0.0, decay=ConstantSchedule(), plateau=DivideOnPlateau()
    )
    assert [constant.factor(0, 23, decays) for decays in range(3)] == [1.0, 0.5, 0.25]


def test_a_limit_allows_so_many_falls_and_no_more() -> None:
    limited = DivideOnPlateau(max_decays=2)
    assert [limited.exhausted(decays) for decays in range(5)] == [False] * 3 + [True] * 2
    assert not DivideOnPlateau().exhausted(1009)
    assert not NoPlateau().exhausted(1009)


@pytest.mark.parametrize(
    "value", [{"divisor": 1.0}, {"validations": 0}, {"max_decays": 0}, {"patience": 2}], ids=str
)
def test_settings_that_mean_nothing_are_refused(value: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(value))):
        decode({"plateau": {"kind": "divide", **value}}, LearningRateConfig, source="file.toml")


def test_a_plateau_or_patience_is_refused_beside_restarts() -> None:
    restarts = {"kind": "cosine_restarts"}
    for rates, other in (
        ({"decay": restarts, "plateau": {"kind": "divide"}}, {}),
        ({"decay": restarts}, {"patience": 3}),
    ):
        with pytest.raises(ConfigError, match="cosine_restarts makes validations worse"):
            decode({"learning_rate": rates, **other}, TrainConfig, source="file.toml")
    assert decode({"learning_rate": {"decay": restarts}}, TrainConfig, source="file.toml")
