"""Tensors to safetensors bytes and back: no code is in them; equal tensors are equal bytes."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from textvae.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor


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
    """The tensors of safetensors bytes.

    Raises:
        CheckpointError: they are none.
    """
    from safetensors import SafetensorError  # noqa: PLC0415 -- as above
    from safetensors.torch import load  # noqa: PLC0415 -- as above

    try:
        tensors: dict[str, Tensor] = load(data)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        # A KeyError is a number format that safetensors knows and torch does not.
        reason = ascii(str(error))[1:80]
        raise CheckpointError(f"{path}: not readable as safetensors: {reason}") from None
    return tensors
