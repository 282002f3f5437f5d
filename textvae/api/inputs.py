"""Values at the border: from users to lists and tensors, and from process to process."""

from collections.abc import Sequence
from itertools import chain

import msgspec
import torch
from torch import Tensor

from textvae import distributed
from textvae.generate.writing import Candidate
from textvae.model.gaussian import DiagonalGaussian

Written = list[tuple[str | None, list[Candidate]]]
"""The label and the sentences of each latent."""


def as_sentences(sentences: Sequence[str]) -> Sequence[str]:
    """A list of strings; one string passes, and is refused as such elsewhere."""
    if isinstance(sentences, str):
        return sentences
    try:
        items = list(sentences)
    except TypeError:
        kind = type(sentences).__name__
        raise TypeError(f"sentences: found {kind}, expected a list of strings") from None
    for number, item in enumerate(items, start=1):
        if not isinstance(item, str):
            kind = type(item).__name__
            raise TypeError(f"sentence {number}: found {kind}, expected a string")
    return items


def as_latents(latents: object) -> Tensor:
    """Latents `[N, Z]` of anything that torch takes for an array, or the means of posteriors."""
    if isinstance(latents, DiagonalGaussian):
        return latents.mean
    try:
        tensor = torch.as_tensor(latents)
    except (TypeError, ValueError, RuntimeError):
        tensor = None
    if tensor is None or tensor.is_complex():
        raise TypeError(
            f"latents: found {type(latents).__name__}, expected numbers [N, Z]: a tensor, an "
            "array, lists of numbers, or posteriors"
        )
    return tensor.float()


def all_gather(written: Written) -> Written:
    """The lists of all processes, in the order of their ranks."""
    if distributed.size() == 1:
        return written
    mine = msgspec.json.encode(written).decode()
    texts = (distributed.broadcast(mine, source=rank) for rank in range(distributed.size()))
    return list(chain.from_iterable(msgspec.json.decode(text, type=Written) for text in texts))
