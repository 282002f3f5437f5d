"""The training curves of a run: metrics.jsonl, read with tolerance for what a crash cut off."""

from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec

METRICS = "metrics.jsonl"


class Point(NamedTuple):
    """A value at a step."""

    step: int
    value: float


class Curves(NamedTuple):
    """The curves of a run, nats per sentence. Any of them may be empty."""

    train_nll: list[Point]
    """Reconstruction and KL of the training batches, dropout and all: above the nll."""
    valid_nll: list[Point]
    """Minus the ELBO of the validation set."""
    train_kl: list[Point]
    valid_kl: list[Point]
    kl_weight: list[Point]
    active_units: list[Point]
    selected: int | None
    """The last step whose parameters validation chose."""


Finite = Annotated[float, msgspec.Meta(ge=-1e30, le=1e30)]
Nats = Finite | None


class _Validation(msgspec.Struct):
    elbo: Finite
    kl: Finite = 0.0


class _Line(msgspec.Struct):
    """A line of metrics.jsonl: an interval of training, or a validation."""

    step: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    reconstruction: Nats = None
    kl: Nats = None
    kl_weight: Nats = None
    active_units: Nats = None
    validation: _Validation | None = None
    selected: bool = False


def read_curves(run: Path | None) -> Curves | None:
    """The curves of a run directory; None where there are none.

    Lines that cannot be decoded are skipped, since a process may have died while writing one, and
    so are lines with numbers that no run reaches.
    """
    if run is None or not (run / METRICS).is_file():
        return None
    curves = Curves([], [], [], [], [], [], None)
    selected = None
    for text in (run / METRICS).read_bytes().splitlines():
        try:
            line = msgspec.json.decode(text, type=_Line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        _add(curves, line)
        if line.selected:
            selected = line.step
    if not any(curves[:6]):
        return None
    return curves._replace(selected=selected)


def _add(curves: Curves, line: _Line) -> None:
    step = line.step
    if line.validation is not None:
        curves.valid_nll.append(Point(step, -line.validation.elbo))
        curves.valid_kl.append(Point(step, line.validation.kl))
    if line.reconstruction is not None:
        kl = line.kl or 0.0
        curves.train_nll.append(Point(step, line.reconstruction + kl))
        curves.train_kl.append(Point(step, kl))
    if line.kl_weight is not None:
        curves.kl_weight.append(Point(step, line.kl_weight))
    if line.active_units is not None:
        curves.active_units.append(Point(step, line.active_units))
