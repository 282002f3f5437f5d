"""Values at the border: sentences and latents of users, checked, as lists and tensors."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from textvae.data.stream import chunks_until_error
from textvae.data.tokenizer import Tokenizer
from textvae.errors import DataError
from textvae.model.gaussian import DiagonalGaussian


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
        if isinstance(latents, list | tuple) and latents:  # row by row: arrays in a list are slow
            latents = torch.stack([torch.as_tensor(row) for row in latents])
        tensor = torch.as_tensor(latents)
    except (TypeError, ValueError, RuntimeError):
        tensor = None
    if tensor is None or tensor.is_complex():
        raise TypeError(
            f"latents: found {type(latents).__name__}, expected numbers [N, Z]: a tensor, an "
            "array, lists of numbers, or posteriors"
        )
    return tensor.float()


class TokenizedPart(NamedTuple):
    """Consecutive sentences of a stream."""

    texts: list[str]
    numbers: list[int]
    """The number of each in the stream, from 0; sentences that are skipped count."""
    tokens: list[list[int]]
    error: Exception | None
    """The fault of the sentence after these, which ends the stream."""


def tokenize_stream(
    tokenizer: Tokenizer,
    sentences: Iterable[str],
    *,
    limit: int,
    source: str,
    skipped: Callable[[int], object] | None,
    together: int,
) -> Iterator[TokenizedPart]:
    """The tokens of a stream of sentences, a part at a time, in its order.

    Args:
        tokenizer: of the model.
        sentences: any number of them, none blank.
        limit: the most tokens of a sentence.
        source: where the sentences are from, for errors.
        skipped: called with the number, from 0, of each sentence over the limit, which is left
            out; None makes it an error.
        together: sentences in a part.

    Raises:
        DataError: one string in place of many.
    """
    if isinstance(sentences, str):
        raise DataError(f"{source}: is one string; give a list of sentences")
    first = 0
    for texts, error in chunks_until_error(sentences, together):
        part = TokenizedPart([], [], [], error)
        for number, text, ids in zip(
            range(first, first + len(texts)), texts, tokenizer.encode_batch(texts), strict=True
        ):
            if not text.strip():
                fault = DataError(f"{source}: sentence {number + 1} is blank; leave it out")
                part = part._replace(error=fault)
                break
            if len(ids) <= limit:
                part.texts.append(text)
                part.numbers.append(number)
                part.tokens.append(ids)
            elif skipped is None:
                fault = DataError(
                    f"{source}: sentence {number + 1} has {len(ids)} tokens, the model takes at "
                    f"most {limit}; shorten it or leave it out"
                )
                part = part._replace(error=fault)
                break
            else:
                skipped(number)
        first += len(texts)
        yield part
        if part.error is not None:
            return
