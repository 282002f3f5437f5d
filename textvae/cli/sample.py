"""`textvae sample`."""

from typing import TYPE_CHECKING, Any, Unpack

import click

from textvae import distributed
from textvae.cli import options
from textvae.cli.arguments import find_model, take_sentences
from textvae.cli.terminal import emit, emit_json, flush, log_model
from textvae.errors import DataError
from textvae.generate.options import Decoding

if TYPE_CHECKING:
    from textvae.generate.writing import Sample


@click.command(
    "sample",
    help="""MODEL is a run or model directory; left out, the newest run under runs/.

    Sentence i depends on the seed and on i alone. Words are drawn at temperature 1 unless options
    say otherwise. A model with labels draws each sentence's label from p(y), unless --label is
    given. With --json: `index`, with labels `label`, `text` and `log_prob` (log p(text | latent) in
    nats, by the model without rules and temperature); for a beam also `rank` and `score`.

    With --near the latents are not drawn from the prior but around a sentence: the mean of its
    posterior, plus --scale times its standard deviation times a standard normal draw, in each
    dimension. At 1 that is the posterior itself; at 0 all latents are its mean.""",
)
@click.argument("model", required=False)
@click.option(
    "-n",
    "--num-samples",
    type=options.COUNT,
    default=10,
    show_default=True,
    help="How many sentences.",
)
@click.option("--near", metavar="SENTENCE", help="Draw latents around that of a sentence.")
@click.option(
    "--scale", type=float, help="How far around, in its standard deviations.  [default: 1]"
)
@options.label
@options.decoding
@options.device
@options.as_json
def command(
    model: str | None,
    num_samples: int,
    near: str | None,
    scale: float | None,
    label: str | None,
    device: str,
    as_json: bool,
    **decoding: Unpack[Decoding],
) -> None:
    """Write sentences from the prior, or near one."""
    where = find_model(model)
    sentences = [] if near is None else take_sentences([near])
    if len(sentences) > 1:
        raise DataError(f"standard input: holds {len(sentences):,} sentences, --near takes 1")
    with distributed.joined():
        samples = options.load(where, device).sample_iter(
            num_samples,
            near=sentences[0] if sentences else None,
            scale=scale,
            label=label,
            with_log_probs=as_json,
            **decoding,
        )
        for count, sample in enumerate(samples):
            if not count:  # the options are right: an error would have stood alone
                log_model(where, named=model is not None)
            emit_json(_row(sample)) if as_json else emit(sample.text)
            flush()  # at once, so that `| head` ends a long list early


def _row(sample: "Sample") -> dict[str, Any]:
    row: dict[str, Any] = {
        "index": sample.number,
        "label": sample.label,
        "rank": sample.rank,
        "text": sample.text,
    }
    row |= {"log_prob": sample.log_prob, "score": sample.score}
    return {key: value for key, value in row.items() if value is not None}
