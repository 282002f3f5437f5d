"""Averages of parameters: closed forms, and a model that is itself again afterwards."""

import math
from fractions import Fraction
from typing import get_args

import pytest
import torch
from torch import nn

from textvae.train.averaging import (
    AGE,
    Average,
    AveragingConfig,
    ExponentialAveraging,
    NoAveraging,
    TailAveraging,
)

N = 23
KINDS = [kind() for kind in get_args(AveragingConfig)]


class Numbers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(3, dtype=torch.float64))
        self.b = nn.Parameter(torch.zeros(2, 5, dtype=torch.float64))

    def fill(self, value: float) -> None:
        with torch.no_grad():
            self.a.fill_(value)
            self.b.fill_(-value)


def averages(config: AveragingConfig, values: list[float], total: int = N) -> list[float]:
    """The average after each step; NaN before there is one."""
    model, found = Numbers(), []
    average = Average(config, total)
    for step, value in enumerate(values):
        model.fill(value)
        average.update(model, step)
        assert torch.equal(average.parameters(model)["b"], -average.parameters(model)["b"].abs())
        found.append(float(average.mean["a"][1]) if average.mean else math.nan)
    return found


@pytest.mark.parametrize(("share", "first"), [(0.25, 18), (1.0, 0), (0.5, 12), (0.01, 23)])
def test_the_tail_is_the_plain_mean_of_what_came_last(share: float, first: int) -> None:
    values = [float(step**2 % 7 + 1) for step in range(N)]
    found = averages(TailAveraging(share=share), values)
    for step, value in enumerate(found):
        if step < first:
            assert math.isnan(value)
        else:
            tail = values[first : step + 1]
            assert value == pytest.approx(sum(tail) / len(tail), rel=1e-12)


def test_a_young_exponential_average_has_binomial_weights() -> None:
    config, a = ExponentialAveraging(decay=0.999), int(AGE)
    for i in range(1, N + 1):
        only = [float(step == i) for step in range(1, N + 1)]
        expected = Fraction(math.comb(i + a - 1, a), math.comb(N + a, a + 1))
        assert averages(config, only)[-1] == pytest.approx(float(expected), rel=1e-9)
    weights = [config.weight(n) for n in range(1, 20011)]
    assert weights[0] == 1.0
    assert weights == sorted(weights, reverse=True)


def test_an_old_exponential_average_fades_by_its_decay() -> None:
    config = ExponentialAveraging(decay=0.5)  # 10 / (9 + n) is below a half from n = 12 on
    values = [0.0] * 12 + [1.0] * 11
    found = averages(config, values)
    for n, value in enumerate(found[12:], start=1):
        assert value == pytest.approx(1.0 - 0.5**n, rel=1e-12)


@pytest.mark.parametrize("config", [k for k in KINDS if not isinstance(k, NoAveraging)], ids=str)
def test_an_average_is_linear_and_keeps_what_does_not_change(config: AveragingConfig) -> None:
    assert averages(config, [3.0] * N)[-1] == pytest.approx(3.0, rel=1e-12)
    noise = [1.0 + step**3 % 11 for step in range(N)]
    plain, scaled = averages(config, noise), averages(config, [7.0 * v + 2.0 for v in noise])
    assert scaled[-1] == pytest.approx(7.0 * plain[-1] + 2.0, rel=1e-12)
    assert min(noise) < plain[-1] < max(noise)


def test_none_is_the_model_itself() -> None:
    model, average = Numbers(), Average(NoAveraging(), N)
    model.fill(5.0)
    average.update(model, N - 1)
    assert average.tensors() == {}
    with average.in_place_of(model):
        assert float(model.a.detach()[0]) == 5.0
    copy = average.parameters(model)
    model.fill(6.0)
    assert float(copy["a"][0]) == 5.0


def test_the_model_has_the_average_for_a_while_and_then_its_own() -> None:
    model, average = Numbers(), Average(TailAveraging(share=1.0), 2)
    for step, value in enumerate([0.1, 0.7]):
        model.fill(value)
        average.update(model, step)
    own = model.a.detach().clone()
    with average.in_place_of(model):
        assert float(model.a.detach()[0]) == pytest.approx(0.4)
    assert torch.equal(model.a, own)
    with pytest.raises(KeyError), average.in_place_of(model):
        raise KeyError
    assert torch.equal(model.a, own)


@pytest.mark.parametrize("config", KINDS, ids=str)
def test_an_average_goes_on_from_its_tensors_bit_for_bit(config: AveragingConfig) -> None:
    model, whole = Numbers(), Average(config, 11)
    for step in range(11):
        if step == 9:  # when each of them has begun
            part = Average(config, 11)
            part.load(whole.tensors())
        model.fill(1.0 / (step + 3))
        whole.update(model, step)
        if step >= 9:
            part.update(model, step)
    assert whole.tensors().keys() == part.tensors().keys()
    assert all(torch.equal(value, part.tensors()[name]) for name, value in whole.tensors().items())
