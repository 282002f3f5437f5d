"""A text variational autoencoder: train, sample, interpolate, measure perplexity.

The public names are imported when they are first used, so that `import textvae` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the same table for type checkers, which see no __getattr__
    from textvae.api.classify import Classifier as Classifier
    from textvae.api.classify import Label as Label
    from textvae.api.classify import classifier as classifier
    from textvae.api.edit import AttributeVector as AttributeVector
    from textvae.api.edit import analogies as analogies
    from textvae.api.edit import attribute_vector as attribute_vector
    from textvae.api.edit import edit as edit
    from textvae.api.edit import load_vector as load_vector
    from textvae.api.edit import save_vector as save_vector
    from textvae.api.evaluate import run_evaluators as run_evaluators
    from textvae.api.interpolate import Step as Step
    from textvae.api.interpolate import Walk as Walk
    from textvae.api.interpolate import walk as walk
    from textvae.api.interpolate import walk_steps as walk_steps
    from textvae.api.latent_file import read_latents as read_latents
    from textvae.api.latent_file import write_latents as write_latents
    from textvae.api.latent_space import EncodedPart as EncodedPart
    from textvae.api.latent_space import neighbors as neighbors
    from textvae.api.latent_space import posteriors as posteriors
    from textvae.api.latent_space import sentences_at as sentences_at
    from textvae.api.n_best import n_best as n_best
    from textvae.api.reconstruct import Reconstruction as Reconstruction
    from textvae.api.reconstruct import Reconstructions as Reconstructions
    from textvae.api.reconstruct import reconstructions as reconstructions
    from textvae.api.score import Scored as Scored
    from textvae.api.score import score as score
    from textvae.api.score import threshold as threshold
    from textvae.api.score_reference import Reference as Reference
    from textvae.api.score_reference import reference_of as reference_of
    from textvae.api.text_vae import TextVAE as TextVAE
    from textvae.errors import CheckpointError as CheckpointError
    from textvae.errors import ConfigError as ConfigError
    from textvae.errors import DataError as DataError
    from textvae.errors import TextVAEError as TextVAEError
    from textvae.errors import TrainingError as TrainingError
    from textvae.evaluate.measurements import Measurements as Measurements
    from textvae.evaluate.summary import Evaluation as Evaluation
    from textvae.generate.beam import Beam as Beam
    from textvae.generate.beam import GNMTPenalty as GNMTPenalty
    from textvae.generate.beam import TokenMean as TokenMean
    from textvae.generate.neighbors import Neighbor as Neighbor
    from textvae.generate.options import Decoding as Decoding
    from textvae.generate.rules import MinLength as MinLength
    from textvae.generate.rules import NoRepeatedNgrams as NoRepeatedNgrams
    from textvae.generate.rules import RepetitionPenalty as RepetitionPenalty
    from textvae.generate.strategies import Greedy as Greedy
    from textvae.generate.strategies import Nucleus as Nucleus
    from textvae.generate.strategies import Temperature as Temperature
    from textvae.generate.strategies import TopK as TopK
    from textvae.generate.strategies import Typical as Typical
    from textvae.generate.writing import Candidate as Candidate
    from textvae.generate.writing import Sample as Sample
    from textvae.model.gaussian import DiagonalGaussian as DiagonalGaussian
    from textvae.run.experiment import ExperimentConfig as ExperimentConfig
    from textvae.run.experiment import load_config as load_config
    from textvae.train.metrics import Event as Event

    __version__: str

_NAMES = {
    "api.classify": "Classifier Label classifier",
    "api.edit": "AttributeVector analogies attribute_vector edit load_vector save_vector",
    "api.evaluate": "run_evaluators",
    "api.interpolate": "Step Walk walk walk_steps",
    "api.latent_file": "read_latents write_latents",
    "api.latent_space": "EncodedPart neighbors posteriors sentences_at",
    "api.n_best": "n_best",
    "api.reconstruct": "Reconstruction Reconstructions reconstructions",
    "api.score": "Scored score threshold",
    "api.score_reference": "Reference reference_of",
    "api.text_vae": "TextVAE",
    "errors": "CheckpointError ConfigError DataError TextVAEError TrainingError",
    "evaluate.measurements": "Measurements",
    "evaluate.summary": "Evaluation",
    "generate.beam": "Beam GNMTPenalty TokenMean",
    "generate.neighbors": "Neighbor",
    "generate.options": "Decoding",
    "generate.rules": "MinLength NoRepeatedNgrams RepetitionPenalty",
    "generate.strategies": "Greedy Nucleus Temperature TopK Typical",
    "generate.writing": "Candidate Sample",
    "model.gaussian": "DiagonalGaussian",
    "run.experiment": "ExperimentConfig load_config",
    "train.metrics": "Event",
}
"""The public names of each module."""
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from textvae.version import installed_version  # noqa: PLC0415 -- 20 ms

        value: object = installed_version()
    elif name in _HOMES:
        value = getattr(import_module(f"textvae.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module 'textvae' has no attribute {name!r}")
    globals()[name] = value  # the next use finds it without coming here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
