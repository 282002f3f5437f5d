"""A normalizing flow as the prior, fitted to the aggregate posterior when training ends."""

from typing import Annotated, Any

import torch
from msgspec import Meta
from torch import Tensor

from textvae.config import Config
from textvae.errors import DataError
from textvae.model.density import FitContext, gain_of, split_posteriors
from textvae.model.flow import (
    ROWS,
    AutoregressiveFlow,
    FlowProgress,
    FlowShape,
    fit_flow,
    masked,
)
from textvae.model.gaussian import LOG_TWO_PI, DiagonalGaussian, transform_rows
from textvae.model.prior_gaussian import (
    FittedDensityPrior,
    StandardNormalPrior,
    matched_normals,
)

BLOCK_ROWS = 256
"""Draws that are mapped at once, never fewer: a product of matrices rounds by its shape."""


class FlowPriorConfig(Config, tag_field="kind", tag="flow"):
    """An autoregressive flow, fitted to the aggregate posterior of the training sentences.

    Validations see what `gaussian` is, N(m, C); the flow takes its place when training ends, if it
    is better on sentences held out. For latents of a high rate, whose aggregate is no mixture of a
    few Gaussians.
    """

    hidden_dim: Annotated[int, Meta(ge=1, le=8192)] = 256
    """Units of the network that turns dimensions into the mixture of the next one."""
    num_blocks: Annotated[int, Meta(ge=0, le=16)] = 1
    """Residual blocks of two layers each."""
    num_components: Annotated[int, Meta(ge=1, le=256)] = 5
    """Gaussians for each dimension, given those before it."""
    num_steps: Annotated[int, Meta(ge=1)] = 4000
    """Most steps of the fit; it also ends when a fifth of the time of training has gone by."""
    batch_size: Annotated[int, Meta(ge=1)] = 512
    """Draws of a step."""
    learning_rate: Annotated[float, Meta(gt=0.0)] = 4e-3
    """The highest learning rate of the fit."""

    def build(self, latent_dim: int) -> "FlowPrior | StandardNormalPrior":
        """The prior over latents `[..., latent_dim]`, N(0, 1) until it is fitted."""
        if latent_dim == 0:
            return StandardNormalPrior(0)
        return FlowPrior(latent_dim, self)

    def shape(self, latent_dim: int) -> FlowShape:
        """Sizes of the flow."""
        return FlowShape(latent_dim, self.hidden_dim, self.num_blocks, self.num_components)


