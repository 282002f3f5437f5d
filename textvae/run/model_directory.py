"""Model directories: publishing and loading a model, and its model card."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import torch
from torch import Tensor

from textvae.config import Config, decode, encode_json, parse_json
from textvae.data.spelling import MAX_FILE_BYTES, SpellingModel
from textvae.data.tokenizer import Tokenizer
from textvae.errors import CheckpointError, ConfigError, DataError
from textvae.evaluate.measurements import decode_figures
from textvae.evaluate.summary import Evaluation
from textvae.model.interfaces import CheckedBuffers
from textvae.model.vae import VAE, ModelConfig
from textvae.run.data import DATA, DataFacts, load_facts
from textvae.run.experiment import StartFrom, read_experiment, refuse_removed_labels
from textvae.run.label_file import label_files, read_labels
from textvae.storage.checkpoint import (
    CARD,
    CONFIG,
    EXPERIMENT,
    TOKENIZER,
    WEIGHTS,
    Shapes,
    open_model_directory,
    save_model_directory,
)
from textvae.storage.files import read_bytes
from textvae.storage.manifest import MANIFEST
from textvae.storage.tensors import tensors_to_bytes
from textvae.storage.training_state import load_state
from textvae.version import installed_version

RESULTS = "results.json"
SPELLING = "spelling.json"
LARGEST_WEIGHT = 1e15
"""The largest magnitude of a weight: a product of two, summed over a layer, stays in float32."""


class TrainingFacts(Config):
    """How the weights were trained."""

    steps: int
    best_step: int
    """The step whose weights these are; -1 if no validation selected any."""
    validation_elbo: float | None
    validation_kl: float
    seconds: float
    precision: str
    device: str
    num_threads: int
    torch_version: str = str(torch.__version__)
    finished: bool = True
    """False if a signal stopped the run before its end."""
    temperature: float = 1.0
    """The divisor of the logits, folded into the weights; 1 without calibration."""


class Results(Config):
    """results.json: the data of a model, its training, and its figures."""

    data: DataFacts
    training: TrainingFacts
    evaluation: Evaluation | None = None
    start_from: StartFrom | None = None
    """The model that training started from; None for random weights."""


class LoadedModel(NamedTuple):
    """The contents of a model directory."""

    model: VAE
    """On the CPU, in evaluation mode."""
    tokenizer: Tokenizer
    config: ModelConfig
    results: Results | None
    labels: tuple[str, ...] = ()
    """The names of the labels; empty for a model without labels."""
    spelling: SpellingModel | None = None
    """The probability of unknown words; None for sub-words and for models from before it."""


def publish(
    path: Path,
    model: VAE,
    config: ModelConfig,
    tokenizer: Tokenizer,
    results: Results | None,
    labels: Sequence[str] = (),
    spelling: SpellingModel | None = None,
) -> None:
    """Write a model directory: config, weights, tokenizer, card, results, and their checksums.

    With the names of the labels of a model that has labels.
    """
    files = {
        CONFIG: encode_json(config),
        WEIGHTS: tensors_to_bytes(model.state_dict()),
        TOKENIZER: tokenizer.to_json().encode(),
        CARD: card(model, config, tokenizer, results).encode(),
    }
    if results is not None:
        files[RESULTS] = msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n"
    if model.labels.num_labels:
        assert len(labels) == model.labels.num_labels
        files |= label_files(labels)
    if spelling is not None:
        files[SPELLING] = spelling.to_json()
    save_model_directory(path, files)


def load_model(path: Path, *, verify: bool = True) -> LoadedModel:
    """The model of a model or run directory; of a run that is not finished, its last saved state.

    Args:
        path: the directory.
        verify: compare every file with its checksum first.

    Raises:
        CheckpointError: no model there, a damaged one, or parts that do not belong together.
    """
    if not (path / MANIFEST).exists() and (path / EXPERIMENT).is_file():
        return _load_unfinished(path)
    files = open_model_directory(path, verify=verify)
    config, tokenizer = _config(path, files.config), _tokenizer(path, files.tokenizer)
    labels = read_labels(path, has_labels=config.labels.has_labels, verify=verify)
    model = _model_for_weights(path, config, tokenizer, files.shapes, len(labels))
    _load_weights(model, files.read_tensors(), path / WEIGHTS)
    spelling = _spelling(path) if SPELLING in files.manifest.files else None
    return LoadedModel(model.eval(), tokenizer, config, read_results(path), labels, spelling)


def _load_unfinished(path: Path) -> LoadedModel:
    """The best weights of the last saved state, or else its averaged, or else its present ones."""
    state, tokenizer_file = load_state(path), path / TOKENIZER
    if state is None or not tokenizer_file.is_file():
        raise CheckpointError(
            f"{path}: this run has saved no model yet; continue it with the same train command"
        )
    config = read_experiment(path / EXPERIMENT).model
    tokenizer = _tokenizer(path, read_bytes(tokenizer_file, at_most=2**26))
    prefixes = ("best.", "average.mean.", "model.")
    prefix = next(p for p in prefixes if any(name.startswith(p) for name in state.tensors))
    weights = {n.removeprefix(prefix): t for n, t in state.tensors.items() if n.startswith(prefix)}
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    facts, labels = load_facts(path / DATA), tuple[str, ...]()
    if facts is not None and config.labels.has_labels:
        labels = facts.label_names
    model = _model_for_weights(path, config, tokenizer, shapes, len(labels))
    _load_weights(model, weights, path)
    spelling = _spelling(path) if (path / SPELLING).is_file() else None
    return LoadedModel(model.eval(), tokenizer, config, None, labels, spelling)


def read_results(path: Path) -> Results | None:
    """results.json of a model directory, or None."""
    file = path / RESULTS
    if not (path / MANIFEST).exists() or not file.is_file():
        return None
    try:
        return decode_figures(read_bytes(file, at_most=2**24), Results)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = str(error).replace("\n", " ")
        raise CheckpointError(
            f"{file}: cannot be read: {reason}; check it with info --verify"
        ) from None


def _config(path: Path, data: bytes) -> ModelConfig:
    try:
        value = parse_json(data.decode())
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path / CONFIG}: not JSON, so the file is damaged") from None
    refuse_removed_labels(value, path / CONFIG)
    return decode(value, ModelConfig, source=str(path / CONFIG))


def _tokenizer(path: Path, data: bytes) -> Tokenizer:
    try:
        return Tokenizer.from_json(data)
    except DataError as error:
        raise CheckpointError(f"{path / TOKENIZER}: {error}") from None


def _spelling(path: Path) -> SpellingModel:
    try:
        return SpellingModel.from_json(read_bytes(path / SPELLING, at_most=MAX_FILE_BYTES))
    except DataError as error:
        raise CheckpointError(f"{path / SPELLING}: {error}") from None


def _model_for_weights(
    path: Path, config: ModelConfig, tokenizer: Tokenizer, shapes: Shapes, num_labels: int
) -> VAE:
    """The model of a config, not yet initialized; refused if weights of `shapes` do not fit it."""
    size = tokenizer.vocabulary_size
    try:
        model = config.build(size, num_labels=num_labels, seed=None)
    except RuntimeError as error:
        raise ConfigError(f"{path / CONFIG}: no such model can be built: {error}") from None
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    bias = shapes.get("decoder.output_bias")
    if bias is not None and bias != (size,):
        raise CheckpointError(
            f"{path}: the tokenizer does not belong to the weights: it has {size:,} words, "
            f"they have {bias[0]:,}; take both from the same model"
        )
    for name in sorted(expected.keys() | shapes.keys()):
        if expected.get(name) != shapes.get(name):
            raise CheckpointError(
                f"{path / WEIGHTS}: {name} has shape {shapes.get(name, 'none')}, config.json asks "
                f"for {expected.get(name, 'none')}; take both from the same model"
            )
    return model


def _load_weights(model: VAE, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Load tensors into a model whose shapes they have.

    Raises:
        CheckpointError: a tensor of another dtype than the model's, with a value that is not
            finite, or a buffer with values that it cannot have.
    """
    expected = model.state_dict()
    for name, values in tensors.items():
        if values.dtype != expected[name].dtype:
            kinds = values.dtype, expected[name].dtype
            actual, dtype = (str(kind).removeprefix("torch.") for kind in kinds)
            raise CheckpointError(
                f"{source}: {name} is of type {actual}, expected {dtype}; save the model in {dtype}"
            )
        if not bool((values.abs() <= LARGEST_WEIGHT).all()):
            raise CheckpointError(
                f"{source}: {name} holds a number that is not finite or exceeds "
                f"{LARGEST_WEIGHT:g}; take the model from where it was trained"
            )
    model.load_state_dict(tensors)
    for prefix, module in model.named_modules():
        if isinstance(module, CheckedBuffers) and (fault := module.buffer_fault()) is not None:
            raise CheckpointError(
                f"{source}: {prefix}.{fault}; take the model from where it was trained"
            )


