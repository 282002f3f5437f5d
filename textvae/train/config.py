"""The settings of a training run; importing them imports no trainer."""

from typing import Annotated, Literal, NamedTuple

import torch
from msgspec import Meta

from textvae.config import Config
from textvae.data.batching import BatchesConfig, PooledBatches
from textvae.train.averaging import AveragingConfig, NoAveraging
from textvae.train.objective import ObjectiveConfig
from textvae.train.optimizer import AdamWConfig, Count, LearningRateConfig, OptimizerConfig
from textvae.train.procedures import JointProcedure, ProcedureConfig
from textvae.train.schedules import CosineRestartsSchedule

Precision = Literal["float32", "bfloat16"]
DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class TrainConfig(Config):
    """How a model is trained; values that are None are chosen for the corpus and the machine."""

    batch_size: Count = 64
    """Sentences per step, over all processes."""
    micro_batch_size: Count | None = None
    """Sentences processed at once, to save memory; does not change the result."""
    labelled_batch_size: Count = 32
    """Extra labelled sentences per step, where the model has labels."""
    batches: BatchesConfig = PooledBatches()
    """How sentences are grouped into batches."""
    max_steps: Count | None = None
    """Length of the run in steps."""
    max_epochs: Annotated[float, Meta(gt=0.0)] | None = None
    """Length of the run in passes over the corpus; used where `max_steps` is not given."""
    validate_every: Count | None = None
    """Steps between validations."""
    save_every: Count | None = None
    """Steps between saves of the training state."""
    log_every: Count = 100
    """Steps between progress lines."""
    selection: Literal["elbo", "objective"] | None = None
    """Select parameters by the ELBO at KL weight 1, which prefers the lowest rate, or by the
    trained objective: its KL weight at the end of the run, or its target rate. None chooses
    `objective` where the two differ; a run that began before this setting selects by the ELBO."""
    patience: Count | None = None
    """Stop after this many validations without a better one; None trains to the end."""
    clip_norm: Annotated[float, Meta(gt=0.0)] = 5.0
    """Gradients are scaled down to this norm."""
    precision: Precision | None = None
    """Precision of the matrix products in training; weights and sums stay in float32."""
    device: str | None = None
    """`cpu`, `cuda`, `cuda:1`, ..."""
    cuda_graph: bool = False
    """On CUDA, replay steps as captured graphs, one per shape of a batch, where the run allows."""
    optimizer: OptimizerConfig = AdamWConfig()
    learning_rate: LearningRateConfig = LearningRateConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    procedure: ProcedureConfig = JointProcedure()
    """Which parameters a step updates, and how the run is divided into stages."""
    averaging: AveragingConfig = NoAveraging()
    """Validate, select and save the parameters, or an average of them over steps."""
    calibrate: bool = False
    """Divide the logits by the temperature that fits the validation set best, after training."""

    def __post_init__(self) -> None:
        """Refuse early stopping with restarts, which make validations worse for a while."""
        if self.patience is not None and isinstance(
            self.learning_rate.decay, CosineRestartsSchedule
        ):
            raise ValueError(
                "learning_rate.decay.kind cosine_restarts makes validations worse for most of a "
                "cycle, so a run would stop after its first; leave patience out"
            )

    def step_settings(self, seed: int) -> "StepSettings":
        """The settings that every step of a run shares."""
        dtype = DTYPES[self.precision or "float32"]
        return StepSettings(self.objective, seed, self.clip_norm, dtype, self.micro_batch_size)


class StepSettings(NamedTuple):
    """The settings that every step of a run shares."""

    objective: ObjectiveConfig
    seed: int
    """Seed of all noise."""
    clip_norm: float = 5.0
    """A longer gradient is scaled down to this norm."""
    dtype: torch.dtype = torch.float32
    """Dtype of the matrix products."""
    micro_batch_size: int | None = None
    """Most sentences processed at once; None is all that a process has."""
