"""`textvae sample`."""

from typing import Unpack

import click

from textvae import distributed
from textvae.cli import options
from textvae.cli.arguments import find_model, take_sentences
from textvae.cli.terminal import flush, say_which
from textvae.cli.writing import of_all, say, show
from textvae.errors import DataError


@click.command(
    "sample",
    help="""MODEL is a run or model directory; left out, the newest run under runs/.

    Sentence i depends on the seed and on i alone. Words are drawn at temperature 1 unless options
    say otherwise. A model with labels draws each sentence's label from p(y), unless --label is
    given. With --json: `index`, with labels `label`, and `text`; for a beam `rank`,
    `log_likelihood` (nats) and `score`.

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
    **decoding: Unpack[options.Decoding],
) -> None:
    """Write sentences from the prior, or near one."""
    where = find_model(model)
    sentences = [] if near is None else take_sentences([near])
    if len(sentences) > 1:
        raise DataError(f"standard input: holds {len(sentences):,} sentences, --near takes 1")
    strategy = options.strategy_of(decoding, n_best=True)

    from textvae.generate.decoding import ROWS  # noqa: PLC0415 -- imports torch, 1.5 s
    from textvae.generate.latents import sample_latents  # noqa: PLC0415 -- as above
    from textvae.run.conditions import sample_conditions  # noqa: PLC0415 -- as above

    with distributed.joined():
        vae = options.load(where, device)
        latents = sample_latents(
            vae.model.prior,
            num_samples,
            seed=decoding["seed"],
            posterior=vae.encode(sentences) if sentences else None,
            scale=scale,
        )
        drawn = sample_conditions(
            vae,
            latents,
            seed=decoding["seed"],
            near=sentences[0] if sentences else None,
            label=label,
        )
        # Written as they come, so that `| head` ends a long list early.
        for start in range(0, num_samples, ROWS * distributed.size()):
            own = start + ROWS * distributed.rank()
            some = drawn.conditions[own : own + ROWS]
            said = list(say(vae, some, strategy, decoding, first_index=own)) if len(some) else []
            if not start:  # what is wrong with the options has been said, alone
                say_which(where, named=model is not None)
            for index, written in enumerate(of_all(said), start=start):
                facts: dict[str, object] = {"index": index}
                if drawn.labels is not None:
                    facts["label"] = drawn.labels[index]
                show(written, facts, as_json=as_json)
            flush()
