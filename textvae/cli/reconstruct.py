"""`textvae reconstruct`."""

from typing import TYPE_CHECKING, Unpack, cast

import click

from textvae.cli import options
from textvae.cli.arguments import split_model, take_sentence_stream
from textvae.cli.terminal import RowWriter, emit_json, emit_lines, log_model
from textvae.data.rows import TooLong
from textvae.generate.options import Decoding

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

    The lines are those of standard input: an empty one where a line is blank.

    With --json: `row` (from 0), `sentence` (as it was read), `cut` (true for the beginning of one
    that is too long for the model) and `reconstruction`, `exact_match`, `edit_distance` (tokens)
    and `bleu` (of the sentence, 0 to 100), and for a beam `rank`, `log_prob` (nats) and `score`;
    with --scores one object.""",
)
@click.argument("arguments", metavar="[MODEL] [SENTENCE]...", nargs=-1)
@click.option("--scores", is_flag=True, help="Print the scores of all, not the sentences.")
@click.option(
    "--tokenize",
    type=click.Choice(TOKENIZATIONS),
    help="How BLEU and edits cut the text.  [default: none for words, 13a for bpe, char]",
)
@options.too_long("cut")
@options.label
@options.decoding
@options.device
@options.as_json
def command(
    arguments: tuple[str, ...],
    scores: bool,
    tokenize: str | None,
    too_long: TooLong,
    label: str | None,
    device: str,
    as_json: bool,
    **decoding: Unpack[Decoding],
) -> None:
    """Encode sentences and decode them again."""
    where, texts = split_model(arguments)
    stream = take_sentence_stream(texts)

    from textvae.api.reconstruct import reconstructions  # noqa: PLC0415 -- imports torch, 1.5 s

    vae, writer = options.load(where, device), RowWriter(empty_lines=not (as_json or scores))
    result = reconstructions(
        vae,
        stream.rows,
        label=label,
        too_long=too_long,
        counts=writer,
        source=stream.where,
        tokenize=cast("Tokenization | None", tokenize),
        **decoding,
    )
    log_model(where, named=len(texts) < len(arguments))
    if scores:
        writer.finish(stream.where, vae.config.max_length)
        emit_json(result.scores._asdict()) if as_json else emit_lines(_table(result.scores))
        return
    for row in result.rows:
        if as_json:
            values = {key: value for key, value in row._asdict().items() if value is not None}
            writer.emit_json(row.row, values)
        else:
            writer.emit(row.row, row.reconstruction)
    writer.finish(stream.where, vae.config.max_length)


def _table(scores: "ReconstructionScores") -> str:
    error = scores.edit_distance_stderr
    edits = f"{scores.edit_distance:.3f} +- {'unknown' if error is None else f'{error:.3f}'}"
    rows = [
        ("exact match", f"{100 * scores.exact_match:.1f} %", f"of {scores.num_sentences:,}"),
        ("bleu", f"{scores.bleu:.2f}", scores.bleu_signature),
        ("chrf", f"{scores.chrf:.2f}", scores.chrf_signature),
        ("edit distance", edits, "tokens, as bleu cuts the text"),
        ("edit share", f"{100 * scores.edit_share:.1f} %", "of the longer sentence's tokens"),
    ]
    return "\n".join(f"{name:<15}{value:<19}{note}" for name, value, note in rows)
