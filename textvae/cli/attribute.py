"""`textvae attribute`."""

import difflib
from collections.abc import Callable, Iterable
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, TypeVar, Unpack

import click

from textvae.cli import options
from textvae.cli.arguments import split_model, take_sentence_stream, take_stream
from textvae.cli.terminal import emit, emit_json, flush, log, log_model
from textvae.data.rows import RowCounts
from textvae.errors import ConfigError, DataError
from textvae.generate.options import Decoding

if TYPE_CHECKING:
    from textvae.api.edit import AttributeVector
    from textvae.api.text_vae import TextVAE
    from textvae.cli.arguments import Stream

T = TypeVar("T")


class Sources(TypedDict):
    """The options that say where the vector comes from."""

    without: str | None
    having: str | None
    data: str | None
    text_column: str | None
    label_column: str | None
    vector: str | None


@click.command(
    "attribute",
    help="""A vector is the mean latent of the sentences of --to minus that of the sentences of
    --from. It is added to the posterior mean of each SENTENCE, --strength times, and the sentence
    that the decoder writes there is one line of stdout; greedily, unless options say otherwise.
    MODEL is a run or model directory; left out, the newest run under runs/. Without sentences, or
    with `-`, they are the lines of standard input.

    --from and --to are files of sentences; or, with --data, two values of its label column.
    A model with labels writes under --label, or the likeliest label of each SENTENCE.

    --output saves the vector as JSON, and then no sentence is needed; --vector uses one that was
    saved, for the same model.

    --least keeps the sentence: a classifier of latents is fitted to both sets, and of candidates
    decoded at several strengths, each with any of its changes undone, the one is written that it
    accepts and that changes the fewest tokens, as in `textvae attribute runs/mine --data
    reviews.csv --from bad --to good --least "the food was cold ."`. How many no candidate was
    accepted for is said at the end.

    With --json: `sentence` and `text`, with --least also `probability`, `accepted`, `num_changed`
    and `strength` (in log-odds); of --output alone, `output`, `num_from`, `num_to` and the
    vector's `norm`.""",
)
@click.argument("arguments", metavar="[MODEL] [SENTENCE]...", nargs=-1)
@click.option("--from", "without", metavar="FILE|VALUE", help="Sentences as they are now.")
@click.option("--to", "having", metavar="FILE|VALUE", help="Sentences as they should become.")
@click.option(
    "--data", metavar="FILE", help="A table with labels, whose values --from and --to are."
)
@click.option("--text-column", help="The column that holds the text.")
@click.option("--label-column", help="The column of --data that holds the labels.")
@click.option("--vector", metavar="FILE", help="A vector that --output wrote.")
@click.option("--output", metavar="FILE", help="Save the vector in a file named .json.")
@click.option(
    "--strength", type=float, default=1.0, show_default=True, help="How far to go; may be negative."
)
@click.option(
    "--least",
    is_flag=True,
    help="Change as little as makes a classifier of latents see the attribute; for models that "
    "keep most of a sentence (train --keep most).",
)
@options.label
@options.decoding
@options.device
@options.as_json
def command(
    arguments: tuple[str, ...],
    without: str | None,
    having: str | None,
    data: str | None,
    text_column: str | None,
    label_column: str | None,
    vector: str | None,
    output: str | None,
    strength: float,
    least: bool,
    label: str | None,
    device: str,
    as_json: bool,
    **decoding: Unpack[Decoding],
) -> None:
    """Change an attribute of sentences."""
    sources = Sources(
        without=without,
        having=having,
        data=data,
        text_column=text_column,
        label_column=label_column,
        vector=vector,
    )
    where, sentences = split_model(arguments)
    edits = bool(sentences) or output is None
    _check(sources, output, stdin=edits and sentences in ([], ["-"]))
    set_options = [vector, output, *(v for name, v in decoding.items() if name != "seed")]
    if least and (strength != 1.0 or any(set_options)):
        raise ConfigError(
            "--least finds the strength and the decoding: leave out --strength, --vector, --output "
            "and options of decoding"
        )
    stream = take_sentence_stream(sentences) if edits else None

    from textvae.api.edit import check_vector_name, edit, save_vector  # noqa: PLC0415 -- torch

    if output is not None:
        check_vector_name(Path(output))
    vae = options.load(where, device)
    if least and stream is not None:
        _edit_least(vae, sources, stream, label, as_json=as_json)
        log_model(where, named=len(sentences) < len(arguments))
        return
    attribute = _vector(vae, sources)
    named = len(sentences) < len(arguments)
    if output is not None:
        save_vector(Path(output), vae, attribute)
    if stream is None:
        log_model(where, named=named)
        _emit_vector(str(output), attribute, as_json=as_json)
        return
    edited, originals = tee(stream.without_blank())
    texts = edit(
        vae,
        edited,
        attribute.vector,
        strength=strength,
        source=stream.where,
        label=label,
        **decoding,
    )
    for number, text in enumerate(texts):
        if number == 0:
            log_model(where, named=named)
        emit_json({"sentence": next(originals), "text": text}) if as_json else emit(text)
    flush()


