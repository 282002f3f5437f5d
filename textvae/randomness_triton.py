"""The random numbers of `randomness.py` in one Triton kernel; imported where CUDA is used alone.

Each program hashes the coordinates of its values, bit for bit as `randomness.hashes` does, and
applies the draw: a mask to the values it reads, or a number to write. The step may be a tensor on
the device, so that a captured step draws anew each time it is replayed.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

UNIFORMS, NORMALS, MASK, TYPES, WORDS = range(5)
"""Kinds of draws: numbers, masks of 16 bits, masks of word types, words replaced by another."""

NO_INDEX, COLUMN, ZERO, TENSOR = range(4)
"""The second index of a cell `[i, j]`: none, j, 0, or an element of a tensor."""

SECONDS = (COLUMN, ZERO, NO_INDEX)
"""Second indices of the masks EACH, LOCKED and ROWS in `randomness.py`."""

BLOCK = 512


@triton.jit
def _finalize(value):
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB
    return value ^ (value >> 31)


@triton.jit
def _fold(value, index):
    mixed = _finalize(index.to(tl.uint64) + 0x9E3779B97F4A7C15)
    return _finalize((value ^ mixed) + 0x9E3779B97F4A7C15)


@triton.jit(do_not_specialize=["key", "count"])
def _noise(
    out,
    values,
    key,
    step,
    first,
    second,
    rate,
    threshold,
    scale,
    replacement,
    count,
    columns,
    width,
    first_row,
    first_column,
    second_row,
    second_column,
    value_row,
    value_column,
    out_row,
    out_column,
    DRAWN: tl.constexpr,
    HAS_STEP: tl.constexpr,
    SECOND: tl.constexpr,
    RATE_ON_DEVICE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Values `[I, J, D]`, flat; the constants are those above, which a kernel cannot see."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = place < count
    lane = place % width
    cell = place // width
    row, column = cell // columns, cell % columns
    source = values + row * value_row + column * value_column + lane
    target = out + row * out_row + column * out_column + lane
    bits = tl.zeros((BLOCK,), tl.uint64) + key.to(tl.uint64)
    if HAS_STEP:
        bits = _fold(bits, tl.load(step))
    bits = _fold(bits, tl.load(first + row * first_row + column * first_column, mask=there))
    if SECOND == 1:  # COLUMN
        bits = _fold(bits, column)
    if SECOND == 2:  # ZERO
        bits = _fold(bits, column * 0)
    if SECOND == 3:  # TENSOR
        bits = _fold(bits, tl.load(second + row * second_row + column * second_column, mask=there))
    if DRAWN == 2:  # MASK: four masks of 16 bits in a hash
        bits = _fold(bits, lane // 4)
        drawn = (bits >> ((lane % 4) * 16).to(tl.uint64)) & 0xFFFF
        drawn = drawn.to(tl.int32)
        drawn = tl.where(drawn >= 32768, drawn - 65536, drawn)  # as an int16
        factor = tl.where(drawn >= threshold, scale, 0.0)
        value = tl.load(source, mask=there)
        tl.store(target, (value.to(tl.float32) * factor).to(value.dtype), mask=there)
    elif DRAWN == 1:  # NORMALS: of each hash a cosine in the first half of the lanes, and a sine
        half = (width + 1) // 2
        bits = _fold(bits, lane % half)
        radius = ((bits >> 32).to(tl.float64) + 1.0) * 2.3283064365386963e-10  # 2^-32
        radius = tl.sqrt(-2.0 * tl.log(radius))
        angle = (bits & 0xFFFFFFFF).to(tl.float64) * 1.4629180792671596e-09  # 2 pi 2^-32
        value = radius * tl.where(lane < half, tl.cos(angle), tl.sin(angle))
        tl.store(target, value.to(tl.float32), mask=there)
    else:
        uniform = (bits >> 40).to(tl.float32) * 5.9604644775390625e-08  # 2^-24
        limit = rate
        if RATE_ON_DEVICE:
            limit = tl.load(rate).to(tl.float32)
        if DRAWN == 0:  # UNIFORMS
            tl.store(target, uniform, mask=there)
        elif DRAWN == 3:  # TYPES
            value = tl.load(source, mask=there)
            factor = tl.where(uniform >= limit, scale, 0.0)
            tl.store(target, (value.to(tl.float32) * factor).to(value.dtype), mask=there)
        else:
            value = tl.load(source, mask=there)
            dropped = (uniform < limit) & (column > 0)
            tl.store(target, tl.where(dropped, replacement, value), mask=there)


def launch_uniforms(key: int, step: Tensor | None, indices: list[Tensor]) -> Tensor:
    """`randomness.uniforms`; see its operations for the arguments of all of these."""
    first, second, shape = _broadcast(indices)
    out = torch.empty(*first.shape, 1, device=first.device)
    return _launch(UNIFORMS, out, None, key, step, first, second).view(shape)


def launch_normals(key: int, step: Tensor | None, indices: list[Tensor], lanes: int) -> Tensor:
    """`randomness.normals`."""
    first, second, shape = _broadcast(indices)
    out = torch.empty(*first.shape, lanes, device=first.device)
    return _launch(NORMALS, out, None, key, step, first, second).view(*shape, lanes)


def launch_masked(
    values: Tensor,
    key: int,
    step: Tensor | None,
    rows: Tensor,
    tokens: Tensor | None,
    rate: float,
    kind: int,
) -> Tensor:
    """The masks of `randomness.Noise`."""
    values = values if values.stride(-1) == 1 else values.contiguous()
    out = torch.empty_like(values)
    out = out if out.stride(-1) == 1 else torch.empty(values.shape, device=out.device)
    first = rows[:, None].expand(values.shape[:2])
    if tokens is not None:
        scale = 1.0 / (1.0 - rate)
        return _launch(TYPES, out, values, key, step, first, tokens, rate=rate, scale=scale)
    cut = min(round(rate * 65536), 65535)
    settings: dict[str, Any] = {"threshold": cut - 32768, "scale": 65536.0 / (65536 - cut)}
    return _launch(MASK, out, values, key, step, first, SECONDS[kind], **settings)


def launch_replaced(
    tokens: Tensor,
    key: int,
    step: Tensor | None,
    rows: Tensor,
    rate: Tensor | None,
    rate_value: float,
    by: int,
) -> Tensor:
    """`randomness.replace_words`."""
    tokens = tokens.contiguous()
    out, first = torch.empty_like(tokens), rows[:, None].expand(tokens.shape)
    limit = rate_value if rate is None else rate
    settings: dict[str, Any] = {"rate": limit, "replacement": by}
    drawn = _launch(WORDS, out[..., None], tokens[..., None], key, step, first, COLUMN, **settings)
    return drawn[..., 0]


def _broadcast(indices: list[Tensor]) -> tuple[Tensor, Tensor | int, torch.Size]:
    """One or two indices as `[I, J]` without a copy, and their shape."""
    same = torch.broadcast_tensors(*indices)  # type: ignore[no-untyped-call]
    shape = same[0].shape
    flat = [index.expand(1, *shape) if index.dim() < 2 else index.flatten(0, -2) for index in same]
    flat = [index.view(1, 1) if not shape else index for index in flat]
    return flat[0], flat[1] if len(flat) > 1 else NO_INDEX, shape


def _launch(
    drawn: int,
    out: Tensor,
    values: Tensor | None,
    key: int,
    step: Tensor | None,
    first: Tensor,
    second: Tensor | int,
    *,
    rate: float | Tensor = 0.0,
    threshold: int = 0,
    scale: float = 1.0,
    replacement: int = 0,
) -> Tensor:
    """Fill `out` `[I, J, D]` and return it.

    Args:
        drawn: the kind of draw.
        out: the last axis contiguous, others of any strides.
        values: of the shape of `out` and such strides, where there is something to mask.
        key: the int64 with the bits of the key.
        step: int64 `[]`, hashed before the indices; None where the key has it.
        first: int64 `[I, J]`, of any strides.
        second: a further index of the same shape; or NO_INDEX, COLUMN or ZERO.
        rate: below which a uniform drops; a number or a float32 tensor `[]`.
        threshold: of 16 signed bits, from which a mask keeps.
        scale: of what is kept.
        replacement: of a word that is dropped.
    """
    count = out.numel()
    if not count:
        return out
    index = second if isinstance(second, Tensor) else first
    source = out if values is None else values
    with torch.cuda.device(out.device):
        _noise[(triton.cdiv(count, BLOCK),)](
            out,
            source,
            key,
            first if step is None else step,
            first,
            index,
            rate,
            threshold,
            scale,
            replacement,
            count,
            *out.shape[1:],
            *first.stride(),
            *index.stride(),
            *source.stride()[:2],
            *out.stride()[:2],
            DRAWN=drawn,
            HAS_STEP=step is not None,
            SECOND=TENSOR if isinstance(second, Tensor) else second,
            RATE_ON_DEVICE=isinstance(rate, Tensor),
            BLOCK=BLOCK,
            enable_fp_fusion=False,
        )
    return out
