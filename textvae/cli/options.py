"""Options and arguments that several verbs share, and what they stand for."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import click

if TYPE_CHECKING:
    from textvae.generate.strategies import Strategy
    from textvae.text_vae import TextVAE

F = TypeVar("F", bound=Callable[..., Any])

STRATEGIES = ("greedy", "temperature", "top-k", "nucleus")
PRECISIONS = ("float32", "bfloat16")
METRICS = ("euclidean", "scaled")
PATHS = ("straight", "spherical")


class Decoding(TypedDict):
    """The options of `decoding`, by the names of their parameters."""

    seed: int
    strategy: str | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    max_length: int | None


def decoding(command: F) -> F:
    """Give a command the options of `Decoding`."""
    for option in reversed(
        [
            seed,
            click.option("--strategy", type=click.Choice(STRATEGIES), help="How words are chosen."),
            click.option("--temperature", type=float, help="Below 1 is safer, above 1 wilder."),
            click.option("--top-k", type=click.IntRange(min=1), help="Draw from the k likeliest."),
            click.option("--top-p", type=float, help="Draw from the likeliest with this mass."),
            click.option(
                "--max-length",
                type=click.IntRange(min=1),
                help="The most tokens of a sentence.  [default: the model's limit]",
            ),
        ]
    ):
        command = option(command)
    return command


seed = click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of everything drawn.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout.")
device = click.option(
    "--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...; auto finds CUDA."
)


def strategy_of(options: Decoding, default: "Strategy | None" = None) -> "Strategy":
    """The strategy that the options describe, or the verb's own; ConfigError on nonsense."""
    from textvae.generate.strategies import strategy_from_options  # noqa: PLC0415 -- imports torch

    return strategy_from_options(
        options["strategy"],
        temperature=options["temperature"],
        top_k=options["top_k"],
        top_p=options["top_p"],
        default=default,
    )


def load(model: Path, device: str) -> "TextVAE":
    """The model of a directory; CheckpointError where there is none."""
    from textvae.text_vae import TextVAE  # noqa: PLC0415 -- imports torch, 1.5 s

    return TextVAE.from_pretrained(model, device=device)


def at_most(arguments: tuple[str, ...], number: int, what: str) -> None:
    """Refuse more arguments than a verb takes."""
    if len(arguments) > number:
        raise click.UsageError(
            f"{what} are {number} arguments at most, found {len(arguments)}.",
            click.get_current_context(),
        )
