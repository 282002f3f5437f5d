"""The pretend device refuses what CUDA refuses, and counts what the host pays for."""

import pytest
import torch
from pretend import CUDA, Counts, MixedDevicesError, PretendCuda
from torch import Tensor

from textvae.kernels.sampling import draw


def on_cuda(*shape: int) -> Tensor:
    return torch.ones(*shape).to("cuda")


def test_there_is_a_device_only_while_it_lasts() -> None:
    before = torch.cuda.is_available()
    with PretendCuda():
        assert torch.cuda.is_available()
        assert on_cuda(3).device == CUDA
        assert on_cuda(3).is_cuda
        assert torch.zeros(2, device="cuda").device == CUDA
        assert torch.zeros(2).device.type == "cpu"
    assert torch.cuda.is_available() == before


def test_the_device_of_a_result_is_that_of_its_operands(pretend: PretendCuda) -> None:
    values = on_cuda(3, 5)
    for result in (values + 1, values.t(), values[1], values @ values.t(), values.new_zeros(2)):
        assert result.is_cuda
    assert not values.cpu().is_cuda
    weight = on_cuda(5).requires_grad_()
    (values * weight).sum().backward()
    assert weight.grad is not None
    assert weight.grad.is_cuda


@pytest.mark.parametrize(
    "action",
    [
        lambda values: values + torch.ones(3),
        lambda values: values @ torch.ones(3),
        lambda values: torch.ones(3)[values.long() - 1],
        lambda values: torch.cat([values, torch.ones(1)]),
        lambda values: values.numpy(),
        lambda values: values.data_ptr(),
        lambda values: torch.where(values > 0, torch.ones(3), values),
    ],
)
def test_devices_do_not_mix(pretend: PretendCuda, action: object) -> None:
    assert callable(action)
    with pytest.raises(MixedDevicesError):
        action(on_cuda(3))


def test_numbers_of_no_dimension_are_passed_by_value(pretend: PretendCuda) -> None:
    assert (on_cuda(3) * torch.tensor(2.0)).tolist() == [2.0, 2.0, 2.0]


COUNTED = {
    "addition": (lambda v: v + 1, Counts(1, 0)),
    "view": (lambda v: v.view(3, 1).t(), Counts(0, 0)),
    "empty": (lambda v: torch.empty_like(v), Counts(0, 0)),
    "made on the device": (lambda v: torch.arange(3, device=v.device), Counts(1, 0)),
    "made from numbers": (lambda v: torch.tensor([1.0], device=v.device), Counts(0, 1)),
    "number": (lambda v: float(v[0]), Counts(0, 1)),
    "numbers": (lambda v: v.tolist(), Counts(0, 1)),
    "condition": (lambda v: bool((v > 0).all()), Counts(2, 1)),
    "nonzero": (lambda v: v.nonzero(), Counts(3, 1)),
    "index by a mask": (lambda v: v[v > 0], Counts(5, 1)),
    "index on the host": (lambda v: v[torch.tensor([0])], Counts(1, 1)),
    "copy to the host": (lambda v: v.cpu(), Counts(0, 1)),
    "pageable": (lambda v: torch.ones(1).to(v.device, non_blocking=True), Counts(0, 1)),
    "pinned": (lambda v: torch.ones(1).pin_memory().to(v.device, non_blocking=True), Counts(0, 0)),
    "pinned, blocking": (lambda v: torch.ones(1).pin_memory().to(v.device), Counts(0, 1)),
    "product in float32": (
        lambda v: torch.mm(*[v[None, :1].bfloat16()] * 2, out_dtype=torch.float32),
        Counts(2, 0),
    ),
    "on the host": (lambda v: (torch.ones(3) + 1).nonzero(), Counts(0, 0)),
}


@pytest.mark.parametrize("name", COUNTED)
def test_counts(pretend: PretendCuda, name: str) -> None:
    action, counts = COUNTED[name]
    values = on_cuda(3)
    pretend.reset()
    action(values)  # type: ignore[no-untyped-call]
    assert pretend.counts() == counts


def test_backward_passes_are_counted(pretend: PretendCuda) -> None:
    values = on_cuda(3).requires_grad_()
    total = values.exp().sum()
    pretend.reset()
    total.backward()
    assert pretend.counts().launches >= 2  # a one, and its product with exp


@pytest.mark.parametrize(("one_buffer", "forwards"), [(True, 1), (False, 5)])
def test_a_gru_is_one_call_of_cudnn(pretend: PretendCuda, one_buffer: bool, forwards: int) -> None:
    rows, size, hidden = 3, 5, 7
    sizes = [3 * hidden * size, 3 * hidden * hidden, 3 * hidden, 3 * hidden]
    shapes = [(3 * hidden, size), (3 * hidden, hidden), (3 * hidden,), (3 * hidden,)]
    buffer = torch.linspace(-0.3, 0.3, sum(sizes)).to("cuda")
    weights = [part.view(shape) for part, shape in zip(buffer.split(sizes), shapes, strict=True)]
    if not one_buffer:
        weights = [weight.clone() for weight in weights]
    weights = [weight.detach().requires_grad_() for weight in weights]
    inputs, initial = on_cuda(rows, 2, size), on_cuda(1, rows, hidden)
    pretend.reset()
    states, _ = torch.gru(inputs, initial, weights, True, 1, 0.0, True, False, True)
    assert pretend.counts() == Counts(forwards, 0)
    assert states.is_cuda
    pretend.reset()
    gradients = torch.autograd.grad(states, weights, torch.ones_like(states))
    assert pretend.operations["cudnn_rnn_backward"] == 2
    assert all(gradient.is_cuda for gradient in gradients)
    weights = [weight.detach().cpu().requires_grad_() for weight in weights]
    host, _ = torch.gru(inputs.cpu(), initial.cpu(), weights, True, 1, 0.0, True, False, True)
    torch.testing.assert_close(states.cpu(), host)
    expected = torch.autograd.grad(host, weights, torch.ones_like(host))
    for left, right in zip(gradients, expected, strict=True):
        torch.testing.assert_close(left.cpu(), right)


def test_lines_are_those_of_the_project(pretend: PretendCuda) -> None:
    draw(on_cuda(2, 5), torch.zeros(2).to("cuda"))
    assert any(line.startswith("kernels/sampling.py:") for line in pretend.launches)


def test_a_graph_repeats_what_was_captured(pretend: PretendCuda) -> None:
    """Memory of the device is read anew; a number of the host stays what it was."""
    memory, total, number = on_cuda(3), torch.zeros(3, device="cuda"), 2.0
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=torch.cuda.graph_pool_handle()):
        product = memory * number
        total += product.view(3, 1).t()[0]
    assert total.tolist() == [0.0] * 3  # nothing is executed yet
    number = 5.0
    memory.fill_(7.0)
    pretend.reset()
    for _ in range(2):
        graph.replay()
    assert pretend.counts() == Counts(2, 0)
    assert product.tolist() == [14.0] * 3
    assert total.tolist() == [28.0] * 3


def test_the_host_cannot_wait_while_a_graph_is_captured(pretend: PretendCuda) -> None:
    values = on_cuda(3)
    with (
        pytest.raises(MixedDevicesError, match="captured"),
        torch.cuda.graph(torch.cuda.CUDAGraph()),
    ):
        float(values[0])
