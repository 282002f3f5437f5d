"""A GRU over whole sequences: fast paths for CPUs and CUDA beside the plain one, and single steps.

The equations are those of torch.nn.GRU (Cho et al. 2014, with the reset gate after the product):

    r, u = sigmoid(x W_r + h R_r + c C_r + b_r), and the same with u
    n    = tanh(x W_n + c C_n + b_n + r * (h R_n + b'_n))
    h'   = n + u * (h - n)

where c is a condition that is constant over a sentence, so that on a CPU c C enters once per
sentence as a bias of the gates. Letters: B sentences, T positions, E inputs, H units, C condition.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from textvae.kernels import gru_cuda

LOW_ROWS = 64
"""Where the rows of a product in bfloat16 can be of any number, they are padded to a multiple of
this. oneDNN generates code for each shape of a product: 480 rows of 512 features by 10,000 words
take 5 ms in a shape met before, and up to 30 in a new one (docs/develop/log.md)."""

_MINUS_ONE = torch.tensor(-1.0, device="cpu")  # whatever the default device was then


class GRUWeights(NamedTuple):
    """The parameters of one layer; gates are stacked in the order r, u, n."""

    input: Tensor
    """`[3H, E]`."""
    recurrent: Tensor
    """`[3H, H]`."""
    bias: Tensor
    """`[3H]`, outside the reset gate."""
    recurrent_bias: Tensor
    """`[H]`, of n, inside the reset gate."""
    condition: Tensor | None = None
    """`[3H, C]`, or None for a layer without a condition."""


def gru_reference(
    inputs: Tensor, initial: Tensor, weights: GRUWeights, condition: Tensor | None = None
) -> Tensor:
    """The plain path: torch's own GRU on inputs with the condition concatenated.

    Args:
        inputs: `[B, T, E]`.
        initial: `[B, H]`.
        weights: of the layer, in the dtype of the inputs.
        condition: `[B, C]` if the layer has condition weights.

    Returns:
        The states `[B, T, H]` after each position.
    """
    input_weight = weights.input
    if condition is not None and weights.condition is not None:
        repeated = condition[:, None].expand(-1, inputs.shape[1], -1)
        inputs = torch.cat([inputs, repeated], dim=2)
        input_weight = torch.cat([weights.input, weights.condition], dim=1)
    hidden_bias = torch.cat(
        [torch.zeros_like(weights.bias[: 2 * initial.shape[1]]), weights.recurrent_bias]
    )
    flat = [input_weight, weights.recurrent, weights.bias, hidden_bias]
    states, _ = torch.gru(
        inputs, initial[None].contiguous(), flat, True, 1, 0.0, False, False, True
    )
    return states


def gru_sequence(
    inputs: Tensor,
    initial: Tensor,
    weights: GRUWeights,
    condition: Tensor | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The states `[B, T, H]` of a layer, with products in `dtype`; arguments of `gru_reference`.

    The state, the gates and their gradients stay in the dtype of the inputs; only the products
    change. On CUDA this is cuDNN (`gru_cuda.py`).
    """
    if inputs.is_cuda:
        time_first = inputs.transpose(0, 1)
        condition_weight = None
        if condition is not None and weights.condition is not None:
            repeated = condition.expand(inputs.shape[1], -1, -1)
            time_first = torch.cat([time_first, repeated], dim=2)
            condition_weight = weights.condition
        flat = gru_cuda.flat_weights(
            weights.input, condition_weight, weights.recurrent, weights.bias, weights.recurrent_bias
        )
        states = gru_cuda.cudnn_states(time_first.contiguous(), initial, flat, dtype=dtype)
        return states.transpose(0, 1)
    projected = project_inputs(inputs, weights, condition, dtype=dtype)
    return gru_states(projected, initial, weights, dtype=dtype)


