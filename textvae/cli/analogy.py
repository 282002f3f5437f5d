"""`textvae analogy`."""

from collections.abc import Iterator
from itertools import tee
from typing import Unpack

import click

from textvae.cli import options
from textvae.cli.arguments import split_model, take_sentence_stream
from textvae.cli.terminal import emit, emit_json, flush, log_model
from textvae.errors import DataError
from textvae.generate.options import Decoding


@click.command(
    "analogy",
    help="""What the decoder writes at a - b + c, the posterior means of the sentences A, B and C:
    C, changed as B would have to be to become A. Greedily, unless options say otherwise. MODEL is a
    run or model directory; left out, the newest run under runs/. Without sentences, or with `-`,
    every three lines of standard input are one analogy.

    The first argument is the MODEL if it is a directory.

    A model with labels writes under --label, or the likeliest label of C.

    With --json: `first`, `second`, `third` and `text`.""",
)
@click.argument("arguments", metavar="[MODEL] [A B C]", nargs=-1)
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
    """Edit one sentence as two others differ."""
    where, texts = split_model(arguments)
    if texts and texts != ["-"] and len(texts) != 3:
        besides = f" besides the MODEL {where}" if len(arguments) > len(texts) else ""
        raise DataError(f"an analogy takes 3 sentences, found {len(texts)}{besides}")
    stream = take_sentence_stream(texts)

    from textvae.api.edit import analogies  # noqa: PLC0415 -- imports torch, 1.5 s
    from textvae.data.stream import chunks  # noqa: PLC0415 -- imports msgspec, 20 ms

    vae = options.load(where, device)
    triples: Iterator[list[str]]
    triples, shown = tee(chunks(stream.without_blank(), 3))
    texts_of_triples = analogies(vae, triples, source=stream.where, label=label, **decoding)
    for number, text in enumerate(texts_of_triples):
        if number == 0:
            log_model(where, named=len(texts) < len(arguments))
        row = dict(zip(("first", "second", "third"), next(shown), strict=True))
        emit_json(row | {"text": text}) if as_json else emit(text)
    flush()
