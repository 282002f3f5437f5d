"""`textvae classify`."""

from typing import TYPE_CHECKING, cast

import click

from textvae.cli import options
from textvae.cli.arguments import split_model_and_data, take_stream
from textvae.cli.terminal import RowWriter, emit, emit_json, flush, log_model
from textvae.data.rows import TooLong
from textvae.errors import ConfigError

if TYPE_CHECKING:
    from textvae.api.classify import Kind
    from textvae.data.corpus import Sentences

KINDS = ("model", "prototypes", "logistic")
TOGETHER = 256
"""Sentences of a pipe that are labelled together."""


@click.command(
    "classify",
    help="""A line for each sentence: its likeliest label, a tab, and the probability of that. MODEL
    is a run or model directory; left out, the newest run under runs/. FILE holds one sentence a
    line, or is a table; left out, or `-`, standard input. One argument alone is the MODEL if it is
    a directory. The lines are those of FILE: an empty one where a row is blank.

    A model trained with labels (--set model.labels.kind=m2) has a classifier of its own.
    With any other latent, one is fitted to the posterior means of labelled sentences: those that
    the run was trained on, or --labelled. prototypes take the mean of each label, logistic is the
    regression of scikit-learn.

    --scores compares with the labels of FILE, a table: accuracy, macro-F1, log loss (nats) and
    expected calibration error; sentences without a label are left out.

    With --json: `label`, `probability`, `probabilities` (of every label), `row` (of FILE, from 0)
    and `cut` (true where a sentence too long for the model was cut); with --scores one object.""",
)
@click.argument("arguments", metavar="[MODEL] [FILE]", nargs=-1)
@click.option("--classifier", type=click.Choice(KINDS), help="[default: the model's own, if any]")
@click.option("--labelled", metavar="FILE", help="A table of sentences with labels to learn from.")
@click.option("--scores", is_flag=True, help="Print how good the labels are, not the labels.")
@click.option("--text-column", help="The column of the tables that holds the text.")
@click.option("--label-column", help="The column of the tables that holds the labels.")
@options.separator
@options.encoding
@options.too_long("cut")
@options.device
@options.as_json
def command(
    arguments: tuple[str, ...],
    classifier: str | None,
    labelled: str | None,
    scores: bool,
    text_column: str | None,
    label_column: str | None,
    separator: str | None,
    encoding: str | None,
    too_long: TooLong,
    device: str,
    as_json: bool,
) -> None:
    """Write the labels of sentences."""
    options.at_most(arguments, 2, "MODEL and FILE")
    where, file = split_model_and_data(arguments)
    if label_column is not None and labelled is None and not scores:
        raise ConfigError("--label-column belongs to --labelled and --scores; leave it out")
    if scores and file is None:
        raise ConfigError("--scores compares with the labels of a FILE; name it")

    from textvae.api.classify import classifier as fit  # noqa: PLC0415 -- imports torch, 1.5 s
    from textvae.data.corpus import read_sentences  # noqa: PLC0415 -- imports msgspec, 20 ms

    def table(source: str) -> "Sentences":
        return read_sentences(
            source,
            text_column=text_column,
            label_column=label_column,
            separator=separator,
            encoding=encoding,
        )

    known = None if labelled is None else table(labelled)
    truth = table(str(file)) if scores else None
    stream = (
        None
        if scores
        else take_stream(
            file, text_column, separator=separator, encoding=encoding, may_be_empty=True
        )
    )
    vae = options.load(where, device)
    fitted = fit(vae, kind=cast("Kind | None", classifier), labelled=known)
    named = len(arguments) == 2 or (len(arguments) == 1 and file is None)
    log_model(where, named=named)
    if truth is not None:
        figures = fitted.evaluate(truth)._asdict()
        if as_json:
            emit_json(figures)
            return
        count = figures.pop("num_sentences")
        for name, value in figures.items():
            emit(f"{name.replace('_', ' '):<19}{value:.4f}")
        emit(f"{'sentences':<19}{count:,}")
        return
    assert stream is not None
    writer = RowWriter(empty_lines=not as_json)
    labels = fitted.labels(
        stream.rows, source=stream.where, too_long=too_long, counts=writer, together=TOGETHER
    )
    for count, one in enumerate(labels, start=1):
        if as_json:
            writer.emit_json(one.row, one._asdict())
        else:
            writer.emit(one.row, one.label, f"{one.probability:.4f}")
        if count % TOGETHER == 0:
            flush()
    flush()
    writer.finish(stream.where, vae.config.max_length)
