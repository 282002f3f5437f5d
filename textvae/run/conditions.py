"""Labels by name, and the conditions that the decoder reads for latents and labels."""

import difflib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from textvae.errors import CheckpointError, DataError
from textvae.generate.latents import check_latents
from textvae.model.vae import VAE


class LabelledConditions(NamedTuple):
    """The conditions of samples, and the labels of the samples."""

    conditions: Tensor
    """`[N, C]`."""
    labels: list[str] | None
    """N names; None for a model without labels."""


def label_number(model: VAE, names: Sequence[str], label: str) -> int:
    """The number of a label among the names of a model's labels.

    CheckpointError for a model without labels, DataError for a label that it has not.
    """
    if not model.labels.num_labels:
        raise CheckpointError(
            f"label {label!r}: the model was trained without labels; leave out the label, or "
            "train with --set model.labels.kind=m2 on text with labels"
        )
    if label in names:
        return names.index(label)
    near = difflib.get_close_matches(label, names, n=1)
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    hint = f"did you mean {near[0]!r}?" if near else f"its labels are {shown}"
    raise DataError(f"label {label!r}: the model has never seen it; {hint}")


def decoder_conditions(
    model: VAE, names: Sequence[str], latents: Tensor, label: str | Sequence[str] | None
) -> Tensor:
    """The conditions of the decoder, `[N, C]`: latents `[N, Z]` and, for M2, labels.

    A label is one for all, one for each, or None, which M2 refuses. DataError for latents of
    another shape and labels that the model has not.
    """
    check_latents(latents, model.prior.latent_dim)
    if label is None and model.labels.num_labels and len(latents):
        raise DataError(
            "--label: missing, and the decoder reads a label beside the latent; give one of "
            f"{', '.join(names[:12])}"
        )
    if isinstance(label, str):
        numbers = [label_number(model, names, label)] * len(latents)
    else:
        numbers = [label_number(model, names, one) for one in label or ()]
    labels = torch.tensor(numbers, dtype=torch.int64, device=model.device)
    with torch.inference_mode():
        return model.condition(latents.to(model.device), labels)


def sample_conditions(
    model: VAE,
    names: Sequence[str],
    latents: Tensor,
    *,
    seed: int,
    start: int,
    near: bool,
    label: str | None,
) -> LabelledConditions:
    """Conditions of the decoder for samples, with labels drawn from p(y) unless one is given.

    `start` is the index of the first latent among those of the seed; of latents drawn `near` a
    sentence no label is drawn.
    """
    count, labels = latents.shape[0], None
    if label is not None:
        label_number(model, names, label)
        labels = [label] * count
    elif not near:
        numbers = model.labels.sample(count, seed=seed, start=start)
        labels = None if numbers is None else [names[number] for number in numbers.tolist()]
    return LabelledConditions(decoder_conditions(model, names, latents, labels), labels)
