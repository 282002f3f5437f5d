"""The configuration of a whole experiment, composed of its owners' configs, and the recipes."""

import math
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from msgspec import Meta, structs
from torch import Tensor

from textvae import distributed
from textvae.config import Config, decode, read_config_file, recipe_file, resolve
from textvae.data.batching import Lengths
from textvae.data.corpus import DataConfig
from textvae.data.tokenizer import BPETokenizerConfig, WordTokenizerConfig
from textvae.errors import CheckpointError, ConfigError
from textvae.evaluate.evaluators import EvaluatorConfig, repeated
from textvae.model.encoder import NoEncoderConfig
from textvae.model.vae import ModelConfig
from textvae.train.config import TrainConfig
from textvae.train.objective import FreeBitsPerSentence, FreeBitsTotal
from textvae.train.procedures import AggressiveProcedure, PretrainingProcedure
from textvae.train.rate import ControlledRate, LagrangianRate
from textvae.version import installed_version

EPOCHS = 20
"""The default number of passes over a corpus, within the bounds of STEPS."""
STEPS = (1_000, 3_000)
Keep = Literal["little", "half", "most"]
"""How much of a sentence its latent keeps: a point on the curve of rate against distortion."""
_KEEPING = (
    "model.encoder.bidirectional=true",
    "model.encoder.pooling=last_and_mean",
    "model.prior.kind=flow",
    "train.objective.free_bits.kind=none",
)
KEEP_SETTINGS: dict[str, tuple[str, ...]] = {
    "little": (),
    "half": (*_KEEPING, "model.latent_dim=64", "train.objective.beta=0.5"),
    "most": (*_KEEPING, "model.latent_dim=128", "train.objective.beta=0.1"),
}
"""Defaults of each choice where they are not those of the package."""
KEEP_STEPS = {"half": 10_000, "most": 18_000}
"""The most steps that are chosen, in place of those of STEPS."""
BFLOAT16_GAIN = 1.25
"""How much faster bfloat16 has to be: products are not all of a step, and casts are added."""
VALIDATIONS = 20
ABOUT_A_LATENT = (
    LagrangianRate
    | ControlledRate
    | FreeBitsTotal  # of no KL, a floor is a constant in the loss
    | FreeBitsPerSentence
    | PretrainingProcedure
    | AggressiveProcedure
)


class EvaluateConfig(Config):
    """The report at the end of training, and what `textvae evaluate` measures on whole corpora."""

    num_samples: Annotated[int, Meta(ge=1)] = 100
    """K of the importance-weighted bound."""
    max_sentences: Annotated[int, Meta(ge=1)] = 500
    """A random subset of this size where the test split is larger."""
    evaluators: tuple[EvaluatorConfig, ...] | None = None
    """The evaluators of `textvae evaluate`; None is the default. The report at the end of training
    does not depend on it."""

    def __post_init__(self) -> None:
        """Refuse one kind twice: its figures would have one name."""
        twice = repeated(self.evaluators or ())
        if twice is not None:
            raise ValueError(f"evaluators: {twice} is there twice")


class StartFrom(Config):
    """The model whose weights a run starts from."""

    path: str
    """Its directory."""
    weights_sha256: str
    """The checksum of its weights."""
    differences: tuple[str, ...] = ()
    """The settings and the text that are not those it was trained with, a line each."""


class ExperimentConfig(Config):
    """All settings of a run: what decides its result besides the data."""

    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    """The seed of everything that is random."""
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    keep: Keep | None = None
    """How much of a sentence the latent keeps: it chooses the defaults of the size of the latent,
    encoder, prior and weight of the KL (`KEEP_SETTINGS`); None is little."""
    start_from: StartFrom | None = None
    """The model that `--start-from` names; None starts from random weights."""

    def __post_init__(self) -> None:
        """Refuse for a language model the settings that need a latent."""
        if not isinstance(self.model.encoder, NoEncoderConfig):
            return
        aim = self.train.objective
        settings = {
            "objective.rate": aim.rate,
            "objective.free_bits": aim.free_bits,
            "procedure": self.train.procedure,
        }
        for name, setting in settings.items():
            if isinstance(setting, ABOUT_A_LATENT):
                raise ValueError(
                    f"train.{name}.kind {setting.__struct_config__.tag} is about a latent, and "
                    "model.encoder.kind none is a language model without one"
                )


def load_config(
    path: Path | None = None,
    overrides: Sequence[str] = (),
    *,
    recipe: str | None = None,
    defaults: ExperimentConfig | None = None,
) -> ExperimentConfig:
    """The config of a file or a recipe, with overrides such as `model.latent_dim=64`.

    Args:
        path: TOML with what differs from the defaults, or the experiment.json of a run.
        overrides: each `key.path=value`.
        recipe: the name of a shipped recipe, in place of `path`.
        defaults: the settings of all that is named nowhere; None are those of the package.

    Raises:
        ConfigError: an unknown recipe or key, a wrong type or a number out of bounds.
    """
    if recipe is not None:
        if path is not None:
            raise ConfigError("--config and --recipe are two starting points: give one of them")
        path = recipe_file(recipe)
    values: Mapping[str, object] = {} if path is None else read_config_file(path)
    source = "--set" if path is None else str(path)
    return resolve_experiment(dict(values), overrides, source=source, defaults=defaults)


