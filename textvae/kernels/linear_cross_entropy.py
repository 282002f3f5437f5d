"""The vocabulary projection and its cross-entropy in one, chunk by chunk.

The projection is most of the arithmetic of a step, and its logits are the largest tensor: the
fast path never holds more than one chunk of them and computes the gradients in the forward pass
while the chunk is in cache. Letters: N rows (targets), D features, V vocabulary.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from textvae.kernels.gru import LOW_ROWS, product_dtype

CHUNK_ROWS = 512
"""Rows of logits held at once; measured on a CPU against 128 to 1600 (docs/log.md)."""


class CrossEntropy(NamedTuple):
    """What `linear_cross_entropy` returns."""

    total: Tensor
    """Scalar, nats, summed over rows; carries the gradient."""
    rows: Tensor
    """`[N]` nats a row, detached."""


def linear_cross_entropy_reference(
    features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor
) -> CrossEntropy:
    """-log softmax(features @ weight.T + bias)[target] by the plain path; shapes as below."""
    rows = F.cross_entropy(F.linear(features, weight, bias), targets, reduction="none")
    return CrossEntropy(rows.sum(), rows.detach())


def linear_cross_entropy(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets: Tensor,
    *,
    row_weights: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> CrossEntropy:
    """-log softmax(features @ weight.T + bias)[target], summed and by row.

    Args:
        features: `[N, D]`, float32 (or float64, which then is the dtype of the products too).
        weight: `[V, D]`.
        bias: `[V]`.
        targets: int64 `[N]`; rows of padding have been taken out.
        row_weights: `[N]`, of the rows in the total, which has a gradient in them too; the rows
            themselves stay as they are. None is 1 for each.
        dtype: of the three products; the softmax is float32 or better whatever it is.
    """
    # asked here, because inside `apply` gradients are always off, and always seem to be needed
    wanted = torch.is_grad_enabled()
    total, rows = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        features, weight, bias, targets, product_dtype(features, dtype), wanted, row_weights
    )
    return CrossEntropy(total, rows)


@torch.no_grad()
def token_log_likelihood(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets: Tensor,
    *,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The log-likelihood of each target, nats, `[N]`, without gradients.

    The arguments are those of `linear_cross_entropy`; it holds one chunk of logits, whatever N.
    """
    dtype = product_dtype(features, dtype)
    result = features.new_empty(features.shape[0])
    for rows, logits, *_ in _chunks(features, weight.to(dtype), bias):
        own = logits.gather(1, targets[rows, None])[:, 0]
        result[rows] = own - _softmax_(logits)
    return result


