"""Optimizers, and the learning rate over a run."""

from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor, nn

from textvae.config import Config
from textvae.train.schedules import CosineRestartsSchedule, CosineSchedule, ScheduleConfig

Rate = Annotated[float, Meta(gt=0.0, le=3e38)]  # float32 has no more
Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]


class AdamWConfig(Config, tag_field="kind", tag="adamw"):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019), fused."""

    learning_rate: Rate = 4e-3
    """Its highest value, which the schedule of the learning rate multiplies."""
    beta1: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.9
    """Decay of the mean of the gradients."""
    beta2: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.999
    """Decay of the mean of their squares."""
    weight_decay: Annotated[float, Meta(ge=0.0)] = 0.0
    """Applied to matrices, not to biases."""

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of a model's parameters, on their device."""
        decayed = [p for p in model.parameters() if p.dim() > 1]
        others = [p for p in model.parameters() if p.dim() <= 1]
        groups = [
            {"params": decayed, "weight_decay": self.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(
            groups, lr=self.learning_rate, betas=(self.beta1, self.beta2), fused=True
        )


class SGDConfig(Config, tag_field="kind", tag="sgd"):
    """Gradient descent with or without momentum, the custom of older literature (rate 1.0)."""

    learning_rate: Rate = 1.0
    """Its highest value, which the schedule of the learning rate multiplies."""
    momentum: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.0
    """Decay of the sum of the gradients."""

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of a model's parameters, on their device."""
        return torch.optim.SGD(
            model.parameters(), lr=self.learning_rate, momentum=self.momentum, fused=True
        )


OptimizerConfig = AdamWConfig | SGDConfig


class NoPlateau(Config, tag_field="kind", tag="none"):
    """The learning rate follows its schedule alone."""

    def due(self, bad_validations: int) -> bool:
        """True if the rate falls after so many validations in a row without a better ELBO."""
        return False

    def factor(self, decays: int) -> float:
        """The factor on the learning rate after it has fallen `decays` times."""
        return 1.0

    def exhausted(self, decays: int) -> bool:
        """True if the run ends after so many."""
        return False


class DivideOnPlateau(Config, tag_field="kind", tag="divide"):
    """Divide the rate, and return to the best parameters, their average and optimizer moments.

    The custom for recurrent models (Mikolov et al. 2010 divide by two; He et al. 2019 also return
    to the best). The count of steps continues, so that later sentences and noise are new ones.
    """

    validations: Count = 2
    """Validations in a row without a better ELBO; counted again from there each time."""
    divisor: Annotated[float, Meta(gt=1.0)] = 2.0
    """Divisor of the rate."""
    max_decays: Count | None = None
    """The run ends where the rate would fall more often than this."""

    def due(self, bad_validations: int) -> bool:
        """True if the rate falls after so many validations in a row without a better ELBO."""
        return bad_validations > 0 and bad_validations % self.validations == 0

    def factor(self, decays: int) -> float:
        """The factor on the learning rate after it has fallen `decays` times."""
        return float(self.divisor**-decays)

    def exhausted(self, decays: int) -> bool:
        """True if the run ends after so many."""
        return self.max_decays is not None and decays > self.max_decays


PlateauConfig = NoPlateau | DivideOnPlateau


class LearningRateConfig(Config):
    """The factor on the optimizer's learning rate: a linear warm-up times a decay."""

    warmup_share: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.02
    """Fraction of the run over which the rate rises from zero."""
    decay: ScheduleConfig | CosineRestartsSchedule = CosineSchedule(start=1.0, end=0.02, share=1.0)
    plateau: PlateauConfig = NoPlateau()
    """Lower the rate also where validations stop improving."""

    def __post_init__(self) -> None:
        """Refuse restarts with a plateau, which would undo each other."""
        restarts = isinstance(self.decay, CosineRestartsSchedule)
        if restarts and not isinstance(self.plateau, NoPlateau):
            raise ValueError(
                "decay.kind cosine_restarts makes validations worse for most of a cycle, which a "
                "plateau would take back; choose one"
            )

    def factor(self, step: int, total: int, decays: int = 0) -> float:
        """The factor at a step of a run of `total`, after so many decays on plateaus."""
        warm = min(1.0, (step + 1) / (self.warmup_share * total + 1))
        return warm * self.decay(step, total) * self.plateau.factor(decays)


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = value


class UpdateGuard:
    """Clips gradients and makes updates on CUDA without reading there whether all is finite.

    The fused optimizers of torch divide gradients by a scale and skip an update themselves, for
    mixed precision. From the first step that is not finite on, every update is skipped, so that
    the parameters are still those before it when the host asks.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        self._optimizer = optimizer
        self._not_finite = torch.zeros((), device=device)  # NaN as soon as something was not
        self._num_skipped = torch.zeros((), device=device)

    def update(self, norm: Tensor, loss: Tensor, clip_norm: float) -> None:
        """Make a step of the optimizer with gradients of this norm, clipped to `clip_norm`."""
        total = norm + loss
        self._not_finite += total - total
        skipped = self._not_finite.ne(0.0).float()
        self._num_skipped += skipped
        self._optimizer.grad_scale = (norm / clip_norm).clamp(min=1.0)  # type: ignore[attr-defined]
        self._optimizer.found_inf = skipped  # type: ignore[attr-defined]
        self._optimizer.step()

    def num_skipped(self) -> int:
        """How many of the last steps were skipped; waits for the device."""
        return int(self._num_skipped)

    def remove(self) -> None:
        """Leave the optimizer to update as usual."""
        for name in ("grad_scale", "found_inf"):
            if hasattr(self._optimizer, name):
                delattr(self._optimizer, name)
