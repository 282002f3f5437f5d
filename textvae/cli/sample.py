"""`textvae sample`."""

from typing import Unpack

import click

from textvae.cli import options
from textvae.cli.arguments import find_model
from textvae.cli.terminal import emit, emit_json, flush, say_which


@click.command(
    "sample",
    help="""MODEL is a run or model directory; left out, the newest run under runs/.

    Sentence i depends on the seed and on i alone. Words are drawn at temperature 1 unless options
    say otherwise. With --json: `index` and `text`.""",
)
@click.argument("model", required=False)
@click.option(
    "-n",
    "--num-samples",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="How many sentences.",
)
@options.decoding
@options.device
@options.as_json
def command(
    model: str | None,
    num_samples: int,
    device: str,
    as_json: bool,
    **decoding: Unpack[options.Decoding],
) -> None:
    """Write sentences from the prior."""
    where = find_model(model)
    strategy = options.strategy_of(decoding)
    vae = options.load(where, device)

    from textvae.generate.decoding import ROWS, decode  # noqa: PLC0415 -- imports torch, 1.5 s
    from textvae.generate.latents import prior_latents  # noqa: PLC0415 -- as above

    seed, longest = decoding["seed"], decoding["max_length"] or vae.config.max_length
    latents = prior_latents(vae.model.prior, num_samples, seed=seed)
    say_which(where, named=model is not None)
    # Written as they come, so that `| head` ends a long list early.
    for start in range(0, num_samples, ROWS):
        found = decode(
            vae.model,
            latents[start : start + ROWS],
            strategy,
            seed=seed,
            max_length=longest,
            first_index=start,
        )
        for index, ids in enumerate(found.sentences, start=start):
            text = vae.tokenizer.decode(ids)
            emit_json({"index": index, "text": text}) if as_json else emit(text)
        flush()