def resolve_experiment(
    values: Mapping[str, object],
    overrides: Sequence[str] = (),
    *,
    source: str,
    defaults: ExperimentConfig | None = None,
) -> ExperimentConfig:
    """The config of a file's values and overrides, as `config.resolve`.

    A choice of `keep` moves the defaults; whatever is set stays as it is set.
    """
    keep = values.get("keep")
    for override in overrides:
        key, _, value = override.partition("=")
        keep = value.strip().strip("\"'") if key.strip() == "keep" else keep
    settings = KEEP_SETTINGS.get(keep, ()) if isinstance(keep, str) else ()
    if settings and (defaults is None or defaults.keep != keep):
        defaults = resolve(ExperimentConfig, {}, settings, source="keep", defaults=defaults)
    return resolve(ExperimentConfig, values, overrides, source=source, defaults=defaults)


def read_experiment(path: Path) -> ExperimentConfig:
    """The experiment.json of a run.

    Raises:
        ConfigError: a file that cannot be read or understood.
        CheckpointError: the run trained a kind of model that was removed.
    """
    values = read_config_file(path)
    refuse_removed_labels(values.get("model"), path)
    return decode(values, ExperimentConfig, source=str(path))


def refuse_removed_labels(model: object, path: Path) -> None:
    """Refuse a saved model config, as plain values, with labels of the removed kind M1+M2.

    Raises:
        CheckpointError: its labels are of that kind.
    """
    labels = model.get("labels") if isinstance(model, dict) else None
    if isinstance(labels, dict) and labels.get("kind") == "m1_m2":
        raise CheckpointError(
            f"{path}: was trained with labels of kind m1_m2, which textvae {installed_version()} "
            "no longer reads; use the version that saved it, or train again with "
            "model.labels.kind=m2"
        )


def choose_data(config: ExperimentConfig, *, embedded: bool) -> tuple[ExperimentConfig, list[str]]:
    """Choose the tokenizer, if the config leaves it open.

    Returns:
        The config with a tokenizer, and the choice as an override.
    """
    if config.data.tokenizer is not None:
        return config, []
    tokenizer = WordTokenizerConfig() if embedded else BPETokenizerConfig()
    choice = f"data.tokenizer.kind={'word' if embedded else 'bpe'}"
    return structs.replace(config, data=structs.replace(config.data, tokenizer=tokenizer)), [choice]


def choose_training(
    config: ExperimentConfig, *, lengths: Tensor | Lengths, begun: Path | None = None
) -> tuple[ExperimentConfig, list[str]]:
    """Choose length, intervals, precision and device for a corpus and this machine.

    Args:
        config: its settings that are None are chosen.
        lengths: of the training sentences, as `TokenArray.lookup` gives them.
        begun: where the experiment.json of the run is, if it has begun. It continues in its
            precision, and one that began before there was `train.selection` selects by the ELBO.

    Raises:
        ConfigError: a device that does not exist.
    """
    train = config.train
    values: dict[str, Any] = {}
    per_epoch = train.batches.count(lengths, train.batch_size)
    if train.max_steps is None:
        low, high = STEPS
        high = KEEP_STEPS.get(config.keep or "little", high)
        steps = min(max(EPOCHS * per_epoch, low), high)
        if train.max_epochs is not None:
            steps = max(1, round(train.max_epochs * per_epoch))
        values["max_steps"] = steps
    total = train.max_steps or values["max_steps"]
    every = max(1, round(total / VALIDATIONS))
    if train.validate_every is None:
        values["validate_every"] = every
    if train.save_every is None:
        values["save_every"] = train.validate_every or every
    if train.device is None:
        values["device"] = "cuda" if torch.cuda.is_available() else "cpu"
    device = check_device(str(train.device or values["device"]))
    before = read_experiment(begun) if begun is not None and begun.is_file() else None
    if train.precision is None and before is not None:
        values["precision"] = before.train.precision
    elif train.precision is None:
        values["precision"] = "bfloat16" if has_bfloat16(device) else "float32"
    by_elbo = train.objective.selects_by_elbo or (before and before.train.selection is None)
    if train.selection is None and not by_elbo:
        values["selection"] = "objective"
    choices = [f"train.{name}={value}" for name, value in values.items()]
    return structs.replace(config, train=structs.replace(train, **values)), choices


def check_device(name: str) -> torch.device:
    """A device that exists, or a ConfigError that names those that do."""
    name = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    try:
        device = torch.device(name)
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise RuntimeError
        if device.type not in {"cpu", "cuda"}:
            raise RuntimeError
        if device.index is not None and distributed.size() > 1:
            raise ConfigError(f"--device {name}: several processes take one each; give cuda")
    except RuntimeError:
        there = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        raise ConfigError(f"--device {name}: this machine has {', '.join(there)}") from None
    return device


@lru_cache
def has_bfloat16(device: torch.device) -> bool:
    """True if the device multiplies bfloat16 faster than float32.

    A CPU without the instructions emulates them, 5 to 100 times slower than float32. One that has
    them may still be slower, by 2 on some virtual machines, so that both are timed (0.1 s).
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    if not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return False
    seconds = {torch.float32: math.inf, torch.bfloat16: math.inf}
    for _ in range(5):  # alternated, the best of each: other work on the machine only adds
        for dtype in seconds:
            matrix = torch.ones(512, 512, dtype=dtype)
            started = time.perf_counter()
            for _ in range(3):
                torch.mm(matrix, matrix)
            seconds[dtype] = min(seconds[dtype], time.perf_counter() - started)
    return seconds[torch.bfloat16] * BFLOAT16_GAIN < seconds[torch.float32]
