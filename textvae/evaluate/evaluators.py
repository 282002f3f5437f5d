"""The evaluators by their kind: what `evaluate.evaluators` of a config may hold."""

from collections.abc import Sequence
from typing import get_args

from textvae.config import decode
from textvae.errors import ConfigError
from textvae.evaluate.bounds import LikelihoodEvaluator
from textvae.evaluate.interpolation import InterpolationEvaluator
from textvae.evaluate.language_models import ForwardPerplexityEvaluator, ReversePerplexityEvaluator
from textvae.evaluate.latent import LatentEvaluator
from textvae.evaluate.reconstruction import ReconstructionEvaluator
from textvae.evaluate.samples import SamplesEvaluator

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
"""What runs where nobody says what: all that fits no models."""
ALL = "all"


def kind_of(evaluator: EvaluatorConfig) -> str:
    """Its name in a config and on the command line."""
    return str(type(evaluator).__struct_config__.tag)


KINDS: dict[str, type[EvaluatorConfig]] = {
    str(member.__struct_config__.tag): member for member in get_args(EvaluatorConfig)
}


def choose_evaluators(
    names: str | None, configured: tuple[EvaluatorConfig, ...] | None
) -> tuple[EvaluatorConfig, ...]:
    """The evaluators of a list of names, with the settings that a config gives them.

    Args:
        names: such as `likelihood,samples`, or `all`; None is those of the config.
        configured: of the config; None is the default.

    Raises:
        ConfigError: an unknown name, or none.
    """
    base = DEFAULT if configured is None else configured
    if names is None:
        return base
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    wanted = list(KINDS) if wanted == [ALL] else list(dict.fromkeys(wanted))
    unknown = [name for name in wanted if name not in KINDS]
    if unknown or not wanted:
        found = unknown[0] if unknown else "nothing"
        raise ConfigError(f"--evaluators {found}: they are {', '.join(KINDS)}, or {ALL}")
    chosen: list[EvaluatorConfig] = []
    for name in wanted:
        chosen += [one for one in base if kind_of(one) == name] or [KINDS[name]()]
    return tuple(chosen)


def check_evaluators(evaluators: Sequence[EvaluatorConfig]) -> tuple[EvaluatorConfig, ...]:
    """The evaluators, which may have been made in Python, where bounds are not checked.

    Raises:
        ConfigError: a number out of bounds, or a kind twice: its figures would have one name.
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
