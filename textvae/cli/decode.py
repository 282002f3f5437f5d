"""`textvae decode`."""

from typing import Unpack

import click

from textvae.cli import options
from textvae.cli.arguments import split_model_and_data
from textvae.cli.terminal import emit, emit_json, flush, log_model
from textvae.generate.options import Decoding


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
    arguments: tuple[str, ...], device: str, as_json: bool, **decoding: Unpack[Decoding]
) -> None:
    """Write the sentences of latents."""
    options.at_most(arguments, 2, "MODEL and LATENTS")
    where, file = split_model_and_data(arguments)

    from textvae.api.latent_file import read_latents  # noqa: PLC0415 -- imports torch, 1.5 s
    from textvae.api.latent_space import sentences_at  # noqa: PLC0415 -- as above

    vae = options.load(where, device)
    texts = sentences_at(vae, read_latents(file or "-", vae.latent_dim), **decoding)
    for index, text in enumerate(texts):
        if index == 0:
            log_model(where, named=len(arguments) > (file is not None))
        emit_json({"index": index, "text": text}) if as_json else emit(text)
    flush()
