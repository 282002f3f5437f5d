"""The vocabulary projection and its cross-entropy in one, chunk by chunk.

The projection is most of the arithmetic of a step, and its logits are the largest tensor: the
fast path never holds more than one chunk of them and computes the gradients in the forward pass
while the chunk is in cache. On CUDA, where launches cost more than memory, a chunk is larger and
passed over as a whole. Letters: N rows (targets), D features, V vocabulary.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from textvae.kernels import gru_cuda
from textvae.kernels.gru import LOW_ROWS, product_dtype

CHUNK_ROWS = 512
"""Rows of logits held at once; measured on a CPU against 128 to 1600 (docs/develop/log.md)."""

CUDA_CHUNK_ROWS = 16_384
"""The same on CUDA: 655 MB in float32 at 10,000 words."""

BLOCK_VALUES = 1 << 20
"""About how many values a CPU passes over at once, so that all passes but the first find them in
its cache: softmax and the like of 384 x 10,000 logits take 8.1 ms whole and 4.4 by 128 rows."""


class CrossEntropy(NamedTuple):
    """The result of `linear_cross_entropy`."""

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
        targets: int64 `[N]`; rows of padding have been taken out, or have a weight of 0.
        row_weights: `[N]`, of the rows in the total, which has a gradient in them too; the rows
            themselves stay as they are. None is 1 for each.
        dtype: of the three products; the softmax is float32 or better whatever it is.
    """
    # asked here, because inside `apply` gradients are always off, and always seem to be needed
    needs_gradient = torch.is_grad_enabled()
    function = _LinearCrossEntropyOnCUDA if features.is_cuda else _LinearCrossEntropy
    total, rows = function.apply(  # type: ignore[no-untyped-call]
        features, weight, bias, targets, product_dtype(features, dtype), needs_gradient, row_weights
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
    if features.is_cuda:
        parts = zip(features.split(CUDA_CHUNK_ROWS), targets.split(CUDA_CHUNK_ROWS), strict=True)  # type: ignore[no-untyped-call]
        low = weight.to(dtype)
        nats = [-_nats_on_cuda(rows.to(dtype), low, bias, words)[1] for rows, words in parts]
        return torch.cat(nats)
    result = features.new_empty(features.shape[0])
    for chunk in _chunks(features, weight.to(dtype), bias):
        for rows, logits, _ in _blocks(chunk, bias):
            target_logits = logits.gather(1, targets[rows, None])[:, 0]
            result[rows] = target_logits - _softmax_(logits)
    return result


def vocabulary_logits(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The logits features @ weight.T + bias, in the dtype of the bias.

    `[N, D]`, `[V, D]`, `[V]` -> `[N, V]`; features and weight have the dtype of the product.
    """
    if weight.dtype == bias.dtype:
        return torch.addmm(bias, features, weight.t())
    if features.is_cuda:
        return gru_cuda.product(features, weight.t()).add_(bias)
    return torch.mm(features, weight.t()).to(bias.dtype).add_(bias)


def _chunk_rows(count: int, dtype: torch.dtype) -> int:
    """Rows of each chunk of `count`: as equal as can be, and few different numbers where low."""
    size = -(-count // max(1, -(-count // CHUNK_ROWS)))
    return -(-size // LOW_ROWS) * LOW_ROWS if dtype == torch.bfloat16 else size


class _Chunk(NamedTuple):
    """One chunk of rows; its buffers are overwritten by the next."""

    rows: slice
    """Which rows of the features these are."""
    product: Tensor
    """`[size, V]`, features @ weight.T in the dtype of the product; the rest is padding."""
    features: Tensor
    """`[size, D]` in the dtype of the product; padding is zero."""
    buffer: Tensor
    """`[rows of a block, V]` in the dtype of the bias, for `_blocks`; empty where not needed."""


def _chunks(features: Tensor, weight: Tensor, bias: Tensor) -> Iterator[_Chunk]:
    """Features `[N, D]` a chunk at a time with their products; the dtype is that of the weight.

    Fresh memory for every chunk is paid in page faults, a tenth of the whole at D 128.
    """
    count, low = features.shape[0], weight.dtype != bias.dtype
    size = _chunk_rows(count, weight.dtype)
    product = weight.new_empty(size, weight.shape[0])
    buffer = bias.new_empty(min(size, _block_rows(bias)) if low else 0, weight.shape[0])
    padded = weight.new_empty(size, weight.shape[1]) if low else features
    for start in range(0, count, max(1, size)):
        rows = slice(start, min(start + size, count))
        used = rows.stop - start
        if low:
            padded[:used].copy_(features[rows])
            padded[used:].zero_()
        factors = padded if low else features[rows]
        logits = torch.mm(factors, weight.t(), out=product[: len(factors)])
        yield _Chunk(rows, logits, factors, buffer)


def _block_rows(bias: Tensor) -> int:
    """Rows of `[V]` logits that are passed over together."""
    return max(16, BLOCK_VALUES // len(bias))


def _blocks(chunk: _Chunk, bias: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """The logits of a chunk a few rows at a time, in the dtype of the bias.

    Each time: which rows of the features they are, the logits, and the place of their products,
    which is that of the logits themselves where the dtype is the same.
    """
    first, last = chunk.rows.start, chunk.rows.stop
    step = _block_rows(bias)
    for start in range(first, last, step):
        rows = slice(start, min(start + step, last))
        part = chunk.product[rows.start - first : rows.stop - first]
        logits = part if part.dtype == bias.dtype else chunk.buffer[: len(part)].copy_(part)
        yield rows, logits.add_(bias), part


def _softmax_(logits: Tensor) -> Tensor:
    """Turn logits `[N, V]` into probabilities in place; returns their log-sum-exp `[N]`.

    1,024 rows of 10,000: torch's softmax takes 12 ms, its logsumexp 20, and exp alone 15. The
    log-sum-exp therefore comes from the largest probability, which is at least 1 / V and so
    cannot underflow.
    """
    highest = logits.amax(1)
    torch.softmax(logits, 1, out=logits)
    return highest - logits.amax(1).log_()


def _add_low_(total: Tensor, part: Tensor, beta: float) -> None:
    """Add a part in a lower dtype to the total, or with beta 0 put it in its place."""
    if not beta:
        total.copy_(part)
        return
    step = max(1, BLOCK_VALUES // max(1, total.shape[1]))
    for start in range(0, len(total), step):
        block = total[start : start + step]
        block.add_(part[start : start + step].to(total.dtype))


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
            low = low_weight.dtype != weight.dtype
            d_chunk = torch.empty_like(low_weight) if low else d_weight
        for chunk in _chunks(features, low_weight, bias):
            for rows, logits, product in _blocks(chunk, bias):
                target = targets[rows, None]
                target_logits = logits.gather(1, target)[:, 0]
                nats[rows] = _softmax_(logits) - target_logits
                if needs_gradient:
                    logits.scatter_add_(1, target, logits.new_full(target.shape, -1.0))
                    if row_weights is not None:
                        logits.mul_(row_weights[rows, None])
                    d_bias += logits.sum(0)
                    if low:
                        product.copy_(logits)
            if needs_gradient:
                d_logits, used = chunk.product, chunk.rows.stop - chunk.rows.start
                d_logits[used:].zero_()
                beta = float(chunk.rows.start > 0)  # the first overwrites what was not cleared
                if low:
                    d_features[chunk.rows] = torch.mm(d_logits, low_weight)[:used]
                    torch.mm(d_logits.t(), chunk.features, out=d_chunk)
                    _add_low_(d_weight, d_chunk, beta)
                else:
                    d_logits = d_logits[:used]
                    torch.mm(d_logits, low_weight, out=d_features[chunk.rows])
                    torch.addmm(d_weight, d_logits.t(), chunk.features, beta=beta, out=d_weight)
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
        d_features, d_weight, d_bias = (part.mul_(gradients[0]) for part in _taken(ctx))
        d_row_weights = None if ctx.nats is None else ctx.nats * gradients[0]
        return d_features, d_weight, d_bias, None, None, None, d_row_weights


class _LinearCrossEntropyOnCUDA(torch.autograd.Function):
    """The same in few launches, whole chunks at a time."""

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
        low_features, low_weight = features.to(dtype), weight.to(dtype)
        nats, gradients = [], []
        for start in range(0, max(1, len(features)), CUDA_CHUNK_ROWS):
            rows = slice(start, start + CUDA_CHUNK_ROWS)
            logits, chunk_nats = _nats_on_cuda(low_features[rows], low_weight, bias, targets[rows])
            nats.append(chunk_nats)
            if needs_gradient:
                d_logits = logits.exp_().scatter_(1, targets[rows, None], -1.0, reduce="add")
                if row_weights is not None:
                    d_logits.mul_(row_weights[rows, None])
                d_bias, d_low = d_logits.sum(0), d_logits.to(dtype)
                d_weight = gru_cuda.product(d_low.t(), low_features[rows])
                gradients.append((gru_cuda.product(d_low, low_weight), d_weight, d_bias))
        all_nats = nats[0] if len(nats) == 1 else torch.cat(nats)
        ctx.gradients = _joined(gradients) if needs_gradient else None
        ctx.mark_non_differentiable(all_nats)
        ctx.nats = all_nats if row_weights is not None and row_weights.requires_grad else None
        return all_nats.sum() if row_weights is None else torch.dot(all_nats, row_weights), all_nats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        scaled = torch._foreach_mul(list(_taken(ctx)), gradients[0])
        d_row_weights = None if ctx.nats is None else ctx.nats * gradients[0]
        return *scaled, None, None, None, d_row_weights


def _nats_on_cuda(
    features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of all words `[N, V]`, and minus those of the targets `[N]`."""
    logits = vocabulary_logits(features, weight, bias).log_softmax(1)
    return logits, F.nll_loss(logits, targets, reduction="none")


def _joined(chunks: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, ...]:
    """The gradients of the features, the weight and the bias from those of the chunks."""
    if len(chunks) == 1:
        return chunks[0]
    d_features, d_weights, d_biases = zip(*chunks, strict=True)
    return torch.cat(d_features), torch.stack(d_weights).sum(0), torch.stack(d_biases).sum(0)


def _taken(ctx: Any) -> tuple[Tensor, ...]:
    """The gradients that forward has left, which can be used once."""
    if ctx.gradients is None:
        raise RuntimeError("linear_cross_entropy: its gradients went into an earlier backward")
    gradients: tuple[Tensor, ...] = ctx.gradients
    ctx.gradients = None
    return gradients
