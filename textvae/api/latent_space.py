"""Streams of sentences to latents and back: memory does not grow with their number."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, Unpack, get_args

from torch import Tensor

from textvae.api.inputs import tokenize_stream
from textvae.api.text_vae import TextVAE
from textvae.data.rows import RowCounts, TooLong
from textvae.errors import ConfigError, DataError
from textvae.generate.neighbors import AggregateMoments, Nearest, Neighbor
from textvae.generate.options import Decoding
from textvae.generate.writing import candidates
from textvae.metrics.likelihood import encode_corpus
from textvae.model.gaussian import DiagonalGaussian
from textvae.run.conditions import decoder_conditions
from textvae.run.model_directory import require_latent

TOGETHER = 2048
"""Sentences encoded in one go, sorted by length among themselves."""

Metric = Literal["euclidean", "scaled", "cosine"]


class EncodedPart(NamedTuple):
    """Consecutive sentences of a stream, with their posteriors."""

    texts: list[str]
    rows: list[int]
    """The row of each in the stream, from 0; rows without a posterior count."""
    cut: list[bool]
    """True for the beginning of a longer text, read without `</s>`."""
    posterior: DiagonalGaussian
    """`[B, Z]`."""


def posteriors(
    vae: TextVAE,
    sentences: Iterable[str],
    *,
    source: str = "the sentences given",
    too_long: TooLong = "cut",
    counts: RowCounts | None = None,
    together: int = TOGETHER,
) -> Iterator[EncodedPart]:
    """The posteriors of a stream of sentences, a part at a time, in its order.

    Args:
        vae: the model.
        sentences: any number of rows; a blank one has no posterior.
        source: where they are from, for errors.
        too_long: what becomes of rows over the model's limit of tokens.
        counts: counts the rows without a result, and those cut or split.
        together: sentences in a part; no effect on the result but rounding (1e-5).

    Raises:
        DataError: with `too_long="refuse"`, a sentence over the limit.
        CheckpointError: the model is a language model.
    """
    require_latent(vae.model, vae.path)
    parts = tokenize_stream(
        vae.tokenizer,
        sentences,
        limit=vae.config.max_length,
        source=source,
        too_long=too_long,
        counts=counts,
        together=together,
    )
    for part in parts:
        if part.error is not None:
            raise part.error
        if part.texts:
            posterior = encode_corpus(vae.model, part.array(vae.tokenizer).to(vae.device))
            yield EncodedPart(part.texts, part.rows, part.cut, posterior)


def sentences_at(
    vae: TextVAE,
    latents: Iterable[Tensor],
    *,
    label: str | None = None,
    **decoding: Unpack[Decoding],
) -> Iterator[str]:
    """A sentence for each latent of a stream.

    Args:
        vae: the model.
        latents: `[any number, Z]` each.
        label: of all of them, as for `TextVAE.decode`.
        decoding: how words are chosen, by default greedily; see `textvae.Decoding`.

    Raises:
        DataError: latents of another dimension.
        ConfigError: a number out of bounds.
    """
    yield from sentences_at_conditions(vae, ((block, label) for block in latents), **decoding)


def sentences_at_conditions(
    vae: TextVAE,
    parts: Iterable[tuple[Tensor, str | Sequence[str] | None]],
    **decoding: Unpack[Decoding],
) -> Iterator[str]:
    """`sentences_at` for latents `[any number, Z]` that each come with a label, or one for all."""
    settings, first = vae.decoding_settings(decoding), 0
    for block, label in parts:
        conditions = decoder_conditions(vae.model, vae.labels, block, label)
        for best in candidates(vae.model, vae.tokenizer, conditions, settings, first_index=first):
            yield best[0].text
        first += block.shape[0]


def neighbors(
    vae: TextVAE,
    sentences: Sequence[str],
    corpus: Iterable[str],
    *,
    size: int = 10,
    metric: Metric = "euclidean",
    source: str = "the corpus",
    too_long: TooLong = "drop",
    counts: RowCounts | None = None,
) -> list[list[Neighbor]]:
    """The sentences of a corpus whose posterior means are nearest to those of some sentences.

    Exact, in one pass over the corpus; memory grows with `sentences` and `size` alone. `euclidean`
    is the default: the prior gives every dimension the same unit, and one that carries nothing has
    means near 0 and so no weight. `scaled` divides by the standard deviation of the aggregate
    posterior of the corpus, for models whose aggregate is far from the prior; it reads the corpus
    twice.

    Args:
        vae: the model.
        sentences: Q of them.
        corpus: rows; blank ones are left out, and for `scaled` it is iterated twice.
        size: how many neighbours each; fewer where the corpus has fewer different sentences.
        metric: `euclidean`, `scaled`, or `cosine`: 1 - cos of the angle between the means.
        source: where the corpus is from, for errors.
        too_long: as for `posteriors`, of the corpus.
        counts: likewise.

    Returns:
        For each sentence, its neighbours, the nearest first.

    Raises:
        DataError: as `posteriors`; nothing in the corpus.
        ConfigError: no neighbours, an unknown metric, or `scaled` on what can be read
            once only.
    """
    if metric not in get_args(Metric):
        raise ConfigError(f"--metric {metric}: must be one of {', '.join(get_args(Metric))}")
    scale = None
    if metric == "scaled":
        if iter(corpus) is corpus:
            raise ConfigError("--metric scaled reads the corpus twice: give a file or a list")
        moments = AggregateMoments()
        for part in posteriors(vae, corpus, source=source, too_long=too_long):
            moments.add(part.posterior)
        scale = moments.deviation
    cosine = metric == "cosine"
    nearest = Nearest(vae.encode(sentences).mean, size, scale, cosine=cosine)
    for part in posteriors(vae, corpus, source=source, too_long=too_long, counts=counts):
        nearest.add(part.texts, part.rows, part.posterior.mean)
    ranked = nearest.ranked()
    if ranked and not ranked[0]:
        raise DataError(f"{source}: holds no sentence that the model takes")
    return ranked
