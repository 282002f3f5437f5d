"""All randomness of the package: pure functions of (seed, purpose, step, example, position).

Every draw hashes its own coordinates with the SplitMix64 finalizer (Steele, Lea and Flood 2014,
"Fast splittable pseudorandom number generators"), in int64 tensor arithmetic that wraps the same
way on a CPU and on CUDA. There is no generator state: a resumed run, another batch size or
another number of processes draws the same numbers, and nothing here touches torch's global stream.

`hash64` and `hashes` are the same function, in plain Python and on tensors: a test compares them.
"""

import hashlib
import math
from typing import NamedTuple

import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: consecutive counters land far apart
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_SHIFTS = (30, 27, 31)
_ROUNDS = 4  # each of two halves; tests of uniformity pass with one fewer


def _signed(value: int) -> int:
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
        value.bitwise_xor_(_shift_right(value, shift)).mul_(_signed(multiplier))
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
        mixed = _mix(index.long() + _signed(_GOLDEN))
        base = mixed.bitwise_xor_(_signed(key)) if value is None else value ^ mixed
        value = _mix(base.add_(_signed(_GOLDEN)))
    if value is None:
        raise ValueError("hashes needs at least one index tensor")
    if lanes is None:
        return value
    lane = _mix(torch.arange(lanes, device=value.device) + _signed(_GOLDEN))
    return _mix((value[..., None] ^ lane).add_(_signed(_GOLDEN)))


def uniforms(key: int, *indices: Tensor, lanes: int | None = None) -> Tensor:
    """Float32 uniforms in [0, 1), multiples of 2^-24, for the indices of `hashes`."""
    return _shift_right(hashes(key, *indices, lanes=lanes), 40).float().mul_(2.0**-24)


def normals(key: int, *indices: Tensor, lanes: int) -> Tensor:
    """Float32 standard normals `[..., lanes]` by the transform of Box and Muller (1958).

    Each hash gives the two uniforms of a pair, and each pair two lanes. The radius uses
    (k + 1) / 2^32, which is never zero, so no draw exceeds sqrt(2 * 32 * log 2) = 6.66.
    """
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

    found = once(positions)
    while len(outside := (found >= size).nonzero()[:, 0]):
        found[outside] = once(found[outside])
    return found


class Noise(NamedTuple):
    """Where dropout masks of one training step come from; `None` in its place means evaluation."""

    seed: int
    step: int
    examples: Tensor
    """int64 `[B]`: the index of each sentence in the corpus."""

    def dropout(self, values: Tensor, rate: float, purpose: str, *, locked: bool = False) -> Tensor:
        """Inverted dropout (Srivastava et al. 2014) of `[B, ..., D]` values.

        Axes between the first and the last are positions, each with a mask of its own; `locked`,
        all of them have the mask of the first (Gal and Ghahramani 2016).
        """
        if rate == 0.0:
            return values
        count = 1 if locked else values[0, ..., 0].numel()
        width, positions = values.shape[-1], torch.arange(count, device=values.device)
        mask_key = key(self.seed, "dropout", purpose, self.step)
        mask = _mask(mask_key, self.examples[:, None], positions, like=values, rate=rate)
        between = [1] * (values.dim() - 2) if locked else values.shape[1:-1]
        return values * mask.view(-1, *between, width)

    def drop_types(self, vectors: Tensor, tokens: Tensor, rate: float, purpose: str) -> Tensor:
        """Inverted dropout of whole word types (Gal and Ghahramani 2016).

        A word's vector is zero wherever the word occurs in a sentence, or nowhere in it.

        Args:
            vectors: `[B, T, E]`.
            tokens: `[B, T]`, whose vectors they are.
            rate: the share of the types that is dropped.
            purpose: sets these draws apart from others.
        """
        if rate == 0.0:
            return vectors
        types_key = key(self.seed, "drop types", purpose, self.step)
        keep = uniforms(types_key, self.examples[:, None], tokens) >= rate
        return vectors * keep[:, :, None].to(vectors.dtype).mul_(1.0 / (1.0 - rate))

    def drop_weights(self, weight: Tensor, rate: float, purpose: str) -> Tensor:
        """Inverted dropout of the entries of a matrix `[R, C]`, the same for every sentence.

        DropConnect (Wan et al. 2013), as Merity et al. 2018 use it: one mask a step.
        """
        if rate == 0.0:
            return weight
        rows = torch.arange(weight.shape[0], device=weight.device)
        mask_key = key(self.seed, "drop weights", purpose, self.step)
        return weight * _mask(mask_key, rows, like=weight, rate=rate)


def _mask(key: int, *indices: Tensor, like: Tensor, rate: float) -> Tensor:
    """Zeros with probability `rate` and else 1 / (1 - rate), with the last axis of `like`.

    One hash yields four masks of 16 bits, so the rate is rounded to a multiple of 2^-16.
    """
    threshold = min(round(rate * 65536), 65535)  # at least one value in 65536 is kept
    width = like.shape[-1]
    bits = hashes(key, *indices, lanes=(width + 3) // 4)
    keep = bits.view(torch.int16)[..., :width] >= threshold - 32768
    return keep.to(like.dtype).mul_(65536.0 / (65536 - threshold))


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
