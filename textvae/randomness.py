"""All randomness of the package: pure functions of (seed, purpose, step, example, position).

Every draw hashes its own coordinates with the SplitMix64 finalizer (Steele, Lea and Flood 2014,
"Fast splittable pseudorandom number generators"), in int64 tensor arithmetic that wraps the same
way on a CPU and on CUDA. There is no generator state: a resumed run, another batch size or
another number of processes draws the same numbers, and nothing here touches torch's global stream.

`hash64` and `hashes` are the same function, in plain Python and on tensors: a test compares them.
On CUDA, where each operation on a tensor is a launch, numbers and masks are operations of torch
(`torch.ops.textvae`), which `randomness_triton.py` carries out in one launch each.
"""

import hashlib
import math
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: consecutive counters land far apart
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_SHIFTS = (30, 27, 31)
_ROUNDS = 4  # each of two halves; tests of uniformity pass with one fewer


def signed(value: int) -> int:
    """The int64 with the same bits as an unsigned 64-bit integer."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _finalize(value: int) -> int:
    value &= _MASK
    value = ((value ^ (value >> _SHIFTS[0])) * _MULTIPLIERS[0]) & _MASK
    value = ((value ^ (value >> _SHIFTS[1])) * _MULTIPLIERS[1]) & _MASK
    return value ^ (value >> _SHIFTS[2])


def hash64(key: int, *indices: int) -> int:
    """A pseudo-random unsigned 64-bit integer for integer coordinates under a key."""
    value = key & _MASK
    for index in indices:
        value = _finalize((value ^ _finalize(index + _GOLDEN)) + _GOLDEN)
    return value


def key(seed: int, *purpose: str | int) -> int:
    """An unsigned 64-bit key for a purpose under a seed, such as `key(seed, "posterior", step)`.

    Words are hashed by content (blake2b), so a key does not depend on the order of definitions,
    on the process or on PYTHONHASHSEED.
    """
    numbers = [
        part
        if isinstance(part, int)
        else int.from_bytes(hashlib.blake2b(part.encode(), digest_size=8).digest(), "little")
        for part in purpose
    ]
    return hash64(seed, *numbers)


def _shift_right(value: Tensor, bits: int) -> Tensor:
    """Logical shift: torch's own shift of int64 copies the sign bit."""
    return (value >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mix(value: Tensor) -> Tensor:
    """`_finalize` on an int64 tensor that may be overwritten."""
    for shift, multiplier in zip(_SHIFTS, _MULTIPLIERS, strict=False):
        value.bitwise_xor_(_shift_right(value, shift)).mul_(signed(multiplier))
    return value.bitwise_xor_(_shift_right(value, _SHIFTS[-1]))


def hashes(key: int, *indices: Tensor, lanes: int | None = None) -> Tensor:
    """`hash64` for broadcast index tensors.

    Args:
        key: from `key`.
        *indices: at least one int64 tensor; they broadcast against each other.
        lanes: if given, a last axis of that many further hashes for each index tuple, as if
            `torch.arange(lanes)` had been the last index.

    Returns:
        int64 tensor of the broadcast shape (and `[..., lanes]`), every bit uniform.
    """
    value: Tensor | None = None
    for index in indices:
        mixed = _mix(index.long() + signed(_GOLDEN))
        base = mixed.bitwise_xor_(signed(key)) if value is None else value ^ mixed
        value = _mix(base.add_(signed(_GOLDEN)))
    if value is None:
        raise ValueError("hashes needs at least one index tensor")
    if lanes is None:
        return value
    lane = _mix(torch.arange(lanes, device=value.device) + signed(_GOLDEN))
    return _mix((value[..., None] ^ lane).add_(signed(_GOLDEN)))


KeyedStep = tuple[int, *tuple[Tensor, ...]]
"""A key and the indices that come before all others; see `keyed`."""


def keyed(step: int | Tensor, seed: int, *purpose: str | int) -> KeyedStep:
    """A key and the first index for draws of a step: `uniforms(*keyed(step, seed, "mask"), rows)`.

    The draws are those of `key(seed, *purpose, step)`. A step that is a tensor on a device becomes
    an index, since its value is not known here.
    """
    if isinstance(step, Tensor):
        return key(seed, *purpose), step
    return (key(seed, *purpose, step),)


def uniforms(key: int, *indices: Tensor, lanes: int | None = None) -> Tensor:
    """Float32 uniforms in [0, 1), multiples of 2^-24, for the indices of `hashes`."""
    if lanes is None and indices[0].is_cuda:
        step, *others = _split_step(indices)
        if len(others) <= 2:
            drawn: Tensor = _operations.uniforms(signed(key), step, others)
            return drawn
    return _shift_right(hashes(key, *indices, lanes=lanes), 40).float().mul_(2.0**-24)


def normals(key: int, *indices: Tensor, lanes: int) -> Tensor:
    """Float32 standard normals `[..., lanes]` by the transform of Box and Muller (1958).

    Each hash gives the two uniforms of a pair, and each pair two lanes. The radius uses
    (k + 1) / 2^32, which is never zero, so no draw exceeds sqrt(2 * 32 * log 2) = 6.66.
    """
    if indices[0].is_cuda:
        step, *others = _split_step(indices)
        if len(others) <= 2:
            drawn: Tensor = _operations.normals(signed(key), step, others, lanes)
            return drawn
    bits = hashes(key, *indices, lanes=(lanes + 1) // 2)
    radius = _shift_right(bits, 32).double().add_(1.0).mul_(2.0**-32).log_().mul_(-2.0).sqrt_()
    angle = bits.bitwise_and_((1 << 32) - 1).double().mul_(2.0 * math.pi * 2.0**-32)
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=-1)[..., :lanes].float()


def permutation(key: int, size: int) -> Tensor:
    """A permutation of `range(size)` on the CPU, int64 `[size]`: the order of its hashes."""
    return hashes(key, torch.arange(size)).argsort(stable=True)


def shuffled(key: int, size: int, positions: Tensor) -> Tensor:
    """Where positions of `range(size)` go in a permutation that is nowhere written down, int64.

    A Feistel network over two digits of mixed radix, walked until it is within the range (Black
    and Rogaway 2002, "Ciphers with arbitrary finite domains"): each round adds to one digit a hash
    of the other, which can be undone. Memory and time grow with the positions, not with the size.
    """
    radix = math.isqrt(max(size - 1, 0)) + 1
    height = -(-size // radix)

    def once(values: Tensor) -> Tensor:
        left, right = values // height, values % height
        for number in range(_ROUNDS):
            left = (left + hashes(hash64(key, 2 * number), right) % radix) % radix
            right = (right + hashes(hash64(key, 2 * number + 1), left) % height) % height
        return left * height + right

    places = once(positions)
    while len(outside := (places >= size).nonzero()[:, 0]):
        places[outside] = once(places[outside])
    return places


class Noise(NamedTuple):
    """The source of dropout masks of one training step; None in its place means evaluation."""

    seed: int
    step: int | Tensor
    """A number, or an int64 tensor `[]` on the device for a step that is captured."""
    examples: Tensor
    """int64 `[B]`: the index of each sentence in the corpus."""

    def dropout(self, values: Tensor, rate: float, purpose: str, *, locked: bool = False) -> Tensor:
        """Inverted dropout (Srivastava et al. 2014) of `[B, ..., D]` values.

        Axes between the first and the last are positions, each with a mask of its own; `locked`,
        all of them have the mask of the first (Gal and Ghahramani 2016).
        """
        if rate == 0.0:
            return values
        keyed_step = keyed(self.step, self.seed, "dropout", purpose)
        if values.is_cuda:
            flat = values.reshape(values.shape[0], -1, values.shape[-1])
            positions = LOCKED if locked else EACH
            return _masked(flat, keyed_step, self.examples, rate, positions).view_as(values)
        count = 1 if locked else values[0, ..., 0].numel()
        width, positions_of = values.shape[-1], torch.arange(count, device=values.device)
        indices = self.examples[:, None], positions_of
        mask = _mask(*keyed_step, *indices, like=values, rate=rate)
        between = [1] * (values.dim() - 2) if locked else values.shape[1:-1]
        return values * mask.view(-1, *between, width)

    def drop_types(self, vectors: Tensor, tokens: Tensor, rate: float, purpose: str) -> Tensor:
        """Inverted dropout of whole word types (Gal and Ghahramani 2016).

        A word's vector is zero wherever the word occurs in a sentence, or nowhere in it.

        Args:
            vectors: `[B, T, E]`.
            tokens: `[B, T]`, whose vectors they are.
            rate: the fraction of the types that is dropped.
            purpose: sets these draws apart from others.
        """
        if rate == 0.0:
            return vectors
        keyed_step = keyed(self.step, self.seed, "drop types", purpose)
        if vectors.is_cuda:
            return _masked(vectors, keyed_step, self.examples, rate, TYPES, tokens)
        keep = uniforms(*keyed_step, self.examples[:, None], tokens) >= rate
        return vectors * keep[:, :, None].to(vectors.dtype).mul_(1.0 / (1.0 - rate))

    def drop_weights(self, weight: Tensor, rate: float, purpose: str) -> Tensor:
        """Inverted dropout of the entries of a matrix `[R, C]`, the same for every sentence.

        DropConnect (Wan et al. 2013), as Merity et al. 2018 use it: one mask per step.
        """
        if rate == 0.0:
            return weight
        rows = torch.arange(weight.shape[0], device=weight.device)
        keyed_step = keyed(self.step, self.seed, "drop weights", purpose)
        if weight.is_cuda:
            return _masked(weight[:, None], keyed_step, rows, rate, ROWS)[:, 0]
        return weight * _mask(*keyed_step, rows, like=weight, rate=rate)


def _mask(key: int, *indices: Tensor, like: Tensor, rate: float) -> Tensor:
    """Zeros with probability `rate` and else 1 / (1 - rate), with the last axis of `like`.

    One hash yields four masks of 16 bits, so the rate is rounded to a multiple of 2^-16.
    """
    threshold = _threshold(rate)
    width = like.shape[-1]
    bits = hashes(key, *indices, lanes=(width + 3) // 4)
    keep = bits.view(torch.int16)[..., :width] >= threshold - 32768
    return keep.to(like.dtype).mul_(65536.0 / (65536 - threshold))


def _threshold(rate: float) -> int:
    """A rate of dropout in units of 2^-16; at least one value in 65,536 stays."""
    return min(round(rate * 65536), 65535)


class Draws(NamedTuple):
    """The uniform numbers of B rows, round by round, for rules that may reject a draw."""

    key: int
    """From `key`."""
    indices: Tensor
    """int64 `[B]`: whose numbers these are."""
    positions: Tensor
    """int64 `[B]`: where in the sentence."""

    def uniforms(self, number: int = 0) -> Tensor:
        """Float32 `[B]` in [0, 1) for one round."""
        round_key = hash64(self.key, number) if number else self.key
        return uniforms(round_key, self.indices, self.positions)

    def select(self, rows: Tensor) -> "Draws":
        """The same for some of the rows, int64."""
        return Draws(self.key, self.indices[rows], self.positions[rows])


# Operations of torch, for CUDA: the implementations for CPUs are the references, which the tests
# run in their place, and those for CUDA launch one kernel each.

EACH, LOCKED, ROWS, TYPES = range(4)
"""Masks by row and column of `[I, J, D]`; by row, alike in all columns (hashed as column 0); by
row, of a matrix; of a whole vector, by row and token."""

_library: Any = torch.library.Library("textvae", "DEF")  # type: ignore[no-untyped-call]
_library.define("uniforms(int key, Tensor? step, Tensor[] indices) -> Tensor")
_library.define("normals(int key, Tensor? step, Tensor[] indices, int lanes) -> Tensor")
_library.define(
    "masked(Tensor values, int key, Tensor? step, Tensor rows, Tensor? tokens, float rate, "
    "int kind) -> Tensor"
)
_library.define(
    "replaced(Tensor tokens, int key, Tensor? step, Tensor rows, Tensor? rate, float rate_value, "
    "int by) -> Tensor"
)
_operations: Any = torch.ops.textvae


def replace_words(
    tokens: Tensor, keyed_step: KeyedStep, rows: Tensor, rate: float | Tensor, by: int
) -> Tensor:
    """Replace words of `[B, T]` by another with probability `rate`, but for the first column.

    Args:
        tokens: int64.
        keyed_step: from `keyed`.
        rows: int64 `[B]`, which sentences these are.
        rate: a number, or a tensor `[]` on the device of the tokens.
        by: the id that comes in their place.
    """
    if tokens.is_cuda:
        step = keyed_step[1] if len(keyed_step) > 1 else None
        rates = (rate, 0.0) if isinstance(rate, Tensor) else (None, rate)
        result: Tensor = _operations.replaced(tokens, signed(keyed_step[0]), step, rows, *rates, by)
        return result
    positions = torch.arange(tokens.shape[1]).to(rows)
    dropped = uniforms(*keyed_step, rows[:, None], positions) < rate
    dropped[:, 0] = False
    return tokens.masked_fill(dropped, by)


def _split_step(indices: tuple[Tensor, ...]) -> tuple[Tensor | None, *tuple[Tensor, ...]]:
    """Indices with the step first, or None where there is none: a first one of no dimension."""
    if len(indices) > 1 and indices[0].dim() == 0:
        return indices[0], *indices[1:]
    return None, *indices


def _masked(
    values: Tensor,
    keyed_step: KeyedStep,
    rows: Tensor,
    rate: float,
    kind: int,
    tokens: Tensor | None = None,
) -> Tensor:
    step = keyed_step[1] if len(keyed_step) > 1 else None
    masked: Tensor = _Masked.apply(values, signed(keyed_step[0]), step, rows, tokens, rate, kind)  # type: ignore[no-untyped-call]
    return masked


class _Masked(torch.autograd.Function):
    """Values `[I, J, D]` times a mask, which the gradient is multiplied by too: drawn twice."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        key: int,
        step: Tensor | None,
        rows: Tensor,
        tokens: Tensor | None,
        rate: float,
        kind: int,
    ) -> Tensor:
        ctx.draw = key, step, rows, tokens, rate, kind
        result: Tensor = _operations.masked(values, *ctx.draw)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _operations.masked(gradients[0], *ctx.draw), None, None, None, None, None, None


def _with_step(step: Tensor | None, *indices: Tensor) -> list[Tensor]:
    return list(indices) if step is None else [step, *indices]


def _uniforms_reference(key: int, step: Tensor | None, indices: list[Tensor]) -> Tensor:
    return uniforms(key, *_with_step(step, *indices))


def _normals_reference(key: int, step: Tensor | None, indices: list[Tensor], lanes: int) -> Tensor:
    return normals(key, *_with_step(step, *indices), lanes=lanes)


def _masked_reference(
    values: Tensor,
    key: int,
    step: Tensor | None,
    rows: Tensor,
    tokens: Tensor | None,
    rate: float,
    kind: int,
) -> Tensor:
    if tokens is not None:
        keep = uniforms(key, *_with_step(step, rows[:, None], tokens)) >= rate
        return values * keep[:, :, None].to(values.dtype).mul_(1.0 / (1.0 - rate))
    indices = _with_step(step, rows)
    if kind != ROWS:
        columns = torch.arange(values.shape[1] if kind == EACH else 1, device=values.device)
        indices = _with_step(step, rows[:, None], columns)
    mask = _mask(key, *indices, like=values, rate=rate)
    return values * mask.view(values.shape[0], -1, values.shape[2])


def _replaced_reference(
    tokens: Tensor,
    key: int,
    step: Tensor | None,
    rows: Tensor,
    rate: Tensor | None,
    rate_value: float,
    by: int,
) -> Tensor:
    keyed_step: KeyedStep = (key, *_with_step(step))
    return replace_words(tokens, keyed_step, rows, rate_value if rate is None else rate, by)


def _on_cuda(name: str, *arguments: Any) -> Tensor:
    """Run an operation by its kernel; Triton is imported when the first is called."""
    from textvae import randomness_triton  # noqa: PLC0415 -- there is none without CUDA

    result: Tensor = getattr(randomness_triton, f"launch_{name}")(*arguments)
    return result


_REFERENCES = {
    "uniforms": _uniforms_reference,
    "normals": _normals_reference,
    "masked": _masked_reference,
    "replaced": _replaced_reference,
}
for _name, _reference in _REFERENCES.items():
    _library.impl(_name, _reference, "CPU")
    _library.impl(_name, partial(_on_cuda, _name), "CUDA")
