"""`textvae interpolate`."""

from typing import TYPE_CHECKING, Unpack, cast

import click

from textvae.cli import options
from textvae.cli.arguments import split_model, take_sentences
from textvae.cli.terminal import say_which
from textvae.cli.writing import say, show
from textvae.errors import DataError

if TYPE_CHECKING:
    from textvae.generate.latents import PathKind


@click.command(
    "interpolate",
    help="""The sentences written lie on a path between the means of the posteriors of FIRST and
    SECOND; the first and the last are their reconstructions. Greedy, unless options say otherwise.
    MODEL is a run or model directory; left out, the newest run under runs/. Without sentences, or
    with `-`, they are two lines of standard input.

    The first argument is the MODEL if it is a directory. Otherwise it is a sentence, and the model
    is the newest run; but a name of a file or of a run under runs/, or a word with a slash, is
    taken for a MODEL that is not there. After a MODEL everything is a sentence.

    With --json: `step`, `share` (0 at FIRST, 1 at SECOND) and `text`, and for a beam `rank`,
    `log_likelihood` (nats) and `score`.""",
)
@click.argument("arguments", metavar="[MODEL] [FIRST SECOND]", nargs=-1)
@click.option(
    "--steps",
    type=click.IntRange(min=2),
    default=7,
    show_default=True,
    help="How many sentences, both ends included.",
)
@click.option(
    "--path",
    type=click.Choice(options.PATHS),
    default="straight",
    show_default=True,
    help="A line, or an arc around the origin.",
)
@options.decoding
@options.device
@options.as_json
def command(
    arguments: tuple[str, ...],
    steps: int,
    path: str,
    device: str,
    as_json: bool,
    **decoding: Unpack[options.Decoding],
) -> None:
    """Write the sentences between two sentences."""
    where, given = split_model(arguments)
    if given and given != ["-"] and len(given) != 2:
        taken = f" besides the MODEL {where}" if len(arguments) > len(given) else ""
        raise DataError(f"an interpolation lies between 2 sentences, found {len(given)}{taken}")
    sentences = take_sentences(given)
    if len(sentences) != 2:
        raise DataError(f"standard input: holds {len(sentences):,} sentences, expected 2")

    from textvae.generate.latents import interpolation  # noqa: PLC0415 -- imports torch, 1.5 s
    from textvae.generate.strategies import Greedy  # noqa: PLC0415 -- imports torch, 1.5 s

    strategy = options.strategy_of(decoding, Greedy())
    vae = options.load(where, device)
    first, second = vae.encode(sentences).mean
    points = interpolation(first, second, steps=steps, path=cast("PathKind", path))
    found = list(say(vae, points, strategy, decoding))
    say_which(where, named=len(given) < len(arguments))
    for step, said in enumerate(found):
        show(said, {"step": step, "share": step / (steps - 1)}, as_json=as_json)
