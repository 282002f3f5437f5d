"""Progress of a run: one line per interval, and metrics.jsonl."""

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import torch
from torch import Tensor
from tqdm.auto import tqdm

from textvae import distributed
from textvae.metrics.latent_usage import ACTIVE_VARIANCE
from textvae.model.inferred import ElboTerms
from textvae.storage.files import read_bytes, saying_why, write_file

Report = Callable[[str], None]
"""Receives a line of progress; the command line prints it on stderr."""


class Event(NamedTuple):
    """Figures of a run at a step, which a callback receives.

    Of `train`, the figures since the last such event, with dropout, in nats per sentence:
    `reconstruction`, `kl`, `loss`, `kl_weight`, `active_units`, `num_targets`, `epoch`,
    `tokens_per_second` and `seconds`. Of `validation`: `elbo`, `kl`, `active_units`, and whether
    the parameters were `selected`. Of `evaluation`, at the end: the figures of the test set.
    """

    phase: Literal["train", "validation", "evaluation"]
    step: int
    metrics: dict[str, float]


class Monitor(NamedTuple):
    """How a run is watched, beside the lines of its report."""

    callback: Callable[[Event], object] | None = None
    """Receives events in the first process; an exception in it ends the run."""
    bar: bool = True
    """Show a bar in a terminal or a notebook."""


DEFAULT_MONITOR = Monitor()


class Interval(NamedTuple):
    """Training figures since the last line, with dropout, in nats per sentence."""

    reconstruction: float
    kl: float
    active_units: int
    num_targets: int
    loss: float


class RunningSums:
    """Sums over the batches of an interval, kept on the device and read once."""

    def __init__(self, latent_dim: int, device: torch.device) -> None:
        self.latent_dim = latent_dim
        self._scalars = torch.zeros(5, dtype=torch.float64, device=device)
        self._mean = torch.zeros(2, latent_dim, dtype=torch.float64, device=device)

    def add(self, terms: ElboTerms, loss: Tensor, lengths: Tensor) -> None:
        """Add one batch: its terms, its loss per sentence, and the lengths `[B]`."""
        batch = terms.kl.shape[0]
        with torch.no_grad():
            self._scalars += torch.stack(
                [
                    terms.reconstruction.total.double(),
                    terms.bound_kl.double().sum(),
                    loss.double() * batch,
                    lengths.sum().double(),
                    lengths.new_full((), batch).double(),
                ]
            )
            mean = terms.posterior.mean.double()
            self._mean += torch.stack([mean.sum(0), mean.square().sum(0)])

    def tensors(self) -> dict[str, Tensor]:
        """The sums, for a training state saved between two lines."""
        return {"scalars": self._scalars, "mean": self._mean}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the sums that `tensors` returned; missing ones stay zero."""
        for name, tensor in self.tensors().items():
            if name in tensors:
                tensor.copy_(tensors[name])

    def targets(self) -> int:
        """Targets so far; waits for the device."""
        return int(self._scalars[3])

    def read(self) -> Interval:
        """Return the figures so far, and reset the sums."""
        reconstruction, kl, loss, targets, count = self._scalars.tolist()
        count = max(count, 1.0)
        mean, square = self._mean / count
        active = int(((square - mean.square()) > ACTIVE_VARIANCE).sum())
        self._scalars.zero_()
        self._mean.zero_()
        return Interval(reconstruction / count, kl / count, active, int(targets), loss / count)


class Journal:
    """metrics.jsonl: one object per line, and no line twice after a resume."""

    def __init__(self, path: Path | None, step: int, monitor: Monitor = DEFAULT_MONITOR) -> None:
        """Open for appending, and remove lines beyond `step`, of a run that was interrupted."""
        self._path = path
        self._callback = monitor.callback if distributed.is_first() else None
        if path is not None and path.exists():
            lines = path.read_bytes().splitlines(keepends=True)
            write_file(path, b"".join(line for line in lines if _step(line) <= step))

    def write(self, **facts: object) -> None:
        """Append one line, and call the callback."""
        if self._callback is not None:
            self._callback(_event(facts))
        if self._path is not None:
            with saying_why(self._path, ours=True), self._path.open("ab") as file:
                file.write(msgspec.json.encode(facts) + b"\n")


def read_history(path: Path) -> list[Event]:
    """The events of metrics.jsonl; none where there is no such file.

    Raises:
        CheckpointError: a file that cannot be read.
    """
    if not path.is_file():
        return []
    lines = read_bytes(path, at_most=2**30).splitlines(keepends=True)
    return [_event(msgspec.json.decode(line)) for line in lines if _step(line) < float("inf")]


def _event(facts: Mapping[str, Any]) -> Event:
    """The event of a line of metrics.jsonl."""
    phase: Literal["train", "validation"] = "validation" if "validation" in facts else "train"
    figures = {**facts, **facts.get("validation", {})}
    numbers = {name: value for name, value in figures.items() if isinstance(value, int | float)}
    return Event(phase, int(numbers.pop("step")), numbers)


def _step(line: bytes) -> float:
    """The step of a line; a line cut short by a crash counts as beyond any step."""
    if not line.endswith(b"\n"):
        return float("inf")  # whole but for its end, it would swallow the next line
    try:
        return int(msgspec.json.decode(line)["step"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return float("inf")


def _in_notebook() -> bool:
    """True in a Jupyter kernel, whose output is no terminal and yet shows a bar."""
    get_shell = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get_shell is not None and type(get_shell()).__name__ == "ZMQInteractiveShell"


class Progress:
    """The progress line: a bar on a terminal, else a plain line per interval."""

    def __init__(
        self,
        total: int,
        step: int,
        sums: RunningSums,
        report: Report,
        monitor: Monitor = DEFAULT_MONITOR,
    ) -> None:
        """Show a run of `total` steps that starts at `step`, with the sums so far."""
        self._carried = sums.targets()  # of an interval begun by an earlier process
        self._printed = set[str]()
        self._total, self._latent_dim, self._report = total, sums.latent_dim, report
        self._bar = None
        if monitor.bar and distributed.is_first() and (sys.stderr.isatty() or _in_notebook()):
            self._bar = tqdm(total=total, initial=step, unit="step", dynamic_ncols=True)
        self._since = time.perf_counter()

    def advance(self) -> None:
        """Count one step."""
        if self._bar is not None:
            self._bar.update()

    def interval(self, step: int, interval: Interval, kl_weight: float) -> float:
        """Print an interval; returns its tokens per second."""
        now = time.perf_counter()
        speed = (interval.num_targets - self._carried) / max(now - self._since, 1e-9)
        self._since, self._carried = now, 0
        line = f"nll {interval.reconstruction:.2f}  tokens/s {speed:,.0f}"
        if self._latent_dim:
            line = (
                f"nll <= {interval.reconstruction + interval.kl:.2f}  kl {interval.kl:.2f}  "
                f"kl_weight {kl_weight:.2f}  active {interval.active_units}/{self._latent_dim}  "
                f"tokens/s {speed:,.0f}"
            )
        if self._bar is not None:
            self._bar.set_postfix_str(line)
        else:
            self._report(f"step {step}/{self._total}  {line}")
        return speed

    def print(self, line: str) -> None:
        """Print a line that stays."""
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            self._report(line)

    def print_once(self, kind: str, line: str) -> None:
        """Print a line, unless one of this kind has been printed."""
        if kind not in self._printed:
            self._printed.add(kind)
            self.print(line)

    def leave_out(self, seconds: float) -> None:
        """Exclude time that was not spent on training from the speed."""
        self._since += seconds

    def close(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
