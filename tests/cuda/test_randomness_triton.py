"""The kernel of random numbers has the bits of randomness.py: interpreted, compiled, on CUDA."""

import contextlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pretend import Counts, PretendCuda
from torch import Tensor

from textvae.randomness import (
    EACH,
    LOCKED,
    ROWS,
    TYPES,
    Noise,
    key,
    keyed,
    normals,
    replace_words,
    signed,
    uniforms,
)

Move = Callable[[Tensor], Tensor]
KEY, SEED = key(7, "kernel"), 7
EXAMPLES, TOKENS = torch.tensor([3, 1, 4, 1, 5]), torch.arange(35).view(5, 7) % 11
VALUES = torch.linspace(-2.0, 2.0, 5 * 7 * 13).view(5, 7, 13)
MATRIX = torch.linspace(-2.0, 2.0, 11 * 17).view(11, 17)

RATE = torch.tensor(0.3)


def noise(step: int | Tensor, to: Move) -> Noise:
    return Noise(SEED, step, to(EXAMPLES))


def words(step: int | Tensor, to: Move, rate: float | Tensor) -> Tensor:
    return replace_words(to(TOKENS), keyed(step, SEED, "words"), to(EXAMPLES), rate, 1)


DRAWS: dict[str, Callable[[int | Tensor, Move], Tensor]] = {
    "uniforms": lambda s, to: uniforms(*keyed(s, SEED, "a"), to(EXAMPLES)[:, None], to(TOKENS)),
    "one index": lambda s, to: uniforms(KEY, to(EXAMPLES)),
    "no step": lambda s, to: uniforms(KEY, to(EXAMPLES), to(TOKENS)[:, 0]),
    "normals": lambda s, to: normals(*keyed(s, SEED, "b"), to(EXAMPLES), lanes=9),
    "samples": lambda s, to: normals(KEY, to(EXAMPLES), to(TOKENS).t()[:, :1], lanes=4),
    "dropout": lambda s, to: noise(s, to).dropout(to(VALUES), 0.3, "c"),
    "vectors": lambda s, to: noise(s, to).dropout(to(VALUES)[:, 0], 0.3, "d"),
    "locked": lambda s, to: noise(s, to).dropout(to(VALUES), 0.3, "c", locked=True),
    "types": lambda s, to: noise(s, to).drop_types(to(VALUES), to(TOKENS), 0.4, "e"),
    "weights": lambda s, to: noise(s, to).drop_weights(to(MATRIX), 0.5, "f"),
    "words": lambda s, to: words(s, to, 0.3),
    "rate on the device": lambda s, to: words(s, to, to(RATE)),
}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("step_on_device", [True, False])
def test_a_draw_is_that_of_the_cpu_in_one_launch(
    pretend: PretendCuda, name: str, step_on_device: bool
) -> None:
    moved = {id(t): t.to("cuda") for t in (EXAMPLES, TOKENS, VALUES, MATRIX, RATE)}
    step = torch.tensor(19).to("cuda") if step_on_device else 19
    pretend.reset()
    drawn = DRAWS[name](step, lambda tensor: moved[id(tensor)])
    assert pretend.counts() == Counts(1 + (name == "weights"), 0)  # the rows have to be numbered
    torch.testing.assert_close(drawn.cpu(), DRAWS[name](19, lambda t: t), rtol=0, atol=0)


