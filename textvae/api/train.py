"""Training from data to a model directory, in one process or in all that `torchrun` started."""

from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import structs

from textvae import distributed
from textvae.config import resolve
from textvae.run.data import Report
from textvae.run.experiment import ExperimentConfig
from textvae.run.plan import Plan
from textvae.run.start import start_settings
from textvae.run.training import RunOutcome, execute, follow


def train_run(make_plan: Callable[[], Plan], *, report: Report) -> RunOutcome:
    """Train a run, or continue it. `TextVAE.train` and `textvae train` both call this.

    Args:
        make_plan: reads the data and settles the settings; called by the first process alone.
        report: takes lines of progress, in the first process.

    Raises:
        TextVAEError: data, config or directory that cannot be used; a diverged run.
    """
    with distributed.joined():
        return execute(make_plan(), report=report) if distributed.is_first() else follow()


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
    return resolve(ExperimentConfig, config or {}, (), source="config", defaults=defaults)
