"""Where a run is, and how it is saved and found again: parameters, moments, and plain numbers."""

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


class Validation(NamedTuple):
    """The ELBO at KL weight 1, one sample a sentence, in nats a sentence."""

    elbo: float
    kl: float
    active_units: int | None
    """None for a validation set of one sentence."""


class Position(NamedTuple):
    """What a training state holds besides tensors."""

    step: int = 0
    best_step: int = -1
    best: Validation = Validation(float("-inf"), 0.0, 0)
    bad_validations: int = 0
    seconds: float = 0.0
    decays: int = 0
    """How often the learning rate has fallen on a plateau."""
    rate: RateState = RateState()
    procedure: ProcedureState = ProcedureState()


def save_position(
    run: Path,
    model: VAE,
    best: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    position: Position,
    average: Average,
    rewind: Mapping[str, Tensor],
    sums: RunningSums,
) -> None:
    """Save all that a run needs to go on; `rewind` is `copies` at its best, or empty.

    Raises:
        CheckpointError: it could not be written.
        TrainingError: a tensor is not finite.
    """
    tensors = training_tensors(model, optimizer, average)
    tensors |= {f"best.{name}": value for name, value in best.items()}
    tensors |= {f"rewind.{name}": value for name, value in rewind.items()}
    tensors |= {f"sums.{name}": value for name, value in sums.tensors().items()}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise TrainingError(  # the update itself went wrong: no later step could do anything
                f"step {position.step - 1}: the update left {name} not finite, and nothing of it "
                f"is saved: lower train.optimizer.learning_rate; {run} keeps its last saved state"
            )
    facts = position._asdict()
    for name in ("best", "rate", "procedure"):
        facts[name] = list(facts[name])
    if position.best_step < 0:
        facts["best"] = None  # there is no JSON for minus infinity
    save_state(run, position.step, tensors, facts)


def diverged(
    run: Path | None,
    step: int,
    begun_at: int,
    fault: str,
    optimizer: torch.optim.Optimizer,
    kl_weight: float,
) -> TrainingError:
    """The error of a step that is not finite, once a state that only leads to it is set aside.

    An update may destroy the parameters and leave them finite. A state saved then would end every
    resumed run: so one is set aside whose first step already fails, or from which a run has been
    resumed and has not come to save the next. The only state of a run stays where it is.
    """
    rate, kept = optimizer.param_groups[0]["lr"], ""
    if run is not None:
        kept, steps = f"; {run} keeps its last saved state", sorted(states_of(run))
        if len(steps) > 1 and steps[-1] in (step, begun_at):
            set_aside(run, steps[-1])
            kept = (
                f"; the state of step {steps[-1]} only leads here and was set aside, so the same "
            )
            kept += f"command goes on from step {steps[-2]}"
    return TrainingError(
        f"step {step}: the {fault} is not finite (learning rate {rate:.2g}, KL weight "
        f"{kl_weight:.2g}): lower train.optimizer.learning_rate or train.clip_norm{kept}"
    )


def restore_position(
    run: Path | None,
    model: VAE,
    optimizer: torch.optim.Optimizer,
    average: Average,
    sums: RunningSums,
    begin: Position,
) -> tuple[Position, dict[str, Tensor], dict[str, Tensor]]:
    """The position of the newest good state of a run, whose tensors go where they belong.

    Returns:
        The position, `begin` where nothing was saved; the best parameters so far; and `rewind`.

    Raises:
        CheckpointError: all saved states are damaged.
    """
    state = load_state(run) if run is not None else None
    if state is None:
        return begin, {}, {}
    load_training_tensors(state.tensors, model, optimizer, average)
    sums.load(_part(state.tensors, "sums", model.device))
    facts = dict(state.facts)
    facts["best"] = Validation(*facts["best"]) if facts["best"] else begin.best  # type: ignore[misc]
    for name, kind in (("rate", RateState), ("procedure", ProcedureState)):
        if name in facts:  # older states lack them
            facts[name] = kind(*facts[name])  # type: ignore[misc]
    best, rewind = (_part(state.tensors, name, model.device) for name in ("best", "rewind"))
    return begin._replace(**facts), best, rewind  # type: ignore[arg-type]


def training_tensors(
    model: VAE, optimizer: torch.optim.Optimizer, average: Average
) -> dict[str, Tensor]:
    """All tensors that change from step to step, themselves and not copies.

    Names begin with `model.`, `optimizer.` and the number of a parameter, or `average.`.
    """
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for number, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            if value is not None:
                tensors[f"optimizer.{number}.{name}"] = value
    return tensors | {f"average.{name}": value for name, value in average.tensors().items()}


def copies(model: VAE, optimizer: torch.optim.Optimizer, average: Average) -> dict[str, Tensor]:
    """What `training_tensors` returns, to come back to."""
    tensors = training_tensors(model, optimizer, average)
    return {name: value.detach().clone() for name, value in tensors.items()}


def load_training_tensors(
    tensors: Mapping[str, Tensor], model: VAE, optimizer: torch.optim.Optimizer, average: Average
) -> None:
    """Put copies of what `training_tensors` returned back; other tensors are passed over."""
    model.load_state_dict(_part(tensors, "model", model.device))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in _part(tensors, "optimizer", model.device).items():
        number, _, moment = name.partition(".")
        moments.setdefault(int(number), {})[moment] = value.clone()  # updated in place from now on
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": moments, "param_groups": groups})
    average.load(_part(tensors, "average", model.device))


def _part(tensors: Mapping[str, Tensor], part: str, device: torch.device) -> dict[str, Tensor]:
    """The tensors whose names begin with a word and a dot, without these."""
    start = f"{part}."
    return {n.removeprefix(start): t.to(device) for n, t in tensors.items() if n.startswith(start)}
