"""Where a run is, and how it is saved and found again: parameters, moments, and plain numbers."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from textvae.checkpoint import load_state, save_state
from textvae.model.vae import VAE
from textvae.train.procedures import ProcedureState
from textvae.train.rate import RateState


class Validation(NamedTuple):
    """The ELBO at KL weight 1, one sample a sentence, in nats a sentence."""

    elbo: float
    kl: float
    active_units: int


class Position(NamedTuple):
    """What a training state holds besides tensors."""

    step: int = 0
    best_step: int = -1
    best: Validation = Validation(float("-inf"), 0.0, 0)
    bad_validations: int = 0
    seconds: float = 0.0
    rate: RateState = RateState()
    procedure: ProcedureState = ProcedureState()


def save_position(
    run: Path,
    model: VAE,
    best: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    position: Position,
) -> None:
    """Save all that a run needs to go on.

    Raises:
        CheckpointError: it could not be written.
    """
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in best.items()}
    for number, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            if value is not None:
                tensors[f"optimizer.{number}.{name}"] = value
    facts = position._asdict()
    for name in ("best", "rate", "procedure"):
        facts[name] = list(facts[name])
    if position.best_step < 0:
        facts["best"] = None  # there is no JSON for minus infinity
    save_state(run, position.step, tensors, facts)


def restore_position(
    run: Path | None, model: VAE, optimizer: torch.optim.Optimizer, rate: RateState
) -> tuple[Position, dict[str, Tensor]]:
    """The position of the newest good state of a run, whose tensors go where they belong.

    Returns:
        The position, or where nothing was saved the beginning with the given state of the target
        rate; and the best parameters so far.

    Raises:
        CheckpointError: all saved states are damaged.
    """
    begin = Position(rate=rate)
    state = load_state(run) if run is not None else None
    if state is None:
        return begin, {}
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}}
    for name, value in state.tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = value.to(model.device)
    model.load_state_dict(parts["model"])
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in parts["optimizer"].items():
        number, _, moment = name.partition(".")
        moments.setdefault(int(number), {})[moment] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": moments, "param_groups": groups})
    facts = dict(state.facts)
    facts["best"] = Validation(*facts["best"]) if facts["best"] else begin.best  # type: ignore[misc]
    for name, kind in (("rate", RateState), ("procedure", ProcedureState)):
        if name in facts:  # older states lack them
            facts[name] = kind(*facts[name])  # type: ignore[misc]
    return begin._replace(**facts), parts["best"]  # type: ignore[arg-type]
