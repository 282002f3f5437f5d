"""Options and arguments that several verbs share."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from textvae.data.rows import TOO_LONG, TooLong
from textvae.generate.options import OPTIONS, STRATEGIES

if TYPE_CHECKING:
    from textvae.api.text_vae import TextVAE

F = TypeVar("F", bound=Callable[..., Any])

# Torch counts in 64 bits, and nobody waits for more than this.
COUNT = click.IntRange(1, 2**31 - 1)
STEPS = click.IntRange(2, 2**31 - 1)
SEED = click.IntRange(0, 2**63 - 1)
PRECISIONS = ("float32", "bfloat16")
METRICS = ("euclidean", "scaled", "cosine")
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

seed = click.option("--seed", type=SEED, default=0, show_default=True, help="Of everything drawn.")
as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout.")
label = click.option("--label", help="Write sentences of this label; for a model with labels.")
device = click.option(
    "--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...; auto finds CUDA."
)


separator = click.option(
    "--separator",
    metavar="CHARACTER",
    help="What separates cells: ';', '|', tab.  [default: found]",
)
encoding = click.option(
    "--encoding", metavar="NAME", help="Such as latin-1 or cp1252.  [default: UTF-8]"
)


def too_long(default: TooLong) -> Callable[[F], F]:
    """The option `--too-long` of a verb."""
    return click.option(
        "--too-long",
        type=click.Choice(TOO_LONG),
        default=default,
        show_default=True,
        help="Rows of more tokens than the model takes: leave them out (drop), read their "
        "beginning (cut) or all parts (split), or stop.",
    )


def decoding(command: F) -> F:
    """Give a command the options of `textvae.Decoding`, by the same names."""
    choice = click.Choice(tuple(STRATEGIES))
    options = [seed, click.option("--strategy", type=choice, help="How words are chosen.")]
    for name, (kind, option) in OPTIONS.items():
        several = kind not in (int, float, str)
        options.append(
            click.option(
                f"--{name.replace('_', '-')}",
                type=COUNT if kind is int else str if several else kind,
                multiple=several,
                metavar=option.metavar,
                help=option.help,
            )
        )
    for add in reversed(options):
        command = add(command)
    return command


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
