"""The fast recurrence equals torch's own GRU, forwards and backwards."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from textvae.kernels.gru import (
    GRUWeights,
    gru_expanded,
    gru_reference,
    gru_sequence,
    gru_step,
    gru_words,
    project_inputs,
)
from textvae.randomness import hashes, key, uniforms

B, T, E, H, C, K = 3, 7, 5, 11, 2, 13
Path = Callable[[Tensor, Tensor, GRUWeights, Tensor | None], Tensor]


def numbers(name: str, *shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    size = torch.Size(shape).numel()
    flat = uniforms(key(1, name), torch.arange(size)).to(dtype) - 0.5
    return flat.view(shape)


def layer(dtype: torch.dtype = torch.float64, condition: bool = True) -> GRUWeights:
    return GRUWeights(
        numbers("input", 3 * H, E, dtype=dtype),
        numbers("recurrent", 3 * H, H, dtype=dtype),
        numbers("bias", 3 * H, dtype=dtype),
        numbers("recurrent bias", H, dtype=dtype),
        numbers("condition", 3 * H, C, dtype=dtype) if condition else None,
    )


def assert_alike(paths: tuple[Path, Path], inputs: tuple[int, ...], condition: bool) -> None:
    """Compare the states of two paths from the same leaves, and the gradient of every leaf."""
    results = []
    for path in paths:
        weights = layer(condition=condition)
        leaves = [numbers("x", *inputs), numbers("h", B, H), *(w for w in weights if w is not None)]
        if condition:
            leaves.append(numbers("c", B, C))
        for leaf in leaves:
            leaf.requires_grad_()
        states = path(leaves[0], leaves[1], weights, leaves[-1] if condition else None)
        gradients = torch.autograd.grad((states * numbers("g", B, T, H)).sum(), leaves)
        results.append([states.detach(), *gradients])
    for fast, plain in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("condition", [True, False])
def test_states_and_every_gradient_equal_those_of_torch(condition: bool) -> None:
    assert_alike((gru_sequence, gru_reference), (B, T, E), condition)


@pytest.mark.parametrize("condition", [True, False])
def test_projecting_each_word_once_changes_no_state_and_no_gradient(condition: bool) -> None:
    tokens = hashes(key(3, "tokens"), torch.arange(B * T)).remainder(5).view(B, T)

    def once(embedding: Tensor, h: Tensor, weights: GRUWeights, c: Tensor | None) -> Tensor:
        return gru_words(tokens, embedding, h, weights, c)

    def each(embedding: Tensor, h: Tensor, weights: GRUWeights, c: Tensor | None) -> Tensor:
        return gru_sequence(embedding[tokens], h, weights, c)

    assert_alike((once, each), (17, E), condition)


def test_the_written_gradient_passes_gradcheck() -> None:
    weights = layer()
    leaves = (numbers("x", 2, 3, E), numbers("h", 2, H), weights.recurrent, weights.recurrent_bias)
    for leaf in leaves:
        leaf.requires_grad_()

    def run(x: torch.Tensor, h: torch.Tensor, r: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return gru_sequence(x, h, weights._replace(recurrent=r, recurrent_bias=b, condition=None))

    assert torch.autograd.gradcheck(run, leaves)


def test_bfloat16_products_change_the_gradient_by_less_than_a_hundredth() -> None:
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        weights = layer(torch.float32)
        weights.recurrent.requires_grad_()
        x, h = numbers("x", B, T, E).float(), numbers("h", B, H).float()
        states = gru_sequence(x, h, weights, numbers("c", B, C).float(), dtype=dtype)
        assert states.dtype == torch.float32
        states.square().sum().backward()
        found.append(weights.recurrent.grad)
    exact, low = found
    assert exact is not None
    assert low is not None
    assert 0.0 < float((low - exact).norm() / exact.norm()) < 1e-2


def test_step_by_step_equals_the_sequence() -> None:
    weights, x, c = layer(), numbers("x", B, T, E), numbers("c", B, C)
    state = numbers("h", B, H)
    expected = gru_sequence(x, state, weights, c)
    projected = project_inputs(x, weights, c, dtype=torch.float64)
    for t in range(T):
        state = gru_step(projected[t], state, weights, dtype=torch.float64)
        torch.testing.assert_close(state, expected[:, t])


def test_expanded_states_equal_one_sequence_a_condition() -> None:
    weights, x = layer(), numbers("x", B, T, E)
    c, h = numbers("c", K, B, C), numbers("h", K, B, H)
    projected = project_inputs(
        x, weights._replace(bias=torch.zeros(3 * H).double(), condition=None)
    )
    assert weights.condition is not None
    bias = c @ weights.condition.t() + weights.bias
    found = gru_expanded(projected, bias, h, weights, dtype=torch.float64)
    assert found.shape == (T, K, B, H)
    for k in range(K):
        expected = gru_sequence(x, h[k], weights, c[k])
        torch.testing.assert_close(found[:, k].transpose(0, 1), expected)
