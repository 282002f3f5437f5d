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

    A model with labels needs --label: a latent does not say which.

    With --json: `index` and `text`.""",
)
@click.argument("arguments", metavar="[MODEL] [LATENTS]", nargs=-1)
@options.label
@options.decoding
@options.device
@options.as_json
def command(
    arguments: tuple[str, ...],
    label: str | None,
    device: str,
    as_json: bool,
    **decoding: Unpack[Decoding],
) -> None:
    """Write the sentences of latents."""
    options.at_most(arguments, 2, "MODEL and LATENTS")
    where, file = split_model_and_data(arguments)

    from textvae.api.latent_file import read_latents  # noqa: PLC0415 -- imports torch, 1.5 s
    from textvae.api.latent_space import sentences_at  # noqa: PLC0415 -- as above
    from textvae.run.model_directory import require_latent  # noqa: PLC0415 -- as above

    vae = options.load(where, device)
    require_latent(vae.model, where)
    latents = read_latents(file or "-", vae.latent_dim)
    texts = sentences_at(vae, latents, label=label, **decoding)
    for index, text in enumerate(texts):
        if index == 0:
            log_model(where, named=len(arguments) > (file is not None))
        emit_json({"index": index, "text": text}) if as_json else emit(text)
    flush()
