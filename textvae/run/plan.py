"""The plan of a run: its data read and tokenized, every setting chosen, and nothing trained."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from textvae.data.corpus import Splits
from textvae.data.memory import Texts
from textvae.errors import ConfigError
from textvae.model.vae import VAE
from textvae.run.data import (
    DataOptions,
    Report,
    RunData,
    check_labels,
    read_splits,
    tokenize,
)
from textvae.run.experiment import ExperimentConfig, check_device, choose_data, choose_training
from textvae.run.start import compare_start, fit_tokenizer, load_start_weights
from textvae.run.stream import stream_run_data
from textvae.storage.checkpoint import EXPERIMENT
from textvae.storage.files import saying_why
from textvae.storage.lock import only_writer


def no_report(line: str) -> None:
    """Print nothing: the default for lines of progress."""


class Plan(NamedTuple):
    """The data, the config and the directory of a run, before anything is written."""

    config: ExperimentConfig
    """Resolved: no setting in it is None that has to be chosen."""
    choices: list[str]
    """The settings that were chosen for the user, as overrides: `train.max_steps=4000`."""
    data: RunData
    run: Path

    def build_model(self) -> VAE:
        """The initialized model, on its device."""
        config = self.config
        names, labels = self.data.facts.label_names, self.data.arrays["train"].labels
        count = len(names) if config.model.labels.has_labels else 0
        model = config.model.build(
            self.data.facts.vocabulary_size, num_labels=count, seed=config.seed
        )
        load_start_weights(model, config)
        if labels is not None:
            model.labels.set_counts(labels)
        return model.to(check_device(str(config.train.device)))


def plan_run(
    options: DataOptions,
    config: ExperimentConfig,
    output: Path | None,
    report: Report = no_report,
    read: Callable[[Splits], None] = lambda splits: None,
) -> Plan:
    """Read and tokenize the data, and choose every setting that is None.

    Writes nothing, except with `data.stream`: a streamed corpus goes to the run directory at once,
    and `report` takes lines of progress. `read` takes the sentences, before they are tokenized.
    """
    if "\0" in str(output):
        raise ConfigError(f"--output {str(output)!a}: no directory has a NUL in its name")
    config, choices = choose_data(config, embedded=options.data is None)
    run = output if output is not None else Path("runs") / default_name(options.data, options.more)
    if config.data.stream:
        with saying_why(run):
            run.mkdir(parents=True, exist_ok=True)
        with only_writer(run):
            data = stream_run_data(options, config, run, report=report)
    else:
        splits = read_splits(options, config)
        read(splits)
        tokenizer = fit_tokenizer(config, splits.train.texts)
        source = options.source
        data = tokenize(splits, tokenizer, source, config.model.max_length, config.data.too_long)
        if config.model.labels.has_labels:
            check_labels(splits, data)
    config, more = choose_training(
        config, lengths=data.arrays["train"].lookup(), begun=run / EXPERIMENT
    )
    config, notes = compare_start(config, data)
    return Plan(config, choices + more, data._replace(notes=[*data.notes, *notes]), run)


def default_name(data: str | Texts | None, more: Sequence[str] = ()) -> str:
    """The name of a run without --output: a function of DATA, so that it is found again."""
    if data is None:
        return "embedded"
    if isinstance(data, Texts):
        return f"texts-{data.digest[:8]}"
    if data == "-":
        return "stdin"
    if more or set(data) & set("*?["):  # the directory of the files, where it has a name
        folder = Path(os.path.commonpath([data, *more])) if more else Path(data).parent
        folder = folder.parent if folder.suffix or set(folder.name) & set("*?[") else folder
        return folder.name.strip("*?[].") or "corpus"
    name = data.removeprefix("hf:").rstrip("/").rsplit("/", 1)[-1]
    stem = name.split(".", 1)[0].split("@", 1)[0].replace(":", "-")
    return stem or "run"
