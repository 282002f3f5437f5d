"""`textvae score`."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from textvae import distributed
from textvae.cli import options
from textvae.cli.arguments import (
    OTHERS,
    find_model,
    share_rows,
    split_model_and_data,
    take_stream,
)
from textvae.cli.terminal import RowWriter, flush, log, log_model
from textvae.data.rows import Exclusion, TooLong
from textvae.errors import ConfigError

MANY_UNKNOWN = 0.1
"""The fraction of unknown tokens above which a warning is given."""

if TYPE_CHECKING:
    from textvae.api.score import Scored
    from textvae.api.token_log_probs import TokenLogProbs


@click.command(
    "score",
    help="""The anomaly score of each sentence of FILE, or of standard input, one a line. Of every
    score, higher is more anomalous. MODEL is a run or model directory; left out, the newest run
    under runs/. FILE has one sentence a line, or is a table; left out, or `-`, standard input, of
    any length in the same memory. One argument alone is the MODEL if it is a directory. The lines
    are those of FILE: an empty one where a row is blank.

    \b
    nll_per_token     the nll (below) over the number of tokens
    combined          nll beyond that of normal sentences as long, and as rare
    nll               -log p(x), by the importance-weighted bound, in nats; an unknown word costs
                      its spelling, by the characters of the training words, besides <unk>
    elbo              the same by the ELBO
    likelihood_ratio  nll minus that of a background model: unigrams, or --background
    kl                of the posterior from the prior
    mahalanobis       how far the posterior mean is from those of training sentences

    The first time, up to 1,000 sentences each of the run's training and validation sets are
    measured, to compare with; they are stored beside the model. A model without its data needs
    --reference.

    --threshold 0.01 adds a tab and `strange` (an anomaly) or `normal` to each line: an anomaly is
    above the score that 1 % of the validation sentences exceed.

    With --json: `sentence`, `row` (of FILE, from 0), `cut` (true for the beginning of one that is
    too long for the model), `score`, `nll`, `kl`, `reconstruction`, `num_tokens`, `num_unknown`
    (words that the model does not know), `percentile` (the percentage of the training sentences
    that score lower) and, with --threshold, `strange`.

    With --json --token-log-probs also, of sentences that are not cut, `tokens` and their
    log-probabilities in nats: `at_mean`, given the posterior mean, and `increments`, what each adds
    to the bound of the text so far, which begins with `latent`: these add up to -nll.""",
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
@options.separator
@options.encoding
@options.too_long("cut")
@click.option("--skip-too-long", is_flag=True, hidden=True)  # the former name of --too-long drop
@click.option(
    "--token-log-probs", is_flag=True, help="With --json: the log-probability of each token, too."
)
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
    separator: str | None,
    encoding: str | None,
    too_long: TooLong,
    skip_too_long: bool,
    token_log_probs: bool,
    line_buffered: bool,
    device: str,
    as_json: bool,
) -> None:
    """Score sentences."""
    options.at_most(arguments, 2, "MODEL and FILE")
    where, file = split_model_and_data(arguments)
    _check(kind, background, rate)
    if token_log_probs and not as_json:
        raise ConfigError("--token-log-probs: goes with --json")
    taken = partial(
        take_stream, file, text_column, separator=separator, encoding=encoding, may_be_empty=True
    )
    stream = taken() if distributed.is_first() else OTHERS
    writer = RowWriter(empty_lines=not as_json, at_once=line_buffered)
    emitted = _Emitted()
    with distributed.joined():
        vae = options.load(where, device)
        other = None if background is None else options.load(find_model(background), device)

        from textvae.api.score import TOGETHER, score, threshold  # noqa: PLC0415 -- as above
        from textvae.api.score_reference import reference_of  # noqa: PLC0415 -- imports torch, 1.5 s

        together = 1 if line_buffered else TOGETHER
        rows = share_rows(stream.rows, together=together)
        head = _through_first_sentence(rows)
        if head and head[-1]:
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
                chain(head, rows),
                normal,
                by=kind,
                background=other,
                source=stream.where,
                too_long="drop" if skip_too_long else too_long,
                counts=writer,
                together=together,
            )
            tokens_of = None
            if token_log_probs:
                tokens_of = partial(vae.token_log_probs, num_samples=num_samples, seed=seed)
            emitted = _emit_scores(scored, bound, together, writer, tokens_of, as_json=as_json)
        else:
            for row in range(len(head)):
                writer.exclude(row, Exclusion.BLANK)
    log_model(where, named=len(arguments) > (file is not None))
    writer.finish(stream.where, vae.config.max_length)
    if vae.spelling is None and emitted.unknown and vae.tokenizer.kind != "bpe":
        log(f"{where}: has no model of spelling; an unknown word costs no more than <unk>")
    if emitted.unknown > MANY_UNKNOWN * emitted.tokens:
        percentage = 100 * emitted.unknown / emitted.tokens
        log(f"{stream.where}: {percentage:.0f} % of the tokens are words unknown to the model")


def _through_first_sentence(rows: Iterator[str]) -> list[str]:
    """Rows up to the first that is not blank: without a sentence, nothing need be measured."""
    head = []
    for text in rows:
        head.append(text)
        if text:
            break
    return head


def _check(kind: str, background: str | None, rate: float | None) -> None:
    if background is not None and kind not in {"likelihood_ratio", "combined"}:
        raise ConfigError(f"--background belongs to likelihood_ratio and combined, not to {kind}")
    if rate is not None and rate != rate:  # no bound of click's catches NaN
        raise ConfigError("--threshold nan: a false-alarm rate is above 0 and below 1")


class _Emitted(NamedTuple):
    """The tokens of the sentences that were scored."""

    tokens: int = 0
    unknown: int = 0


def _emit_scores(
    scored: "Iterable[Scored]",
    bound: float | None,
    together: int,
    writer: RowWriter,
    tokens_of: "Callable[[list[str]], list[TokenLogProbs]] | None",
    *,
    as_json: bool,
) -> _Emitted:
    """A line each, handed over `together` at a time; how many tokens they had."""
    tokens = unknown = 0
    for count, one in enumerate(scored, start=1):
        is_anomaly = None if bound is None else one.score > bound
        if as_json:
            row: dict[str, Any] = {"sentence": one.text, **one._asdict()}
            del row["text"]
            if tokens_of is not None and not one.cut:
                row |= tokens_of([one.text])[0]._asdict()
            writer.emit_json(one.row, row if is_anomaly is None else row | {"strange": is_anomaly})
        else:
            mark = () if is_anomaly is None else ("strange" if is_anomaly else "normal",)
            writer.emit(one.row, f"{one.score:.4f}", *mark)
        tokens, unknown = tokens + one.num_tokens, unknown + one.num_unknown
        if count % together == 0:
            flush()
    return _Emitted(tokens, unknown)
