"""`textvae decode`."""

from typing import Unpack

import click

from textvae.cli import options
from textvae.cli.arguments import split_model_and_data
from textvae.cli.terminal import emit, emit_json, flush, say_which


@click.command(
    "decode",
    help="""Each latent is written out as a sentence; greedily, unless options say otherwise. MODEL
    is a run or model directory; left out, the newest run under runs/. LATENTS is what `textvae
    encode` wrote (the means are taken), a .npz of one array [N, Z], or a .jsonl of lists of
    numbers; left out, or `-`, a .jsonl on standard input. One argument alone is the MODEL if it is
    a directory.

    With --json: `index` and `text`.""",
)
@click.argument("arguments", metavar="[MODEL] [LATENTS]", nargs=-1)
@options.decoding
@options.device
@options.as_json
def command(
    arguments: tuple[str, ...], device: str, as_json: bool, **decoding: Unpack[options.Decoding]
) -> None:
    """Write the sentences of latents."""
    options.at_most(arguments, 2, "MODEL and LATENTS")
    where, given = split_model_and_data(arguments)

    from textvae.api.latent_file import read_latents  # noqa: PLC0415 -- as above
    from textvae.api.latent_space import sentences_at  # noqa: PLC0415 -- as above
    from textvae.generate.strategies import Greedy  # noqa: PLC0415 -- imports torch, 1.5 s

    strategy = options.strategy_of(decoding, Greedy())
    vae = options.load(where, device)
    found = sentences_at(
        vae,
        read_latents(given or "-", vae.config.latent_dim),
        strategy=strategy,
        seed=decoding["seed"],
        max_length=decoding["max_length"],
    )
    for index, text in enumerate(found):
        if index == 0:
            say_which(where, named=len(arguments) > (given is not None))
        emit_json({"index": index, "text": text}) if as_json else emit(text)
    flush()
