"""The chunked cross-entropy equals torch's, and its gradients too."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from textvae.kernels import linear_cross_entropy as module
from textvae.kernels.linear_cross_entropy import (
    linear_cross_entropy,
    linear_cross_entropy_reference,
    token_log_likelihood,
)
from textvae.randomness import hashes, key, uniforms

N, D, V = 31, 5, 23


def case(dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    parts = []
    for name, shape in (("x", (N, D)), ("w", (V, D)), ("b", (V,))):
        size = torch.Size(shape).numel()
        parts.append((uniforms(key(2, name), torch.arange(size)).to(dtype) * 4 - 2).view(shape))
    return [*parts, hashes(key(2, "y"), torch.arange(N)) % V]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chunks of several blocks, and last ones that are not full."""
    monkeypatch.setattr(module, "CHUNK_ROWS", 7)
    monkeypatch.setattr(module, "_block_rows", lambda bias: 3)
    monkeypatch.setattr(module, "BLOCK_VALUES", 3 * D)  # of the gradient of the weight


def test_the_total_the_rows_and_the_gradients_equal_those_of_torch() -> None:
    found = []
    for path in (linear_cross_entropy, linear_cross_entropy_reference):
        *leaves, targets = case()
        for leaf in leaves:
            leaf.requires_grad_()
        result = path(*leaves, targets)
        gradients = torch.autograd.grad(result.total * 1.7, leaves)
        assert not result.rows.requires_grad
        found.append([result.total.detach(), result.rows, *gradients])
    for fast, plain in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-12, atol=1e-12)


def test_log_likelihoods_are_minus_the_rows() -> None:
    *parts, targets = case()
    rows = linear_cross_entropy(*parts, targets).rows
    found = token_log_likelihood(*parts, targets, dtype=torch.float64)
    torch.testing.assert_close(found, -rows, rtol=1e-12, atol=1e-12)


def test_a_second_backward_is_refused_and_not_wrong() -> None:
    *leaves, targets = case()
    leaves[0].requires_grad_()
    total = linear_cross_entropy(*leaves, targets).total
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="earlier backward"):
        total.backward()


def test_no_rows_have_no_gradient() -> None:
    *leaves, targets = case()
    weight = leaves[1].requires_grad_()
    linear_cross_entropy(leaves[0][:0], weight, leaves[2], targets[:0]).total.backward()
    assert weight.grad is not None
    assert not weight.grad.any()


def test_huge_logits_stay_finite() -> None:
    features, weight, bias, targets = case(torch.float32)
    rows = linear_cross_entropy(features * 1e4, weight, bias, targets).rows
    exact = linear_cross_entropy_reference(
        features.double() * 1e4, weight.double(), bias.double(), targets
    )
    torch.testing.assert_close(rows.double(), exact.rows, rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("low_rows", [8, 64])  # several chunks of N rows, and one
def test_bfloat16_products_change_the_gradients_by_less_than_a_hundredth(
    monkeypatch: pytest.MonkeyPatch, low_rows: int
) -> None:
    monkeypatch.setattr(module, "LOW_ROWS", low_rows)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        *leaves, targets = case(torch.float32)
        for leaf in leaves:
            leaf.requires_grad_()
        weights = torch.linspace(0.5, 2.0, N)
        total = linear_cross_entropy(*leaves, targets, row_weights=weights, dtype=dtype).total
        found.append([total.detach(), *torch.autograd.grad(total, leaves)])
    for exact, low in zip(*found, strict=True):
        assert 0.0 < float((low - exact).norm() / exact.norm()) < 1e-2


def test_the_products_in_bfloat16_have_few_different_shapes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()  # chunks as they are
    rows = set()

    class Shapes(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func.overloadpacket is torch.ops.aten.mm:
                rows.add(tuple(n for n in (*args[0].shape, *args[1].shape) if n not in {D, V}))
            return func(*args, **(kwargs or {}))

    _, weight, bias, _ = case(torch.float32)
    for count in (1, 63, 64, 65, 130, 700, 703, 1100):
        features = torch.ones(count, D, requires_grad=True)
        targets = torch.zeros(count, dtype=torch.int64)
        with Shapes():
            linear_cross_entropy(features, weight, bias, targets, dtype=torch.bfloat16)
    assert {number for numbers in rows for number in numbers} == {64, 128, 192, 384}
