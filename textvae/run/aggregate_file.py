"""The mixture fitted to the aggregate posterior of a model, as files of its directory.

aggregate.safetensors holds the mixture, aggregate.json how it came about. Both are listed in
manifest.json with the weights they belong to: training again publishes a manifest without them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from msgspec import Meta

from textvae.config import Config, decode, encode_json, parse_json
from textvae.errors import CheckpointError, ConfigError
from textvae.model.mixture import GaussianMixture
from textvae.storage.files import write_file
from textvae.storage.manifest import MANIFEST, changed_manifest, check_file, read_manifest
from textvae.storage.tensors import tensors_from_bytes, tensors_to_bytes

if TYPE_CHECKING:
    from torch import Tensor

TENSORS, FACTS = "aggregate.safetensors", "aggregate.json"


class AggregateFacts(Config):
    """How a mixture came about."""

    source: str
    """The sentences."""
    sha256: str
    """Of all sentences of the source."""
    num_fitted: Annotated[int, Meta(ge=1)]
    num_held_out: Annotated[int, Meta(ge=1)]
    covariance: str
    """`full` or `diagonal`."""
    seed: int
    iterations: int
    log_prob: float
    """E_q(z) log mixture(z) on draws from the posteriors held out, nats a latent."""
    gain: float
    """What that is above the prior's."""
    gain_stderr: float


class Aggregate(NamedTuple):
    """The aggregate posterior of a model as a mixture."""

    mixture: GaussianMixture
    facts: AggregateFacts


def aggregate_files(aggregate: Aggregate) -> dict[str, bytes]:
    """The files, by name."""
    return {
        TENSORS: tensors_to_bytes(aggregate.mixture._asdict()),
        FACTS: encode_json(aggregate.facts),
    }


def write_aggregate(path: Path, aggregate: Aggregate) -> None:
    """Put a mixture into a model directory, in place of one that may be there.

    A process killed on the way leaves the model whole, without a mixture: the manifest that lists
    the old one goes first, the one that lists the new one comes last.

    Raises:
        CheckpointError: no whole model there, or it cannot be written.
    """
    files = aggregate_files(aggregate)
    manifest = read_manifest(path)
    if manifest.files.keys() & files.keys():
        write_file(path / MANIFEST, changed_manifest(manifest, remove=files))
    for name, data in files.items():
        write_file(path / name, data)
    write_file(path / MANIFEST, changed_manifest(manifest, add=files))


def read_aggregate(path: Path, *, verify: bool = True) -> Aggregate | None:
    """The mixture of a model directory, or None where none was fitted.

    Args:
        path: the directory.
        verify: compare the files with their checksums.

    Raises:
        CheckpointError: the files are damaged, or are no mixture.
    """
    listed = read_manifest(path).files
    if not {TENSORS, FACTS} <= listed.keys():
        return None
    data = {
        name: check_file(path / name, listed[name], checksum=verify) for name in (TENSORS, FACTS)
    }
    try:
        facts = decode(parse_json(data[FACTS].decode()), AggregateFacts, source=str(path / FACTS))
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path / FACTS}: not JSON, so the file is damaged") from None
    return Aggregate(_mixture(path / TENSORS, data[TENSORS]), facts)


def _mixture(path: Path, data: bytes) -> GaussianMixture:
    """A mixture whose tensors belong together and are finite."""
    tensors: Mapping[str, Tensor] = tensors_from_bytes(data, path)
    if tensors.keys() != set(GaussianMixture._fields):
        raise CheckpointError(f"{path}: is no mixture; fit it again with textvae aggregate")
    found = GaussianMixture(**{name: value.double() for name, value in tensors.items()})
    dims = [value.dim() for value in found] == [1, 2, 3]
    size = found.mean.shape
    shapes = dims and found.log_weights.shape == size[:1] and found.factor.shape == (*size, size[1])
    if not shapes or not all(bool(value.isfinite().all()) for value in found):
        raise CheckpointError(
            f"{path}: shapes or numbers are not those of a mixture; fit it again with textvae "
            "aggregate"
        )
    if bool((found.factor.diagonal(dim1=1, dim2=2) <= 0).any()) or size[0] == 0:
        raise CheckpointError(f"{path}: a covariance has no inverse; fit it again")
    return found
