"""Constraints on the posterior: a new one is a config here, and a name in the union."""

from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor, nn

from textvae.config import Config

SMALLEST_VARIANCE = 1e-10
"""Added to the variance of a batch, which may be zero. The raw means of an initial model have a
variance near 1e-4: torch's default of 1e-5 would take a tenth off the bound."""


class NoConstraintConfig(Config, tag_field="kind", tag="none"):
    """Mean and variance are the outputs of the encoder."""

    def build(self, latent_dim: int) -> None:
        """None: there is no constraint to build."""


class BatchNormConfig(Config, tag_field="kind", tag="batch_norm"):
    """BN-VAE (Zhu et al. 2020): a fixed spread of the means of a batch, and so a minimal KL.

    In training the mean of each dimension is normalized over the batch, multiplied by `scale`,
    and shifted by the encoder's bias: the KL averaged over the batch is then at least
    scale^2 / 2 for each dimension.
    """

    scale: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.6
    """Standard deviation of the means; above 1 the aggregate posterior is wider than the prior."""
    momentum: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.1
    """Weight of the newest batch in the running statistics that evaluation uses."""

    def build(self, latent_dim: int) -> "MeanBatchNorm":
        """The normalization, without statistics yet."""
        return MeanBatchNorm(self, latent_dim)


PosteriorConstraintConfig = NoConstraintConfig | BatchNormConfig


class MeanBatchNorm(nn.Module):
    """Batch normalization (Ioffe and Szegedy 2015) with a fixed scale and without a shift.

    The running statistics start at zero and are divided by their weight, so that they are unbiased
    from the first batch on, as in Adam.
    """

    running_mean: Tensor
    running_variance: Tensor
    running_weight: Tensor

    def __init__(self, config: BatchNormConfig, latent_dim: int) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("running_mean", torch.zeros(latent_dim))
        self.register_buffer("running_variance", torch.zeros(latent_dim))
        self.register_buffer("running_weight", torch.zeros(()))

    def buffer_fault(self) -> str | None:
        """Variances and the weight of what was seen are not negative."""
        for name in ("running_variance", "running_weight"):
            if bool((self.get_buffer(name) < 0).any()):
                return f"{name} holds a number below 0"
        return None

    def forward(self, mean: Tensor, *, training: bool) -> Tensor:
        """Normalized means `[B, Z]` from raw means `[B, Z]`.

        Args:
            mean: one row per sentence.
            training: use the statistics of the batch, and update the running ones. A batch of one
                sentence has no variance: it is normalized as in evaluation and updates nothing.
        """
        if training and mean.shape[0] > 1:
            variance, center = torch.var_mean(mean, dim=0, correction=0)
            self._update(center.detach(), variance.detach(), mean.shape[0])
        else:
            has_statistics = self.running_weight > 0
            weight = torch.where(has_statistics, self.running_weight, 1.0)
            center = self.running_mean / weight
            variance = torch.where(has_statistics, self.running_variance / weight, 1.0)
        return self.config.scale * (mean - center) * (variance + SMALLEST_VARIANCE).rsqrt()

    @torch.no_grad()
    def _update(self, center: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics; the variance becomes the unbiased one."""
        momentum = self.config.momentum
        self.running_mean.lerp_(center.to(self.running_mean), momentum)
        unbiased = variance.to(self.running_variance) * (count / (count - 1))
        self.running_variance.lerp_(unbiased, momentum)
        self.running_weight.lerp_(torch.ones_like(self.running_weight), momentum)
