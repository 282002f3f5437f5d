"""A run that starts from a finished model: its weights, its tokenizer and its settings."""

from collections.abc import Iterable
from pathlib import Path

from msgspec import structs

from textvae.config import differences
from textvae.data.corpus import DataConfig
from textvae.data.tokenizer import Tokenizer, untrained_config
from textvae.errors import CheckpointError, ConfigError, DataError
from textvae.model.vae import VAE
from textvae.run.data import DATA, RunData, data_differences, load_facts
from textvae.run.experiment import ExperimentConfig, StartFrom, read_experiment
from textvae.run.model_directory import LoadedModel, load_model, weights_sha256
from textvae.storage.checkpoint import EXPERIMENT
from textvae.train.procedures import JointProcedure
from textvae.train.schedules import ConstantSchedule

CHOSEN_ANEW = ("max_steps", "validate_every", "save_every", "selection", "device", "precision")
"""Settings of training that follow from the corpus and the machine, not from the model."""


def start_settings(origin: str | Path) -> ExperimentConfig:
    """The settings of a run that starts from a model: those of the model, but for three things.

    What is chosen for a corpus and a machine is chosen anew (`CHOSEN_ANEW`); schedules of the KL
    weight and of word dropout stay at the value that they ended with, since the model is past
    them; and every step updates the whole model.

    Args:
        origin: a run or a model directory; of a model without experiment.json, the settings of
            training are the defaults.

    Raises:
        CheckpointError: no model there.
    """
    path = Path(origin)
    loaded = load_model(path)
    config = _experiment(path, loaded)
    aim = config.train.objective
    aim = structs.replace(
        aim,
        kl_weight=ConstantSchedule(value=aim.kl_weight(1, 1)),
        word_dropout=ConstantSchedule(value=aim.word_dropout(1, 1)),
    )
    train = structs.replace(
        config.train,
        objective=aim,
        procedure=JointProcedure(),
        **dict.fromkeys(CHOSEN_ANEW),
    )
    start = StartFrom(path=str(path), weights_sha256=weights_sha256(loaded.model))
    return structs.replace(config, train=train, start_from=start)


def _experiment(path: Path, loaded: LoadedModel) -> ExperimentConfig:
    """The settings that a model was trained with, as far as its directory holds them."""
    if (path / EXPERIMENT).is_file():
        return structs.replace(read_experiment(path / EXPERIMENT), model=loaded.config)
    data = DataConfig(tokenizer=untrained_config(loaded.tokenizer))
    return ExperimentConfig(model=loaded.config, data=data)


def load_start(config: ExperimentConfig) -> LoadedModel | None:
    """The model that a run starts from, or None where it starts from nothing.

    Raises:
        CheckpointError: no model there, or another one than the run began with.
        ConfigError: settings that the weights do not fit, or another tokenizer.
    """
    start = config.start_from
    if start is None:
        return None
    loaded = load_model(Path(start.path))
    if weights_sha256(loaded.model) != start.weights_sha256:
        raise CheckpointError(
            f"{start.path}: holds other weights than those that this run started from; give "
            "--output another directory to start from these"
        )
    where = f"--start-from {start.path}"
    new = config.model.build(
        loaded.tokenizer.vocabulary_size, num_labels=len(loaded.labels), seed=None
    )
    shapes, others = (
        {name: values.shape for name, values in model.state_dict().items()}
        for model in (loaded.model, new)
    )
    if shapes != others:
        changes = "; model.".join(differences(loaded.config, config.model))
        raise ConfigError(
            f"{where}: its weights do not fit model.{changes}; leave out the settings of the "
            "sizes and the parts of the model"
        )
    tokenizer = _experiment(Path(start.path), loaded).data.tokenizer
    if not (Path(start.path) / EXPERIMENT).is_file():  # only its kind is known
        same = isinstance(config.data.tokenizer, type(tokenizer))
    else:
        same = config.data.tokenizer == tokenizer
    if not same and config.data.tokenizer is not None:
        raise ConfigError(f"{where}: brings its tokenizer; leave out data.tokenizer")
    return loaded


def fit_tokenizer(config: ExperimentConfig, sentences: Iterable[str]) -> Tokenizer:
    """The tokenizer of a run: that of the model it starts from, else one trained on sentences.

    Raises:
        CheckpointError, ConfigError: as `load_start`.
    """
    loaded = load_start(config)
    if loaded is not None:
        return loaded.tokenizer
    assert config.data.tokenizer is not None
    return config.data.tokenizer.train(sentences)


def compare_start(config: ExperimentConfig, data: RunData) -> tuple[ExperimentConfig, list[str]]:
    """The differences between a run and its origin: in its config, and as notes for the user.

    Raises:
        DataError: labels that are not those of the model.
        CheckpointError, ConfigError: as `load_start`.
    """
    loaded, start = load_start(config), config.start_from
    if loaded is None or start is None:
        return config, []
    names = data.facts.label_names
    if config.model.labels.has_labels and names != loaded.labels:
        raise DataError(
            f"{data.facts.source}: has the labels {', '.join(names)[:80]}, but {start.path} was "
            f"trained with {', '.join(loaded.labels)[:80]}; give text with the same labels"
        )
    path = Path(start.path)
    before = structs.replace(_experiment(path, loaded), start_from=None)
    changes = differences(before, structs.replace(config, start_from=None))
    facts = load_facts(path / DATA) or (loaded.results.data if loaded.results else None)
    if facts is not None:
        changes += data_differences(facts, data.facts)
    start = structs.replace(start, differences=tuple(changes))
    notes = [f"starts from {start.path}, whose weights have the sha256 {start.weights_sha256[:12]}"]
    notes += [f"differs from {start.path}: {change}" for change in changes]
    return structs.replace(config, start_from=start), notes


def load_start_weights(model: VAE, config: ExperimentConfig) -> None:
    """Load the weights of the model that a run starts from, where it starts from one.

    Raises:
        CheckpointError, ConfigError: as `load_start`.
    """
    loaded = load_start(config)
    if loaded is not None:
        model.load_state_dict(loaded.model.state_dict())
