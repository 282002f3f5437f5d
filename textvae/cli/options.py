"""Options and arguments that several verbs share, and what they stand for."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import click

from textvae.errors import ConfigError

if TYPE_CHECKING:
    from textvae.api.text_vae import TextVAE
    from textvae.generate.options import AnyStrategy

F = TypeVar("F", bound=Callable[..., Any])

# Torch counts in 64 bits, and nobody waits for more than this.
COUNT = click.IntRange(1, 2**31 - 1)
STEPS = click.IntRange(2, 2**31 - 1)
SEED = click.IntRange(0, 2**63 - 1)
STRATEGIES = ("greedy", "temperature", "top-k", "nucleus", "typical", "beam")
PRECISIONS = ("float32", "bfloat16")
METRICS = ("euclidean", "scaled")
SCORES = (
    "nll_per_token",
    "combined",
    "nll",
    "elbo",
    "likelihood_ratio",
    "kl",
    "mahalanobis",
)
"""The default first."""
PATHS = ("straight", "spherical", "data")


class Decoding(TypedDict):
    """The options of `decoding`, by the names of their parameters."""

    seed: int
    strategy: str | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    typical_p: float | None
    beam_size: int | None
    n_best: int | None
    length_penalty: str | None
    min_length: int | None
    max_length: int | None
    repetition_penalty: float | None
    no_repeat_ngram: int | None


def decoding(command: F) -> F:
    """Give a command the options of `Decoding`."""
    for option in reversed(
        [
            seed,
            click.option("--strategy", type=click.Choice(STRATEGIES), help="How words are chosen."),
            click.option("--temperature", type=float, help="Below 1 is safer, above 1 wilder."),
            click.option("--top-k", type=COUNT, help="Draw from the k likeliest."),
            click.option("--top-p", type=float, help="Draw from the likeliest with this mass."),
            click.option(
                "--typical-p", type=float, help="Draw from the most typical with this mass."
            ),
            click.option(
                "--beam-size",
                type=click.IntRange(min=1, max=1024),
                help="Search for the likeliest sentence with so many hypotheses.  [default: 5]",
            ),
            click.option(
                "--n-best",
                type=COUNT,
                help="Lines for each latent, the best sentences of a beam.  [default: 1]",
            ),
            click.option(
                "--length-penalty",
                metavar="NUMBER|mean",
                help="What a beam compares: log-likelihoods over ((5 + tokens) / 6)^NUMBER, or "
                "their mean over tokens.  [default: 0, the log-likelihood itself]",
            ),
            click.option(
                "--min-length",
                type=COUNT,
                help="The fewest tokens of a sentence.  [default: none]",
            ),
            click.option(
                "--max-length",
                type=COUNT,
                help="The most tokens of a sentence.  [default: the model's limit]",
            ),
            click.option(
                "--repetition-penalty",
                type=float,
                help="Divide the logits of words already written (multiply those below 0).  "
                "[default: 1, no penalty]",
            ),
            click.option(
                "--no-repeat-ngram",
                type=COUNT,
                help="No so many tokens in a row that the sentence has already.  [default: off]",
            ),
        ]
    ):
        command = option(command)
    return command


seed = click.option(
    "--seed",
    type=SEED,
    default=0,
    show_default=True,
    help="Of everything drawn.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout.")
label = click.option("--label", help="Write sentences of this label; for a model with labels.")
device = click.option(
    "--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...; auto finds CUDA."
)


def strategy_of(
    options: Decoding, default: "AnyStrategy | None" = None, *, n_best: bool = False
) -> "AnyStrategy":
    """The strategy that the options describe, or the verb's own; ConfigError on nonsense.

    `n_best` says that the verb prints as many sentences a latent as asked for.
    """
    if not n_best and (options["n_best"] or 1) > 1:
        raise ConfigError("--n-best belongs to sample and reconstruct; here each latent has one")
    from textvae.generate.options import (  # noqa: PLC0415 -- imports torch, 1.5 s
        DecodingOptions,
        strategy_from_options,
    )

    given = {name: options[name] for name in DecodingOptions._fields}  # type: ignore[literal-required]
    return strategy_from_options(DecodingOptions(**given), default)


def load(model: Path, device: str) -> "TextVAE":
    """The model of a directory; CheckpointError where there is none."""
    from textvae.api.text_vae import TextVAE  # noqa: PLC0415 -- imports torch, 1.5 s

    return TextVAE.from_pretrained(model, device=device)


def at_most(arguments: tuple[str, ...], number: int, what: str) -> None:
    """Refuse more arguments than a verb takes."""
    if len(arguments) > number:
        raise click.UsageError(
            f"{what} are {number} arguments at most, found {len(arguments)}.",
            click.get_current_context(),
        )
