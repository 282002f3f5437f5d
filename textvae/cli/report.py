"""`textvae report`."""

from pathlib import Path

import click

from textvae.cli import options
from textvae.cli.arguments import split_model_and_data
from textvae.cli.terminal import Busy, emit, emit_json, log_model


@click.command(
    "report",
    help="""The page is one HTML file that needs no network: what the model is, its training
    curves, the figures with what they mean, KL by dimension, a map of the sentences, samples,
    interpolations, nearest neighbours and the worst-modelled sentences. What a model has not got,
    it says. The same model, data and seed give the same bytes.

    MODEL is a run or model directory; left out, the newest run under runs/. DATA is a file, `-`, a
    directory (its test set is taken) or hf:name; left out, the test set that the run was made with,
    and then the figures are those of `textvae evaluate` or of the end of training. One argument
    alone is the MODEL if it is a directory without train, valid or test files, else the DATA.

    Labels colour the map: a column named label, --label-column, or --labels; labels such as
    `tense=past place=coast` are several.

    With --json: one object with `output`, `source` and `num_sentences`.""",
)
@click.argument("arguments", metavar="[MODEL] [DATA]", nargs=-1)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("report.html"),
    metavar="FILE",
    show_default=True,
    help="The page.",
)
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
@click.option(
    "--sentences",
    "num_sentences",
    type=click.IntRange(min=1, max=20_000),
    default=1000,
    show_default=True,
    help="At most so many of the data, drawn by the seed.",
)
@click.option(
    "--samples",
    "num_samples",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="K of the importance-weighted bound, where it has to be measured.",
)
@options.seed
@click.option("--text-column", help="The column of DATA that holds the text.")
@click.option("--label-column", help="The column of DATA that holds the labels.")
@click.option("--labels", metavar="FILE", help="One label a line, in step with DATA.")
@options.device
@options.as_json
def command(
    arguments: tuple[str, ...],
    output: Path,
    overwrite: bool,
    num_sentences: int,
    num_samples: int,
    seed: int,
    text_column: str | None,
    label_column: str | None,
    labels: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Write a page to look at."""
    options.at_most(arguments, 2, "MODEL and DATA")
    where, data = split_model_and_data(arguments)
    vae = options.load(where, device)

    from textvae.report.corpus import DataChoice  # noqa: PLC0415 -- imports torch, 1.5 s
    from textvae.report.page import write_report  # noqa: PLC0415 -- as above

    with Busy(f"{output}: measuring, decoding and drawing").after():
        material = write_report(
            vae,
            output,
            DataChoice(data, text_column, label_column, labels),
            seed=seed,
            num_sentences=num_sentences,
            num_samples=num_samples,
            overwrite=overwrite,
        )
    log_model(where, named=len(arguments) > (data is not None))
    source, size = material.corpus.source, len(material.corpus.texts)
    if as_json:
        emit_json({"output": str(output), "source": source, "num_sentences": size})
    else:
        emit(f"{output}: a page about {where} on {source}")
