"""A model directory made from a model, and a model from a model directory; and its card."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import torch

from textvae.config import Config, decode, encode_json, parse_json
from textvae.data.tokenizer import Tokenizer
from textvae.errors import CheckpointError, ConfigError, DataError
from textvae.evaluate.summary import Evaluation
from textvae.model.labels import NoLabelsConfig
from textvae.model.vae import VAE, ModelConfig
from textvae.run.data import DATA, DataFacts, load_facts
from textvae.run.experiment import read_experiment, refuse_removed_labels
from textvae.run.label_file import label_files, read_labels
from textvae.storage.checkpoint import (
    CARD,
    CONFIG,
    EXPERIMENT,
    TOKENIZER,
    WEIGHTS,
    Shapes,
    load_model_directory,
    save_model_directory,
)
from textvae.storage.files import read_bytes
from textvae.storage.manifest import MANIFEST
from textvae.storage.tensors import tensors_to_bytes
from textvae.storage.training_state import load_state
from textvae.version import installed_version

RESULTS = "results.json"


class TrainingFacts(Config):
    """How the weights came about."""

    steps: int
    best_step: int
    """The step whose weights these are; -1 where no validation has selected any."""
    validation_elbo: float | None
    validation_kl: float
    seconds: float
    precision: str
    device: str
    num_threads: int
    torch_version: str = str(torch.__version__)
    finished: bool = True
    """False where a signal stopped the run before its end."""
    temperature: float = 1.0
    """By which the logits were divided at the end, in the weights; 1 without calibration."""


class Results(Config):
    """results.json: what a model was made from, how, and its numbers."""

    data: DataFacts
    training: TrainingFacts
    evaluation: Evaluation | None = None


class LoadedModel(NamedTuple):
    """What a model directory holds."""

    model: VAE
    """On the CPU, in evaluation mode."""
    tokenizer: Tokenizer
    config: ModelConfig
    results: Results | None
    labels: tuple[str, ...] = ()
    """Names, of a model with labels."""


def publish(
    path: Path,
    model: VAE,
    config: ModelConfig,
    tokenizer: Tokenizer,
    results: Results | None,
    labels: Sequence[str] = (),
) -> None:
    """Write a model directory: config, weights, tokenizer, card, results, and their checksums.

    With the names of the labels of a model that has labels.

    Raises:
        CheckpointError: it cannot be written.
    """
    files = {
        CONFIG: encode_json(config),
        WEIGHTS: tensors_to_bytes(model.state_dict()),
        TOKENIZER: tokenizer.to_json().encode(),
        CARD: card(model, config, tokenizer, results).encode(),
    }
    if results is not None:
        files[RESULTS] = msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n"
    if model.labels is not None:
        assert len(labels) == model.labels.num_labels
        files |= label_files(labels)
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
    made: list[tuple[VAE, Tokenizer, ModelConfig, tuple[str, ...]]] = []

    def examine(config: bytes, tokenizer: bytes, shapes: Shapes) -> None:
        asked, words = _config(path, config), _tokenizer(path, tokenizer)
        wanted = not isinstance(asked.labels, NoLabelsConfig)
        names = read_labels(path, wanted=wanted, verify=verify)
        made.append((_model(path, asked, words, shapes, len(names)), words, asked, names))

    files = load_model_directory(path, verify=verify, examine=examine)
    model, words, asked, names = made[0]
    model.load_state_dict(files.tensors)
    return LoadedModel(model.eval(), words, asked, read_results(path), names)


def _load_unfinished(path: Path) -> LoadedModel:
    state, tokenizer = load_state(path), path / TOKENIZER
    if state is None or not tokenizer.is_file():
        raise CheckpointError(
            f"{path}: this run has saved no model yet; continue it with the same train command"
        )
    experiment = read_experiment(path / EXPERIMENT)
    words = _tokenizer(path, read_bytes(tokenizer, at_most=2**26))
    for part in ("best.", "average.mean.", "model."):
        found = {n.removeprefix(part): t for n, t in state.tensors.items() if n.startswith(part)}
        if found:
            break
    shapes = {name: tuple(value.shape) for name, value in found.items()}
    facts, names = load_facts(path / DATA), tuple[str, ...]()
    if facts is not None and not isinstance(experiment.model.labels, NoLabelsConfig):
        names = facts.label_names
    model = _model(path, experiment.model, words, shapes, len(names))
    model.load_state_dict(found)
    return LoadedModel(model.eval(), words, experiment.model, None, labels=names)


def read_results(path: Path) -> Results | None:
    """results.json of a whole model directory, or None.

    Raises:
        CheckpointError: it is there and cannot be understood.
    """
    file = path / RESULTS
    if not (path / MANIFEST).exists() or not file.is_file():
        return None
    try:
        return msgspec.json.decode(read_bytes(file, at_most=2**24), type=Results)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
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


def _model(
    path: Path, config: ModelConfig, tokenizer: Tokenizer, found: Shapes, num_labels: int
) -> VAE:
    """The model of a config, its parameters unset, for weights of shapes that must fit it."""
    size = tokenizer.vocabulary_size
    try:
        model = config.build(size, num_labels=num_labels, seed=None)
    except RuntimeError as error:
        raise ConfigError(f"{path / CONFIG}: no such model can be built: {error}") from None
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    bias = found.get("decoder.output_bias")
    if bias is not None and bias != (size,):
        raise CheckpointError(
            f"{path}: the tokenizer does not belong to the weights: it has {size:,} words, "
            f"they have {bias[0]:,}; take both from the same model"
        )
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise CheckpointError(
                f"{path / WEIGHTS}: {name} has shape {found.get(name, 'none')}, config.json asks "
                f"for {wanted.get(name, 'none')}; take both from the same model"
            )
    return model


def weights_sha256(model: VAE) -> str:
    """Sha256 of the weights in the order of their names: what else belongs to a model names it."""
    digest = hashlib.sha256()
    for name, values in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(values.shape)}\n".encode())
        digest.update(values.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def require_latent(model: VAE, path: Path | None) -> None:
    """Refuse a language model where posteriors are asked for.

    Raises:
        CheckpointError: the model has no latent.
    """
    if model.is_language_model:
        raise CheckpointError(
            f"{path or 'this model'}: is a language model without a latent, so it has no posterior "
            "and cannot reconstruct or interpolate; it can sample and evaluate"
        )


def card(model: VAE, config: ModelConfig, tokenizer: Tokenizer, results: Results | None) -> str:
    """README.md of a model directory: what it is, how to use it, and its numbers."""
    count = sum(p.numel() for p in model.parameters())
    tag, title = "variational-autoencoder", "A sentence VAE"
    kind = f"variational autoencoder with a latent of {config.latent_dim} dimensions,"
    if model.is_language_model:
        tag, title = "language-model", "A language model of sentences"
        kind = "language model (the decoder of the autoencoder, with no encoder or latent) with"
    lines = [
        "---",
        "library_name: textvae",
        "pipeline_tag: text-generation",
        f"tags: [textvae, {tag}]",
        "---",
        "",
        f"# {title}",
        "",
        f"A GRU {kind} {count:,} parameters and a {tokenizer.kind} vocabulary of "
        f"{tokenizer.vocabulary_size:,}; made with textvae {installed_version()}.",
        "",
        "```python",
        "import textvae",
        "",
        'vae = textvae.TextVAE.from_pretrained("this/directory")',
        "vae.sample(5, seed=1)",
        "```",
    ]
    if results is not None:
        training = results.training
        lines += ["", "## Data", "", f"Trained on {results.data.source}.", ""]
        lines += ["| split | sentences | tokens with `</s>` | sha256 |", "|---|---|---|---|"]
        lines += [
            f"| {name} | {s.num_sentences:,} | {s.num_targets:,} | {s.read.sha256} |"
            for name, s in results.data.splits().items()
        ]
        lines += [
            "",
            "## Training",
            "",
            f"{training.steps:,} steps in {training.seconds:,.0f} s on {training.device} "
            f"({training.num_threads} threads, {training.precision}, torch "
            f"{training.torch_version}); these are the weights of step {training.best_step:,}.",
        ]
        if not training.finished:
            lines += ["", "The run was stopped before its end."]
        if training.temperature != 1.0:
            lines += [
                "",
                f"Calibrated on the validation set: the weights divide all logits by "
                f"{training.temperature:.3f}.",
            ]
        if results.evaluation is not None:
            lines += ["", "## Numbers", "", f"On {results.evaluation.source}:", ""]
            lines += ["```", results.evaluation.table(), "```"]
    return "\n".join(lines) + "\n"
