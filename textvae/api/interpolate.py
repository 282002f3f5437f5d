"""A path through several sentences, with what each of its steps costs and changes."""

from collections.abc import Sequence
from typing import NamedTuple

from textvae.api.text_vae import TextVAE
from textvae.data.batching import TokenArray
from textvae.errors import DataError
from textvae.generate.interpolation import PathKind, path_through
from textvae.generate.options import AnyStrategy, check_strategy
from textvae.generate.strategies import Greedy
from textvae.generate.writing import write
from textvae.metrics.likelihood import reconstruction_at
from textvae.metrics.smoothness import changes
from textvae.run.conditions import check_max_length, decoder_conditions, held_label


class Step(NamedTuple):
    """A sentence of a path."""

    text: str
    share: float
    """Of the path behind it: 0 at the first sentence, 1 at the last, equal from step to step."""
    reconstruction: float
    """-log p(text | z) at its latent: nats, summed over its tokens and `</s>`."""
    num_tokens: int
    """`</s>` counted."""
    change: float | None
    """Token edit distance to the step before, over the longer length; None for the first step."""
    log_density: float
    """Of its latent under the prior, nats."""


class Walk(NamedTuple):
    """A path."""

    steps: list[Step]
    mean_change: float
    """The mean of `change`: the same end to end in smaller pieces is less, jumps are more."""


def walk(
    vae: TextVAE,
    sentences: Sequence[str],
    *,
    steps: int = 7,
    path: PathKind = "straight",
    strategy: AnyStrategy = Greedy(),  # noqa: B008 -- a frozen struct
    seed: int = 0,
    max_length: int | None = None,
    label: str | None = None,
) -> Walk:
    """The sentences along a path through the posterior means of two sentences or more.

    Args:
        vae: the model.
        sentences: M of them, each a turn of the path.
        steps: how many from one to the next, both included; (M - 1) (steps - 1) + 1 in all.
        path: `straight`, `spherical` or `data`, between each two.
        strategy: how words are chosen.
        seed: of the words, where the strategy draws.
        max_length: the most tokens; None is the model's limit.
        label: held along the path; None is that of the first sentence, where the decoder needs one.

    Raises:
        DataError: as `TextVAE.encode`; fewer than two sentences.
        ConfigError: fewer than two steps, or a number out of bounds.
    """
    if len(sentences) < 2:
        raise DataError(
            f"an interpolation passes through at least 2 sentences, found {len(sentences)}"
        )
    prior = vae.model.prior
    latents = path_through(vae.encode(sentences).mean, steps=steps, path=path, prior=prior)
    longest = check_max_length(vae, max_length)
    read = decoder_conditions(vae, latents, label or held_label(vae, sentences[0]))
    ids = write(vae.model, read, check_strategy(strategy), seed=seed, max_length=longest)
    array = TokenArray.from_lists(ids, vae.tokenizer.start).to(vae.model.device)
    nats = reconstruction_at(vae.model, array, read).tolist()
    changed = changes(ids)
    densities = prior.log_prob(latents).tolist()
    found = [
        Step(
            text=vae.tokenizer.decode(tokens),
            share=number / (len(ids) - 1),
            reconstruction=nats[number],
            num_tokens=len(tokens) + 1,
            change=changed[number - 1] if number else None,
            log_density=densities[number],
        )
        for number, tokens in enumerate(ids)
    ]
    return Walk(found, sum(changed) / len(changed))
