"""The labels of a step: those of its batch, and labelled sentences drawn besides."""

from collections.abc import Callable

import torch

from textvae.data.batching import Batch, TokenArray
from textvae.model.labelling import Labelled, Labelling, unknown_labels
from textvae.model.vae import VAE
from textvae.randomness import Noise, hashes, key, uniforms

DrawLabelled = Callable[..., Batch | None]
"""`labelled_batch` of all but the step."""


def labelled_batch(corpus: TokenArray, size: int, *, seed: int, step: int) -> Batch | None:
    """Labelled sentences drawn for a step, with replacement; None where no sentence has a label.

    Where few sentences have a label, few batches would hold one: so every step has a batch of
    them, on which q(y|x) alone learns. The bound sees every sentence as often as any other.

    Args:
        corpus: what is trained on.
        size: how many; all the labelled, each once, where there are no more.
        seed: of the draws.
        step: of the run.
    """
    if corpus.labels is None:
        return None
    places = (corpus.labels >= 0).nonzero()[:, 0]
    count = places.shape[0]
    if count == 0:
        return None
    if count <= size:
        return corpus.batch(places)
    drawn = hashes(key(seed, "labelled", step), torch.arange(size, device=places.device)) % count
    return corpus.batch(places[drawn])


def labelling_of(
    model: VAE,
    batch: Batch,
    drawn: DrawLabelled | None,
    *,
    seed: int,
    step: int,
) -> Labelling | None:
    """What `VAE.forward` takes for a step; None for a model without labels.

    `drawn` gives labelled sentences for a step, as `labelled_batch` does.
    """
    if not model.labels.num_labels:
        return None
    labelled = None if drawn is None else drawn(step=step)
    labels = unknown_labels(batch.lengths) if batch.labels is None else batch.labels
    more = None
    if labelled is not None and labelled.labels is not None:
        noise = Noise(key(seed, "labelled"), step, labelled.indices)
        more = Labelled(labelled.targets, labelled.lengths, labelled.labels, noise)
    return Labelling(labels, uniforms(key(seed, "label", step), batch.indices), more)
