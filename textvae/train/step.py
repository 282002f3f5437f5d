"""One training step: gradient, clipping, update. The loop repeats it, and benchmarks time it."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from textvae.data.batching import Batch
from textvae.errors import MemoryLimitError, is_out_of_memory
from textvae.model.inferred import ElboTerms
from textvae.model.labelling import Labelling
from textvae.model.vae import VAE
from textvae.train.config import StepSettings
from textvae.train.gradient import backward
from textvae.train.objective import Loss
from textvae.train.optimizer import UpdateGuard
from textvae.train.procedures import Part
from textvae.train.rate import RateState
from textvae.train.schedules import Clock


class StepResult(NamedTuple):
    """The result of a step; its graph has been freed."""

    terms: ElboTerms
    """Terms of the batch, before the update."""
    loss: Loss
    lengths: Tensor
    """int64 `[B]`, of the batch."""
    finite: bool
    """False if the loss or the norm of the gradient is not finite: nothing was updated then. True
    where a guard knows."""
    rate: RateState
    """State of the target rate after the batch."""
    fault: str = ""
    """Which tensor is not finite."""


def train_step(
    model: VAE,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    settings: StepSettings,
    clock: Clock,
    *,
    rate: RateState | None = None,
    part: Part | None = None,
    labelling: Labelling | None = None,
    guard: UpdateGuard | None = None,
) -> StepResult:
    """Compute the gradient of a batch, clip it, and update, at the optimizer's learning rate.

    Args:
        model: in training mode.
        optimizer: of the model's parameters.
        batch: sentences; what is drawn for each is a function of (seed, step, its index).
        settings: of the run.
        clock: the step of the run, and the position of the schedules.
        rate: state of the target rate; None at the start of a run.
        part: part of the model that is updated, and whose gradient is clipped; None is all of it.
        labelling: labels of the batch, for a model with labels.
        guard: of the optimizer on CUDA, to find out later whether the step was finite; None waits
            for the device.

    Raises:
        MemoryLimitError: the step does not fit into memory.
    """
    if rate is None:
        rate = settings.objective.rate.start()
    optimizer.zero_grad(set_to_none=True)
    try:
        terms, loss = backward(model, batch, settings, clock, rate, labelling)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise _out_of_memory(batch, settings) from error
    if part is not None:
        _drop_gradients_outside(model, part)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if guard is not None:
        guard.update(norm, loss.value, settings.clip_norm)
        return StepResult(terms, loss, batch.lengths, True, rate)
    length = float(norm)
    if not (math.isfinite(length) and bool(loss.value.isfinite())):
        return StepResult(terms, loss, batch.lengths, False, rate, _first_not_finite(model, terms))
    if length > settings.clip_norm:  # else it would multiply all by 1, a hundredth of a step
        nn.utils.clip_grads_with_norm_(model.parameters(), settings.clip_norm, norm)
    optimizer.step()
    if not clock.autoencoder:
        rate = settings.objective.rate.observe(terms.kl, rate)
    return StepResult(terms, loss, batch.lengths, True, rate)


def _drop_gradients_outside(model: VAE, part: Part) -> None:
    """Remove the gradients of the other part: optimizers skip its parameters and their moments."""
    for name, parameter in model.named_parameters():
        if name.startswith("encoder.") != (part == "encoder"):
            parameter.grad = None


def _first_not_finite(model: VAE, terms: ElboTerms) -> str:
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


def _out_of_memory(batch: Batch, settings: StepSettings) -> MemoryLimitError:
    size = min(batch.lengths.shape[0], settings.micro_batch_size or batch.lengths.shape[0])
    remedy = f"set train.micro_batch_size below {size:,}, which does not change the result"
    if size == 1:
        remedy = "lower hidden_dim, max_length or the size of the vocabulary"
    return MemoryLimitError(f"out of memory in a step with {size:,} sentences at once: {remedy}")


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Flush denormals to zero, which the moments of rare words decay into, at 7 times the cost.

    Only while training: with it on, msgspec takes 0.0 for a value that must be above zero.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
