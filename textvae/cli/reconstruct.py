"""`textvae reconstruct`."""

from typing import TYPE_CHECKING, Unpack, cast

import click

from textvae.cli import options
from textvae.cli.arguments import split_model, take_sentences
from textvae.cli.terminal import emit, emit_json, say_which
from textvae.cli.writing import say, show

if TYPE_CHECKING:
    from textvae.evaluate.reconstruction import ReconstructionScores
    from textvae.metrics.text_quality import Tokenization

TOKENIZATIONS = ("none", "13a", "intl", "char", "zh")


@click.command(
    "reconstruct",
    help="""Each sentence is encoded, and what the decoder writes at the mean of its posterior is
    one line of stdout; greedily, unless options say otherwise. MODEL is a run or model directory;
    left out, the newest run under runs/. Without sentences, or with `-`, they are the lines of
    standard input.

    The first argument is the MODEL if it is a directory. Otherwise it is a sentence, and the model
    is the newest run; but a name of a file or of a run under runs/, or a word with a slash, is
    taken for a MODEL that is not there. After a MODEL everything is a sentence.

    A model with labels writes each sentence under its own likeliest label, or all under --label.

    With --scores: in place of the sentences, how near all of them come: exact match, BLEU and chrF
    of sacrebleu with their signatures, and edit distance.

    With --json: `sentence` and `reconstruction`, `exact_match`, `edit_distance` (tokens) and `bleu`
    (of the sentence, 0 to 100), and for a beam `rank`, `log_likelihood` (nats) and `score`; with
    --scores one object.""",
)
@click.argument("arguments", metavar="[MODEL] [SENTENCE]...", nargs=-1)
@click.option("--scores", is_flag=True, help="Print the scores of all, not the sentences.")
@click.option(
    "--tokenize",
    type=click.Choice(TOKENIZATIONS),
    help="How BLEU and edits cut the text.  [default: none for words, 13a for bpe, char]",
)
@options.label
@options.decoding
@options.device
@options.as_json
def command(
    arguments: tuple[str, ...],
    scores: bool,
    tokenize: str | None,
    label: str | None,
    device: str,
    as_json: bool,
    **decoding: Unpack[options.Decoding],
) -> None:
    """Encode sentences and decode them again."""
    where, given = split_model(arguments)
    sentences = take_sentences(given)

    from textvae.evaluate.reconstruction import (  # noqa: PLC0415 -- imports torch, 1.5 s
        reconstruction_scores,
        sentence_scores,
    )
    from textvae.generate.strategies import Greedy  # noqa: PLC0415 -- as above
    from textvae.metrics.text_quality import tokenization_for  # noqa: PLC0415 -- as above
    from textvae.run.conditions import decoder_conditions, own_labels  # noqa: PLC0415 -- as below

    strategy = options.strategy_of(decoding, Greedy(), n_best=True)
    vae = options.load(where, device)
    read = decoder_conditions(vae, vae.encode(sentences).mean, label or own_labels(vae, sentences))
    found = list(say(vae, read, strategy, decoding))
    how = cast("Tokenization | None", tokenize) or tokenization_for(vae.tokenizer.kind)
    say_which(where, named=len(given) < len(arguments))
    if scores:
        best = [str(said[0]["text"]) for said in found]
        whole = reconstruction_scores(best, sentences, how)
        emit_json(whole._asdict()) if as_json else emit(_table(whole))
        return
    for sentence, said in zip(sentences, found, strict=True):
        if not as_json:
            show(said, {}, as_json=False)
            continue
        texts = [str(one["text"]) for one in said]
        each = sentence_scores(texts, [sentence] * len(texts), how)
        for one, near in zip(said, each, strict=True):
            more = {**one, **near._asdict()}
            show([more], {"sentence": sentence}, as_json=True, name="reconstruction")


def _table(found: "ReconstructionScores") -> str:
    from textvae.evaluate.summary import plus_minus  # noqa: PLC0415 -- imports torch, 1.5 s

    edits = plus_minus(found.edit_distance, found.edit_distance_stderr)
    rows = [
        ("exact match", f"{100 * found.exact_match:.1f} %", f"of {found.num_sentences:,}"),
        ("bleu", f"{found.bleu:.2f}", found.bleu_signature),
        ("chrf", f"{found.chrf:.2f}", found.chrf_signature),
        ("edit distance", edits, "tokens, as bleu cuts the text"),
        ("edit share", f"{100 * found.edit_share:.1f} %", "of the longer sentence's tokens"),
    ]
    return "\n".join(f"{name:<15}{value:<19}{note}" for name, value, note in rows)
