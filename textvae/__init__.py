"""A text variational autoencoder: train, sample, interpolate, measure perplexity.

The public names are imported when they are first used, so that `import textvae` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from textvae.api.n_best import n_best
    from textvae.api.score import Scored, score, threshold
    from textvae.api.score_reference import Reference, reference_of
    from textvae.api.text_vae import TextVAE
    from textvae.errors import (
        CheckpointError,
        ConfigError,
        DataError,
        TextVAEError,
        TrainingError,
    )
    from textvae.evaluate.summary import Evaluation
    from textvae.generate.beam import Beam, GNMTPenalty, TokenMean
    from textvae.generate.rules import MinLength, NoRepeatedNgrams, RepetitionPenalty
    from textvae.generate.strategies import Greedy, Nucleus, Temperature, TopK, Typical
    from textvae.generate.writing import Candidate
    from textvae.model.gaussian import DiagonalGaussian
    from textvae.run.experiment import ExperimentConfig, load_config

    __version__: str

__all__ = [
    "Beam",
    "Candidate",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DiagonalGaussian",
    "Evaluation",
    "ExperimentConfig",
    "GNMTPenalty",
    "Greedy",
    "MinLength",
    "NoRepeatedNgrams",
    "Nucleus",
    "Reference",
    "RepetitionPenalty",
    "Scored",
    "Temperature",
    "TextVAE",
    "TextVAEError",
    "TokenMean",
    "TopK",
    "TrainingError",
    "Typical",
    "__version__",
    "load_config",
    "n_best",
    "reference_of",
    "score",
    "threshold",
]

_HOMES = {
    "Beam": "generate.beam",
    "Candidate": "generate.writing",
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "DataError": "errors",
    "DiagonalGaussian": "model.gaussian",
    "Evaluation": "evaluate.summary",
    "ExperimentConfig": "run.experiment",
    "GNMTPenalty": "generate.beam",
    "Greedy": "generate.strategies",
    "MinLength": "generate.rules",
    "NoRepeatedNgrams": "generate.rules",
    "Nucleus": "generate.strategies",
    "Reference": "api.score_reference",
    "RepetitionPenalty": "generate.rules",
    "Scored": "api.score",
    "Temperature": "generate.strategies",
    "TextVAE": "api.text_vae",
    "TextVAEError": "errors",
    "TokenMean": "generate.beam",
    "TopK": "generate.strategies",
    "TrainingError": "errors",
    "Typical": "generate.strategies",
    "load_config": "run.experiment",
    "n_best": "api.n_best",
    "reference_of": "api.score_reference",
    "score": "api.score",
    "threshold": "api.score",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        value: object = _version()
    elif name in _HOMES:
        value = getattr(import_module(f"textvae.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module 'textvae' has no attribute {name!r}")
    globals()[name] = value  # the next use finds it without coming here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from textvae.version import installed_version  # noqa: PLC0415 -- 20 ms

    return installed_version()
