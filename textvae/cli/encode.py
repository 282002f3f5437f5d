"""`textvae encode`."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from textvae import distributed
from textvae.cli import options
from textvae.cli.arguments import OTHERS, share_rows, split_model_and_data, take_stream
from textvae.cli.terminal import RowWriter, emit, emit_json, emit_raw, flush, log_model
from textvae.data.rows import TooLong

if TYPE_CHECKING:
    from textvae.api.latent_space import EncodedPart


@click.command(
    "encode",
    help="""The posterior of each sentence is a mean and a log-variance (natural logarithm) for
    each dimension of the latent. MODEL is a run or model directory; left out, the newest run under
    runs/. FILE holds one sentence a line, or is a table; left out, or `-`, standard input. One
    argument alone is the MODEL if it is a directory.

    --output F.jsonl has a line for each sentence: `row` (of FILE, from 0), `sentence` (as it was
    read), `cut` (true for the beginning of one that is too long for the model), `mean`,
    `log_variance`. F.npz has the arrays `row`, `cut`, and float32 `mean` and `log_variance`, for
    numpy.load. Either appears only when it is whole. Without --output the lines go to stdout. Blank
    rows have no line, and are counted on stderr. `textvae decode` reads what this writes.

    With --json and --output: one object with `output`, `num_sentences` and `latent_dim`.""",
)
@click.argument("arguments", metavar="[MODEL] [FILE]", nargs=-1)
@click.option(
    "--output",
    metavar="FILE",
    help="A file named .npz or .jsonl; or of the means alone .npy, .csv or .parquet, as in "
    "--output latents.parquet.",
)
@click.option("--text-column", help="The column of FILE that holds the text.")
@options.separator
@options.encoding
@options.too_long("cut")
@options.device
@options.as_json
def command(
    arguments: tuple[str, ...],
    output: str | None,
    text_column: str | None,
    separator: str | None,
    encoding: str | None,
    too_long: TooLong,
    device: str,
    as_json: bool,
) -> None:
    """Write the posteriors of sentences."""
    options.at_most(arguments, 2, "MODEL and FILE")
    where, file = split_model_and_data(arguments)

    from textvae.api.latent_file import (  # noqa: PLC0415 -- imports torch, 1.5 s
        check_output_form,
        json_rows,
        write_latents,
    )

    if output is not None:
        check_output_form(Path(output))
    stream = (
        take_stream(
            file, text_column, separator=separator, encoding=encoding, quiet=output is not None
        )
        if distributed.is_first()
        else OTHERS
    )

    from textvae.api.latent_space import posteriors  # noqa: PLC0415 -- as above

    def to_stdout(part: "EncodedPart") -> None:
        for row in json_rows(part):
            emit_raw(row)
        flush()

    count, counts = 0, RowWriter(empty_lines=False)
    with distributed.joined(), ExitStack() as stack:
        vae = options.load(where, device)
        add: Callable[[EncodedPart], None] = to_stdout
        if output is not None and distributed.is_first():
            add = stack.enter_context(write_latents(Path(output)))
        rows = share_rows(stream.rows)
        for part in posteriors(vae, rows, source=stream.where, too_long=too_long, counts=counts):
            add(part)
            count += len(part.texts)
    log_model(where, named=len(arguments) > (file is not None))
    counts.finish(stream.where, vae.config.max_length)
    if output is None:
        return
    if as_json:
        dim = vae.config.latent_dim
        emit_json({"output": output, "num_sentences": count, "latent_dim": dim})
    else:
        emit(f"{output}: {count:,} posteriors of {vae.config.latent_dim} dimensions")
