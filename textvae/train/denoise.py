"""Noise on the sentences that the encoder reads in training; the decoder writes the clean ones.

Shen et al. 2020, "Educating Text Autoencoders: Latent Representation Guidance via Denoising":
sentences that resemble each other become each other's noisy versions, so that their latents must
lie close together.
"""

from typing import Annotated, NamedTuple

import torch
from msgspec import Meta
from torch import Tensor

from textvae.config import Config
from textvae.randomness import hashes, key, uniforms

FIRST_WORD = 2
"""Ids below are `</s>` and `<unk>`."""

Probability = Annotated[float, Meta(ge=0.0, le=1.0)]


class NoisySentences(NamedTuple):
    """Sentences that the encoder reads in place of the clean ones."""

    tokens: Tensor
    """`[B, T]`, each sentence's words and the final `</s>`, then cells that hold anything."""
    lengths: Tensor
    """int64 `[B]`, `</s>` counted."""


class DenoiseConfig(Config):
    """Noise on what the encoder reads in training, word by word; all 0 is none."""

    drop: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.0
    """Probability that a word is left out."""
    replace: Probability = 0.0
    """Probability that a word becomes another one, drawn evenly from the vocabulary."""
    swap: Probability = 0.0
    """Probability that a word changes places with the next one."""

    @property
    def is_off(self) -> bool:
        """True where sentences are read as they are."""
        return not (self.drop or self.replace or self.swap)

    def __call__(
        self,
        tokens: Tensor,
        lengths: Tensor,
        indices: Tensor,
        *,
        vocabulary_size: int,
        seed: int,
        step: int,
    ) -> NoisySentences:
        """Noisy versions of sentences, drawn by (seed, step, sentence, position).

        From tokens `[B, T]`, the words and the final `</s>` (of a cut sentence, the last word),
        lengths int64 `[B]`, and the index of each sentence in the corpus, int64 `[B]`.
        """
        if self.is_off:
            return NoisySentences(tokens, lengths)
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        is_word = positions < lengths[:, None] - 1

        def chosen(purpose: str, probability: float) -> Tensor:
            draws = uniforms(key(seed, "denoise", purpose, step), indices[:, None], positions)
            return (draws < probability) & is_word

        if self.replace:
            word_key = key(seed, "denoise", "word", step)
            words = hashes(word_key, indices[:, None], positions) % (vocabulary_size - FIRST_WORD)
            tokens = tokens.where(~chosen("replace", self.replace), words + FIRST_WORD)
        # One sort does the rest. A swapped word goes behind the next one, unless that one is
        # swapped itself; `</s>` comes after all words, and what is left out after `</s>`.
        order = positions + 1.5 * chosen("swap", self.swap)
        dropped = chosen("drop", self.drop)
        last = float(tokens.shape[1] + 2)
        order = order.masked_fill(~is_word, last).masked_fill(dropped, last + 1.0)
        return NoisySentences(
            tokens.gather(1, order.argsort(dim=1, stable=True)), lengths - dropped.sum(1)
        )
