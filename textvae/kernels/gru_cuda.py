"""The recurrence on CUDA: cuDNN for whole sequences, and ATen's fused cell for one position.

A loop over positions in Python would launch some 13 kernels per position and layer. In bfloat16
the products of cuDNN are in TF32, which rounds less; otherwise they are in float32.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor


class FlatWeights(NamedTuple):
    """The parameters of a layer as cuDNN takes them, in one buffer."""

    input: Tensor
    """`[3H, E + C]`."""
    recurrent: Tensor
    """`[3H, H]`."""
    input_bias: Tensor
    """`[3H]`."""
    recurrent_bias: Tensor
    """`[3H]`, of which only that of the candidate is not zero."""


def cudnn_states(
    inputs: Tensor, initial: Tensor, weights: FlatWeights, *, dtype: torch.dtype
) -> Tensor:
    """The states `[T, B, H]` of inputs `[T, B, E + C]` from initial states `[B, H]`."""
    # a setting of the process, which backward reads too: nothing else here uses cuDNN
    torch.backends.cudnn.rnn.fp32_precision = "tf32" if dtype == torch.bfloat16 else "ieee"  # type: ignore[attr-defined]
    training = torch.is_grad_enabled()
    states, _ = torch.gru(
        inputs, initial[None].contiguous(), list(weights), True, 1, 0.0, training, False, False
    )
    return states


def flat_weights(
    input_weight: Tensor,
    condition_weight: Tensor | None,
    recurrent: Tensor,
    bias: Tensor,
    recurrent_bias: Tensor,
) -> FlatWeights:
    """Put the parameters of a layer into one buffer, in the order in which cuDNN reads them.

    Elsewhere cuDNN would copy them one by one, and warn.
    """
    parts = input_weight, condition_weight, recurrent, bias, recurrent_bias
    return FlatWeights(*_Flatten.apply(*parts))  # type: ignore[no-untyped-call]


class _Flatten(torch.autograd.Function):
    """`flat_weights` in three launches, with a gradient that is made of views."""

    @staticmethod
    def forward(
        ctx: Any,
        input_weight: Tensor,
        condition_weight: Tensor | None,
        recurrent: Tensor,
        bias: Tensor,
        recurrent_bias: Tensor,
    ) -> tuple[Tensor, ...]:
        gates, size = recurrent.shape
        words = input_weight.shape[1]
        width = words + (0 if condition_weight is None else condition_weight.shape[1])
        sizes = [gates * width, gates * size, gates, gates]
        buffer = recurrent.new_empty(sum(sizes))
        flat_input, flat_recurrent, flat_bias, flat_recurrent_bias = buffer.split(sizes)  # type: ignore[no-untyped-call]
        matrices = [input_weight] if condition_weight is None else [input_weight, condition_weight]
        torch.cat(matrices, 1, out=flat_input.view(gates, width))
        zeros = recurrent.new_zeros(2 * size)
        rest = buffer[sizes[0] :]
        torch.cat([recurrent.flatten(), bias, zeros, recurrent_bias], out=rest)
        ctx.words, ctx.has_condition = words, condition_weight is not None
        shaped = flat_input.view(gates, width), flat_recurrent.view(gates, size)
        return *shaped, flat_bias, flat_recurrent_bias

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        d_input, d_recurrent, d_bias, d_recurrent_bias = gradients
        size = d_recurrent.shape[1]
        d_condition = d_input[:, ctx.words :] if ctx.has_condition else None
        d_words = d_input[:, : ctx.words]
        return d_words, d_condition, d_recurrent, d_bias, d_recurrent_bias[2 * size :]


def fused_cell(
    gates: Tensor, products: Tensor, state: Tensor, bias: Tensor, recurrent_bias: Tensor
) -> Tensor:
    """The next state `[B, H]` from gates and products `[B, 3H]`; both biases are `[3H]`."""
    cell = torch.ops.aten._thnn_fused_gru_cell
    new: Tensor = cell(gates, products, state, bias, recurrent_bias)[0]
    return new


def product(left: Tensor, right: Tensor) -> Tensor:
    """`left @ right` in float32 from factors in bfloat16, or in the dtype of both.

    The sum is not rounded to bfloat16 in between.
    """
    if left.dtype == torch.bfloat16:
        return torch.mm(left, right, out_dtype=torch.float32)
    return torch.mm(left, right)


def linear(inputs: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """`inputs @ weight.T` for `[..., E]`, the products in `dtype` and the sum in float32."""
    if dtype == inputs.dtype:
        return torch.nn.functional.linear(inputs, weight)
    result: Tensor = _Linear.apply(inputs, weight, dtype)  # type: ignore[no-untyped-call]
    return result


class _Linear(torch.autograd.Function):
    """A linear map in bfloat16; `torch.mm` with another dtype of the result has no gradient.

    Rows are taken in the order in which they lie in memory, so that the states of cuDNN, time
    first, are not copied.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.time_first = inputs.dim() == 3 and not inputs.is_contiguous()
        rows = _rows(inputs, ctx.time_first).to(dtype)
        low = weight.to(dtype)
        ctx.save_for_backward(rows, low)
        ctx.dtypes = inputs.dtype, weight.dtype
        return _shaped(product(rows, low.t()), inputs.shape, ctx.time_first)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, low = ctx.saved_tensors
        gradient = gradients[0]
        d_rows = _rows(gradient, ctx.time_first).to(low.dtype)
        shape = (*gradient.shape[:-1], low.shape[1])
        d_inputs = _shaped(product(d_rows, low), shape, ctx.time_first)
        d_weight = product(d_rows.t(), rows)
        return d_inputs.to(ctx.dtypes[0]), d_weight.to(ctx.dtypes[1]), None


def _rows(values: Tensor, time_first: bool) -> Tensor:
    return (values.transpose(0, 1) if time_first else values).reshape(-1, values.shape[-1])


def _shaped(rows: Tensor, shape: "torch.Size | tuple[int, ...]", time_first: bool) -> Tensor:
    if not time_first:
        return rows.view(*shape[:-1], -1)
    return rows.view(shape[1], shape[0], -1).transpose(0, 1)
