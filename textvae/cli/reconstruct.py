"""`textvae reconstruct`."""

from typing import Unpack

import click

from textvae.cli import options
from textvae.cli.arguments import split_model, take_sentences
from textvae.cli.terminal import emit, emit_json, say_which


@click.command(
    "reconstruct",
    help="""Each sentence is encoded, and what the decoder writes at the mean of its posterior is
    one line of stdout; greedily, unless options say otherwise. MODEL is a run or model directory;
    left out, the newest run under runs/. Without sentences, or with `-`, they are the lines of
    standard input.

    The first argument is the MODEL if it is a directory. Otherwise it is a sentence, and the model
    is the newest run; but a name of a file or of a run under runs/, or a word with a slash, is
    taken for a MODEL that is not there. After a MODEL everything is a sentence.

    With --json: `sentence` and `reconstruction`.""",
)
@click.argument("arguments", metavar="[MODEL] [SENTENCE]...", nargs=-1)
@options.decoding
@options.device
@options.as_json
def command(
    arguments: tuple[str, ...], device: str, as_json: bool, **decoding: Unpack[options.Decoding]
) -> None:
    """Encode sentences and decode them again."""
    where, given = split_model(arguments)
    sentences = take_sentences(given)

    from textvae.generate.strategies import Greedy  # noqa: PLC0415 -- imports torch, 1.5 s

    strategy = options.strategy_of(decoding, Greedy())
    found = options.load(where, device).reconstruct(
        sentences, strategy=strategy, seed=decoding["seed"], max_length=decoding["max_length"]
    )
    say_which(where, named=len(given) < len(arguments))
    for sentence, text in zip(sentences, found, strict=True):
        emit_json({"sentence": sentence, "reconstruction": text}) if as_json else emit(text)
