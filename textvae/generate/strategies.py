"""Strategies that choose the next word: frozen structs; logits and draws of each row in, ids out.

The `rules` of a strategy change the logits before it sees them: `decode_latents` applies them.
"""

from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

from textvae.config import Config
from textvae.generate.rules import Rule
from textvae.kernels.sampling import draw, nucleus, top_k, typical
from textvae.randomness import Draws

Positive = Annotated[float, Meta(gt=0.0)]


def distribution(logits: Tensor, temperature: float) -> Tensor:
    """Softmax(logits / temperature) over the words, `[B, V]` -> `[B, V]`.

    Far above 1e-30 it has become one word; below, the quotient would leave float32.
    """
    if temperature == 1.0:
        return logits.softmax(1)
    scaled = logits / max(temperature, 1e-30)
    return torch.softmax(scaled, 1, out=scaled)


class Greedy(Config, tag_field="kind", tag="greedy"):
    """The most probable word."""

    rules: tuple[Rule, ...] = ()

    def __call__(self, logits: Tensor, draws: Draws) -> Tensor:
        """Logits `[B, V]`, draws of B rows (not used) -> int64 `[B]`."""
        return logits.argmax(1)


class Temperature(Config, tag_field="kind", tag="temperature"):
    """Ancestral sampling from softmax(logits / temperature)."""

    temperature: Positive = 1.0
    rules: tuple[Rule, ...] = ()

    def __call__(self, logits: Tensor, draws: Draws) -> Tensor:
        """Logits `[B, V]`, draws of B rows -> int64 `[B]`."""
        return draw(distribution(logits, self.temperature), draws.uniforms())


class TopK(Config, tag_field="kind", tag="top_k"):
    """Sampling from the k most probable words (Fan et al. 2018); ties at the edge all stay."""

    k: Annotated[int, Meta(ge=1)] = 50
    temperature: Positive = 1.0
    rules: tuple[Rule, ...] = ()

    def __call__(self, logits: Tensor, draws: Draws) -> Tensor:
        """Logits `[B, V]`, draws of B rows -> int64 `[B]`."""
        return top_k(distribution(logits, self.temperature), self.k, draws)


class Nucleus(Config, tag_field="kind", tag="nucleus"):
    """Sampling from the smallest set of words with mass at least p (Holtzman et al. 2020).

    A word stays if the mass of the words before it, likeliest first, is below p; of equally likely
    words the first in the vocabulary comes first. The temperature comes before all that.
    """

    p: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.9
    temperature: Positive = 1.0
    rules: tuple[Rule, ...] = ()

    def __call__(self, logits: Tensor, draws: Draws) -> Tensor:
        """Logits `[B, V]`, draws of B rows -> int64 `[B]`."""
        return nucleus(distribution(logits, self.temperature), self.p, draws)


class Typical(Config, tag_field="kind", tag="typical"):
    """Sampling from the smallest set of most typical words with mass at least p.

    The most typical word is the one whose information, -log of its probability, is nearest to the
    entropy of the distribution (Meister et al. 2023); the likeliest word may fall out. Of equally
    typical words the first in the vocabulary comes first. The temperature comes before all that.
    """

    p: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.95
    temperature: Positive = 1.0
    rules: tuple[Rule, ...] = ()

    def __call__(self, logits: Tensor, draws: Draws) -> Tensor:
        """Logits `[B, V]`, draws of B rows -> int64 `[B]`."""
        return typical(distribution(logits, self.temperature), self.p, draws)


Strategy = Greedy | Temperature | TopK | Nucleus | Typical
