"""`textvae evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from textvae import distributed
from textvae.cli import options
from textvae.cli.arguments import share_stdin, split_model_and_data
from textvae.cli.terminal import Busy, emit_json, emit_lines, flush, log, log_model
from textvae.data.rows import TooLong
from textvae.errors import CheckpointError, TextVAEError

if TYPE_CHECKING:
    from textvae.evaluate.measurements import Measurements


@click.command(
    "evaluate",
    help="""MODEL is a run or model directory; left out, the newest run under runs/. DATA is a file,
    `-`, a directory (its test set is taken) or hf:name[:config][@revision]; left out, the test set
    that the run was made with.

    One argument alone is the MODEL if it is a directory without train, valid or test files, else
    the DATA.

    What is measured: the evaluators of --config, else of the run's own config
    (evaluate.evaluators), else these five: likelihood (importance-weighted and ELBO), latent (what
    it holds and where), reconstruction (BLEU, chrF, exact match), samples (self-BLEU, corpus BLEU,
    distinct n-grams, novelty, lengths), interpolation (smoothness, fluency). --evaluators names
    some, or all. Two more fit language models, which takes minutes: forward_perplexity (of samples,
    to one fitted to the corpus) and reverse_perplexity (of the data, to one fitted to samples).

    The figures, with their settings and where they come from, are written to evaluation.json in
    MODEL (or --output) and shown as a table, or with --json as the same object on one line, which
    also has each figure under its own name. null is unknown.""",
)
@click.argument("arguments", metavar="[MODEL] [DATA]", nargs=-1)
@click.option("--evaluators", "names", metavar="NAMES", help="Separated by commas, or `all`.")
@click.option(
    "--config", metavar="FILE", help="Settings: .toml, or the experiment.json of another run."
)
@click.option(
    "--samples",
    "num_samples",
    type=options.COUNT,
    help="K of the importance-weighted bound.  [default: 500]",
)
@options.seed
@click.option("--rows", type=options.COUNT, help="Latents decoded at once: memory, not results.")
@click.option(
    "--precision",
    type=click.Choice(options.PRECISIONS),
    default="float32",
    show_default=True,
    help="Of the matrix products.",
)
@click.option("--text-column", help="The column of DATA that holds the text.")
@options.separator
@options.encoding
@options.too_long("drop")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The file of the figures.  [default: evaluation.json in MODEL]",
)
@options.device
@options.as_json
def command(
    arguments: tuple[str, ...],
    names: str | None,
    config: str | None,
    num_samples: int | None,
    seed: int,
    rows: int | None,
    precision: str,
    text_column: str | None,
    separator: str | None,
    encoding: str | None,
    too_long: TooLong,
    output: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Measure a model on sentences."""
    options.at_most(arguments, 2, "MODEL and DATA")
    where, data = split_model_and_data(arguments)
    if output is not None and not output.parent.is_dir():
        raise CheckpointError(f"--output {output}: there is no directory {output.parent}")

    from textvae.api.evaluate import run_evaluators  # noqa: PLC0415 -- as above
    from textvae.train.config import DTYPES  # noqa: PLC0415 -- as above

    notes: list[str] = []
    busy = Busy(f"measuring {where} on {data or 'its test set'}")
    with distributed.joined():
        vae = options.load(where, device)
        # Logged only after some seconds: an error of the data comes before, and stands alone.
        with busy.after():
            share_stdin(data)
            measurements = run_evaluators(
                vae,
                data,
                evaluators=names,
                config=config,
                num_samples=num_samples,
                seed=seed,
                rows=rows,
                dtype=DTYPES[precision],
                text_column=text_column,
                separator=separator,
                encoding=encoding,
                too_long=too_long,
                note=notes.append,
                report=busy.report,
            )
    if not distributed.is_first():
        return
    for line in notes:
        log(line)
    # Written before it is emitted: a reader of the pipe who goes away loses nothing.
    not_written = _write(measurements, where, output)
    log_model(where, named=len(arguments) > (data is not None))
    _emit(measurements, as_json=as_json)
    flush()
    if not_written is not None:
        if output is not None:
            raise not_written
        log(f"{not_written}; --output FILE writes the figures elsewhere")


def _write(measurements: "Measurements", where: Path, output: Path | None) -> TextVAEError | None:
    """Write the file; returns the error if it cannot be written."""
    from textvae.evaluate.measurements import FILE, write_measurements  # noqa: PLC0415 -- 20 ms

    try:
        write_measurements(where / FILE if output is None else output, measurements)
    except CheckpointError as error:
        return error
    return None


def _emit(measurements: "Measurements", *, as_json: bool) -> None:
    """The table, or the object of the file with every figure under its own name as well."""
    if not as_json:
        emit_lines(measurements.table())
        return

    import msgspec  # noqa: PLC0415 -- 20 ms

    whole: dict[str, Any] = msgspec.to_builtins(measurements)
    short = msgspec.to_builtins(measurements.data) | {
        "tokenizer": measurements.model.tokenizer,
        "latent_dim": measurements.model.latent_dim,
    }
    emit_json(short | measurements.flat() | whole)
