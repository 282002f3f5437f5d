"""Optimizers and the learning rate over a run."""

from typing import Annotated

import torch
from msgspec import Meta
from torch import nn

from textvae.config import Config
from textvae.train.plateau import NoPlateau, PlateauConfig
from textvae.train.schedules import CosineRestartsSchedule, CosineSchedule, ScheduleConfig

Rate = Annotated[float, Meta(gt=0.0, le=3e38)]  # float32 has no more


class AdamWConfig(Config, tag_field="kind", tag="adamw"):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019), fused."""

    learning_rate: Rate = 4e-3
    beta1: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.9
    beta2: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.999
    weight_decay: Annotated[float, Meta(ge=0.0)] = 0.0
    """Applied to matrices, not to biases."""

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer over a model's parameters, where they are now."""
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
    """Plain or momentum gradient descent, the custom of the older literature (rate 1.0)."""

    learning_rate: Rate = 1.0
    momentum: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.0

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer over a model's parameters, where they are now."""
        return torch.optim.SGD(
            model.parameters(), lr=self.learning_rate, momentum=self.momentum, fused=True
        )


OptimizerConfig = AdamWConfig | SGDConfig


class LearningRateConfig(Config):
    """The factor on the optimizer's learning rate: a linear warm-up, times a decay."""

    warmup_share: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.02
    """Share of the run over which the rate rises from nothing."""
    decay: ScheduleConfig | CosineRestartsSchedule = CosineSchedule(start=1.0, end=0.02, share=1.0)
    plateau: PlateauConfig = NoPlateau()
    """What else lowers the rate: validations that stop getting better."""

    def __post_init__(self) -> None:
        """Refuse two that would undo each other."""
        restarts = isinstance(self.decay, CosineRestartsSchedule)
        if restarts and not isinstance(self.plateau, NoPlateau):
            raise ValueError(
                "decay.kind cosine_restarts makes validations worse for most of a cycle, which a "
                "plateau would take back; choose one"
            )

    def factor(self, step: int, total: int, decays: int = 0) -> float:
        """The factor at a step of a run of `total`, after so many decays on a plateau."""
        warm = min(1.0, (step + 1) / (self.warmup_share * total + 1))
        return warm * self.decay(step, total) * self.plateau.factor(decays)


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Give every parameter group the same learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = value