class FlowPrior(FittedDensityPrior):
    """The density of a flow of y = L^-1 (z - m), and N(m, L L') while there is no flow.

    Dimension d of y depends on the first d dimensions of z alone, since L is triangular, so that
    the conditionals of the flow are those of z but for a constant.
    """

    def __init__(self, latent_dim: int, config: FlowPriorConfig) -> None:
        super().__init__(latent_dim)
        self.config = config
        for name, size in config.shape(latent_dim).sizes().items():
            self.register_buffer(name, torch.zeros(size))

    @property
    def description(self) -> str:
        """For a reader."""
        return "flow prior" if self.has_density else "flow prior (N(m, C), which was no worse)"

    def fit(self, posterior: DiagonalGaussian, *, seed: int, context: FitContext) -> None:
        """Fit a flow to N posteriors `[N, Z]`, and take it if it beats N(m, C).

        It beats N(m, C) if its held-out gain is over two standard errors.
        """
        context.report(f"prior: fitting a flow to {len(posterior.mean):,} sentences")
        try:
            split = split_posteriors(posterior, seed=seed)
        except DataError as error:  # the run diverged
            context.report(f"prior: N(m, C) stays: {error}")
            return
        points = self.to_normals(split.held_out.flatten(0, 1).to(self.mean))
        normal = _normal(points).sum(1)
        best: FlowProgress | None = None
        for progress in fit_flow(
            split.fitted,
            self.to_normals,
            points,
            self.config.shape(self.latent_dim),
            seed=seed,
            num_steps=self.config.num_steps,
            batch_size=self.config.batch_size,
            learning_rate=self.config.learning_rate,
            fraction_of_time=context.fraction,
        ):
            stage = f"flow, step {progress.step:,} of at most {progress.num_steps:,}"
            context.report_progress(stage, progress.log_prob - float(normal.double().mean()))
            if best is None or progress.log_prob > best.log_prob:
                best = progress
        assert best is not None
        log_prob = best.flow.conditional_log_probs(points).sum(1)
        gain = gain_of(*(part.view(split.held_out.shape[:2]) for part in (log_prob, normal)))
        if gain.is_sure:
            self.set_flow(best.flow)
        context.report_result("flow", gain, is_better=gain.is_sure)

    def set_flow(self, flow: AutoregressiveFlow) -> None:
        """Put a flow in front of N(m, C), whose moments stay those of the last fit."""
        for name, tensor in masked(flow)._asdict().items():
            self.get_buffer(name).copy_(tensor)
        self._buffers_changed()

    def kl(self, posterior: DiagonalGaussian) -> Tensor:
        """KL(q || p) `[..., Z]`, nats, by the chain rule; to a flow it is estimated.

        That to N(m, C), which is exact, less the mean over draws of how much more likely the flow
        makes each dimension, given those before it. The draws are the same standard normals for
        every posterior, so that its KL does not depend on others.
        """
        exact = super().kl(posterior)
        if not self.has_density:
            return exact
        flow, draws = self.flow(exact), matched_normals(self.latent_dim).to(exact)
        gain = torch.zeros_like(exact)
        together = max(1, ROWS // max(1, exact[..., 0].numel()))
        with torch.no_grad():
            for part in draws.split(together):  # type: ignore[no-untyped-call]
                noise = part.view(-1, *[1] * (exact.dim() - 1), self.latent_dim)
                points = self.to_normals(posterior.sample(noise)).reshape(-1, self.latent_dim)
                more = flow.conditional_log_probs(points) - _normal(points)
                gain += more.view(-1, *exact.shape).sum(0)
        return exact - gain / len(draws)

    def log_prob(self, latents: Tensor) -> Tensor:
        """Log p(z), nats, `[..., Z]` -> `[...]`."""
        exact = super().log_prob(latents)
        if not self.has_density:
            return exact
        points = self.to_normals(latents).reshape(-1, self.latent_dim)
        gain = (self.flow(points).conditional_log_probs(points) - _normal(points)).sum(1)
        return exact + gain.view(exact.shape)

    def sample(self, num_samples: int, *, seed: int, start: int = 0) -> Tensor:
        """Draws `start` to `start + N - 1`, `[N, Z]`, on the CPU; draw i is one of (seed, i)."""
        if not self.has_density:
            return super().sample(num_samples, seed=seed, start=start)
        # Whole blocks: a draw stands at the same row of the same shape whatever is asked for.
        first, end = start // BLOCK_ROWS, -(-(start + num_samples) // BLOCK_ROWS)
        noise = StandardNormalPrior(self.latent_dim).sample(
            (end - first) * BLOCK_ROWS, seed=seed, start=first * BLOCK_ROWS
        )
        skipped = start - first * BLOCK_ROWS
        return self.from_base(noise)[skipped : skipped + num_samples]

    def to_base(self, latents: Tensor) -> Tensor:
        """The standard normals `[..., Z]` that latents `[..., Z]` are the draws of."""
        points = self.to_normals(latents)
        if not self.has_density:
            return points
        flat = points.double().reshape(-1, self.latent_dim)
        return self.flow(flat).to_normals(flat).view(latents.shape).to(latents)

    def from_base(self, noise: Tensor) -> Tensor:
        """The latents `[N, Z]` of standard normals `[N, Z]`: the inverse of `to_base`."""
        wide = noise.double()
        if self.has_density:
            flow = self.flow(wide)
            parts = [flow.from_normals(rows) for rows in wide.split(BLOCK_ROWS)]  # type: ignore[no-untyped-call]
            wide = torch.cat(parts) if parts else wide
        return (self.mean.to(wide) + transform_rows(wide, self._lower().to(wide))).to(noise)

    def flow(self, like: Tensor) -> AutoregressiveFlow:
        """The flow of y, on the device and in the dtype of a tensor."""
        return AutoregressiveFlow(
            *(self.get_buffer(name).to(like) for name in AutoregressiveFlow._fields)
        )

    def _buffers_changed(self) -> None:
        self.has_density = bool(self.get_buffer("output_bias").any())

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        if self.has_density:  # so that the density of any file is one
            self.set_flow(self.flow(self.mean))


def _normal(points: Tensor) -> Tensor:
    """Log-densities of N(0, 1), dimension by dimension."""
    return -0.5 * (points.square() + LOG_TWO_PI)
