"""The n best sentences of a beam search, with their scores."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from textvae.api.text_vae import TextVAE
from textvae.generate.beam import Beam, beam_search
from textvae.generate.options import check_strategy
from textvae.run.conditions import check_max_length, decoder_conditions


class Candidate(NamedTuple):
    """A sentence that a beam search found for a latent."""

    text: str
    log_likelihood: float
    """log p(x|z) in nats, summed over the tokens, `</s>` counted."""
    score: float
    """What candidates are ordered by: the log-likelihood over the length penalty."""


def n_best(
    vae: TextVAE,
    latents: Tensor,
    num_best: int,
    *,
    beam: Beam = Beam(),  # noqa: B008 -- a frozen struct
    max_length: int | None = None,
    label: str | Sequence[str] | None = None,
) -> list[list[Candidate]]:
    """The best sentences for each latent, the best first.

    Args:
        vae: whose decoder writes.
        latents: float32 `[N, Z]`.
        num_best: how many for each, at most as many as the beam is wide; there are fewer only
            where no more sentences exist.
        beam: how wide, and what is best.
        max_length: the most tokens; None is the model's limit.
        label: as for `TextVAE.decode`.

    Raises:
        DataError: latents of another dimension.
        ConfigError: a number out of bounds.
    """
    found = decoder_conditions(vae, latents, label)
    return n_best_at(vae, found, num_best, beam=beam, max_length=max_length)


def n_best_at(
    vae: TextVAE, conditions: Tensor, num_best: int, *, beam: Beam, max_length: int | None
) -> list[list[Candidate]]:
    """`n_best` for what the decoder reads, `[N, C]`."""
    longest = check_max_length(vae, max_length)
    found = beam_search(
        vae.model, conditions, check_strategy(beam), num_best=num_best, max_length=longest
    )
    return [
        [
            Candidate(vae.tokenizer.decode(one.words), one.log_likelihood, one.score)
            for one in hypotheses
        ]
        for hypotheses in found
    ]
