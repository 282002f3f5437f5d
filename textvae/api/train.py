"""Training from data to a model directory, in one process or in all that `torchrun` started."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import structs

from textvae import distributed
from textvae.run.data import Report
from textvae.run.experiment import ExperimentConfig, resolve_experiment
from textvae.run.model_directory import Results
from textvae.run.plan import Plan, no_report
from textvae.run.start import start_settings
from textvae.run.training import RunOutcome, evaluation_event, execute, follow
from textvae.storage.checkpoint import METRICS
from textvae.train.metrics import DEFAULT_MONITOR, Event, Monitor, read_history


def train_run(
    make_plan: Callable[[], Plan], *, report: Report, monitor: Monitor = DEFAULT_MONITOR
) -> RunOutcome:
    """Train a run, or continue it. `TextVAE.train` and `textvae train` both call this.

    Args:
        make_plan: reads the data and settles the settings; called by the first process alone.
        report: takes lines of progress, in the first process.
        monitor: a callback and the bar, likewise.

    Raises:
        TextVAEError: data, config or directory that cannot be used; a diverged run.
    """
    with distributed.joined():
        if distributed.is_first():
            return execute(make_plan(), report=report, monitor=monitor)
        return follow()


def experiment_config(
    config: ExperimentConfig | Mapping[str, object] | None, start_from: str | Path | None = None
) -> ExperimentConfig:
    """The settings of a run from what a Python user gives.

    Args:
        config: all settings, or a dict of those that differ from the defaults.
        start_from: the model whose settings are the defaults, and whose weights the run starts
            with.

    Raises:
        ConfigError: an unknown key, a wrong type or a number out of bounds.
        CheckpointError: no model at `start_from`.
        TypeError: a config that is neither.
    """
    if not isinstance(config, ExperimentConfig | Mapping | None):
        kind = type(config).__name__
        raise TypeError(f"config: found {kind}, expected textvae.load_config(...) or a dict")
    defaults = None if start_from is None else start_settings(start_from)
    if isinstance(config, ExperimentConfig):
        if defaults is None:
            return config
        return structs.replace(config, start_from=defaults.start_from)
    return resolve_experiment(config or {}, source="config", defaults=defaults)


def watch(
    progress: bool, report: Report | None, callback: Callable[[Event], object] | None
) -> tuple[Report, Monitor]:
    """The receivers of what happens in a run: of lines, and of events and steps.

    Args:
        progress: show a bar, or without a terminal or a notebook lines on stderr.
        report: takes the lines instead.
        callback: receives events.
    """
    if report is not None:
        return report, Monitor(callback, bar=False)
    return _print_line if progress else no_report, Monitor(callback, bar=progress)


def _print_line(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 -- progress of a call in a script


def history_of(path: Path, results: Results | None) -> list[Event]:
    """The events of a run from its directory; none where it holds no run."""
    events = read_history(path / METRICS)
    if events and results is not None and results.evaluation is not None:
        events.append(evaluation_event(results.training.steps, results.evaluation))
    return events