def vocabulary_logits(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The logits features @ weight.T + bias, in the dtype of the bias.

    `[N, D]`, `[V, D]`, `[V]` -> `[N, V]`; features and weight have the dtype of the product.
    """
    if weight.dtype == bias.dtype:
        return torch.addmm(bias, features, weight.t())
    return torch.mm(features, weight.t()).to(bias.dtype).add_(bias)


def _chunk_rows(count: int, dtype: torch.dtype) -> int:
    """Rows of each chunk of `count`: as equal as can be, and few different numbers where low."""
    size = -(-count // max(1, -(-count // CHUNK_ROWS)))
    return -(-size // LOW_ROWS) * LOW_ROWS if dtype == torch.bfloat16 else size


class _Chunk(NamedTuple):
    """One chunk of rows; its buffers are overwritten by the next."""

    rows: slice
    """Of the features."""
    logits: Tensor
    """`[n, V]` in the dtype of the bias."""
    product: Tensor
    """`[size, V]` in the dtype of the product; `logits` itself where that is the same."""
    features: Tensor
    """`[size, D]` in the dtype of the product; rows above n are zero."""


def _chunks(features: Tensor, weight: Tensor, bias: Tensor) -> Iterator[_Chunk]:
    """Features `[N, D]` a chunk at a time with their logits; the dtype is that of the weight.

    Fresh memory for every chunk is paid in page faults, a tenth of the whole at D 128.
    """
    count, low = features.shape[0], weight.dtype != bias.dtype
    size = _chunk_rows(count, weight.dtype)
    buffer = bias.new_empty(size, weight.shape[0])
    product = weight.new_empty(size, weight.shape[0]) if low else buffer
    padded = weight.new_empty(size, weight.shape[1]) if low else features
    for start in range(0, count, max(1, size)):
        rows = slice(start, min(start + size, count))
        used = rows.stop - start
        if low:
            padded[:used].copy_(features[rows])
            padded[used:].zero_()
            torch.mm(padded, weight.t(), out=product)
            buffer[:used].copy_(product[:used])
            own = padded
        else:
            own, product = features[rows], buffer[:used]
            torch.mm(own, weight.t(), out=product)
        yield _Chunk(rows, buffer[:used].add_(bias), product, own)


def _softmax_(logits: Tensor) -> Tensor:
    """Turn logits `[N, V]` into probabilities in place; returns their log-sum-exp `[N]`.

    1,024 rows of 10,000: torch's softmax takes 12 ms, its logsumexp 20, and exp alone 15. The
    log-sum-exp therefore comes from the largest probability, which is at least 1 / V and so
    cannot underflow.
    """
    highest = logits.amax(1)
    torch.softmax(logits, 1, out=logits)
    return highest - logits.amax(1).log_()


class _LinearCrossEntropy(torch.autograd.Function):
    """Gradients of the total in the forward pass; the gradient that comes back is a scalar."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        dtype: torch.dtype,
        needs_gradient: bool,
        row_weights: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        nats = features.new_empty(features.shape[0])
        low_weight = weight.to(dtype)
        if needs_gradient:
            d_features = torch.empty_like(features)
            d_weight = torch.empty_like(weight) if features.shape[0] else torch.zeros_like(weight)
            d_bias = torch.zeros_like(bias)
            if low_weight.dtype != weight.dtype:
                part = torch.empty_like(low_weight)  # of d_weight, from one chunk
                spare = torch.empty_like(weight if features.shape[0] > CHUNK_ROWS else bias)
        for rows, logits, product, chunk in _chunks(features, low_weight, bias):
            target = targets[rows, None]
            own = logits.gather(1, target)[:, 0]
            nats[rows] = _softmax_(logits) - own
            if needs_gradient:
                logits.scatter_add_(1, target, logits.new_full(target.shape, -1.0))
                if row_weights is not None:
                    logits.mul_(row_weights[rows, None])
                d_bias += logits.sum(0)
                beta = float(rows.start > 0)  # the first chunk overwrites what was not cleared
                if product.dtype == d_weight.dtype:
                    torch.mm(logits, low_weight, out=d_features[rows])
                    torch.addmm(d_weight, logits.t(), chunk, beta=beta, out=d_weight)
                else:
                    used = len(logits)
                    product[:used].copy_(logits)
                    product[used:].zero_()
                    d_features[rows] = torch.mm(product, low_weight)[:used]
                    torch.mm(product.t(), chunk, out=part)
                    if beta:
                        d_weight.add_(spare.copy_(part))
                    else:
                        d_weight.copy_(part)
        if needs_gradient:
            # Not save_for_backward: what it keeps is scaled into a copy, and copied again to become
            # the .grad of the largest parameter.
            ctx.gradients = d_features, d_weight, d_bias
        ctx.mark_non_differentiable(nats)
        ctx.nats = None if row_weights is None else nats
        return (nats if row_weights is None else nats * row_weights).sum(), nats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("linear_cross_entropy: its gradients went into an earlier backward")
        found, ctx.gradients = ctx.gradients, None
        d_features, d_weight, d_bias = (gradient.mul_(gradients[0]) for gradient in found)
        del found
        d_row_weights = None if ctx.nats is None else ctx.nats * gradients[0]
        return d_features, d_weight, d_bias, None, None, None, d_row_weights
