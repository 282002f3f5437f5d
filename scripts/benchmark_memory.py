"""The row of the benchmark that is a size: the peak of memory in one training step.

Each side runs in a process of its own, which is this file: python scripts/benchmark_memory.py
SIDE DEVICE THREADS DTYPE BATCH LENGTH V E H Z prints a number of bytes.
"""

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from benchmark_measure import (
    LEARNING_RATE,
    SEED,
    Bench,
    ModelSizes,
    Result,
    build_model,
    build_opponent,
    textvae_step,
)
from opponents import as_padded, naive_optimizer, train_step
from simulated import simulated_corpus

from textvae.cli.process import keep_freed_memory
from textvae.data.batching import Batch
from textvae.train.optimizer import AdamWConfig

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
WARM_BATCH, WARM_LENGTH = 2, 3
"""A step that makes the moments of the optimizer, which both sides have, before measuring."""


def memory(bench: Bench) -> Result:
    """Peak memory of a training step above what was there before it, against A's."""
    sizes = bench.sizes
    peaks = {}
    for side in ("opponent", "textvae"):
        arguments = [side, bench.device, bench.threads, bench.precision]
        arguments += [sizes.memory_batch, sizes.memory_length, *sizes.memory_model]
        made = subprocess.run(
            [sys.executable, __file__, *map(str, arguments)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        peaks[side] = float(json.loads(made.stdout))
    v, e, h, z = sizes.memory_model
    detail = (
        f"V {v}, E {e}, H {h}, Z {z}, {sizes.memory_batch} sentences of {sizes.memory_length}; "
        f"textvae: {bench.precision}"
    )
    return Result("bytes", (peaks["textvae"],), (peaks["opponent"],), (detail,))


def measure(device: torch.device, action: Callable[[], object]) -> int:
    """Bytes that an action needs at its peak above what was there before it."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        action()
        return int(torch.cuda.max_memory_allocated(device)) - before
    # Setting up may have needed more than the step will, so the high-water mark is reset first.
    marked = reset_peak()
    before = resident("VmRSS")
    action()
    # ru_maxrss would begin at the size of the parent, whose process this one was before exec.
    peak = resident("VmHWM") if marked else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 1024 * (peak - before)


def reset_peak() -> bool:
    """Make the present size the peak of this process (Linux: 5 to clear_refs), where allowed."""
    try:
        CLEAR.write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def resident(name: str) -> int:
    """A size of this process in KiB: VmRSS is the present one, VmHWM the peak."""
    lines = STATUS.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def any_batch(sizes: ModelSizes, size: int, length: int, device: torch.device) -> Batch:
    """Sentences of one length, so that neither side has padding."""
    corpus = simulated_corpus(size, sizes.vocabulary, seed=SEED, length=length)
    return corpus.to(device).batch(torch.arange(size))


def textvae_action(sizes: ModelSizes, batch: Batch, dtype: torch.dtype) -> Callable[[], object]:
    """A training step of textvae, warmed up."""
    model = build_model(sizes, batch.inputs.device).train()
    optimizer = AdamWConfig(learning_rate=LEARNING_RATE).build(model)

    warm = any_batch(sizes, WARM_BATCH, WARM_LENGTH, batch.inputs.device)
    textvae_step(model, optimizer, warm, dtype)
    return lambda: textvae_step(model, optimizer, batch, dtype)


def opponent_action(sizes: ModelSizes, batch: Batch) -> Callable[[], object]:
    """A training step of A, warmed up."""
    opponent = build_opponent(build_model(sizes, batch.inputs.device), sizes).train()
    optimizer = naive_optimizer(opponent, LEARNING_RATE)
    warm = any_batch(sizes, WARM_BATCH, WARM_LENGTH, batch.inputs.device)
    train_step(opponent, optimizer, as_padded(warm, opponent), autocast=False)
    padded = as_padded(batch, opponent)
    return lambda: train_step(opponent, optimizer, padded, autocast=False)


def main() -> None:
    """Measure one side and print the bytes."""
    side, device_name, threads, precision, *numbers = sys.argv[1:]
    size, length, *model_sizes = map(int, numbers)
    device, sizes = torch.device(device_name), ModelSizes(*model_sizes)
    torch.set_num_threads(int(threads))
    batch = any_batch(sizes, size, length, device)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    if side == "textvae":
        keep_freed_memory()  # as the command line does
    action = (
        textvae_action(sizes, batch, dtype) if side == "textvae" else opponent_action(sizes, batch)
    )
    print(json.dumps(measure(device, action)))


if __name__ == "__main__":
    main()