def _check(sources: Sources, output: str | None, *, stdin: bool) -> None:
    """Options that do not go together; ConfigError. `stdin`: sentences come from there."""
    if [*sources.values(), "-" if stdin else None].count("-") > 1:
        raise ConfigError("standard input is read once: one - at most, or sentences from it")
    ends = (sources["without"], sources["having"])
    if sources["vector"] is not None:
        if any(value is not None for value in (*ends, sources["data"], output)):
            raise ConfigError("--vector is used as it is: leave out --from, --to, --data, --output")
    elif None in ends:
        raise ConfigError("a vector needs --from and --to, or --vector with one that was saved")
    if sources["label_column"] is not None and sources["data"] is None:
        raise ConfigError("--label-column belongs to --data, whose values --from and --to are")


def _vector(vae: "TextVAE", sources: Sources) -> "AttributeVector":
    from textvae.api.edit import attribute_vector, load_vector  # noqa: PLC0415 -- imports torch

    if sources["vector"] is not None:
        return load_vector(Path(sources["vector"]), vae)
    return _estimate(vae, sources, attribute_vector)


def _estimate(vae: "TextVAE", sources: Sources, estimator: Callable[..., T]) -> T:
    """Give both sets to a function of `api`; logs what was left out of them."""
    (first, second), names = _sets(sources)
    counts = RowCounts()
    result = estimator(vae, first, second, sources=names, counts=counts)
    for line in counts.notes(" and ".join(names), vae.config.max_length):
        log(line)
    return result


def _edit_least(
    vae: "TextVAE", sources: Sources, stream: "Stream", label: str | None, *, as_json: bool
) -> None:
    from textvae.api.least_edit import attribute_of, edit_least  # noqa: PLC0415 -- imports torch

    attribute = _estimate(vae, sources, attribute_of)
    count = refused = 0
    for edited in edit_least(
        vae, stream.without_blank(), attribute, label=label, source=stream.where
    ):
        count, refused = count + 1, refused + (not edited.accepted)
        emit_json(edited._asdict()) if as_json else emit(edited.text)
    if refused:
        log(f"{refused:,} of {count:,}: no candidate has the attribute; the nearest is written")
    flush()


def _sets(sources: Sources) -> tuple[tuple[Iterable[str], Iterable[str]], tuple[str, str]]:
    """The sentences without the attribute and with it, and where they are from."""
    without, having = str(sources["without"]), str(sources["having"])
    if sources["data"] is not None:
        streams: tuple[Iterable[str], Iterable[str]] = _by_label(sources, without, having)
        names = (f"{sources['data']}, {without}", f"{sources['data']}, {having}")
    else:
        first, second = (take_stream(name, sources["text_column"]) for name in (without, having))
        streams = (first.without_blank(), second.without_blank())
        names = (first.where, second.where)
    return streams, names


def _by_label(sources: Sources, without: str, having: str) -> tuple[list[str], list[str]]:
    """The sentences of two labels of a table."""
    from textvae.data.corpus import read_sentences  # noqa: PLC0415 -- imports tokenizers

    part = read_sentences(
        str(sources["data"]),
        text_column=sources["text_column"],
        label_column=sources["label_column"],
        split="train",
    )
    if part.labels is None:
        raise DataError(f"{part.source}: has no labels; name their column with --label-column")
    kinds = sorted(set(part.labels) - {""})
    for option, value in (("--from", without), ("--to", having)):
        if value not in kinds:
            near = difflib.get_close_matches(value, kinds, n=1)
            shown = ", ".join(kinds[:12]) + (", ..." if len(kinds) > 12 else "")
            hint = f"did you mean {near[0]!r}?" if near else f"the labels are {shown}"
            raise DataError(f"{option} {value}: no row of {part.source} has that label; {hint}")
    pairs = list(zip(part.texts, part.labels, strict=True))
    first, second = ([text for text, label in pairs if label == v] for v in (without, having))
    return first, second


def _emit_vector(output: str, vector: "AttributeVector", *, as_json: bool) -> None:
    norm = float(vector.vector.norm())
    if as_json:
        counts = {"num_from": vector.num_from, "num_to": vector.num_to}
        emit_json({"output": output} | counts | {"norm": norm})
    else:
        emit(
            f"{output}: a vector of norm {norm:.4f}, from {vector.num_from:,} sentences to "
            f"{vector.num_to:,}"
        )
