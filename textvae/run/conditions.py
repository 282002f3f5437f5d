"""Labels by name: what is asked for, what a sentence has, and what the decoder then reads."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from textvae.errors import CheckpointError, ConfigError, DataError
from textvae.generate.latents import check_latents
from textvae.metrics.likelihood import likeliest_labels
from textvae.model.vae import VAE, ModelConfig
from textvae.run.held_out import Origin, given, tokenize_given


class Model(Protocol):
    """What of a `TextVAE` is looked at here."""

    model: VAE
    config: ModelConfig
    labels: tuple[str, ...]
    path: Path | None

    @property
    def origin(self) -> Origin:
        """How sentences are cut into tokens."""


def find_label(model: VAE, names: Sequence[str], label: str, path: Path | None = None) -> int:
    """The number of a label.

    Raises:
        CheckpointError: the model knows no labels.
        DataError: not this one.
    """
    if not model.labels.num_labels:
        raise CheckpointError(
            f"{path or 'this model'}: was trained without labels; leave out the label, or train "
            "with --set model.labels.kind=m2 on text with labels"
        )
    if label in names:
        return names.index(label)
    near = difflib.get_close_matches(label, names, n=1)
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    hint = f"did you mean {near[0]!r}?" if near else f"its labels are {shown}"
    raise DataError(f"label {label!r}: the model has never seen it; {hint}")


def conditions(
    model: VAE,
    names: Sequence[str],
    latents: Tensor,
    label: str | Sequence[str] | None,
    path: Path | None = None,
) -> Tensor:
    """What the decoder reads for latents: `[N, Z]` -> `[N, C]`; M2 reads the label beside them.

    Args:
        model: on its device.
        names: of its labels.
        latents: float32.
        label: one for all, one for each, or None, which M2 refuses.
        path: where the model is from, for errors.

    Raises:
        CheckpointError: a label for a model without labels.
        DataError: an unknown label, or none for M2.
    """
    if label is None and model.labels.num_labels and len(latents):
        raise DataError(
            f"{path or 'this model'}: its decoder reads a label beside the latent; give one "
            f"of {', '.join(names[:12])}"
        )
    if isinstance(label, str):
        numbers = [find_label(model, names, label, path)] * len(latents)
    else:
        numbers = [find_label(model, names, one, path) for one in label or ()]
    labels = torch.tensor(numbers, dtype=torch.int64, device=model.device)
    with torch.inference_mode():
        return model.condition(latents.to(model.device), labels)


class Sampled(NamedTuple):
    """What the decoder reads for samples, and the labels they are to carry."""

    conditions: Tensor
    """`[N, C]`."""
    labels: list[str] | None
    """N names; None where the model has no labels."""


def sample_conditions(
    vae: Model, latents: Tensor, *, seed: int, start: int, near: bool, label: str | None
) -> Sampled:
    """Conditions of the decoder for samples, and their labels.

    Without a label one is drawn from p(y) for each draw of the prior.

    Args:
        vae: the model.
        latents: from `sample_latents`, `[N, Z]`.
        seed: of the labels.
        start: the index of the first latent among those of the seed.
        near: they were drawn around a sentence, not from the prior.
        label: of all.

    Raises:
        CheckpointError: a label for a model without labels.
        DataError: an unknown label.
    """
    model, names, count = vae.model, vae.labels, latents.shape[0]
    if label is not None:
        find_label(model, names, label, vae.path)
    if near:
        labels = None if label is None else [label] * count
        return Sampled(conditions(model, names, latents, labels), labels)
    numbers = model.labels.sample(count, seed=seed, start=start)
    if numbers is None:
        return Sampled(conditions(model, names, latents, None), None)
    if label is not None:
        numbers = torch.full_like(numbers, names.index(label))
    labels = [names[number] for number in numbers.tolist()]
    return Sampled(conditions(model, names, latents, labels), labels)


def own_labels(vae: Model, sentences: Sequence[str]) -> list[str] | None:
    """The likeliest label of each sentence where the decoder reads one, else None."""
    if not vae.model.labels.num_labels:
        return None
    array, _ = tokenize_given(vae.origin, given(sentences), sentences)
    numbers = likeliest_labels(vae.model, array.to(vae.model.device))
    return None if numbers is None else [vae.labels[number] for number in numbers.tolist()]


def held_label(vae: Model, sentence: str) -> str | None:
    """The likeliest label of a sentence where the decoder reads one, else None."""
    found = own_labels(vae, [sentence])
    return None if found is None else found[0]


def decoder_conditions(
    vae: Model, latents: Tensor, label: str | Sequence[str] | None = None
) -> Tensor:
    """What the decoder reads, `[N, C]`, for latents `[N, Z]` and a label; see `TextVAE.decode`.

    Raises:
        DataError: latents of another shape than `[N, Z]`, an unknown label, or none for M2.
        CheckpointError: a label for a model without labels.
    """
    check_latents(latents, vae.config.latent_dim)
    return conditions(vae.model, vae.labels, latents, label, vae.path)


def check_max_length(vae: Model, max_length: int | None) -> int:
    """The most tokens of a sentence.

    Raises:
        ConfigError: a limit below 1.
    """
    longest = vae.config.max_length if max_length is None else max_length
    if longest < 1:
        raise ConfigError(f"max_length {longest}: must be at least 1")
    return longest
