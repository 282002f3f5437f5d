"""Rules that choose the next word: frozen structs; logits and the draws of each row in, ids out."""

from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

from textvae.config import Config, decode
from textvae.errors import ConfigError
from textvae.kernels.sampling import draw, nucleus, top_k
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

    def __call__(self, logits: Tensor, draws: Draws) -> Tensor:
        """Logits `[B, V]`, draws of B rows (not used) -> int64 `[B]`."""
        return logits.argmax(1)


class Temperature(Config, tag_field="kind", tag="temperature"):
    """Ancestral sampling from softmax(logits / temperature)."""

    temperature: Positive = 1.0

    def __call__(self, logits: Tensor, draws: Draws) -> Tensor:
        """Logits `[B, V]`, draws of B rows -> int64 `[B]`."""
        return draw(distribution(logits, self.temperature), draws.uniforms())


class TopK(Config, tag_field="kind", tag="top_k"):
    """Sampling from the k most probable words (Fan et al. 2018); ties at the edge all stay."""

    k: Annotated[int, Meta(ge=1)] = 50
    temperature: Positive = 1.0

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

    def __call__(self, logits: Tensor, draws: Draws) -> Tensor:
        """Logits `[B, V]`, draws of B rows -> int64 `[B]`."""
        return nucleus(distribution(logits, self.temperature), self.p, draws)


Strategy = Greedy | Temperature | TopK | Nucleus


def check_strategy(strategy: Strategy) -> Strategy:
    """The strategy itself, which may have been made in Python, where bounds are not checked.

    Raises:
        ConfigError: a number out of bounds.
    """
    return decode(strategy, type(strategy), source=type(strategy).__name__)


def strategy_from_options(
    name: str | None = None,
    *,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    default: Strategy | None = None,
) -> Strategy:
    """The strategy that command-line options describe; a number implies its strategy.

    Args:
        name: `greedy`, `temperature`, `top-k` or `nucleus`; left out, it follows from the rest.
        temperature: of any strategy that draws.
        top_k: of `top-k`.
        top_p: of `nucleus`.
        default: where no option is given.

    Raises:
        ConfigError: options that do not go together, or numbers out of bounds.
    """
    if name is None and temperature is None and top_k is None and top_p is None:
        return default if default is not None else Temperature()
    if top_k is not None and top_p is not None:
        raise ConfigError("--top-k and --top-p are two strategies: give one of them")
    implied = "top-k" if top_k is not None else "nucleus" if top_p is not None else "temperature"
    if name is None:
        name = implied
    elif implied != "temperature" and name != implied:
        option = "--top-k" if top_k is not None else "--top-p"
        raise ConfigError(f"{option} belongs to --strategy {implied}, not to {name}")
    if name == "greedy" and temperature is not None:
        raise ConfigError("--temperature has no effect on --strategy greedy: leave one out")
    heat = 1.0 if temperature is None else temperature
    if not 0.0 < heat < float("inf"):
        raise ConfigError(f"--temperature {heat}: must be greater than 0")
    if top_k is not None and top_k < 1:
        raise ConfigError(f"--top-k {top_k}: must be at least 1")
    if top_p is not None and not 0.0 < top_p <= 1.0:
        raise ConfigError(f"--top-p {top_p}: must be greater than 0 and at most 1")
    members: dict[str, Strategy] = {
        "greedy": Greedy(),
        "temperature": Temperature(temperature=heat),
        "top-k": TopK(k=50 if top_k is None else top_k, temperature=heat),
        "nucleus": Nucleus(p=0.9 if top_p is None else top_p, temperature=heat),
    }
    if name not in members:
        raise ConfigError(f"--strategy {name}: must be one of {', '.join(members)}")
    return members[name]
