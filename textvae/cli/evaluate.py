"""`textvae evaluate`."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import click

from textvae.cli import options
from textvae.cli.arguments import split_model_and_data
from textvae.cli.terminal import emit, emit_json, say_which, talk

SECONDS = 3.0


@click.command(
    "evaluate",
    help="""MODEL is a run or model directory; left out, the newest run under runs/. DATA is a file,
    `-`, a directory (its test set is taken) or hf:name[:config][@revision]; left out, the test set
    that the run was made with.

    One argument alone is the MODEL if it is a directory without train, valid or test files, else
    the DATA. With --json: one object with every figure, in nats a sentence, and every setting.""",
)
@click.argument("arguments", metavar="[MODEL] [DATA]", nargs=-1)
@click.option(
    "--samples",
    "num_samples",
    type=click.IntRange(min=1),
    default=500,
    show_default=True,
    help="K of the importance-weighted bound.",
)
@options.seed
@click.option(
    "--rows", type=click.IntRange(min=1), help="Latents decoded at once: memory, not results."
)
@click.option(
    "--precision",
    type=click.Choice(options.PRECISIONS),
    default="float32",
    show_default=True,
    help="Of the matrix products.",
)
@click.option("--text-column", help="The column of DATA that holds the text.")
@options.device
@options.as_json
def command(
    arguments: tuple[str, ...],
    num_samples: int,
    seed: int,
    rows: int | None,
    precision: str,
    text_column: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Measure a model on sentences."""
    options.at_most(arguments, 2, "MODEL and DATA")
    where, data = split_model_and_data(arguments)
    vae = options.load(where, device)

    from textvae.evaluate.likelihood import ROWS  # noqa: PLC0415 -- imports torch, 1.5 s
    from textvae.train.loop import DTYPES  # noqa: PLC0415 -- as above

    busy = f"measuring {where} on {data or 'its test set'}, {num_samples:,} samples a sentence"
    # Said where it takes long; bad data are found before, and then the error stands alone.
    with _after(SECONDS, busy):
        found = vae.evaluate(
            data,
            num_samples=num_samples,
            seed=seed,
            rows=ROWS if rows is None else rows,
            dtype=DTYPES[precision],
            text_column=text_column,
        )
    say_which(where, named=len(arguments) > (data is not None))
    emit_json(found) if as_json else emit(found.table())


@contextmanager
def _after(seconds: float, line: str) -> Iterator[None]:
    """Say a line once so many seconds have passed, unless the work is done by then."""
    timer = threading.Timer(seconds, talk, [line])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
