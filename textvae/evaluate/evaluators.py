"""The evaluators of a config by their kind, and a pass of them over a corpus."""

import hashlib
import platform
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import msgspec
import torch

from textvae.config import decode
from textvae.data.tokenizer import Tokenizer
from textvae.errors import ConfigError
from textvae.evaluate.bounds import LikelihoodEvaluator
from textvae.evaluate.interpolation import InterpolationEvaluator
from textvae.evaluate.language_models import ForwardPerplexityEvaluator, ReversePerplexityEvaluator
from textvae.evaluate.latent import LatentEvaluator
from textvae.evaluate.measurements import Measured, MeasuredModel, Measurements
from textvae.evaluate.reconstruction import ReconstructionEvaluator
from textvae.evaluate.samples import SamplesEvaluator
from textvae.evaluate.subject import Subject
from textvae.model.vae import VAE
from textvae.storage.tensors import tensors_to_bytes
from textvae.version import installed_version

EvaluatorConfig = (
    LikelihoodEvaluator
    | LatentEvaluator
    | ReconstructionEvaluator
    | SamplesEvaluator
    | InterpolationEvaluator
    | ForwardPerplexityEvaluator
    | ReversePerplexityEvaluator
)
DEFAULT: tuple[EvaluatorConfig, ...] = (
    LikelihoodEvaluator(),
    LatentEvaluator(),
    ReconstructionEvaluator(),
    SamplesEvaluator(),
    InterpolationEvaluator(),
)
"""The evaluators that fit no model."""
ALL = "all"


def kind_of(evaluator: EvaluatorConfig) -> str:
    """The name of an evaluator in a config and on the command line."""
    return str(type(evaluator).__struct_config__.tag)


KINDS: dict[str, type[EvaluatorConfig]] = {
    str(member.__struct_config__.tag): member for member in get_args(EvaluatorConfig)
}


def measure(
    subject: Subject, evaluators: Sequence[EvaluatorConfig], *, path: Path | None = None
) -> Measurements:
    """Run evaluators, no kind twice, over a subject; `path` is the directory of the model."""
    begun, measured = time.perf_counter(), []
    for evaluator in evaluators:
        started, kind = time.perf_counter(), kind_of(evaluator)
        subject.report(f"measuring {kind}")
        figures = list(evaluator.run(subject))
        config: dict[str, object] = msgspec.to_builtins(evaluator)
        seconds = time.perf_counter() - started
        measured.append(Measured(evaluator=config, figures=figures, seconds=seconds))
    training = subject.training_if_read
    return Measurements(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=time.perf_counter() - begun,
        model=model_facts(subject.model, subject.tokenizer, path),
        data=subject.facts,
        training=None if training is None else training.facts,
        seed=subject.seed,
        precision=str(subject.dtype).removeprefix("torch."),
        device=str(subject.model.device),
        num_threads=torch.get_num_threads(),
        versions=_versions(),
        measured=measured,
    )


def model_facts(model: VAE, tokenizer: Tokenizer, path: Path | None = None) -> MeasuredModel:
    """The identity of a model: sizes, and the checksum of its weights."""
    return MeasuredModel(
        path=None if path is None else str(path),
        sha256=weights_file_sha256(model),
        tokenizer=tokenizer.kind,
        vocabulary_size=tokenizer.vocabulary_size,
        latent_dim=model.prior.latent_dim,
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
    )


def weights_file_sha256(model: VAE) -> str:
    """The checksum of model.safetensors."""
    return hashlib.sha256(tensors_to_bytes(model.state_dict())).hexdigest()


def _versions() -> dict[str, str]:
    versions = {
        "textvae": installed_version(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }
    if "sacrebleu" in sys.modules:
        versions["sacrebleu"] = str(sys.modules["sacrebleu"].__version__)
    return versions


def choose_evaluators(
    names: str | None, configured: tuple[EvaluatorConfig, ...] | None
) -> tuple[EvaluatorConfig, ...]:
    """The evaluators of a list of names, such as `likelihood,samples`, or of `all`.

    Their settings are those of the config, else the defaults; without names they are those of the
    config, else DEFAULT. ConfigError for an unknown name, or none.
    """
    base = DEFAULT if configured is None else configured
    if names is None:
        return base
    kinds = [name.strip() for name in names.split(",") if name.strip()]
    kinds = list(KINDS) if kinds == [ALL] else list(dict.fromkeys(kinds))
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        value = unknown[0] if unknown else "nothing"
        raise ConfigError(f"--evaluators {value}: they are {', '.join(KINDS)}, or {ALL}")
    evaluators: list[EvaluatorConfig] = []
    for kind in kinds:
        evaluators += [one for one in base if kind_of(one) == kind] or [KINDS[kind]()]
    return tuple(evaluators)


def check_evaluators(evaluators: Sequence[EvaluatorConfig]) -> tuple[EvaluatorConfig, ...]:
    """The evaluators after a check, which those made in Python have not had.

    ConfigError for a number out of bounds, or a kind twice: its figures would have one name.
    """
    for one in evaluators:
        decode(one, type(one), source=type(one).__name__)
    twice = repeated(evaluators)
    if twice is not None:
        raise ConfigError(f"evaluate.evaluators: {twice} is there twice; measure in two calls")
    return tuple(evaluators)


def repeated(evaluators: Sequence[EvaluatorConfig]) -> str | None:
    """A kind that is there more than once."""
    kinds = [kind_of(one) for one in evaluators]
    return next((kind for kind in kinds if kinds.count(kind) > 1), None)
