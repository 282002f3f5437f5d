"""One training step: what the loop repeats, and what `scripts/benchmark.py` times."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from textvae.data.batching import Batch
from textvae.model.inferred import ElboTerms
from textvae.model.vae import VAE
from textvae.train.labelled import DrawLabelled, labelling_of
from textvae.train.objective import Loss, ObjectiveConfig, Stage, objective
from textvae.train.parts import Draws, Parts
from textvae.train.rate import RateState

Part = Literal["encoder", "rest"]
"""The encoder, or all but the encoder."""


class Step(NamedTuple):
    """What a step did; its graph has been used up."""

    terms: ElboTerms
    """Of the batch, before the update."""
    loss: Loss
    finite: bool
    """False where the loss or the norm of the gradient is not finite: nothing was updated then."""
    rate: RateState
    """Of the target rate, after the batch."""
    fault: str = ""
    """What is not finite."""


def train_step(
    model: VAE,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    config: ObjectiveConfig,
    *,
    step: int,
    total: int,
    seed: int,
    clip_norm: float,
    dtype: torch.dtype = torch.float32,
    rate: RateState | None = None,
    stage: Stage | None = None,
    part: Part | None = None,
    parts: Parts | None = None,
    labelled: DrawLabelled | None = None,
) -> Step:
    """Forward, backward, clipping and update, at the learning rate the optimizer has now.

    Args:
        model: in training mode.
        optimizer: of the model's parameters.
        batch: sentences; what is drawn for each is a function of (seed, step, its index).
        config: of the loss.
        step: of a run of `total` steps; decides what is drawn.
        total: decides the schedules, unless `stage` does.
        seed: of everything drawn.
        clip_norm: a longer gradient is scaled down to this norm.
        dtype: of the matrix products.
        rate: state of the target rate; None where the run begins.
        stage: where the schedules are; None is step `step` of `total`.
        part: of the model that is updated, and whose gradient is clipped; None is all of it.
        parts: how the batch is cut; None is one piece, or one for each process.
        labelled: `labelled_batch` of all but the step, for a model with labels.
    """
    stage = Stage(step, total) if stage is None else stage
    word_dropout = config.word_dropout(stage.step, stage.total)
    rate = config.rate.start() if rate is None else rate
    optimizer.zero_grad(set_to_none=True)
    terms, loss = (parts or Parts()).backward(
        model,
        batch,
        partial(objective, config, stage=stage, rate=rate),
        Draws(seed, step, word_dropout, dtype, config.denoise),
        labelling_of(model, batch, labelled, seed=seed, step=step),
    )
    if part is not None:
        _forget_others(model, part)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    length, fault = float(norm), ""
    finite = math.isfinite(length) and bool(loss.value.isfinite())
    if finite:
        if length > clip_norm:  # else it would multiply all by 1, a hundredth of a step
            nn.utils.clip_grads_with_norm_(model.parameters(), clip_norm, norm)
        optimizer.step()
        rate = rate if stage.autoencoder else config.rate.observe(terms.kl, rate)
    else:
        fault = _not_finite(model, terms)
    return Step(terms, loss, finite, rate, fault)


def _forget_others(model: VAE, part: Part) -> None:
    """Take the gradients of the other part away: optimizers pass over it, moments and all."""
    for name, parameter in model.named_parameters():
        if name.startswith("encoder.") != (part == "encoder"):
            parameter.grad = None


def _not_finite(model: VAE, terms: ElboTerms) -> str:
    """The first tensor on the way from the parameters to the gradient that is not finite."""
    stages: dict[str, dict[str, Tensor | None]] = {
        "parameter": dict(model.named_parameters()),
        "loss": {"kl": terms.kl, "reconstruction": terms.reconstruction.total},
        "gradient of": {name: p.grad for name, p in model.named_parameters()},
    }
    for kind, tensors in stages.items():
        for name, tensor in tensors.items():
            if tensor is not None and not bool(tensor.isfinite().all()):
                return f"{kind} {name}"
    return "norm of the gradient"


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Moments of rare words decay into denormals, which are 7 times slower, so they become zero.

    Only while training: with it on, msgspec takes 0.0 for a value that must be above zero.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