def gru_words(
    tokens: Tensor,
    embedding: Tensor,
    initial: Tensor,
    weights: GRUWeights,
    condition: Tensor | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """`gru_sequence` of the embeddings `[V, E]` of tokens `[B, T]`, each word projected once.

    Half the tokens of a batch of 32 sentences repeat another one, and the input projection is a
    tenth of the arithmetic of a step (docs/develop/log.md).
    """
    words, places = torch.unique(tokens.t(), return_inverse=True)
    if dtype == torch.bfloat16:  # few different shapes, see LOW_ROWS; nothing points at the padding
        words = F.pad(words, (0, -len(words) % LOW_ROWS))
    table = low_linear(F.embedding(words, embedding), weights.input, dtype=dtype) + weights.bias
    projected = F.embedding(places, table)
    if condition is not None and weights.condition is not None:
        projected = projected + F.linear(condition, weights.condition)
    return gru_states(projected, initial, weights, dtype=dtype)


def gru_states(
    projected: Tensor, initial: Tensor, weights: GRUWeights, *, dtype: torch.dtype
) -> Tensor:
    """The states `[B, T, H]` from what `project_inputs` returns, `[T, B, 3H]`."""
    states: Tensor = _Recurrence.apply(  # type: ignore[no-untyped-call]
        projected,
        weights.recurrent,
        weights.recurrent_bias,
        initial,
        product_dtype(initial, dtype),
    )
    return states.transpose(0, 1)


def project_inputs(
    inputs: Tensor,
    weights: GRUWeights,
    condition: Tensor | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The part of the gates that does not depend on the state, time first: `[T, B, 3H]`."""
    projected = low_linear(inputs.transpose(0, 1), weights.input, dtype=dtype)
    if condition is not None and weights.condition is not None:
        return projected + F.linear(condition, weights.condition, weights.bias)
    return projected + weights.bias


def product_dtype(values: Tensor, dtype: torch.dtype) -> torch.dtype:
    """The dtype of products: as asked, but float64 values are never multiplied in less."""
    return torch.float64 if values.dtype == torch.float64 else dtype


def low_linear(inputs: Tensor, weight: Tensor, *, dtype: torch.dtype) -> Tensor:
    """`inputs @ weight.T` with the product in `dtype` and the result in the dtype of the inputs."""
    dtype = product_dtype(inputs, dtype)
    if inputs.is_cuda:
        return gru_cuda.linear(inputs, weight, dtype)
    return F.linear(inputs.to(dtype), weight.to(dtype)).to(inputs.dtype)


def step_weights(weights: GRUWeights, *, dtype: torch.dtype) -> GRUWeights:
    """The weights as `gru_step` takes them: cast once for the products of many positions.

    On CUDA both biases are `[3H]` and the first is zero, since the gates have it already.
    """
    matrices = weights.input.to(dtype), weights.recurrent.to(dtype)
    weights = weights._replace(input=matrices[0], recurrent=matrices[1])
    if not weights.bias.is_cuda:
        return weights
    size = weights.recurrent_bias.shape[0]
    recurrent_bias = F.pad(weights.recurrent_bias, (2 * size, 0))
    return weights._replace(bias=torch.zeros_like(weights.bias), recurrent_bias=recurrent_bias)


def gru_step(gates: Tensor, state: Tensor, weights: GRUWeights, *, dtype: torch.dtype) -> Tensor:
    """One position: gates `[B, 3H]` from inputs, condition and bias, state `[B, H]` -> `[B, H]`.

    For writing and scoring, without a gradient; the weights are from `step_weights`.
    """
    if state.is_cuda:
        low = state.to(product_dtype(state, dtype))
        products = gru_cuda.product(low, weights.recurrent.t())
        return gru_cuda.fused_cell(gates, products, state, weights.bias, weights.recurrent_bias)
    size = state.shape[1]
    products = low_linear(state, weights.recurrent, dtype=dtype)
    reset_update = (gates[:, : 2 * size] + products[:, : 2 * size]).sigmoid_()
    new = torch.addcmul(
        gates[:, 2 * size :],
        reset_update[:, :size],
        products[:, 2 * size :] + weights.recurrent_bias,
    )
    return torch.lerp(tanh_(new), state, reset_update[:, size:])


def tanh_(values: Tensor) -> Tensor:
    """The hyperbolic tangent in place, as 2 sigmoid(2x) - 1, without a gradient.

    Torch's own takes 42 microseconds for 32 x 512 values in float32, this 14; the absolute error is
    at most 1.8e-7, torch's 3e-8 (docs/develop/log.md).
    """
    values.mul_(2).sigmoid_()
    return torch.add(_MINUS_ONE, values, alpha=2, out=values)


@torch.no_grad()
def gru_expanded(
    projected: Tensor,
    bias: Tensor,
    initial: Tensor,
    weights: GRUWeights,
    *,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """States for K conditions a sentence, without repeating what the inputs contribute.

    Args:
        projected: `[T, B, 3H]`, from `project_inputs` without a condition.
        bias: `[K, B, 3H]`, the contribution of each condition.
        initial: `[K, B, H]`.
        weights: of the layer.
        dtype: of the products.

    Returns:
        `[T, K, B, H]`; carries no gradient.
    """
    steps, (samples, rows, size) = projected.shape[0], initial.shape
    states = initial.new_empty(steps, samples, rows, size)
    state = initial.reshape(samples * rows, size)
    weights = step_weights(weights, dtype=product_dtype(initial, dtype))
    for t in range(steps):
        gates = (projected[t] + bias).view(samples * rows, 3 * size)
        state = gru_step(gates, state, weights, dtype=dtype)
        states[t] = state.view(samples, rows, size)
    return states


class _Recurrence(torch.autograd.Function):
    """The recurrence with its gradient written out, for projections `[T, B, 3H]`.

    Backward does everything that does not depend on the incoming gradient for all positions at
    once, and the weight gradient as one product after the loop. Measured against autograd and
    against torch.gru in tests/kernels/test_gru.py and docs/develop/log.md.
    """

    @staticmethod
    def forward(
        ctx: Any,
        projected: Tensor,
        recurrent: Tensor,
        recurrent_bias: Tensor,
        initial: Tensor,
        dtype: torch.dtype,
    ) -> Tensor:
        steps, batch, gates = projected.shape
        size = gates // 3
        weight = recurrent.to(dtype)
        transposed = weight.t()
        states = projected.new_empty(steps + 1, batch, size)
        states[0] = initial
        low = states if dtype == states.dtype else torch.empty_like(states, dtype=dtype)
        low[0].copy_(initial)
        reset_update = projected.new_empty(steps, batch, 2 * size)
        new = projected.new_empty(steps, batch, size)
        hidden = projected.new_empty(steps, batch, size)
        products = low.new_empty(batch, gates)
        for t in range(steps):
            torch.mm(low[t], transposed, out=products)
            ru, n, hn = reset_update[t], new[t], hidden[t]
            torch.add(projected[t, :, : 2 * size], products[:, : 2 * size], out=ru).sigmoid_()
            torch.add(products[:, 2 * size :], recurrent_bias, out=hn)
            tanh_(torch.addcmul(projected[t, :, 2 * size :], ru[:, :size], hn, out=n))
            torch.lerp(n, states[t], ru[:, size:], out=states[t + 1])
            if low is not states:
                low[t + 1].copy_(states[t + 1])
        ctx.save_for_backward(weight, states, low, reset_update, new, hidden)
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        weight, states, low, reset_update, new, hidden = ctx.saved_tensors
        steps, batch, size = new.shape
        reset, update = reset_update[..., :size], reset_update[..., size:]
        # The gradient of each product is that of the state times what does not depend on it.
        d_new = (1 - update) * (1 - new * new)
        factors = gradient.new_empty(steps, batch, 3, size)
        torch.mul((hidden * d_new).mul_(reset), 1 - reset, out=factors[:, :, 0])
        torch.mul((states[:-1] - new).mul_(update), 1 - update, out=factors[:, :, 1])
        torch.mul(d_new, reset, out=factors[:, :, 2])
        d_gates = torch.empty_like(factors)
        same = low.dtype == factors.dtype
        d_products = d_gates if same else torch.empty_like(factors, dtype=low.dtype)
        d_states = gradient.new_empty(steps, batch, 1, size)
        d_state = gradient.new_zeros(batch, size)
        for t in range(steps - 1, -1, -1):
            d_state = torch.add(d_state, gradient[t], out=d_states[t, :, 0])
            torch.mul(d_states[t], factors[t], out=d_gates[t])
            if not same:
                d_products[t].copy_(d_gates[t])
            product = torch.mm(d_products[t].view(batch, 3 * size), weight)
            d_state = torch.addcmul(product, d_state, update[t])
        flat = d_products.view(steps * batch, 3 * size)
        d_weight = (flat.t() @ low[:-1].reshape(steps * batch, size)).to(gradient.dtype)
        d_bias = d_gates[:, :, 2].sum((0, 1))
        torch.mul(d_states[:, :, 0], d_new, out=d_gates[:, :, 2])  # outside the reset gate
        return d_gates.view(steps, batch, 3 * size), d_weight, d_bias, d_state, None
