"""What operations cost on CUDA, for the pretend device, and what stands for those of CUDA alone."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

NO_LAUNCH = {
    *("_unsafe_view", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"),
    *("set_", "resize_", "is_same_size", "lift_fresh", "_local_scalar_dense", "is_pinned"),
    *("_pin_memory", "_reshape_alias"),
}
WAITS = {
    *("_local_scalar_dense", "nonzero", "nonzero_numpy", "_unique2", "unique_dim", "equal"),
    *("masked_select", "bincount", "is_nonzero"),
}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
LAUNCHES = {
    **dict.fromkeys(["_foreach_norm", "index_add", "slice_backward", "select_backward"], 2),
    **dict.fromkeys(["nonzero", "nonzero_numpy", "repeat_interleave", "bincount", "topk"], 3),
    **dict.fromkeys(["sort", "argsort", "masked_select", "multinomial", "logsumexp"], 4),
    **{"embedding_dense_backward": 2, "linalg_cholesky_ex": 3, "_unique2": 7, "quantile": 8},
    **{"unique_dim": 9, "_linalg_eigh": 10},
}
"""Kernels of one call on CUDA, estimated from torch's sources, where it is more than one."""
MASKED = 4
"""Kernels of indexing by a mask."""
ACCUMULATED = 8
"""Kernels of `index_put_` with accumulation, which sorts the indices."""
FEW_INDICES = 3072
"""Up to which the gradient of an embedding is one kernel, and zeros before it."""

PATCHES: dict[str, Any] = {
    "is_available": lambda: True,
    "device_count": lambda: 1,
    "is_bf16_supported": lambda including_emulation=True: True,
    "current_device": lambda: 0,
    "set_device": lambda device: None,
    "synchronize": lambda device=None: None,
    "get_device_name": lambda device=None: "pretend",
    "get_device_capability": lambda device=None: (9, 0),
    "is_current_stream_capturing": lambda: False,
    "memory_allocated": lambda device=None: 0,
    "max_memory_allocated": lambda device=None: 0,
    "reset_peak_memory_stats": lambda device=None: None,
    "mem_get_info": lambda device=None: (2**36, 2**37),
    "_lazy_init": lambda: None,
}
"""Functions of `torch.cuda` and what takes their place."""


def _fused_gru_cell(
    gates: Tensor, products: Tensor, state: Tensor, bias: Tensor, recurrent_bias: Tensor
) -> tuple[Tensor, Tensor]:
    r, u, n = (gates + bias).chunk(3, 1)
    hidden_r, hidden_u, hidden_n = (products + recurrent_bias).chunk(3, 1)
    new = (n + (r + hidden_r).sigmoid() * hidden_n).tanh()
    return new + (u + hidden_u).sigmoid() * (state - new), new.new_empty(0)


CUDA_ONLY: dict[str, Callable[..., Any]] = {
    "aten.mm.dtype": lambda a, b, dtype: a.to(dtype) @ b.to(dtype),
    "aten._thnn_fused_gru_cell.default": _fused_gru_cell,
}
"""Operations without an implementation for CPUs."""


def tensors_in(value: object) -> list[Tensor]:
    """All tensors in nested lists, tuples and dicts."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in tensors_in(part)]
    if isinstance(value, dict):
        return [tensor for part in value.values() for tensor in tensors_in(part)]
    return []
