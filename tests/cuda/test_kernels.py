"""The kernels on CUDA agree with their references: pretended in CI, real by `-m gpu`."""

import math
import warnings

import pytest
import torch
from torch import Tensor

from textvae.kernels.gru import (
    GRUWeights,
    gru_expanded,
    gru_reference,
    gru_sequence,
    gru_step,
    low_linear,
    project_inputs,
    step_weights,
)
from textvae.kernels.linear_cross_entropy import (
    linear_cross_entropy,
    linear_cross_entropy_reference,
    token_log_likelihood,
)
from textvae.kernels.sampling import draw, draw_reference, nucleus, top_k, typical
from textvae.randomness import Draws, Noise, key, normals, uniforms

T, E, C = 7, 5, 3
ROUNDING = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 3e-2}
"""Relative to the largest value, by the dtype of the products."""


def numbers(name: str, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    size = torch.Size(shape).numel()
    return normals(key(1, name), torch.arange(size), lanes=1).to(dtype).view(shape)


def assert_near(left: Tensor, right: Tensor, dtype: torch.dtype) -> None:
    left, right = left.detach().cpu().double(), right.detach().cpu().double()
    scale = max(1.0, float(right.abs().max()))
    assert float((left - right).abs().max()) <= ROUNDING[dtype] * scale


def layer(hidden: int, condition: bool = True) -> GRUWeights:
    shapes = {"input": (3 * hidden, E), "recurrent": (3 * hidden, hidden), "bias": (3 * hidden,)}
    shapes |= {"recurrent_bias": (hidden,)} | ({"condition": (3 * hidden, C)} if condition else {})
    scale = 1.0 / math.sqrt(hidden)
    return GRUWeights(**{name: scale * numbers(name, *shape) for name, shape in shapes.items()})


def moved(weights: GRUWeights, device: torch.device | str, dtype: torch.dtype) -> GRUWeights:
    parts = (part if part is None else part.to(device, dtype) for part in weights)
    return GRUWeights(*(part if part is None else part.requires_grad_() for part in parts))


LAYERS = [
    (11, True, torch.float64),
    (11, False, torch.float64),
    (11, True, torch.float32),
    (11, True, torch.bfloat16),
]
LAYERS_OF_A_GPU = [
    pytest.param(hidden, True, dtype, marks=pytest.mark.gpu)
    for hidden in (128, 256, 320, 512, 640)
    for dtype in (torch.float32, torch.bfloat16)
]


@pytest.mark.parametrize(("hidden", "condition", "dtype"), LAYERS + LAYERS_OF_A_GPU)
def test_cudnn_agrees_with_the_reference_and_its_gradients(
    cuda: torch.device, hidden: int, condition: bool, dtype: torch.dtype
) -> None:
    rows = 3 if hidden < 100 else 32
    values = torch.float64 if dtype == torch.float64 else torch.float32
    results = []
    for device, function in ((cuda, gru_sequence), ("cpu", gru_reference)):
        weights = moved(layer(hidden, condition), device, values)
        leaves = [weight for weight in weights if weight is not None]
        for name, shape in (("x", (rows, T, E)), ("h", (rows, hidden)), ("c", (rows, C))):
            leaves.append(numbers(name, *shape, dtype=values).to(device).requires_grad_())
        inputs, initial, c = leaves[-3:]
        arguments = (inputs, initial, weights, c if condition else None)
        leaves = leaves if condition else leaves[:-1]
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # weights that do not lie as cuDNN wants them
            states = function(*arguments, **({"dtype": dtype} if function is gru_sequence else {}))
        incoming = numbers("g", rows, T, hidden, dtype=values).to(device)
        results.append([states, *torch.autograd.grad(states, leaves, incoming)])
    for left, right in zip(*results, strict=True):
        assert_near(left, right, dtype)


def test_dropout_of_weights_masks_the_recurrent_matrix(cuda: torch.device) -> None:
    results = []
    for device, function in ((cuda, gru_sequence), ("cpu", gru_reference)):
        weights = moved(layer(11), device, torch.float32)
        noise = Noise(1, 2, torch.arange(3, device=device))
        dropped = weights._replace(recurrent=noise.drop_weights(weights.recurrent, 0.5, "w"))
        parts = (numbers(n, *s, dtype=torch.float32).to(device) for n, s in
                 (("x", (3, T, E)), ("h", (3, 11)), ("c", (3, C))))  # fmt: skip
        inputs, initial, condition = parts
        states = function(inputs, initial, dropped, condition)
        results.append([states, *torch.autograd.grad(states.sum(), weights.recurrent)])
    for left, right in zip(*results, strict=True):
        assert_near(left, right, torch.float32)
    assert int((results[0][1] == 0).sum()) > 100


@pytest.mark.parametrize("dtype", ROUNDING)
def test_single_positions_agree_with_the_sequence(cuda: torch.device, dtype: torch.dtype) -> None:
    values = torch.float64 if dtype == torch.float64 else torch.float32
    weights = moved(layer(11), cuda, values)
    inputs, initial, condition = (
        numbers(name, *shape, dtype=values).to(cuda)
        for name, shape in (("x", (3, T, E)), ("h", (3, 11)), ("c", (3, C)))
    )
    with torch.no_grad():
        sequence = gru_sequence(inputs, initial, weights, condition, dtype=dtype)
        gates = project_inputs(inputs, weights, condition, dtype=dtype)
        state, prepared = initial, step_weights(weights, dtype=dtype)
        for position in range(T):
            state = gru_step(gates[position], state, prepared, dtype=dtype)
            assert_near(state, sequence[:, position], dtype)
        projected = project_inputs(inputs, weights, dtype=dtype) - weights.bias
        bias = condition @ weights.condition.t() + weights.bias
        bias, initial = bias.expand(2, -1, -1), initial.expand(2, -1, -1)
        expanded = gru_expanded(projected, bias, initial, weights, dtype=dtype)
    assert_near(expanded[:, 1].transpose(0, 1), sequence, dtype)


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("time_first", [True, False])
def test_a_linear_map_agrees_with_torch(
    cuda: torch.device, dtype: torch.dtype, time_first: bool
) -> None:
    values = torch.float64 if dtype == torch.float64 else torch.float32
    results = []
    for device in (cuda, torch.device("cpu")):
        leaves = [numbers("w", 13, E, dtype=values), numbers("x", 3, T, E, dtype=values)]
        weight, inputs = (leaf.to(device).requires_grad_() for leaf in leaves)
        given = inputs.transpose(0, 1).contiguous().transpose(0, 1) if time_first else inputs
        if device.type == "cpu":
            mapped = torch.nn.functional.linear(given, weight)
        else:
            mapped = low_linear(given, weight, dtype=dtype)
        incoming = numbers("g", 3, T, 13, dtype=values).to(device)
        results.append([mapped, *torch.autograd.grad(mapped, [weight, inputs], incoming)])
    for left, right in zip(*results, strict=True):
        assert_near(left, right, dtype)


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("chunk", [100, 7])
@pytest.mark.parametrize("weighted", [True, False])
def test_the_cross_entropy_agrees_with_torch(
    cuda: torch.device,
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    chunk: int,
    weighted: bool,
) -> None:
    monkeypatch.setattr("textvae.kernels.linear_cross_entropy.CUDA_CHUNK_ROWS", chunk)
    values = torch.float64 if dtype == torch.float64 else torch.float32
    count, words = 31, 23
    targets = torch.arange(count) * 5 % words
    parts = [numbers(n, *s, dtype=values) for n, s in
             (("x", (count, E)), ("w", (words, E)), ("b", (words,)), ("r", (count,)))]  # fmt: skip
    on_cuda, on_cpu = ([p.to(d).requires_grad_() for p in parts] for d in (cuda, "cpu"))
    row_weights = on_cuda[3] if weighted else None
    result = linear_cross_entropy(
        *on_cuda[:3], targets.to(cuda), row_weights=row_weights, dtype=dtype
    )
    plain = linear_cross_entropy_reference(*on_cpu[:3], targets)
    rows = torch.nn.functional.cross_entropy(
        torch.nn.functional.linear(*on_cpu[:3]), targets, reduction="none"
    )
    total = (rows * on_cpu[3]).sum() if weighted else plain.total
    assert_near(result.total, total, dtype)
    assert_near(result.rows, plain.rows, dtype)
    leaves = 4 if weighted else 3
    gradients = torch.autograd.grad(result.total * 1.7, on_cuda[:leaves])
    expected = torch.autograd.grad(total * 1.7, on_cpu[:leaves])
    for left, right in zip(gradients, expected, strict=True):
        assert_near(left, right, dtype)
    likelihoods = token_log_likelihood(*on_cuda[:3], targets.to(cuda), dtype=dtype)
    assert_near(likelihoods, -plain.rows, dtype)


COUNT = 5003


def distribution(words: int, spread: float = 2.0) -> Tensor:
    return (spread * normals(key(1, "logits"), torch.arange(1), lanes=words))[0].softmax(0)


def some_draws(count: int, device: torch.device) -> Draws:
    indices = torch.arange(count).to(device)
    return Draws(key(3, "draws"), indices, torch.zeros_like(indices))


def first_words(p: Tensor, order: Tensor, share: float) -> Tensor:
    """The distribution over the first words of an order with mass of at least a share."""
    ordered = p[order]
    inside = ordered.cumsum(0) - ordered < share * ordered.sum()
    part = torch.zeros_like(p).scatter_(0, order, ordered * inside)
    return part / part.sum()


def expected_distribution(rule: str, p: Tensor) -> Tensor:
    p = p.double()
    if rule == "draw":
        return p
    if rule == "top_k":
        p = p.where(p >= p.sort(descending=True).values[5], 0.0)
        return p / p.sum()
    if rule == "nucleus":
        return first_words(p, p.argsort(descending=True), 0.7)
    return first_words(p, (-p.log() + (p * p.log()).sum()).abs().argsort(), 0.7)


RULES = {
    "draw": lambda p, draws: draw(p, draws.uniforms()),
    "top_k": lambda p, draws: top_k(p, 6, draws),
    "nucleus": lambda p, draws: nucleus(p, 0.7, draws),
    "typical": lambda p, draws: typical(p, 0.7, draws),
}


@pytest.mark.parametrize("words", [13, 1009])
@pytest.mark.parametrize("rule", RULES)
def test_words_are_drawn_from_the_distribution(cuda: torch.device, rule: str, words: int) -> None:
    p = distribution(words)
    drawn = RULES[rule](p.to(cuda).expand(COUNT, -1), some_draws(COUNT, cuda)).cpu()
    expected = expected_distribution(rule, p)
    counts = drawn.bincount(minlength=words).double()
    assert float(counts[expected == 0].sum()) == 0
    mean = expected * COUNT
    rare = mean < 5.0
    counts = torch.cat([counts[~rare], counts[rare].sum()[None]])
    mean = torch.cat([mean[~rare], mean[rare].sum()[None]]).clamp(min=1e-9)
    freedom = len(mean) - 1
    chi_square = float(((counts - mean).square() / mean).sum())
    assert chi_square <= freedom + 5.0 * math.sqrt(2.0 * freedom)  # five standard deviations


def test_a_word_is_that_of_the_cpu_at_the_same_number(cuda: torch.device) -> None:
    p = distribution(1009).expand(COUNT, -1)
    at = uniforms(key(2, "at"), torch.arange(COUNT))
    assert torch.equal(draw(p.to(cuda), at.to(cuda)).cpu(), draw_reference(p, at))


@pytest.mark.parametrize("number", [0.0, 2.0**-24, 1.0 - 2.0**-24])
def test_extreme_numbers_never_reach_a_word_without_probability(
    cuda: torch.device, number: float
) -> None:
    p = distribution(1009).clone()
    p[:3] = p[-4:] = p[100:300] = 0.0
    for words in (p, p * 1e-30):
        rows = words.to(cuda)[None]
        drawn = draw(rows, torch.full((1,), number).to(cuda))
        assert float(rows[0, drawn[0]]) > 0.0


def test_of_equal_words_the_first_belong_to_the_set(cuda: torch.device) -> None:
    p = torch.full((COUNT, 1009), 1.0 / 1009).to(cuda)
    drawn = typical(p, 0.1, some_draws(COUNT, cuda))
    assert drawn.cpu().unique().tolist() == list(range(101))
    p[:, 7] = 5.0 / 1009
    drawn = nucleus(p / p.sum(1, keepdim=True), 0.1, some_draws(COUNT, cuda))
    assert drawn.cpu().unique().tolist() == list(range(98))  # word 7, then 0, 1, 2, ... in turn
