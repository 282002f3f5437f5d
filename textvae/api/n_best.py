"""The n best sentences of a beam search, with their scores."""

from collections.abc import Sequence

from textvae.api.inputs import as_latents
from textvae.api.text_vae import TextVAE
from textvae.generate.beam import Beam
from textvae.generate.options import Decoding
from textvae.generate.writing import Candidate, candidates
from textvae.run.conditions import decoder_conditions


def n_best(
    vae: TextVAE,
    latents: object,
    num_best: int,
    *,
    beam: Beam = Beam(),  # noqa: B008 -- a frozen struct
    max_length: int | None = None,
    label: str | Sequence[str] | None = None,
) -> list[list[Candidate]]:
    """The best sentences for each latent, the best first.

    Args:
        vae: whose decoder writes.
        latents: `[N, Z]`, as for `TextVAE.decode`.
        num_best: how many for each, at most as many as the beam is wide; there are fewer only
            where no more sentences exist.
        beam: its width, and what it compares.
        max_length: the most tokens; None is the model's limit.
        label: as for `TextVAE.decode`.

    Raises:
        DataError: latents of another dimension.
        ConfigError: a number out of bounds.
    """
    conditions = decoder_conditions(vae.model, vae.labels, as_latents(latents), label)
    options = Decoding(strategy=beam, n_best=num_best, max_length=max_length)
    settings = vae.decoding_settings(options, several=True)
    return candidates(vae.model, vae.tokenizer, conditions, settings)
