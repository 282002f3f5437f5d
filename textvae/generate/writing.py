"""Latents to sentences of ids by whatever strategy: drawn word by word, or searched for."""

from torch import Tensor

from textvae.generate.beam import Beam, beam_search
from textvae.generate.decoding import decode
from textvae.generate.options import AnyStrategy
from textvae.model.vae import VAE


def write(
    model: VAE,
    latents: Tensor,
    strategy: AnyStrategy,
    *,
    seed: int,
    max_length: int,
    first_index: int = 0,
) -> list[list[int]]:
    """Ids without `</s>` for each latent `[N, Z]`; of a beam, the best it finds.

    The arguments are those of `decode` and `beam_search`.
    """
    if isinstance(strategy, Beam):
        found = beam_search(model, latents, strategy, max_length=max_length)
        return [hypotheses[0].words for hypotheses in found]
    return decode(
        model, latents, strategy, seed=seed, max_length=max_length, first_index=first_index
    ).sentences
