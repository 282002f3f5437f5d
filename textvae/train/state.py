"""The training state: parameters, moments, averages and position, saved and restored as one."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from textvae.errors import TrainingError
from textvae.model.vae import VAE
from textvae.storage.training_state import load_state, save_state, set_aside, states_of
from textvae.train.averaging import Average
from textvae.train.metrics import RunningSums
from textvae.train.procedures import ProcedureState
from textvae.train.rate import RateState
from textvae.train.validation import Validation


class Position(NamedTuple):
    """The part of a training state that is not tensors."""

    step: int = 0
    best_step: int = -1
    best: Validation = Validation(float("-inf"), 0.0, 0)
    bad_validations: int = 0
    seconds: float = 0.0
    decays: int = 0
    """Number of times that the learning rate has fallen on a plateau."""
    rate: RateState = RateState()
    procedure: ProcedureState = ProcedureState()


class TrainingState(NamedTuple):
    """All that a run needs to continue."""

    model: VAE
    optimizer: torch.optim.Optimizer
    average: Average
    sums: RunningSums
    position: Position
    best: Mapping[str, Tensor] = {}
    """The parameters of the best validation; empty before there is one."""
    rewind: Mapping[str, Tensor] = {}
    """A `snapshot` at the best validation, for a learning rate that falls on a plateau."""

    def save(self, run: Path) -> None:
        """Save the state in the directory of a run."""
        tensors = self._tensors()
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        tensors |= {f"rewind.{name}": value for name, value in self.rewind.items()}
        tensors |= {f"sums.{name}": value for name, value in self.sums.tensors().items()}
        position = self.position
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise TrainingError(  # the update itself went wrong: no later step can recover
                    f"step {position.step - 1}: the update left {name} not finite, so it is not "
                    f"saved: lower train.optimizer.learning_rate; {run} keeps its last saved state"
                )
        facts = position._asdict()
        for name in ("best", "rate", "procedure"):
            facts[name] = list(facts[name])
        if position.best_step < 0:
            facts["best"] = None  # there is no JSON for minus infinity
        save_state(run, position.step, tensors, facts)

    def restored(self, run: Path | None) -> "TrainingState":
        """Load the newest undamaged state of a run; the state itself where nothing was saved."""
        saved = load_state(run) if run is not None else None
        if saved is None:
            return self
        self.load_snapshot(saved.tensors)
        device = self.model.device
        self.sums.load(_section(saved.tensors, "sums", device))
        facts = dict(saved.facts)
        facts["best"] = Validation(*facts["best"]) if facts["best"] else Position().best  # type: ignore[misc]
        for name, kind in (("rate", RateState), ("procedure", ProcedureState)):
            if name in facts:  # older states lack them
                facts[name] = kind(*facts[name])  # type: ignore[misc]
        return self._replace(
            position=self.position._replace(**facts),  # type: ignore[arg-type]
            best=_section(saved.tensors, "best", device),
            rewind=_section(saved.tensors, "rewind", device),
        )

    def snapshot(self) -> dict[str, Tensor]:
        """Copies of the model, the optimizer and the average, for `load_snapshot`."""
        return {name: value.detach().clone() for name, value in self._tensors().items()}

    def load_snapshot(self, tensors: Mapping[str, Tensor]) -> None:
        """Load copies of the tensors of a snapshot; other tensors are ignored."""
        device = self.model.device
        self.model.load_state_dict(_section(tensors, "model", device))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in _section(tensors, "optimizer", device).items():
            number, _, moment = name.partition(".")
            moments.setdefault(int(number), {})[moment] = value.clone()  # updated in place later
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.average.load(_section(tensors, "average", device))

    def _tensors(self) -> dict[str, Tensor]:
        """The tensors that change in a step, by section and name: not copies."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for number, values in self.optimizer.state_dict()["state"].items():
            for name, value in values.items():
                if value is not None:
                    tensors[f"optimizer.{number}.{name}"] = value
        averages = self.average.tensors()
        return tensors | {f"average.{name}": value for name, value in averages.items()}


def _section(
    tensors: Mapping[str, Tensor], section: str, device: torch.device
) -> dict[str, Tensor]:
    """The tensors of one section, by their names within it."""
    start = f"{section}."
    return {n.removeprefix(start): t.to(device) for n, t in tensors.items() if n.startswith(start)}


def diverged(
    run: Path | None, state: TrainingState, resumed_at: int, fault: str, kl_weight: float
) -> TrainingError:
    """The error of a step that is not finite; also sets aside a saved state that leads to it.

    An update may destroy the parameters and leave them finite. A state saved then would end every
    resumed run. So one is set aside if its first step already fails, or if a run resumed from it
    has not reached its next save. The only state of a run stays where it is.
    """
    step, consequence = state.position.step, ""
    learning_rate = state.optimizer.param_groups[0]["lr"]
    if run is not None:
        consequence, steps = f"; {run} keeps its last saved state", sorted(states_of(run))
        if len(steps) > 1 and steps[-1] in (step, resumed_at):
            set_aside(run, steps[-1])
            consequence = (
                f"; the state of step {steps[-1]} only leads here and was set aside, so the same "
                f"command resumes from step {steps[-2]}"
            )
    return TrainingError(
        f"step {step}: the {fault} is not finite (learning rate {learning_rate:.2g}, KL weight "
        f"{kl_weight:.2g}): lower train.optimizer.learning_rate or train.clip_norm{consequence}"
    )
