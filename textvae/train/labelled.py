"""The labels of a step: those of its batch, and extra labelled sentences."""

import torch

from textvae.data.batching import Batch, TokenArray
from textvae.model.labelling import Labelled, Labelling, unknown_labels
from textvae.model.vae import VAE
from textvae.randomness import Noise, hashes, key, uniforms


class LabelledBatches:
    """Batches of labelled sentences, on which q(y|x) alone learns, one for each step.

    Where few sentences have a label, few batches would hold one. The bound still sees every
    sentence equally often.
    """

    def __init__(self, corpus: TokenArray, size: int, *, seed: int) -> None:
        """Draw `size` sentences with replacement, or all the labelled where there are no more."""
        self._corpus, self._size, self._seed = corpus, size, seed
        self._rows: torch.Tensor | None = None
        if corpus.labels is not None:
            self._rows = (corpus.labels >= 0).nonzero()[:, 0]

    def at(self, step: int) -> Batch | None:
        """The batch of a step; None where no sentence has a label."""
        if self._rows is None or not len(self._rows):
            return None
        if len(self._rows) <= self._size:
            return self._corpus.batch(self._rows)
        stream = key(self._seed, "labelled", step)
        numbers = torch.arange(self._size, device=self._rows.device)
        return self._corpus.batch(self._rows[hashes(stream, numbers) % len(self._rows)])


def labelling_of(
    model: VAE, batch: Batch, labelled: LabelledBatches, *, seed: int, step: int
) -> Labelling | None:
    """The labels that `VAE.forward` reads in a step; None for a model without labels."""
    if not model.labels.num_labels:
        return None
    labels = unknown_labels(batch.lengths) if batch.labels is None else batch.labels
    extra, examples = labelled.at(step), None
    if extra is not None and extra.labels is not None:
        noise = Noise(key(seed, "labelled"), step, extra.indices)
        examples = Labelled(extra.targets, extra.lengths, extra.labels, noise)
    return Labelling(labels, uniforms(key(seed, "label", step), batch.indices), examples)
