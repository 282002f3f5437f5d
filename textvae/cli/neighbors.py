"""`textvae neighbors`."""

from typing import cast

import click

from textvae.cli import options
from textvae.cli.arguments import split_model, take_sentence_stream, take_stream
from textvae.cli.terminal import RowWriter, flush, log, log_model
from textvae.data.rows import Exclusion, RowCounts
from textvae.errors import DataError

TOGETHER = 64
"""Sentences of standard input that share a pass over the corpus, at most."""
NEIGHBORS_AT_ONCE = 640_000
"""Neighbors in memory at once, some 100 MB: many of each sentence leave room for few sentences."""


@click.command(
    "neighbors",
    help="""Of the sentences of a corpus, those whose posterior means are nearest to that of each
    SENTENCE: distance and sentence, the nearest first. Every one of the corpus is compared, in
    memory that does not grow with it; a sentence that is there twice is listed once, and one that
    is too long for the model is left out. MODEL is a run or model directory; left out, the newest
    run under runs/. Without sentences, or with `-`, they are the lines of standard input.

    The first argument is the MODEL if it is a directory.

    Of the metrics, euclidean takes the latent as it is: the prior gives all its dimensions one
    unit. scaled divides by the standard deviation of the aggregate posterior of the corpus, which
    is then read twice. cosine is 1 - cos of the angle between two means.

    With --json: `row` (of SENTENCE, from 0), `sentence`, `rank` (from 1), `text`, `number` (its row
    in the corpus, from 0) and `distance`.""",
)
@click.argument("arguments", metavar="[MODEL] [SENTENCE]...", nargs=-1)
@click.option(
    "--corpus", required=True, metavar="FILE", help="A text file, a table, hf:name, or `-`."
)
@click.option(
    "-n",
    "size",
    type=click.IntRange(min=1, max=100_000),
    default=10,
    show_default=True,
    help="How many neighbors.",
)
@click.option(
    "--metric",
    type=click.Choice(options.METRICS),
    default="euclidean",
    show_default=True,
    help="Between posterior means.",
)
@click.option("--text-column", help="The column of the corpus that holds the text.")
@options.device
@options.as_json
def command(
    arguments: tuple[str, ...],
    corpus: str,
    size: int,
    metric: str,
    text_column: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Find the nearest sentences."""
    where, texts = split_model(arguments)
    from_stdin = not texts or texts == ["-"]
    if corpus == "-" and (from_stdin or metric == "scaled"):
        once = "is read once: give the sentences as arguments, and not --metric scaled"
        raise DataError(f"--corpus -: standard input {once}")
    stream = take_sentence_stream(texts)
    pool = take_stream(corpus, text_column, quiet=True)
    vae = options.load(where, device)

    from textvae.api.latent_space import Metric, neighbors  # noqa: PLC0415 -- imports torch, 1.5 s
    from textvae.data.stream import chunks  # noqa: PLC0415 -- imports msgspec, 20 ms

    # Given as arguments, they are few: one pass for all.
    together = TOGETHER if from_stdin else NEIGHBORS_AT_ONCE
    together = max(1, min(together, NEIGHBORS_AT_ONCE // size))
    writer = RowWriter(empty_lines=not as_json)
    for number, part in enumerate(chunks(enumerate(stream.rows), together)):
        counts, queries = RowCounts(), [(row, text) for row, text in part if text]
        for row, text in part:
            if not text:
                writer.exclude(row, Exclusion.BLANK)
        if not queries:
            continue
        nearest = neighbors(
            vae,
            [text for _, text in queries],
            pool.rows,
            size=size,
            metric=cast(Metric, metric),
            source=pool.where,
            counts=counts,
        )
        if number == 0:
            log_model(where, named=len(texts) < len(arguments))
            for line in counts.notes(pool.where, vae.config.max_length):
                log(line)
        for (row, sentence), near in zip(queries, nearest, strict=True):
            if (from_stdin or len(texts) > 1) and not as_json:
                writer.emit(row, sentence)
            for rank, one in enumerate(near, start=1):
                if as_json:
                    query = {"row": row, "sentence": sentence, "rank": rank}
                    writer.emit_json(row, query | one._asdict())
                else:
                    writer.emit(row, f"{one.distance:8.4f}  {one.text}")
        flush()
    writer.finish(stream.where, vae.config.max_length)
