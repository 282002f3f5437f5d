"""A target rate: the trainer finds the KL weight at which the KL is as many nats as asked for.

A member is a config with a `kind` here and a name in `RateConfig`. It holds no state: what it
remembers is a `RateState`, which is saved with the run, so that a resumed run equals a straight
one. The rate it sees is the mean KL of the batch of the step before.
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
    """What is remembered from step to step: plain numbers, exact in JSON."""

    multiplier: float = 0.0
    """The multiplier of the constraint, or the weight the controller asks for."""
    integral: float = 0.0
    """What has been added up over the steps."""


class KLWeights(NamedTuple):
    """How the KL enters the loss: penalty * free_bits(KL) - reward * KL."""

    penalty: float
    reward: float = 0.0


def mean_rate(kl: Tensor) -> float:
    """The rate of a batch, nats a sentence, from its KL `[B, Z]`."""
    return float(kl.detach().double().sum(1).mean())


class NoTargetRate(Config, tag_field="kind", tag="none"):
    """The KL weight is its schedule."""

    def start(self) -> RateState:
        """The state of a run that begins."""
        return RateState()

    def weights(self, scheduled: float, state: RateState) -> KLWeights:
        """How the KL enters the loss where the schedule says `scheduled`."""
        return KLWeights(scheduled)

    def observe(self, kl: Tensor, state: RateState) -> RateState:
        """The state after a batch whose KL is `[B, Z]` nats."""
        return state


class LagrangianRate(Config, tag_field="kind", tag="lagrangian"):
    """At least `nats`: the minimum desired rate of Pelsmaeker and Aziz 2020.

    Minimise the loss subject to KL >= nats, by descent on the parameters and ascent on the
    multiplier u >= 0 of u (nats - KL). Where the KL exceeds `nats` by itself, u falls to 0 and
    the weight is the schedule's; a u above 1 rewards KL. The schedule anneals both terms.
    `damping` makes it an augmented Lagrangian (Platt and Barr 1987), without which the KL and u
    chase each other.
    """

    nats: Nats = 8.0
    """The least KL of a sentence, on average."""
    step_size: Gain = 0.001
    """The multiplier moves by this for each nat that is missing, each step."""
    damping: Weight = 0.02
    """What each missing nat adds to the multiplier while it is missing; the authors have none."""
    start_multiplier: Weight = 1.0
    """At 1 a run begins with a KL that costs nothing; the authors begin at 1.01."""

    def start(self) -> RateState:
        """The state of a run that begins."""
        return RateState(self.start_multiplier, self.start_multiplier)

    def weights(self, scheduled: float, state: RateState) -> KLWeights:
        """How the KL enters the loss where the schedule says `scheduled`."""
        return KLWeights(scheduled, scheduled * state.multiplier)

    def observe(self, kl: Tensor, state: RateState) -> RateState:
        """The state after a batch whose KL is `[B, Z]` nats."""
        missing = self.nats - mean_rate(kl)
        integral = max(0.0, state.integral + self.step_size * missing)
        return RateState(max(0.0, integral + self.damping * missing), integral)


class ControlledRate(Config, tag_field="kind", tag="control"):
    """About `nats`: the PI controller of ControlVAE (Shao et al. 2020) turns the KL weight.

    The scheduled weight is multiplied by what the controller asks for, between `min_weight` and
    `max_weight`: more where the KL is above `nats`, less where it is below.
    """

    nats: Nats = 8.0
    """The KL of a sentence, on average."""
    proportional_gain: Weight = 0.01
    """The most that the KL of one batch can add to the weight."""
    integral_gain: Gain = 0.001
    """The weight moves by this for each nat too many, each step."""
    min_weight: Weight = 0.0
    max_weight: Annotated[float, Meta(gt=0.0)] = 1.0

    def __post_init__(self) -> None:
        """Refuse bounds that cross."""
        if self.min_weight >= self.max_weight:
            raise ValueError(
                f"min_weight {self.min_weight} is not below max_weight {self.max_weight}"
            )

    def start(self) -> RateState:
        """The state of a run that begins."""
        return RateState(self.min_weight)

    def weights(self, scheduled: float, state: RateState) -> KLWeights:
        """How the KL enters the loss where the schedule says `scheduled`."""
        return KLWeights(scheduled * state.multiplier)

    def observe(self, kl: Tensor, state: RateState) -> RateState:
        """The state after a batch whose KL is `[B, Z]` nats.

        The integral stays within what the weight can use, so that it answers at once when the
        error changes sign: what the authors reach by not adding while the weight is at a bound.
        """
        missing = self.nats - mean_rate(kl)
        span = self.max_weight - self.min_weight
        integral = min(max(0.0, state.integral - self.integral_gain * missing), span)
        proportional = self.proportional_gain / (1.0 + math.exp(min(missing, 700.0)))
        weight = self.min_weight + min(integral + proportional, span)
        return RateState(weight, integral)


RateConfig = NoTargetRate | LagrangianRate | ControlledRate
