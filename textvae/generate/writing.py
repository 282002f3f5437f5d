"""Latents to sentences by any strategy: drawn word by word, or searched for by a beam."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from torch import Tensor

from textvae.config import decode as decode_config
from textvae.data.tokenizer import Tokenizer
from textvae.generate.beam import Beam, beam_search
from textvae.generate.constraints import FREE, Constraint
from textvae.generate.decoding import decode_latents
from textvae.generate.strategies import Strategy
from textvae.generate.utf8 import text_mask
from textvae.model.vae import VAE

AnyStrategy = Strategy | Beam
S = TypeVar("S", bound=AnyStrategy)


class DecodingSettings(NamedTuple):
    """How sentences are written: decoding options, checked and resolved."""

    strategy: AnyStrategy
    seed: int
    max_length: int
    num_best: int
    """Sentences for each latent, above 1 only for a beam."""
    constraint: Constraint
    """Words that are not written, and words to begin with."""


class Candidate(NamedTuple):
    """A sentence that was written for a latent."""

    text: str
    log_prob: float | None = None
    """log p(x|z) in nats, summed over the tokens, `</s>` counted; None where words were drawn and
    it was not asked for."""
    score: float | None = None
    """The order of the candidates of a beam: the log-probability over the length penalty."""


class Sample(NamedTuple):
    """A sentence of `TextVAE.sample_iter`."""

    number: int
    """i: the sentence is a function of (seed, i)."""
    text: str
    label: str | None = None
    """None where the model has no labels."""
    rank: int | None = None
    """Among the n best of a beam, from 1; None where words were drawn, as the score."""
    log_prob: float | None = None
    """log p(x|z) in nats, summed over the tokens, `</s>` counted, by the model without rules and
    temperature; None where words were drawn and it was not asked for."""
    score: float | None = None
    """The log-probability over the length penalty."""


def check_strategy(strategy: S) -> S:
    """The strategy itself, which may have been made in Python, where bounds are not checked."""
    return decode_config(strategy, type(strategy), source=type(strategy).__name__)


def candidates(
    model: VAE,
    tokenizer: Tokenizer,
    conditions: Tensor,
    settings: DecodingSettings,
    *,
    first_index: int = 0,
    with_log_probs: bool = False,
) -> list[list[Candidate]]:
    """Sentences for each condition `[N, C]`: the n best of a beam, else one that is drawn.

    Args:
        model: whose decoder writes.
        tokenizer: from ids to text.
        conditions: of the decoder.
        settings: how words are chosen.
        first_index: of the first sentence; a draw is a function of (seed, index, position).
        with_log_probs: measure log p(x|z) of drawn sentences, too.
    """
    strategy, seed, max_length, num_best, constraint = settings
    if isinstance(strategy, Beam):
        beams = beam_search(
            model,
            conditions,
            strategy,
            num_best=num_best,
            max_length=max_length,
            mask=text_mask(tokenizer, model.device),
            constraint=constraint,
        )
        return [
            [Candidate(tokenizer.decode(one.words), one.log_likelihood, one.score) for one in beam]
            for beam in beams
        ]
    decoded = decode_latents(
        model,
        conditions,
        strategy,
        seed=seed,
        max_length=max_length,
        first_index=first_index,
        mask=text_mask(tokenizer, model.device),
        constraint=constraint,
        with_log_probs=with_log_probs,
    )
    log_probs: Sequence[float | None] = decoded.log_probs or [None] * len(decoded.sentences)
    return [
        [Candidate(tokenizer.decode(ids), log_prob)]
        for ids, log_prob in zip(decoded.sentences, log_probs, strict=True)
    ]


def write(
    model: VAE,
    tokenizer: Tokenizer,
    conditions: Tensor,
    strategy: AnyStrategy,
    *,
    seed: int,
    max_length: int,
    first_index: int = 0,
    constraint: Constraint = FREE,
) -> list[list[int]]:
    """Ids without `</s>` for each condition `[N, C]`; of a beam, the best it finds.

    The arguments are those of `decode_latents` and `beam_search`.
    """
    mask = text_mask(tokenizer, model.device)
    if isinstance(strategy, Beam):
        beams = beam_search(
            model, conditions, strategy, max_length=max_length, constraint=constraint, mask=mask
        )
        return [hypotheses[0].words for hypotheses in beams]
    return decode_latents(
        model,
        conditions,
        strategy,
        seed=seed,
        max_length=max_length,
        first_index=first_index,
        constraint=constraint,
        mask=mask,
    ).sentences
