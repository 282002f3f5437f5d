"""`textvae reconstruct`."""

from typing import Unpack

import click

from textvae.cli import options
from textvae.cli.arguments import split_model, take_sentences
from textvae.cli.terminal import say_which
from textvae.cli.writing import say, show


@click.command(
    "reconstruct",
    help="""Each sentence is encoded, and what the decoder writes at the mean of its posterior is
    one line of stdout; greedily, unless options say otherwise. MODEL is a run or model directory;
    left out, the newest run under runs/. Without sentences, or with `-`, they are the lines of
    standard input.

    The first argument is the MODEL if it is a directory. Otherwise it is a sentence, and the model
    is the newest run; but a name of a file or of a run under runs/, or a word with a slash, is
    taken for a MODEL that is not there. After a MODEL everything is a sentence.

    With --json: `sentence` and `reconstruction`, and for a beam `rank`, `log_likelihood` (nats) and
    `score`.""",
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

    strategy = options.strategy_of(decoding, Greedy(), n_best=True)
    vae = options.load(where, device)
    found = list(say(vae, vae.encode(sentences).mean, strategy, decoding))
    say_which(where, named=len(given) < len(arguments))
    for sentence, said in zip(sentences, found, strict=True):
        show(said, {"sentence": sentence}, as_json=as_json, name="reconstruction")
