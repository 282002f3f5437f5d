"""`textvae interpolate`."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Unpack, cast

import click

from textvae.cli import options
from textvae.cli.arguments import split_model, take_sentences
from textvae.cli.terminal import emit, emit_json, flush, log_model
from textvae.errors import DataError
from textvae.generate.options import Decoding

if TYPE_CHECKING:
    from textvae.generate.paths import PathKind

FEW = "an interpolation passes through at least 2 sentences"


@click.command(
    "interpolate",
    help="""The sentences written lie on a path through the means of the posteriors of the given
    ones, two or more; the first and the last are reconstructions. Greedy, unless options say
    otherwise. MODEL is a run or model directory; left out, the newest run under runs/. Without
    sentences, or with `-`, they are the lines of standard input.

    The first argument is the MODEL if it is a directory. Otherwise it is a sentence, and the model
    is the newest run; but a name of a file or of a run under runs/, or a word with a slash, is
    taken for a MODEL that is not there. After a MODEL everything is a sentence.

    --path data (or --along data) is the shortest path where going costs the more the fewer data are
    there, by a prior that is a mixture (`train --set model.prior.kind=mixture`).

    A model with labels holds one along the path: --label, or the likeliest of the first sentence.

    With --json: `step`, `share` (0 at the first, 1 at the last), `text`, `reconstruction` (-log
    p(text|z) in nats, summed over `num_tokens` with </s>), `change` (token edit distance to the
    step before, over the longer length; null at the first), `log_density` (of the latent under the
    prior, in nats) and `mean_change`, of the path (absent from one of over 4,096 steps).""",
)
@click.argument("arguments", metavar="[MODEL] [FIRST SECOND]...", nargs=-1)
@click.option(
    "--steps",
    type=options.STEPS,
    default=7,
    show_default=True,
    help="How many sentences from one to the next, both included.",
)
@click.option(
    "--path",
    "--along",
    "path",
    type=click.Choice(options.PATHS),
    default="straight",
    show_default=True,
    help="A line, an arc around the origin, or through the latents of data.",
)
@options.label
@options.decoding
@options.device
@options.as_json
def command(
    arguments: tuple[str, ...],
    steps: int,
    path: str,
    label: str | None,
    device: str,
    as_json: bool,
    **decoding: Unpack[Decoding],
) -> None:
    """Write the sentences between two sentences."""
    where, texts = split_model(arguments)
    if texts and texts != ["-"] and len(texts) < 2:
        taken = f" besides the MODEL {where}" if len(arguments) > len(texts) else ""
        raise DataError(f"{FEW}, found {len(texts)}{taken}")
    sentences = take_sentences(texts)
    if len(sentences) < 2:
        raise DataError(f"standard input: {FEW}, found {len(sentences)}")

    from textvae.api.interpolate import (  # noqa: PLC0415 -- imports torch, 1.5 s
        WHOLE,
        Step,
        num_steps,
        walk,
        walk_steps,
    )

    vae, kind = options.load(where, device), cast("PathKind", path)
    mean: dict[str, float] = {}
    passed: Iterable[Step]
    if as_json and num_steps(len(sentences), steps) <= WHOLE:
        result = walk(vae, sentences, steps=steps, path=kind, label=label, **decoding)
        passed, mean = result.steps, {"mean_change": result.mean_change}
    else:
        passed = walk_steps(vae, sentences, steps=steps, path=kind, label=label, **decoding)
    for number, step in enumerate(passed):
        if not number:  # the options are right: an error would have stood alone
            log_model(where, named=len(texts) < len(arguments))
        emit_json({"step": number} | step._asdict() | mean) if as_json else emit(step.text)
        flush()
