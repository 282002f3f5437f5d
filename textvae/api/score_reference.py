"""The sentences that scores are compared with: training and validation sentences of a model.

They are measured once and stored beside the model, in a directory with checksums, so that the next
run starts at once. A reference belongs to the weights it was measured with: for others it is
measured again.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from textvae import distributed
from textvae.api.text_vae import TextVAE
from textvae.api.token_log_probs import NUM_SAMPLES
from textvae.config import Config, decode, encode_json, parse_json
from textvae.data.batching import TokenArray
from textvae.data.corpus import read_sentences
from textvae.errors import CheckpointError, ConfigError, DataError
from textvae.metrics.likelihood import encode_corpus
from textvae.metrics.scores import (
    Aggregate,
    ScoreFeatures,
    aggregate_of,
    measure_features,
    unigram_log_probs,
)
from textvae.randomness import key, permutation
from textvae.run.data import DATA, load_facts, open_spelling_nats, open_split, tokenize_sentences
from textvae.run.model_directory import weights_sha256
from textvae.storage.files import saying_why, write_file
from textvae.storage.manifest import MANIFEST, check_file, make_manifest, read_manifest
from textvae.storage.tensors import tensors_from_bytes, tensors_to_bytes

SENTENCES = 1000
"""The most of each split that are measured, drawn at random: a percentile is then exact to 1.6
points."""
_TENSORS, _FACTS = "reference.safetensors", "reference.json"


class SplitSource(Config):
    """The sentences a reference was measured on."""

    source: str
    sha256: str
    num_sentences: int
    """Measured, of however many there are."""


class ReferenceFacts(Config):
    """reference.json: what a reference belongs to."""

    weights_sha256: str
    background_sha256: str
    """Empty for the unigram model of the training sentences."""
    num_samples: int
    seed: int
    train: SplitSource
    valid: SplitSource | None


class Reference(NamedTuple):
    """The features of normal sentences under a model."""

    unigram: Tensor
    """Log-probabilities `[V]` of the tokens of the training sentences, all of them; float64."""
    aggregate: Aggregate
    train: ScoreFeatures
    """At most SENTENCES training sentences."""
    valid: ScoreFeatures | None
    """As many validation sentences, which the weights were not fitted to."""
    facts: ReferenceFacts

    @property
    def unseen(self) -> ScoreFeatures:
        """The sentences that scores are fitted on: validation sentences where there are any."""
        return self.train if self.valid is None else self.valid


class _Part(NamedTuple):
    """Sentences to measure."""

    data: TokenArray
    source: str
    sha256: str
    spelling: Tensor | None
    """The cost of the unknown words of each, float64 `[N]`; None for a closed vocabulary."""

    def subset(self, seed: int) -> tuple[TokenArray, Tensor | None]:
        """At most SENTENCES of them, drawn at random, and the cost of their unknown words."""
        rows = permutation(key(seed, "score reference"), self.data.num_sentences)[:SENTENCES]
        return self.data.select(rows), None if self.spelling is None else self.spelling[rows]

    def facts(self) -> SplitSource:
        """Where they are from."""
        size = min(SENTENCES, self.data.num_sentences)
        return SplitSource(source=self.source, sha256=self.sha256, num_sentences=size)


def reference_of(
    vae: TextVAE,
    *,
    train: str | Path | None = None,
    valid: str | Path | None = None,
    background: TextVAE | None = None,
    num_samples: int = NUM_SAMPLES,
    seed: int = 0,
    keep: bool = True,
    report: Callable[[str], None] = lambda line: None,
) -> Reference:
    """The reference of a model: the one stored beside it, if it has these settings, or a new one.

    Args:
        vae: the model.
        train: a file of normal sentences; None is the training set of the run, or, where that is
            not there, whatever the reference beside the model was measured on.
        valid: likewise, of normal sentences that the model was not trained on; None is the
            validation set of the run, or nothing.
        background: a language model of the same tokens; None is a unigram model of `train`.
        num_samples: K.
        seed: of the samples, and of the choice of the sentences.
        keep: write a new reference beside the model.
        report: takes lines of progress.

    Raises:
        DataError: sentences that cannot be read; no training sentences.
        CheckpointError: the reference beside the model is damaged and cannot be measured again.
        ConfigError: a background model with a latent or of other tokens; no samples.
    """
    if num_samples < 1:
        raise ConfigError(f"num_samples {num_samples}: must be at least 1")
    other = "" if background is None else check_background(vae, background)
    num_samples = 1 if vae.model.is_language_model else num_samples
    parts = _part(vae, "train", train), _part(vae, "valid", valid)
    name = f"scoring-{num_samples}-{seed}" + (f"-{other[:12]}" if other else "")
    folder = None if vae.path is None else vae.path / name
    stored = None if folder is None else _agreed(_stored(folder, vae, other, parts, report))
    if stored is not None:
        return stored
    normal, unseen = parts
    if normal is None:
        raise DataError(
            f"{vae.path or 'a model without a run'}: the sentences it was trained on are not there;"
            " name a file of them with --reference"
        )
    facts = ReferenceFacts(
        weights_sha256=weights_sha256(vae.model),
        background_sha256=other,
        num_samples=num_samples,
        seed=seed,
        train=normal.facts(),
        valid=None if unseen is None else unseen.facts(),
    )
    size = sum(part.num_sentences for part in (facts.train, facts.valid) if part is not None)
    report(f"measuring {size:,} normal sentences to compare with")
    reference = _measured(vae, background, normal, unseen, facts)
    if keep and folder is not None and distributed.rank() == 0:
        _store(folder, reference, report)
    return reference


def spelling_nats(vae: TextVAE, texts: Sequence[str]) -> Tensor | None:
    """The cost of the unknown words of each sentence, float64 `[N]`; None: a closed vocabulary."""
    if vae.spelling is None:
        return None
    return torch.tensor(vae.spelling.nats(texts, vae.tokenizer), dtype=torch.float64)


def _store(folder: Path, reference: Reference, report: Callable[[str], None]) -> None:
    """Write a reference; where that is impossible, scores only take longer the next time."""
    try:
        _write(folder, reference)
    except CheckpointError as error:
        report(f"{error}; the next time will measure again")
    else:
        report(f"{folder}: stores them for the next time")


def check_background(vae: TextVAE, background: TextVAE) -> str:
    """The checksum of a background model's weights, once it is seen to fit.

    Raises:
        ConfigError: it has a latent, or other tokens than the model.
    """
    where = background.path or "the background model"
    if not background.model.is_language_model:
        raise ConfigError(
            f"{where}: has a latent; a background is a language model: train it with "
            "--set model.encoder.kind=none --set model.latent_dim=0"
        )
    if background.tokenizer.to_json() != vae.tokenizer.to_json():
        raise ConfigError(
            f"{where}: has other tokens than the model; train it on the same data with the same "
            "settings of data.tokenizer"
        )
    return weights_sha256(background.model)


def _part(vae: TextVAE, name: str, file: str | Path | None) -> _Part | None:
    """The sentences of a file, or of a split of the run; None where there are none."""
    if file is not None:
        data, facts, texts, *_ = tokenize_sentences(
            read_sentences(str(file), split="train" if name == "train" else "valid"),
            vae.tokenizer,
            vae.config.max_length,
        )
        spelling = spelling_nats(vae, texts)
    elif vae.path is None or load_facts(vae.path / DATA) is None:
        return None
    else:
        data, facts = open_split(vae.path / DATA, name)
        spelling = None
        if vae.spelling is not None:
            spelling = open_spelling_nats(vae.path / DATA, name, data.num_sentences)
    return _Part(data, facts.read.source, facts.read.sha256, spelling)


def _measured(
    vae: TextVAE,
    background: TextVAE | None,
    normal: _Part,
    unseen: _Part | None,
    facts: ReferenceFacts,
) -> Reference:
    (train, spelling), unigram = normal.subset(facts.seed), unigram_log_probs(normal.data)
    posterior = encode_corpus(vae.model, train.to(vae.device))
    aggregate = aggregate_of(posterior)

    def measured(data: TokenArray, spelling: Tensor | None) -> ScoreFeatures:
        return measure_features(
            vae.model,
            data,
            num_samples=facts.num_samples,
            seed=facts.seed,
            unigram=unigram,
            background=None if background is None else background.model,
            aggregate=aggregate,
            spelling=spelling,
        )

    held_out = None if unseen is None else measured(*unseen.subset(facts.seed))
    return Reference(unigram, aggregate, measured(train, spelling), held_out, facts)


# -- on disk ---------------------------------------------------------------------------------------


def _write(folder: Path, reference: Reference) -> None:
    tensors = {
        "unigram": reference.unigram,
        "mean": reference.aggregate.mean,
        "factor": reference.aggregate.factor,
        "train": torch.stack(reference.train),
    }
    if reference.valid is not None:
        tensors["valid"] = torch.stack(reference.valid)
    files = {_TENSORS: tensors_to_bytes(tensors), _FACTS: encode_json(reference.facts)}
    with saying_why(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MANIFEST).unlink(missing_ok=True)
    for name, data in {**files, MANIFEST: make_manifest(files)}.items():
        write_file(folder / name, data)


def _stored(
    folder: Path,
    vae: TextVAE,
    background: str,
    parts: tuple[_Part | None, _Part | None],
    report: Callable[[str], None],
) -> Reference | None:
    """The reference in a directory, if it belongs to these weights and sentences.

    Raises:
        CheckpointError: it is damaged, and there are no sentences to measure it again.
    """
    if not (folder / MANIFEST).exists():
        return None
    try:
        reference = _read(folder, vae)
    except CheckpointError as error:
        if parts[0] is None:
            raise CheckpointError(f"{error}; measure it again with --reference FILE") from None
        report(f"{error}; measuring again")
        return None
    facts = reference.facts
    fits = facts.weights_sha256 == weights_sha256(vae.model)
    fits = fits and facts.background_sha256 == background
    if parts[0] is not None:
        stored = [None if part is None else part.sha256 for part in (facts.train, facts.valid)]
        fits = fits and stored == [None if part is None else part.sha256 for part in parts]
    return reference if fits else None


def _agreed(reference: Reference | None) -> Reference | None:
    """None if one of the processes has none: it may have looked before it was written."""
    return None if distributed.all_reduce_max(int(reference is None)) else reference


def _read(folder: Path, vae: TextVAE) -> Reference:
    """Read a directory, every byte compared with its manifest, and every shape with the model."""
    manifest = read_manifest(folder)
    if manifest.files.keys() != {_TENSORS, _FACTS}:
        raise CheckpointError(f"{folder / MANIFEST}: lists other files than a reference has")
    data = {name: check_file(folder / name, facts) for name, facts in manifest.files.items()}
    try:
        facts = decode(parse_json(data[_FACTS].decode()), ReferenceFacts, source=_FACTS)
    except (ValueError, RecursionError):  # a ConfigError is a ValueError
        raise CheckpointError(f"{folder / _FACTS}: not the facts of a reference") from None
    tensors = tensors_from_bytes(data[_TENSORS], folder / _TENSORS)
    dim, splits = vae.config.latent_dim, {"train": facts.train, "valid": facts.valid}
    expected: dict[str, tuple[int, ...]] = {
        "unigram": (vae.tokenizer.vocabulary_size,),
        "mean": (dim,),
        "factor": (dim, dim),
    }
    for name, split in splits.items():
        if split is not None:
            expected[name] = (len(ScoreFeatures._fields), split.num_sentences)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != expected or any(t.dtype != torch.float64 for t in tensors.values()):
        raise CheckpointError(f"{folder / _TENSORS}: is the reference of another model")
    valid = tensors.get("valid")
    return Reference(
        tensors["unigram"],
        Aggregate(tensors["mean"], tensors["factor"]),
        ScoreFeatures(*tensors["train"]),
        None if valid is None else ScoreFeatures(*valid),
        facts,
    )
