"""An average of the parameters over steps, which is validated, selected and saved in their place.

Training itself continues from the parameters, not from their average. A new average is a config
with a `kind` here and a name in `AveragingConfig`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor, nn

from textvae.config import Config

AGE = 9.0
"""Preference of a young exponential average for its newest steps: the mean age of its parts is
about a tenth of its own (Shamir and Zhang 2013, whose eta this is)."""


class NoAveraging(Config, tag_field="kind", tag="none"):
    """The parameters of the last step."""

    def begins(self, total: int) -> float:
        """The first step of a run of `total` that is in the average, from 0."""
        return float("inf")

    def weight(self, count: int) -> float:
        """The weight of the newest of `count` parameters in their average."""
        return 1.0


class ExponentialAveraging(Config, tag_field="kind", tag="exponential"):
    """The past fades by `decay` per step (Kingma and Ba 2015, section 7.2), in a young run faster.

    For its first 10 / (1 - decay) steps the average is that of polynomial decay (Shamir and Zhang
    2013), so that the first parameters do not stay in it.
    """

    decay: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.999
    """Weight of the average so far at each step."""

    def begins(self, total: int) -> float:
        """Every step is in the average."""
        return 0.0

    def weight(self, count: int) -> float:
        """The weight of the newest of `count` parameters in their average."""
        return max(1.0 - self.decay, (AGE + 1.0) / (AGE + count))


class TailAveraging(Config, tag_field="kind", tag="tail"):
    """The plain mean over the last part of the run (Polyak and Juditsky 1992).

    Merity et al. 2018 choose where it begins from the validation losses; here it is a fraction of
    the run, as all durations are.
    """

    share: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.25
    """Fraction of the run, at its end, that is averaged."""

    def begins(self, total: int) -> float:
        """The first step of the tail."""
        return (1.0 - self.share) * total

    def weight(self, count: int) -> float:
        """The same weight for all."""
        return 1.0 / count


AveragingConfig = NoAveraging | ExponentialAveraging | TailAveraging


class Average:
    """The average of a run so far; a part of its training state."""

    def __init__(self, config: AveragingConfig, total: int) -> None:
        self._config, self._begins = config, config.begins(total)
        self._count, self.mean = 0, dict[str, Tensor]()

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Add the parameters after a step, numbered from 0; buffers are copied unchanged.

        Buffers are the running statistics of a batch-normalised posterior, averages already.
        """
        if step < self._begins:
            return
        self._count += 1
        if self._count == 1:
            self.mean = _copy(model.state_dict())
            return
        weight, buffers = self._config.weight(self._count), dict(model.named_buffers())
        for name, value in model.state_dict().items():
            if name in buffers:
                self.mean[name].copy_(value)
            else:
                self.mean[name].lerp_(value, weight)

    def parameters(self, model: nn.Module) -> dict[str, Tensor]:
        """A copy of the average; of the parameters before there is one."""
        return _copy(self.mean or model.state_dict())

    @contextmanager
    def in_place_of(self, model: nn.Module) -> Iterator[None]:
        """Put the average into the model inside the block, and its parameters back after it."""
        if not self.mean:
            yield
            return
        parameters = _copy(model.state_dict())
        model.load_state_dict(self.mean)
        try:
            yield
        finally:
            model.load_state_dict(parameters)

    def tensors(self) -> dict[str, Tensor]:
        """The state for `load`: `count`, and `mean.` and the name of each parameter."""
        named = {f"mean.{name}": value for name, value in self.mean.items()}
        return {"count": torch.tensor(self._count), **named} if named else {}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the state that `tensors` returned, from copies."""
        self._count = int(tensors["count"]) if tensors else 0
        means = {name: value for name, value in tensors.items() if name != "count"}
        self.mean = {name.removeprefix("mean."): value.clone() for name, value in means.items()}


def _copy(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in tensors.items()}
