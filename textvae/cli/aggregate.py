"""`textvae aggregate`."""

import click

from textvae.cli import options
from textvae.cli.arguments import find_model, take_stream
from textvae.cli.terminal import emit, emit_json, say_which


@click.command(
    "aggregate",
    help="""The prior of a model may have mass where no sentence of the data lies. This fits a
    mixture of Gaussians to where they do lie, the aggregate posterior (the mean of the posteriors
    of all sentences), and keeps it in the directory of the model: `sample --prior aggregate` and
    `interpolate --along data` use it. MODEL is a run or model directory; left out, the newest run
    under runs/.

    The sentences are the train set of the run, or those of --corpus. Nine tenths are fitted to; of
    1, 2, 4, ... components those are kept that are best on the other tenth. Printed is, of each
    number tried, the mean log-density of draws from the posteriors held out, and how far it is
    above that of the prior, in nats a latent.

    With --json: one object a mixture tried, with `num_components`, `log_prob`, `gain`,
    `gain_stderr` and `kept`.""",
)
@click.argument("model", required=False)
@click.option("--corpus", metavar="FILE", help="A text file, a table, hf:name, or `-`.")
@click.option("--text-column", help="The column of the corpus that holds the text.")
@click.option(
    "--components",
    type=click.IntRange(min=1, max=10_000),
    help="How many.  [default: what is best on sentences held out]",
)
@click.option(
    "--max-components",
    type=click.IntRange(min=1, max=10_000),
    default=64,
    show_default=True,
    help="The most that is tried.",
)
@click.option(
    "--covariance",
    type=click.Choice(("full", "diagonal")),
    default="full",
    show_default=True,
    help="Of a component.",
)
@click.option(
    "--sentences",
    type=click.IntRange(min=2),
    default=10_000,
    show_default=True,
    help="A random part of the corpus, where it is larger.",
)
@options.seed
@options.device
@options.as_json
def command(
    model: str | None,
    corpus: str | None,
    text_column: str | None,
    components: int | None,
    max_components: int,
    covariance: str,
    sentences: int,
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    """Fit a mixture to the aggregate posterior."""
    where = find_model(model)
    stream = None if corpus is None else take_stream(corpus, text_column)
    vae = options.load(where, device)

    from textvae.api.aggregate import fit_aggregate, save_aggregate  # noqa: PLC0415 -- imports torch

    chosen = fit_aggregate(
        vae,
        None if stream is None else stream.sentences,
        num_components=components,
        max_components=max_components,
        diagonal=covariance == "diagonal",
        max_sentences=sentences,
        seed=seed,
        source="the sentences given" if stream is None else stream.where,
    )
    save_aggregate(vae)
    say_which(where, named=model is not None)
    for one in chosen.tried:
        kept = one == chosen.best
        if as_json:
            emit_json(one._asdict() | {"kept": kept})
        else:
            emit(
                f"{one.num_components:4} components  log-density {one.log_prob:9.4f}  "
                f"above the prior {one.gain:+.4f} +- {one.gain_stderr:.4f}"
                + ("  kept" if kept else "")
            )
