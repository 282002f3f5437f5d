"""Samples in blocks, so that memory does not grow with their number."""

from collections.abc import Iterator, Sequence
from itertools import chain

import msgspec

from textvae import distributed
from textvae.data.tokenizer import Tokenizer
from textvae.errors import ConfigError
from textvae.generate.decoding import ROWS
from textvae.generate.latents import sample_latents
from textvae.generate.writing import Candidate, DecodingSettings, Sample, candidates
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.vae import VAE
from textvae.run.conditions import sample_conditions

FIRST_BLOCK = ROWS
BLOCK = 16 * FIRST_BLOCK
"""Samples whose latents are in memory at once; the first blocks are smaller and come at once."""
Written = list[tuple[str | None, list[Candidate]]]
"""The label and the sentences of each latent."""


def draw_samples(
    model: VAE,
    tokenizer: Tokenizer,
    label_names: Sequence[str],
    num_samples: int,
    settings: DecodingSettings,
    *,
    posterior: DiagonalGaussian | None,
    scale: float | None,
    label: str | None,
    block: int = FIRST_BLOCK,
    with_log_probs: bool = False,
) -> Iterator[Sample]:
    """Samples in blocks, of `block` latents for each process at first, then up to BLOCK.

    Latents are drawn from the prior, or around a `posterior`, `[1, Z]`.
    """
    if num_samples < 0:
        raise ConfigError(f"num_samples {num_samples}: must be at least 0")
    begin = 0
    while begin < num_samples:
        end = min(num_samples, begin + block * distributed.size())
        start = min(end, begin + block * distributed.rank())
        latents = sample_latents(
            model.prior,
            min(block, end - start),
            seed=settings.seed,
            start=start,
            posterior=posterior,
            scale=scale,
        )
        drawn = sample_conditions(
            model,
            label_names,
            latents,
            seed=settings.seed,
            start=start,
            near=posterior is not None,
            label=label,
        )
        written = candidates(
            model,
            tokenizer,
            drawn.conditions,
            settings,
            first_index=start,
            with_log_probs=with_log_probs,
        )
        labels: Sequence[str | None] = drawn.labels or (None,) * len(written)
        pairs = _all_gather(list(zip(labels, written, strict=True)))
        for number, (name, best) in enumerate(pairs, start=begin):
            for rank, one in enumerate(best, start=1):
                of_beam = None if one.score is None else rank
                yield Sample(number, one.text, name, of_beam, one.log_prob, one.score)
        begin, block = end, min(2 * block, BLOCK)


def _all_gather(written: Written) -> Written:
    """The lists of all processes, in the order of their ranks."""
    if distributed.size() == 1:
        return written
    texts = distributed.all_gather(msgspec.json.encode(written).decode())
    return list(chain.from_iterable(msgspec.json.decode(text, type=Written) for text in texts))
