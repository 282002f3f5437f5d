"""The settings of a training run; importing them imports no trainer."""

from typing import Annotated, Literal

import torch
from msgspec import Meta

from textvae.config import Config
from textvae.data.batching import BatchesConfig, PooledBatches
from textvae.train.averaging import AveragingConfig, NoAveraging
from textvae.train.objective import ObjectiveConfig
from textvae.train.optimizer import AdamWConfig, LearningRateConfig, OptimizerConfig
from textvae.train.procedures import JointProcedure, ProcedureConfig
from textvae.train.schedules import CosineRestartsSchedule

Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Precision = Literal["float32", "bfloat16"]
DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class TrainConfig(Config):
    """How a model is trained; what is None is chosen for the corpus and the machine, and said."""

    batch_size: Count = 64
    """Sentences of a step, of all processes together."""
    micro_batch_size: Count | None = None
    """Sentences at once, for memory; no effect on the result. Halved where memory is short."""
    labelled_batch_size: Count = 32
    """Labelled sentences of a step besides, where the model has labels."""
    batches: BatchesConfig = PooledBatches()
    """Which sentences go together."""
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
    patience: Count | None = None
    """Stop after this many validations without a better ELBO; None trains to the end."""
    clip_norm: Annotated[float, Meta(gt=0.0)] = 5.0
    """Gradients are scaled down to this norm."""
    precision: Precision | None = None
    """Of the matrix products in training; weights and sums stay in float32."""
    device: str | None = None
    """`cpu`, `cuda`, `cuda:1`, ..."""
    optimizer: OptimizerConfig = AdamWConfig()
    learning_rate: LearningRateConfig = LearningRateConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    procedure: ProcedureConfig = JointProcedure()
    """What a step updates, and how the run is divided."""
    averaging: AveragingConfig = NoAveraging()
    """What is validated, selected and saved: the parameters, or an average of them over steps."""
    calibrate: bool = False
    """At the end, divide the logits by the temperature that suits the validation set best. As with
    any other setting, a run begun without it is another run."""

    def __post_init__(self) -> None:
        """Refuse to stop for want of better validations where restarts make them worse."""
        if self.patience is not None and isinstance(
            self.learning_rate.decay, CosineRestartsSchedule
        ):
            raise ValueError(
                "learning_rate.decay.kind cosine_restarts makes validations worse for most of a "
                "cycle, so a run would stop after its first; leave patience out"
            )
