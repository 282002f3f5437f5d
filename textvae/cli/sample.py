"""`textvae sample`."""

from typing import Unpack

import click

from textvae.cli import options
from textvae.cli.arguments import find_model
from textvae.cli.terminal import flush, say_which
from textvae.cli.writing import say, show


@click.command(
    "sample",
    help="""MODEL is a run or model directory; left out, the newest run under runs/.

    Sentence i depends on the seed and on i alone. Words are drawn at temperature 1 unless options
    say otherwise. With --json: `index` and `text`, and for a beam `rank`, `log_likelihood` (nats)
    and `score`.""",
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

    from textvae.generate.decoding import ROWS  # noqa: PLC0415 -- imports torch, 1.5 s
    from textvae.generate.latents import prior_latents  # noqa: PLC0415 -- as above

    latents = prior_latents(vae.model.prior, num_samples, seed=decoding["seed"])
    # Written as they come, so that `| head` ends a long list early.
    for start in range(0, num_samples, ROWS):
        some = latents[start : start + ROWS]
        said = list(say(vae, some, strategy, decoding, first_index=start))
        if not start:  # nothing can be refused any more
            say_which(where, named=model is not None)
        for index, sentences in enumerate(said, start=start):
            show(sentences, {"index": index}, as_json=as_json)
        flush()
