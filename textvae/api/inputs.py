"""Values at the border: sentences and latents of users, checked, as lists and tensors."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from textvae.data.batching import TokenArray
from textvae.data.rows import TOO_LONG, Exclusion, RowCounts, TooLong
from textvae.data.segments import shortened
from textvae.data.stream import chunks_until_error
from textvae.data.tokenizer import Tokenizer
from textvae.errors import ConfigError, DataError
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
    """Consecutive sentences of a stream of rows."""

    texts: list[str]
    """As the model reads them: of a row that is cut or split, that part."""
    rows: list[int]
    """The row of each in the stream, from 0; rows without a result count."""
    cut: list[bool]
    """True for the beginning of a longer text, without `</s>`."""
    tokens: list[list[int]]
    error: Exception | None
    """The fault of the row after these, which ends the stream."""

    def array(self, tokenizer: Tokenizer) -> TokenArray:
        """The sentences as an array."""
        return TokenArray.from_lists(self.tokens, tokenizer.start, cut=self.cut)


def tokenize_stream(
    tokenizer: Tokenizer,
    rows: Iterable[str],
    *,
    limit: int,
    source: str,
    too_long: TooLong,
    counts: RowCounts | None,
    together: int,
) -> Iterator[TokenizedPart]:
    """The tokens of a stream of rows, a part at a time, in its order.

    Args:
        tokenizer: of the model.
        rows: any number of them; a blank one has no result.
        limit: the most tokens of a sentence.
        source: where the rows are from, for errors.
        too_long: what becomes of rows over the limit.
        counts: counts the rows that are blank, left out, cut or split, before their part is
            yielded.
        together: rows in a part.

    Raises:
        DataError: one string in place of many.
    """
    if isinstance(rows, str):
        raise DataError(f"{source}: is one string; give a list of sentences")
    if too_long not in TOO_LONG:
        raise ConfigError(f"--too-long {too_long}: must be one of {', '.join(TOO_LONG)}")
    counts, first = counts or RowCounts(), 0
    for texts, error in chunks_until_error(rows, together):
        part = TokenizedPart([], [], [], [], error)
        for row, text, ids in zip(
            range(first, first + len(texts)), texts, tokenizer.encode_batch(texts), strict=True
        ):
            pieces = [(ids, text)]
            if not text.strip():
                counts.exclude(row, Exclusion.BLANK)
                continue
            if len(ids) > limit:
                if too_long == "refuse":
                    fault = DataError(
                        f"{source}: row {row:,} (counted from 0) has {len(ids):,} tokens, the "
                        f"model takes at most {limit:,}; shorten it, or use --too-long cut"
                    )
                    part = part._replace(error=fault)
                    break
                pieces = shortened(text, tokenizer, limit, too_long)
                if too_long == "drop":
                    counts.exclude(row, Exclusion.TOO_LONG_TOKENS)
                else:
                    counts.shorten(row, too_long)
            for number, (piece, words) in enumerate(pieces, start=1):
                part.texts.append(words)
                part.rows.append(row)
                part.cut.append(len(ids) > limit and (too_long == "cut" or number < len(pieces)))
                part.tokens.append(piece)
        first += len(texts)
        yield part
        if part.error is not None:
            return
