"""Values that change over a run: pure functions of the step, so that resuming needs no state.

Durations are shares of the whole run, so that a schedule keeps its shape when a run is made
longer. A new schedule is a config with a `kind` here, and a name in `ScheduleConfig`, or, where it
is for the learning rate alone, in `LearningRateConfig`.
"""

import math
from typing import Annotated, NamedTuple

from msgspec import Meta

from textvae.config import Config

Share = Annotated[float, Meta(gt=0.0, le=1.0)]
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


def progress(step: int, total: int, share: float) -> float:
    """How much of the first `share` of `total` steps has passed at `step`, from 0 to 1."""
    return min(1.0, step / max(1.0, share * total))


def cycle_progress(step: int, total: int, num_cycles: int) -> float:
    """How much of its cycle, one of `num_cycles` of one length, has passed at `step`, 0 to 1."""
    position = min(step, total) * num_cycles / max(1, total)
    return position - min(math.floor(position), num_cycles - 1)


class ConstantSchedule(Config, tag_field="kind", tag="constant"):
    """Always the same value."""

    value: Value = 1.0

    def __call__(self, step: int, total: int) -> float:
        """The value at a step of a run of `total` steps."""
        return self.value

    def settled(self) -> float:
        """The share of the run after which the value no longer changes."""
        return 0.0


class LinearSchedule(Config, tag_field="kind", tag="linear"):
    """A straight line from `start` to `end` (Bowman et al. 2016)."""

    start: Value = 0.0
    end: Value = 1.0
    share: Share = 0.25

    def __call__(self, step: int, total: int) -> float:
        """The value at a step of a run of `total` steps."""
        return self.start + (self.end - self.start) * progress(step, total, self.share)

    def settled(self) -> float:
        """The share of the run after which the value no longer changes."""
        return self.share


class LogisticSchedule(Config, tag_field="kind", tag="logistic"):
    """A sigmoid from `start` to `end`, half-way at half the share, met exactly at both ends."""

    start: Value = 0.0
    end: Value = 1.0
    share: Share = 0.25
    steepness: Annotated[float, Meta(gt=0.0)] = 10.0
    """The sigmoid runs over +-steepness/2; larger is more like a step."""

    def __call__(self, step: int, total: int) -> float:
        """The value at a step of a run of `total` steps."""
        half = self.steepness / 2
        sigmoid = 1 / (1 + math.exp(-self.steepness * (progress(step, total, self.share) - 0.5)))
        low, high = 1 / (1 + math.exp(half)), 1 / (1 + math.exp(-half))
        return self.start + (self.end - self.start) * (sigmoid - low) / (high - low)

    def settled(self) -> float:
        """The share of the run after which the value no longer changes."""
        return self.share


class CosineSchedule(Config, tag_field="kind", tag="cosine"):
    """Half a cosine from `start` to `end`."""

    start: Value = 0.0
    end: Value = 1.0
    share: Share = 0.25

    def __call__(self, step: int, total: int) -> float:
        """The value at a step of a run of `total` steps."""
        eased = (1 - math.cos(math.pi * progress(step, total, self.share))) / 2
        return self.start + (self.end - self.start) * eased

    def settled(self) -> float:
        """The share of the run after which the value no longer changes."""
        return self.share


class CosineRestartsSchedule(Config, tag_field="kind", tag="cosine_restarts"):
    """`num_cycles` half cosines from `start` to `end`, one after the other and of one length.

    For the learning rate alone: warm restarts (Loshchilov and Hutter 2017).
    """

    start: Value = 1.0
    end: Value = 0.02
    num_cycles: Annotated[int, Meta(ge=1)] = 2

    def __call__(self, step: int, total: int) -> float:
        """The value at a step of a run of `total` steps."""
        within = cycle_progress(step, total, self.num_cycles)
        return self.start + (self.end - self.start) * (1 - math.cos(math.pi * within)) / 2

    def settled(self) -> float:
        """The share of the run after which the value no longer changes."""
        return 1.0


class CyclicalSchedule(Config, tag_field="kind", tag="cyclical"):
    """Linear rises to `end`, begun again at `start` `num_cycles` times (Fu et al. 2019)."""

    start: Value = 0.0
    end: Value = 1.0
    num_cycles: Annotated[int, Meta(ge=1)] = 4
    rise: Share = 0.5
    """Share of each cycle spent rising; the rest stays at `end`."""

    def __call__(self, step: int, total: int) -> float:
        """The value at a step of a run of `total` steps."""
        within = cycle_progress(step, total, self.num_cycles)
        return self.start + (self.end - self.start) * min(1.0, within / self.rise)

    def settled(self) -> float:
        """The share of the run after which the value no longer changes."""
        return (self.num_cycles - 1 + self.rise) / self.num_cycles


ScheduleConfig = (
    ConstantSchedule | LinearSchedule | LogisticSchedule | CosineSchedule | CyclicalSchedule
)
