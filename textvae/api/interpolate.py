"""A path through several sentences, with the cost and the change of each step."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Unpack

from textvae.api.text_vae import TextVAE
from textvae.data.batching import TokenArray
from textvae.generate.options import Decoding
from textvae.generate.paths import PathKind, path_blocks
from textvae.generate.writing import write
from textvae.metrics.likelihood import reconstruction_at
from textvae.metrics.text_quality import changes
from textvae.run.conditions import decoder_conditions

WHOLE, BLOCK = 4096, 256
"""Steps of a path that is decoded as a whole, and steps at once of a longer one."""


class Step(NamedTuple):
    """A sentence of a path."""

    text: str
    share: float
    """The fraction of the path behind it: 0 at the first sentence, 1 at the last; even steps."""
    reconstruction: float
    """-log p(text | z) at its latent: nats, summed over its tokens and `</s>`."""
    num_tokens: int
    """`</s>` counted."""
    change: float | None
    """Token edit distance to the step before, over the longer length; None for the first step."""
    log_density: float
    """The log-density of its latent under the prior, nats."""


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
    label: str | None = None,
    **decoding: Unpack[Decoding],
) -> Walk:
    """The sentences along a path through the posterior means of two sentences or more.

    Args:
        vae: the model.
        sentences: M of them, each a turn of the path.
        steps: how many from one to the next, both included; (M - 1) (steps - 1) + 1 in all.
        path: `straight`, `spherical` or `data`, between each two.
        label: held along the path; None is that of the first sentence, where the decoder needs one.
        decoding: how words are chosen, by default greedily; see `textvae.Decoding`.

    Raises:
        DataError: as `TextVAE.encode`; fewer than two sentences.
        ConfigError: fewer than two steps, or a number out of bounds.
    """
    passed = list(walk_steps(vae, sentences, steps=steps, path=path, label=label, **decoding))
    changed = [step.change for step in passed if step.change is not None]
    return Walk(passed, sum(changed) / len(changed))


def walk_steps(
    vae: TextVAE,
    sentences: Sequence[str],
    *,
    steps: int = 7,
    path: PathKind = "straight",
    label: str | None = None,
    **decoding: Unpack[Decoding],
) -> Iterator[Step]:
    """The steps of `walk` one by one: memory does not grow with their number.

    Raises:
        DataError, ConfigError: as `walk`.
    """
    strategy, seed, max_length, _, constraint = vae.decoding_settings(decoding)
    mean = vae.encode(sentences).mean
    held = label or vae.likeliest_label(sentences[0])
    total = num_steps(len(sentences), steps)
    block = steps if total <= WHOLE else BLOCK
    first, before = 0, list[list[int]]()
    for latents in path_blocks(mean, steps=steps, path=path, prior=vae.model.prior, block=block):
        read = decoder_conditions(vae.model, vae.labels, latents, held)
        ids = write(
            vae.model,
            vae.tokenizer,
            read,
            strategy,
            seed=seed,
            max_length=max_length,
            first_index=first,
            constraint=constraint,
        )
        array = TokenArray.from_lists(ids, vae.tokenizer.start).to(vae.device)
        nats = reconstruction_at(vae.model, array, read).tolist()
        densities = vae.model.prior.log_prob(latents).tolist()
        changed = [*([] if before else [None]), *changes(before + ids)]
        for place, tokens in enumerate(ids):
            yield Step(
                text=vae.tokenizer.decode(tokens),
                share=(first + place) / (total - 1),
                reconstruction=nats[place],
                num_tokens=len(tokens) + 1,
                change=changed[place],
                log_density=densities[place],
            )
        first, before = first + len(ids), ids[-1:]


def num_steps(num_sentences: int, steps: int) -> int:
    """The number of points on a path, those of the sentences included."""
    return (num_sentences - 1) * (steps - 1) + 1
