"""`textvae score`."""

from collections.abc import Iterable
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import click

from textvae import distributed
from textvae.cli import options
from textvae.cli.arguments import (
    OTHERS,
    find_model,
    share_sentences,
    split_model_and_data,
    take_stream,
)
from textvae.cli.terminal import emit, emit_json, flush, log, log_model
from textvae.errors import ConfigError

if TYPE_CHECKING:
    from textvae.api.score import Scored


@click.command(
    "score",
    help="""The anomaly score of each sentence of FILE, or of standard input, one a line. Of every
    score, higher is more anomalous. MODEL is a run or model directory; left out, the newest run
    under runs/. FILE has one sentence a line, or is a table; left out, or `-`, standard input, of
    any length in the same memory. One argument alone is the MODEL if it is a directory. Blank lines
    are left out; no lines give no output.

    \b
    nll_per_token     the nll (below) over the number of tokens
    combined          nll beyond that of normal sentences as long, and as rare
    nll               -log p(x), by the importance-weighted bound, in nats
    elbo              the same by the ELBO
    likelihood_ratio  nll minus that of a background model: unigrams, or --background
    kl                of the posterior from the prior
    mahalanobis       how far the posterior mean is from those of training sentences

    The first time, up to 1,000 sentences each of the run's training and validation sets are
    measured, to compare with; they are stored beside the model. A model without its data needs
    --reference.

    --threshold 0.01 adds a tab and `strange` (an anomaly) or `normal` to each line: an anomaly is
    above the score that 1 % of the validation sentences exceed.

    With --json: `sentence`, `number` (its place, from 0), `score`, `nll`, `kl`, `reconstruction`,
    `num_tokens`, `percentile` (the percentage of the training sentences that score lower) and, with
    --threshold, `strange`.""",
)
@click.argument("arguments", metavar="[MODEL] [FILE]", nargs=-1)
@click.option(
    "--score",
    "kind",
    type=click.Choice(options.SCORES),
    default=options.SCORES[0],
    show_default=True,
    help="Which score.",
)
@click.option(
    "--background", metavar="DIR", help="A language model for likelihood_ratio and combined."
)
@click.option(
    "--threshold",
    "rate",
    type=click.FloatRange(0.0, 1.0, min_open=True, max_open=True),
    metavar="RATE",
    help="A false-alarm rate on validation sentences: mark anomalies.",
)
@click.option("--reference", metavar="FILE", help="Normal sentences in place of the training set.")
@click.option("--valid", metavar="FILE", help="Normal sentences in place of the validation set.")
@click.option(
    "--samples",
    "num_samples",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="K of the importance-weighted bound.",
)
@options.seed
@click.option("--text-column", help="The column of FILE that holds the text.")
@click.option("--skip-too-long", is_flag=True, help="Leave out what is too long for the model.")
@click.option("--line-buffered", is_flag=True, help="Score each line at once; slower.")
@options.device
@options.as_json
def command(
    arguments: tuple[str, ...],
    kind: str,
    background: str | None,
    rate: float | None,
    reference: str | None,
    valid: str | None,
    num_samples: int,
    seed: int,
    text_column: str | None,
    skip_too_long: bool,
    line_buffered: bool,
    device: str,
    as_json: bool,
) -> None:
    """Score sentences."""
    options.at_most(arguments, 2, "MODEL and FILE")
    where, file = split_model_and_data(arguments)
    _check(kind, background, rate)
    taken = partial(take_stream, file, text_column, may_be_empty=True)
    stream = taken() if distributed.is_first() else OTHERS
    too_long = _Count()
    with distributed.joined():
        vae = options.load(where, device)
        other = None if background is None else options.load(find_model(background), device)

        from textvae.api.score import TOGETHER, score, threshold  # noqa: PLC0415 -- as above
        from textvae.api.score_reference import reference_of  # noqa: PLC0415 -- imports torch, 1.5 s

        together = 1 if line_buffered else TOGETHER
        sentences = share_sentences(stream.sentences, together=together)
        if (first := next(sentences, None)) is not None:
            normal = reference_of(
                vae,
                train=reference,
                valid=valid,
                background=other,
                num_samples=num_samples,
                seed=seed,
                report=log,
            )
            bound = None if rate is None else threshold(vae, normal, rate, by=kind)
            scored = score(
                vae,
                chain([first], sentences),
                normal,
                by=kind,
                background=other,
                source=stream.where,
                skipped=too_long if skip_too_long else None,
                together=together,
            )
            _emit_scores(scored, bound, together, as_json=as_json)
    log_model(where, named=len(arguments) > (file is not None))
    if (blank := stream.blank()) > 0:
        log(f"{stream.where}: {blank:,} blank lines left out")
    if too_long.value:
        log(f"{stream.where}: {too_long.value:,} sentences too long for the model left out")


def _check(kind: str, background: str | None, rate: float | None) -> None:
    if background is not None and kind not in {"likelihood_ratio", "combined"}:
        raise ConfigError(f"--background belongs to likelihood_ratio and combined, not to {kind}")
    if rate is not None and rate != rate:  # no bound of click's catches NaN
        raise ConfigError("--threshold nan: a false-alarm rate is above 0 and below 1")


class _Count:
    """How many sentences were left out: not which, so that memory does not grow."""

    value = 0

    def __call__(self, number: int) -> None:
        self.value += 1


def _emit_scores(
    scored: "Iterable[Scored]", bound: float | None, together: int, *, as_json: bool
) -> None:
    """A line each, handed over `together` at a time."""
    for count, one in enumerate(scored, start=1):
        is_anomaly = None if bound is None else one.score > bound
        if as_json:
            row = {"sentence": one.text, **one._asdict()}
            del row["text"]
            emit_json(row if is_anomaly is None else row | {"strange": is_anomaly})
        else:
            mark = () if is_anomaly is None else ("strange" if is_anomaly else "normal",)
            emit(f"{one.score:.4f}", *mark)
        if count % together == 0:
            flush()
