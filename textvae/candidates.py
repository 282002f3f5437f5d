"""The n best sentences of a beam search, with their scores."""

from typing import NamedTuple

from torch import Tensor

from textvae.generate.beam import Beam, beam_search
from textvae.generate.options import check_strategy
from textvae.text_vae import TextVAE, check_decoding


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
) -> list[list[Candidate]]:
    """The best sentences for each latent, the best first.

    Args:
        vae: whose decoder writes.
        latents: float32 `[N, Z]`.
        num_best: how many for each, at most as many as the beam is wide; there are fewer only
            where no more sentences exist.
        beam: how wide, and what is best.
        max_length: the most tokens; None is the model's limit.

    Raises:
        DataError: latents of another dimension.
        ConfigError: a number out of bounds.
    """
    longest = check_decoding(vae, latents, max_length)
    found = beam_search(
        vae.model, latents, check_strategy(beam), num_best=num_best, max_length=longest
    )
    return [
        [
            Candidate(vae.tokenizer.decode(one.words), one.log_likelihood, one.score)
            for one in hypotheses
        ]
        for hypotheses in found
    ]
