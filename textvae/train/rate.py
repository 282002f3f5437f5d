"""Target rates: the trainer adapts the KL weight until the KL is as many nats as asked for.

A member is a config with a `kind` here and a name in `RateConfig`. Its memory is a `RateState` that
is saved with the run, so that a resumed run equals an uninterrupted one. It observes the mean KL of
the batch of the previous step.
"""

import math
from typing import Annotated, NamedTuple

from msgspec import Meta
from torch import Tensor

from textvae.config import Config

Nats = Annotated[float, Meta(gt=0.0)]
Gain = Annotated[float, Meta(gt=0.0)]
Weight = Annotated[float, Meta(ge=0.0)]


class RateState(NamedTuple):
    """The memory of a target rate from step to step: plain numbers, exact in JSON."""

    multiplier: float = 0.0
    """Multiplier of the constraint, or the weight that the controller sets."""
    integral: float = 0.0
    """Sum of the errors over the steps."""


class KLWeights(NamedTuple):
    """Weights of the KL in the loss: penalty * free_bits(KL) - reward * KL."""

    penalty: float
    reward: float = 0.0


def mean_rate(kl: Tensor) -> float:
    """The rate of a batch, nats per sentence, from its KL `[B, Z]`; waits for the device."""
    return float(kl.detach().double().sum(1).mean())


class NoTargetRate(Config, tag_field="kind", tag="none"):
    """The KL weight is its schedule."""

    def start(self) -> RateState:
        """The state at the start of a run."""
        return RateState()

    def weights(self, scheduled: float, state: RateState) -> KLWeights:
        """The weights of the KL where the schedule has the value `scheduled`."""
        return KLWeights(scheduled)

    def observe(self, kl: Tensor, state: RateState) -> RateState:
        """The state after a batch whose KL is `[B, Z]` nats."""
        return state


class LagrangianRate(Config, tag_field="kind", tag="lagrangian"):
    """At least `nats`: the minimum desired rate of Pelsmaeker and Aziz 2020.

    Minimise the loss subject to KL >= nats, by descent on the parameters and ascent on the
    multiplier u >= 0 of u (nats - KL). Where the KL exceeds `nats` by itself, u falls to 0 and
    the weight is that of the schedule; a u above 1 rewards KL. The schedule anneals both terms.
    `damping` makes it an augmented Lagrangian (Platt and Barr 1987), without which the KL and u
    oscillate.
    """

    nats: Nats = 8.0
    """The least mean KL per sentence."""
    step_size: Gain = 0.001
    """The multiplier moves by this per missing nat and step."""
    damping: Weight = 0.02
    """Each missing nat adds this to the multiplier while it is missing; the authors have none."""
    start_multiplier: Weight = 1.0
    """At 1 a run starts with a KL that costs nothing; the authors start at 1.01."""

    def start(self) -> RateState:
        """The state at the start of a run."""
        return RateState(self.start_multiplier, self.start_multiplier)

    def weights(self, scheduled: float, state: RateState) -> KLWeights:
        """A penalty by the schedule, and a reward by the multiplier."""
        return KLWeights(scheduled, scheduled * state.multiplier)

    def observe(self, kl: Tensor, state: RateState) -> RateState:
        """One step of ascent on the multiplier."""
        missing = self.nats - mean_rate(kl)
        integral = max(0.0, state.integral + self.step_size * missing)
        return RateState(max(0.0, integral + self.damping * missing), integral)


class ControlledRate(Config, tag_field="kind", tag="control"):
    """About `nats`: the PI controller of ControlVAE (Shao et al. 2020) sets the KL weight.

    The scheduled weight is multiplied by the output of the controller, between `min_weight` and
    `max_weight`: more where the KL is above `nats`, less where it is below.
    """

    nats: Nats = 8.0
    """The mean KL per sentence."""
    proportional_gain: Weight = 0.01
    """The most that the KL of one batch can add to the weight."""
    integral_gain: Gain = 0.001
    """The weight moves by this per nat above the target and step."""
    min_weight: Weight = 0.0
    """The least output of the controller."""
    max_weight: Annotated[float, Meta(gt=0.0)] = 1.0
    """The greatest output of the controller."""

    def __post_init__(self) -> None:
        """Refuse bounds that cross."""
        if self.min_weight >= self.max_weight:
            raise ValueError(
                f"min_weight {self.min_weight} is not below max_weight {self.max_weight}"
            )

    def start(self) -> RateState:
        """The state at the start of a run."""
        return RateState(self.min_weight)

    def weights(self, scheduled: float, state: RateState) -> KLWeights:
        """The schedule times the output of the controller."""
        return KLWeights(scheduled * state.multiplier)

    def observe(self, kl: Tensor, state: RateState) -> RateState:
        """One step of the controller.

        The integral stays within the range of the weight, so that it reacts at once when the error
        changes sign; the authors stop adding while the weight is at a bound.
        """
        missing = self.nats - mean_rate(kl)
        span = self.max_weight - self.min_weight
        integral = min(max(0.0, state.integral - self.integral_gain * missing), span)
        proportional = self.proportional_gain / (1.0 + math.exp(min(missing, 700.0)))
        return RateState(self.min_weight + min(integral + proportional, span), integral)


RateConfig = NoTargetRate | LagrangianRate | ControlledRate
