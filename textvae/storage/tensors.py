"""Tensors to safetensors bytes and back: no code is in them; equal tensors are equal bytes."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from textvae.errors import CheckpointError
from textvae.storage.files import regular_size

if TYPE_CHECKING:
    from torch import Tensor

_LARGEST_HEADER = 2**24  # bytes: our largest models have some fifty tensors
Size = Annotated[int, msgspec.Meta(ge=0)]


class _Header(msgspec.Struct):
    """The header's entry for a tensor; `__metadata__` is ignored."""

    shape: list[Size] = []
    data_offsets: tuple[Size, Size] = (0, 0)


def tensors_to_bytes(tensors: "Mapping[str, Tensor]") -> bytes:
    """Safetensors bytes, the same for the same tensors; tied weights become copies."""
    from safetensors.torch import save  # noqa: PLC0415 -- costs an import of torch, 1 s

    seen: set[int] = set()
    owned: dict[str, Tensor] = {}
    for name in sorted(tensors):
        tensor = tensors[name].detach().to("cpu").contiguous()
        storage = tensor.untyped_storage()
        # safetensors refuses tensors that share memory; two names for one weight are fine here.
        if storage.data_ptr() in seen:
            tensor = tensor.clone()
        seen.add(storage.data_ptr())
        owned[name] = tensor
    data: bytes = save(owned)
    return data


def tensors_from_bytes(data: bytes, path: Path) -> "dict[str, Tensor]":
    """The tensors of safetensors bytes."""
    from safetensors import SafetensorError  # noqa: PLC0415 -- as above
    from safetensors.torch import load  # noqa: PLC0415 -- as above

    try:
        tensors: dict[str, Tensor] = load(data)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        # A KeyError is a number format that safetensors knows and torch does not.
        reason = ascii(str(error))[1:80]
        raise CheckpointError(f"{path}: not readable as safetensors: {reason}") from None
    return tensors


def tensor_shapes(path: Path, size: int) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors of a safetensors file, from its header: no tensor is read.

    Its first 8 bytes are the length of the JSON that follows, at most 16 MiB, which has to account
    for `size` bytes.
    """
    if (num_bytes := regular_size(path)) != size:
        raise CheckpointError(
            f"{path}: holds {num_bytes} bytes, expected {size}, so the file is cut short"
        )
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > _LARGEST_HEADER:
                raise CheckpointError(
                    f"{path}: not readable as safetensors: a header of {length:,} bytes"
                )
            header = msgspec.json.decode(file.read(length), type=dict[str, _Header])
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise CheckpointError(f"{path}: not readable as safetensors: no header") from None
    header.pop("__metadata__", None)
    end = max((entry.data_offsets[1] for entry in header.values()), default=0)
    if 8 + length + end != size:
        raise CheckpointError(
            f"{path}: not readable as safetensors: its header describes {8 + length + end:,} "
            f"bytes, it holds {size:,}"
        )
    return {name: tuple(entry.shape) for name, entry in header.items()}
