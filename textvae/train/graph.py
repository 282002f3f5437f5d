"""Training steps as CUDA graphs: captured once per shape of a batch, then replayed in one launch.

A graph repeats the kernels of the step that was captured, numbers of the host included. Everything
that changes from step to step is therefore read from memory of the device: the batch, and a vector
with the learning rate, the weight of the KL, the rate of word dropout and the step, which is the
key of all noise.
"""

from collections import Counter
from typing import NamedTuple

import torch
from msgspec import structs
from torch import Tensor
from torch.nn import functional as F

from textvae import distributed
from textvae.data.batching import Batch
from textvae.model.vae import VAE
from textvae.train.config import StepSettings, TrainConfig
from textvae.train.optimizer import AdamWConfig, NoPlateau, UpdateGuard
from textvae.train.procedures import JointProcedure
from textvae.train.rate import NoTargetRate
from textvae.train.schedules import Clock, ConstantSchedule
from textvae.train.step import StepResult, train_step

LENGTHS = 4
"""Batches are padded to a multiple of this many positions, so that there are few graphs."""
WARM_UP = 2
"""Steps of a shape before it is captured: libraries and Triton prepare their kernels in them."""


class _ReadFromDevice(NamedTuple):
    """A schedule whose value is in the memory of the device."""

    scalar: Tensor

    def __call__(self, step: int, total: int) -> Tensor:
        return self.scalar


class _Captured(NamedTuple):
    """A shape of batches, its graph where there is one, and the tensors that the graph writes."""

    memory: Tensor
    """int64: inputs, targets, lengths and indices, one after the other."""
    batch: Batch
    """Views of the memory."""
    graph: torch.cuda.CUDAGraph | None
    result: StepResult | None


class StepGraphs:
    """Makes training steps by graphs; see `reason_against` for when."""

    def __init__(
        self,
        model: VAE,
        optimizer: torch.optim.Optimizer,
        settings: StepSettings,
        guard: UpdateGuard,
    ) -> None:
        self._model, self._optimizer, self._guard = model, optimizer, guard
        self._settings = settings
        self._numbers = torch.zeros(4, dtype=torch.float64, device=model.device)
        self._shapes, self._seen = dict[tuple[int, int], _Captured](), Counter[tuple[int, int]]()
        self._pool = torch.cuda.graph_pool_handle()
        for group in optimizer.param_groups:
            group["capturable"] = True
        optimizer._warned_capturable_if_run_uncaptured = True

    def step(self, batch: Batch, clock: Clock) -> StepResult:
        """Make a step at the learning rate that the optimizer has; see `train_step`.

        The tensors of the result are overwritten by the next step.
        """
        objective = self._settings.objective
        learning_rate = self._optimizer.param_groups[0]["lr"]
        kl_weight = objective.beta * objective.kl_weight(*clock.stage)
        numbers = learning_rate, kl_weight, objective.word_dropout(*clock.stage), clock.step
        host = torch.tensor(numbers, dtype=torch.float64).pin_memory()
        self._numbers.copy_(host, non_blocking=True)
        size, width = batch.targets.shape[0], -(-batch.targets.shape[1] // LENGTHS) * LENGTHS
        shape = size, width
        captured = self._shapes.get(shape) or self._new_shape(size, width)
        padding = (0, width - batch.targets.shape[1])
        padded = [F.pad(tokens, padding).flatten() for tokens in (batch.inputs, batch.targets)]
        torch.cat([*padded, batch.lengths, batch.indices], out=captured.memory)
        self._seen[shape] += 1
        if captured.graph is None and self._seen[shape] > WARM_UP:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                result = self._run(captured.batch)
            captured = captured._replace(graph=graph, result=result)
        if captured.graph is not None:
            captured.graph.replay()
        else:
            captured = captured._replace(result=self._run(captured.batch))
        self._shapes[shape] = captured._replace(result=captured.result if captured.graph else None)
        assert captured.result is not None
        loss = captured.result.loss._replace(kl_weight=kl_weight)
        return captured.result._replace(loss=loss)

    def num_skipped(self) -> int:
        """The number of `UpdateGuard.num_skipped`."""
        return self._guard.num_skipped()

    def remove(self) -> None:
        """Leave the optimizer to update as usual."""
        self._guard.remove()

    def _new_shape(self, size: int, width: int) -> _Captured:
        cells = size * width
        memory = torch.zeros(2 * cells + 2 * size, dtype=torch.int64, device=self._model.device)
        inputs, targets, lengths, indices = memory.split([cells, cells, size, size])  # type: ignore[no-untyped-call]
        shaped = inputs.view(size, width), targets.view(size, width)
        return _Captured(memory, Batch(*shaped, lengths, indices), None, None)

    def _run(self, batch: Batch) -> StepResult:
        """The step that is captured: no number in it may change from step to step."""
        learning_rate, kl_weight, word_dropout, _ = self._numbers.float().unbind()
        step = self._numbers[3].long()
        replaced: dict[str, object] = {"kl_weight": _ReadFromDevice(kl_weight), "beta": 1.0}
        objective = self._settings.objective
        if objective.word_dropout != ConstantSchedule(value=0.0):
            replaced["word_dropout"] = _ReadFromDevice(word_dropout)
        settings = self._settings._replace(objective=structs.replace(objective, **replaced))
        rates = [group["lr"] for group in self._optimizer.param_groups]
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        clock = Clock(step, 0, 1)  # type: ignore[arg-type]
        result = train_step(self._model, self._optimizer, batch, settings, clock, guard=self._guard)
        for group, rate in zip(self._optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        return result


def reason_against(config: TrainConfig, model: VAE) -> str | None:
    """Why the steps of a run cannot be graphs, or None where they can."""
    reasons = {
        "the device is not CUDA": model.device.type != "cuda",
        "several processes share a step": distributed.size() > 1,
        "the model has labels": bool(model.labels.num_labels),
        "train.micro_batch_size is set": config.micro_batch_size is not None,
        "train.procedure is not joint": not isinstance(config.procedure, JointProcedure),
        "train.optimizer is not adamw": not isinstance(config.optimizer, AdamWConfig),
        "train.objective.rate looks at every step": not isinstance(
            config.objective.rate, NoTargetRate
        ),
        "train.objective.denoise is set": not config.objective.denoise.is_off,
        "train.learning_rate.plateau is set": not isinstance(
            config.learning_rate.plateau, NoPlateau
        ),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)