def weights_sha256(model: VAE) -> str:
    """Sha256 of the weights in the order of their names, by which other files refer to a model."""
    digest = hashlib.sha256()
    for name, values in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(values.shape)}\n".encode())
        digest.update(values.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def require_latent(model: VAE, path: Path | None) -> None:
    """Refuse a language model where posteriors are needed: a CheckpointError."""
    if model.is_language_model:
        raise CheckpointError(
            f"{path or 'this model'}: is a language model without a latent, so it has no posterior "
            "and cannot reconstruct or interpolate; it can sample and evaluate"
        )


_CARD = """\
---
library_name: textvae
pipeline_tag: text-generation
tags: [textvae, {tag}]
---

# {title}

A {architecture} {kind} {parameters:,} parameters and a {tokenizer.kind} vocabulary of \
{tokenizer.vocabulary_size:,}; made with textvae {version}.

```python
import textvae

vae = textvae.TextVAE.from_pretrained("this/directory")
vae.sample(5, seed=1)
```
"""
_CARD_TRAINING = """
## Data

Trained on {data.source}.

| split | sentences | tokens with `</s>` | sha256 |
|---|---|---|---|
{splits}

## Training

{training.steps:,} steps in {training.seconds:,.0f} s on {training.device} \
({training.num_threads} threads, {training.precision}, torch {training.torch_version}); \
these are the weights of step {training.best_step:,}.
"""
_CARD_START = """
Started from the model of {start.path}, whose weights have the sha256 {start.weights_sha256}. \
What differs from its settings and text:

"""
_CARD_EVALUATION = """
## Numbers

On {evaluation.source}:

```
{table}
```
"""


def card(model: VAE, config: ModelConfig, tokenizer: Tokenizer, results: Results | None) -> str:
    """README.md of a model directory: the model, how to use it, its data, training and figures."""
    tag, title = "variational-autoencoder", "A sentence VAE"
    kind = f"variational autoencoder with a latent of {config.latent_dim} dimensions,"
    if model.is_language_model:
        tag, title = "language-model", "A language model of sentences"
        kind = "language model (the decoder of the autoencoder, with no encoder or latent) with"
    text = _CARD.format(
        tag=tag,
        title=title,
        architecture=model.decoder.architecture,
        kind=kind,
        parameters=sum(p.numel() for p in model.parameters()),
        tokenizer=tokenizer,
        version=installed_version(),
    )
    if results is None:
        return text
    data, training, evaluation = results.data, results.training, results.evaluation
    splits = "\n".join(
        f"| {name} | {split.num_sentences:,} | {split.num_targets:,} | {split.read.sha256} |"
        for name, split in data.splits().items()
    )
    text += _CARD_TRAINING.format(data=data, splits=splits, training=training)
    if not training.finished:
        text += "\nThe run was stopped before its end.\n"
    if results.start_from is not None:
        text += _CARD_START.format(start=results.start_from)
        text += "".join(f"- {line}\n" for line in results.start_from.differences)
    if training.temperature != 1.0:
        text += (
            "\nCalibrated on the validation set: the weights divide all logits by "
            f"{training.temperature:.3f}.\n"
        )
    if evaluation is not None:
        text += _CARD_EVALUATION.format(evaluation=evaluation, table=evaluation.table())
    return text
