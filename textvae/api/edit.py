"""Sentences edited by arithmetic on their posterior means: analogies, and attribute vectors.

For images and text: White 2016 (attribute vectors, there "smile vectors"), Bowman et al. 2016.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Unpack

import msgspec
import torch
from torch import Tensor

from textvae.api.latent_file import LARGEST
from textvae.api.latent_space import TOGETHER, posteriors, sentences_at_conditions
from textvae.api.text_vae import TextVAE
from textvae.data.rows import RowCounts, TooLong
from textvae.errors import ConfigError, DataError
from textvae.generate.neighbors import AggregateMoments
from textvae.generate.options import Decoding
from textvae.run.model_directory import weights_sha256
from textvae.storage.files import open_to_read, write_file

MAX_FILE_BYTES = 2**20
"""The most of a vector file: 4,096 numbers take a tenth."""


class AttributeVector(NamedTuple):
    """The difference of two mean latents, which changes an attribute."""

    vector: Tensor
    """Float32 `[Z]`, on the CPU."""
    num_from: int
    """Sentences without the attribute it was estimated from."""
    num_to: int
    """Sentences with it."""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    """The JSON file of a vector."""

    vector: list[float]
    num_from: int
    num_to: int
    weights_sha256: str


def analogies(
    vae: TextVAE,
    triples: Iterable[Sequence[str]],
    *,
    source: str = "the sentences given",
    label: str | None = None,
    **decoding: Unpack[Decoding],
) -> Iterator[str]:
    """The sentences that the decoder writes at a - b + c, for a stream of triples (a, b, c).

    c, changed as b would have to be to become a (Mikolov et al. 2013, of words).

    Args:
        vae: the model.
        triples: three sentences each; their posterior means are a, b and c.
        source: where they are from, for errors.
        label: of the results, of a model with labels; None is the likeliest of each c.
        decoding: how words are chosen, by default greedily; see `textvae.Decoding`.

    Raises:
        DataError: as `posteriors`; a triple of another number.
        ConfigError: as `sentences_at`.
    """

    def flat() -> Iterator[str]:
        for number, triple in enumerate(triples, start=1):
            if len(triple) != 3 or isinstance(triple, str):
                raise DataError(
                    f"{source}: an analogy takes 3 sentences, number {number} has {len(triple)}"
                )
            if not all(map(str.strip, triple)):
                raise DataError(f"{source}: a sentence of analogy {number} is blank")
            yield from triple

    def latents() -> Iterator[tuple[Tensor, str | Sequence[str] | None]]:
        parts = posteriors(
            vae, flat(), source=source, too_long="refuse", together=3 * (TOGETHER // 3)
        )
        for part in parts:
            first, second, third = part.posterior.mean.view(-1, 3, vae.config.latent_dim).unbind(1)
            yield first - second + third, label or vae.likeliest_labels(part.texts[2::3])

    yield from sentences_at_conditions(vae, latents(), **decoding)


def attribute_vector(
    vae: TextVAE,
    without: Iterable[str],
    having: Iterable[str],
    *,
    sources: tuple[str, str] = ("the sentences without", "the sentences with"),
    too_long: TooLong = "drop",
    counts: RowCounts | None = None,
) -> AttributeVector:
    """The mean latent of sentences with an attribute, minus that of sentences without it.

    Where the attribute goes along with others in these sentences, the vector changes those too.

    Args:
        vae: the model.
        without: sentences, as a stream.
        having: sentences, as a stream.
        sources: where the two are from, for errors.
        too_long: as for `posteriors`.
        counts: likewise.

    Raises:
        DataError: as `posteriors`; no sentences on one side.
    """
    means, sizes = [], []
    for sentences, source in zip((without, having), sources, strict=True):
        moments, count = AggregateMoments(), 0
        for part in posteriors(vae, sentences, source=source, too_long=too_long, counts=counts):
            moments.add(part.posterior)
            count += len(part.texts)
        if not count:
            raise DataError(f"{source}: holds no sentence that the model takes")
        means.append(moments.mean)
        sizes.append(count)
    return AttributeVector((means[1] - means[0]).float(), *sizes)


def edit(
    vae: TextVAE,
    sentences: Iterable[str],
    vector: Tensor,
    *,
    strength: float = 1.0,
    source: str = "the sentences given",
    label: str | None = None,
    **decoding: Unpack[Decoding],
) -> Iterator[str]:
    """The sentences that the decoder writes at posterior means plus strength times a vector.

    Args:
        vae: the model.
        sentences: any number of them.
        vector: `[Z]`, such as that of `attribute_vector`.
        strength: how far to go; 0 reconstructs, below 0 goes the other way.
        source: where the sentences are from, for errors.
        label: of the results, of a model with labels; None is the likeliest of each sentence.
        decoding: how words are chosen, by default greedily; see `textvae.Decoding`.

    Raises:
        DataError: as `posteriors`; a vector of another dimension.
        ConfigError: a strength that is not finite or takes the latents beyond 1e6.
    """
    if vector.shape != (vae.config.latent_dim,):
        raise DataError(
            f"a vector of shape {tuple(vector.shape)}: this model takes ({vae.config.latent_dim},)"
        )
    step = strength * vector.double()
    if not bool((step.abs() <= LARGEST).all()):
        raise ConfigError(f"--strength {strength:g}: takes the latents beyond {LARGEST:g}")
    step = step.float().to(vae.device)
    parts = (
        (part.posterior.mean + step, label or vae.likeliest_labels(part.texts))
        for part in posteriors(vae, sentences, source=source, too_long="refuse")
    )
    yield from sentences_at_conditions(vae, parts, **decoding)


def save_vector(path: Path, vae: TextVAE, vector: AttributeVector) -> None:
    """Write a vector as JSON, with the checksum of the weights whose latent space it lies in.

    Raises:
        DataError: another suffix than .json.
        CheckpointError: the file cannot be written; an old one is untouched.
    """
    check_vector_name(path)
    content = _File(
        vector.vector.tolist(), vector.num_from, vector.num_to, weights_sha256(vae.model)
    )
    write_file(path, msgspec.json.format(msgspec.json.encode(content)) + b"\n")


def check_vector_name(path: Path) -> None:
    """Refuse a file for a vector that is not called .json; DataError."""
    if path.suffix.lower() != ".json":
        raise DataError(f"{path}: a vector is a file named .json; name it so")


def load_vector(path: Path, vae: TextVAE) -> AttributeVector:
    """Read a vector that `save_vector` wrote for the same model.

    Raises:
        DataError: no such file, no vector, one of another model, or numbers out of bounds.
    """
    with open_to_read(path) as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise DataError(f"{path}: is no vector: it has over {MAX_FILE_BYTES:,} bytes")
    try:
        content = msgspec.json.decode(data, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path}: is no vector: {error}") from None
    vector = torch.tensor(content.vector, dtype=torch.float64)
    if vector.shape != (vae.config.latent_dim,):
        raise DataError(
            f"{path}: a vector of {len(vector)} numbers; this model takes {vae.config.latent_dim}"
        )
    if not bool((vector.abs() <= LARGEST).all()):
        raise DataError(f"{path}: holds a number that exceeds {LARGEST:g}")
    if content.weights_sha256 != weights_sha256(vae.model):
        raise DataError(f"{path}: belongs to a model of other weights; estimate it for this one")
    return AttributeVector(vector.float(), content.num_from, content.num_to)
