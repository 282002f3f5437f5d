"""When the learning rate falls, how far, and how often."""

import pytest

from textvae.config import decode
from textvae.errors import ConfigError
from textvae.train.config import TrainConfig
from textvae.train.optimizer import DivideOnPlateau, LearningRateConfig, NoPlateau
from textvae.train.schedules import ConstantSchedule


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