def test_the_gradient_has_the_mask_of_the_values(pretend: PretendCuda) -> None:
    gradients = []
    for device in ("cpu", "cuda"):
        values = VALUES.to(device).requires_grad_()
        dropped = Noise(SEED, 19, EXAMPLES.to(device)).dropout(values, 0.3, "c")
        (gradient,) = torch.autograd.grad(dropped, values, VALUES.to(device))
        gradients.append(gradient.cpu())
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def all_draws(operations: Any, to: Move) -> list[Tensor]:
    """Every operation: of the kernel, or of torch, whose arguments are the same."""
    examples, tokens, values, rate = to(EXAMPLES), to(TOKENS), to(VALUES), to(RATE)
    time_first = values.transpose(0, 1).contiguous().transpose(0, 1)
    bits, step, rows = signed(KEY), to(torch.tensor(19)), to(torch.arange(11))
    return [
        operations.uniforms(bits, step, [examples[:, None], tokens]),
        operations.uniforms(bits, None, [examples]),
        operations.uniforms(bits, step, [examples[:0]]),
        operations.normals(bits, step, [examples], 9),
        operations.normals(bits, None, [examples, tokens.t()[:, :1]], 4),
        operations.masked(values, bits, step, examples, None, 0.3, EACH),
        operations.masked(time_first, bits, step, examples, None, 0.3, EACH),
        operations.masked(values, bits, step, examples, None, 0.3, LOCKED),
        operations.masked(values, bits, None, examples, tokens, 0.3, TYPES),
        operations.masked(to(MATRIX)[:, None], bits, step, rows, None, 0.3, ROWS),
        operations.replaced(tokens, bits, step, examples, None, 0.3, 1),
        operations.replaced(tokens, bits, step, examples, rate, 0.0, 1),
    ]


def compare(to: Move) -> None:
    from textvae import randomness_triton  # noqa: PLC0415 -- needs Triton

    names = ("uniforms", "normals", "masked", "replaced")
    kernels = SimpleNamespace(**{n: getattr(randomness_triton, f"launch_{n}") for n in names})
    pairs = zip(
        all_draws(kernels, to),
        all_draws(torch.ops.textvae, lambda tensor: tensor),
        strict=True,
    )
    for number, (left, right) in enumerate(pairs):
        assert left.shape == right.shape, number
        assert torch.equal(left.cpu(), right), number


def compile_for_hopper() -> None:
    """Compile every kind of draw for a GPU that need not be there."""
    import triton  # noqa: PLC0415 -- need not be installed
    from triton.backends.compiler import GPUTarget  # noqa: PLC0415
    from triton.compiler import ASTSource  # noqa: PLC0415

    from textvae import randomness_triton as kernel  # noqa: PLC0415

    constants = ("DRAWN", "HAS_STEP", "SECOND", "RATE_ON_DEVICE", "BLOCK")
    for drawn, second in ((0, 0), (1, 1), (2, 1), (2, 2), (3, 3), (4, 1)):
        for rate_on_device in {False, drawn == kernel.WORDS}:
            types = dict.fromkeys(kernel._noise.arg_names, "i32") | dict.fromkeys(
                constants, "constexpr"
            )
            types |= dict.fromkeys(("step", "first", "second"), "*i64")
            types |= dict.fromkeys(("out", "values"), "*i64" if drawn == kernel.WORDS else "*fp32")
            types |= {"key": "i64", "scale": "fp32", "rate": "*fp32" if rate_on_device else "fp32"}
            values = dict(
                zip(constants, (drawn, True, second, rate_on_device, kernel.BLOCK), strict=True)
            )
            source = ASTSource(kernel._noise, types, values, {})
            target = GPUTarget("cuda", 90, 32)
            compiled = triton.compile(source, target=target, options={"enable_fp_fusion": False})
            assert compiled.asm["cubin"]
            if drawn == kernel.NORMALS:  # in float64, constants too
                assert "1.4629180792671596E-9> : tensor<512xf64>" in compiled.asm["ttir"]


# Triton decides when it is imported whether its kernels are interpreted.
@pytest.mark.parametrize(("mode", "interpret"), [("interpreted", "1"), ("compiled", "0")])
def test_the_kernel_itself(tmp_path: Path, mode: str, interpret: str) -> None:
    if not _has_triton():
        pytest.skip("Triton is not installed")
    environment = {"TRITON_INTERPRET": interpret, "TRITON_CACHE_DIR": str(tmp_path), "PATH": ""}
    ended = subprocess.run(
        [sys.executable, __file__, mode],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]


def _has_triton() -> bool:
    with contextlib.suppress(ImportError):
        import triton  # noqa: F401, PLC0415

        return True
    return False


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_the_kernel_on_a_gpu() -> None:
    compare(lambda tensor: tensor.to("cuda"))


if __name__ == "__main__":
    if sys.argv[1] == "interpreted":
        torch.cuda.device = lambda device: contextlib.nullcontext()  # type: ignore[assignment]
        compare(lambda tensor: tensor)
    else:
        compile_for_hopper()
