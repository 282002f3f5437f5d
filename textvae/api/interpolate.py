"""A path through several sentences, with the cost and the change of each step."""

from collections.abc import Sequence
from typing import NamedTuple, Unpack

from textvae.api.text_vae import TextVAE
from textvae.data.batching import TokenArray
from textvae.generate.options import Decoding
from textvae.generate.paths import PathKind, path_through
from textvae.generate.writing import write
from textvae.metrics.likelihood import reconstruction_at
from textvae.metrics.text_quality import changes
from textvae.run.conditions import decoder_conditions


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
    strategy, seed, max_length, _, constraint = vae.decoding_settings(decoding)
    mean = vae.encode(sentences).mean
    latents = path_through(mean, steps=steps, path=path, prior=vae.model.prior)
    held = label or vae.likeliest_label(sentences[0])
    read = decoder_conditions(vae.model, vae.labels, latents, held)
    ids = write(
        vae.model,
        vae.tokenizer,
        read,
        strategy,
        seed=seed,
        max_length=max_length,
        constraint=constraint,
    )
    array = TokenArray.from_lists(ids, vae.tokenizer.start).to(vae.device)
    nats = reconstruction_at(vae.model, array, read).tolist()
    changed = changes(ids)
    densities = vae.model.prior.log_prob(latents).tolist()
    passed = [
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
    return Walk(passed, sum(changed) / len(changed))
