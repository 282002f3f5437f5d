"""Values that change over a run: pure functions of the step, so that resuming needs no state.

Durations are fractions of the run, so that a schedule keeps its shape when a run is made longer. A
new schedule is a config with a `kind` here and a name in `ScheduleConfig` or, for the learning rate
alone, in `LearningRateConfig`.
"""

import math
from typing import Annotated, NamedTuple

from msgspec import Meta

from textvae.config import Config

Fraction = Annotated[float, Meta(gt=0.0, le=1.0)]
Value = Annotated[float, Meta(ge=0.0)]


class Clock(NamedTuple):
    """Position in a run. Noise is drawn by `step`; schedules read the position in their stage."""

    step: int
    """Steps of the run before this one."""
    stage_step: int
    stage_total: int
    """Steps of the stage: of the run, unless a procedure divides it."""
    autoencoder: bool = False
    """The KL is not in the loss of this stage, and no target rate observes it."""

    @property
    def stage(self) -> tuple[int, int]:
        """The two arguments of a schedule."""
        return self.stage_step, self.stage_total


class _Schedule(Config):
    """A function of the step; its kinds define `_value`."""

    def __call__(self, step: int, total: int) -> float:
        """The value at a step of a run of `total` steps."""
        return self._value(step, total)

    def settled(self) -> float:
        """The fraction of the run after which the value no longer changes."""
        return 1.0

    def _value(self, step: int, total: int) -> float:
        raise NotImplementedError


class ConstantSchedule(_Schedule, tag_field="kind", tag="constant"):
    """Always the same value."""

    value: Value = 1.0
    """The value at every step."""

    def _value(self, step: int, total: int) -> float:
        return self.value

    def settled(self) -> float:
        """It never changes."""
        return 0.0


class _Rise(_Schedule):
    """One change from `start` to `end`, over the first `share` of the run."""

    start: Value = 0.0
    """The value at the first step."""
    end: Value = 1.0
    """The value that is reached."""
    share: Fraction = 0.25
    """Fraction of the run after which `end` is reached."""

    def settled(self) -> float:
        """The fraction of the run after which the value no longer changes."""
        return self.share


class LinearSchedule(_Rise, tag_field="kind", tag="linear"):
    """A straight line from `start` to `end` (Bowman et al. 2016)."""

    def _value(self, step: int, total: int) -> float:
        return self.start + (self.end - self.start) * progress(step, total, self.share)


class LogisticSchedule(_Rise, tag_field="kind", tag="logistic"):
    """A sigmoid from `start` to `end`, half-way at half the share, met exactly at both ends."""

    steepness: Annotated[float, Meta(gt=0.0)] = 10.0
    """The sigmoid runs over +-steepness/2; larger is more like a step."""

    def _value(self, step: int, total: int) -> float:
        half = self.steepness / 2
        sigmoid = 1 / (1 + math.exp(-self.steepness * (progress(step, total, self.share) - 0.5)))
        low, high = 1 / (1 + math.exp(half)), 1 / (1 + math.exp(-half))
        return self.start + (self.end - self.start) * (sigmoid - low) / (high - low)


class CosineSchedule(_Rise, tag_field="kind", tag="cosine"):
    """Half a cosine from `start` to `end`."""

    def _value(self, step: int, total: int) -> float:
        eased = (1 - math.cos(math.pi * progress(step, total, self.share))) / 2
        return self.start + (self.end - self.start) * eased


class CosineRestartsSchedule(_Schedule, tag_field="kind", tag="cosine_restarts"):
    """`num_cycles` half cosines from `start` to `end`, of the same length, one after the other.

    For the learning rate alone: warm restarts (Loshchilov and Hutter 2017).
    """

    start: Value = 1.0
    """The value at the first step of a cycle."""
    end: Value = 0.02
    """The value at the last step of a cycle."""
    num_cycles: Annotated[int, Meta(ge=1)] = 2
    """Cycles in the run."""

    def _value(self, step: int, total: int) -> float:
        within = cycle_progress(step, total, self.num_cycles)
        return self.start + (self.end - self.start) * (1 - math.cos(math.pi * within)) / 2


class CyclicalSchedule(_Schedule, tag_field="kind", tag="cyclical"):
    """Linear rises to `end`, begun again at `start` `num_cycles` times (Fu et al. 2019)."""

    start: Value = 0.0
    """The value at the first step."""
    end: Value = 1.0
    """The value that is reached."""
    num_cycles: Annotated[int, Meta(ge=1)] = 4
    """Cycles in the run."""
    rise: Fraction = 0.5
    """Fraction of each cycle that rises; the rest stays at `end`."""

    def _value(self, step: int, total: int) -> float:
        within = cycle_progress(step, total, self.num_cycles)
        return self.start + (self.end - self.start) * min(1.0, within / self.rise)

    def settled(self) -> float:
        """The fraction of the run after which the last cycle stays at `end`."""
        return (self.num_cycles - 1 + self.rise) / self.num_cycles


def progress(step: int, total: int, share: float) -> float:
    """The part of the first `share` of `total` steps that has passed at `step`, from 0 to 1."""
    return min(1.0, step / max(1.0, share * total))


def cycle_progress(step: int, total: int, num_cycles: int) -> float:
    """The part of its cycle that has passed at `step`, from 0 to 1; cycles have one length."""
    position = min(step, total) * num_cycles / max(1, total)
    return position - min(math.floor(position), num_cycles - 1)


ScheduleConfig = (
    ConstantSchedule | LinearSchedule | LogisticSchedule | CosineSchedule | CyclicalSchedule
)
