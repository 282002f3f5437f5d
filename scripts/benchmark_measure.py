"""Measuring for the benchmark: two sides in turn in one process, and the sizes of both."""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import torch
from opponents import CLIP_NORM, Opponent, copy_weights
from torch import Tensor
from torch.optim import Optimizer

from textvae.cli.process import keep_freed_memory
from textvae.data.batching import Batch, PooledBatches, TokenArray
from textvae.model.decoder import GRUDecoderConfig
from textvae.model.encoder import GRUEncoderConfig
from textvae.model.vae import VAE, ModelConfig
from textvae.randomness import key, uniforms
from textvae.train.config import StepSettings
from textvae.train.objective import NoFreeBits, ObjectiveConfig
from textvae.train.schedules import Clock, ConstantSchedule
from textvae.train.step import train_step

SEED = 1
LEARNING_RATE = 1e-3
OBJECTIVE = ObjectiveConfig(
    kl_weight=ConstantSchedule(value=1.0),
    free_bits=NoFreeBits(),
    word_dropout=ConstantSchedule(value=0.0),
)
"""Minus the ELBO and nothing else: what the opponents minimise too."""


class ModelSizes(NamedTuple):
    """Sizes of a model, in the letters of textvae/model/interfaces.py."""

    vocabulary: int = 10_000
    embedding: int = 256
    hidden: int = 512
    latent: int = 32

    def training_flops(self) -> int:
        """Floating-point operations of a target: forward, and twice that for backward.

        Of two GRUs, with the latent as a bias, and the vocabulary projection.
        """
        gru = 2 * 3 * self.hidden * (self.embedding + self.hidden)
        return 3 * (2 * gru + 2 * self.hidden * self.vocabulary)


class Sizes(NamedTuple):
    """Sizes of the work; the small ones only show that it runs."""

    model: ModelSizes = ModelSizes()
    batch: int = 32
    sentences: int = 42_068
    """The size of the training corpus: that of the Penn Treebank."""
    steps: int = 20
    """Training steps of a block."""
    samples: int = 1024
    """Sentences textvae samples in a block."""
    opponent_batch: int = 256
    opponent_batches: int = 4
    max_length: int = 83
    num_samples: int = 500
    """K of importance weighting."""
    weighted_sentences: int = 4
    weighted_length: int = 22
    curve_model: ModelSizes = ModelSizes(2_000, 64, 128, 16)
    curve_sentences: int = 8_192
    curve_steps: int = 200
    curve_seeds: int = 3
    precision_model: ModelSizes = ModelSizes(503, 32, 64, 8)
    memory_model: ModelSizes = ModelSizes(20_000, 512, 1024, 32)
    memory_batch: int = 512
    memory_length: int = 80
    matrix: int = 1536
    """Rows and columns of the products that measure the peak."""


SMALL = Sizes(
    model=ModelSizes(499, 23, 31, 5),
    batch=7,
    sentences=331,
    steps=2,
    samples=61,
    opponent_batch=17,
    opponent_batches=2,
    num_samples=29,
    weighted_sentences=3,
    weighted_length=11,
    curve_model=ModelSizes(211, 13, 19, 3),
    curve_sentences=211,
    curve_steps=8,
    curve_seeds=2,
    precision_model=ModelSizes(101, 7, 11, 3),
    memory_model=ModelSizes(4_999, 23, 31, 5),
    memory_batch=67,
    memory_length=19,
    matrix=128,
)


class Bench(NamedTuple):
    """Where and how often the rows measure."""

    device: torch.device
    dtype: torch.dtype
    """The type of textvae's matrix products: bfloat16 where the device has the instructions."""
    threads: int
    repeats: int
    sizes: Sizes

    @property
    def second(self) -> str:
        """The unit of time."""
        return "CPU-second" if self.device.type == "cpu" else "second"

    @property
    def precision(self) -> str:
        """Such as "float32"."""
        return str(self.dtype).removeprefix("torch.")


class Result(NamedTuple):
    """One row: the same quantity of both sides, measured in turn."""

    unit: str
    ours: tuple[float, ...]
    """One value per repeat."""
    theirs: tuple[float, ...]
    """The same of the other side; empty where there is none."""
    details: tuple[str, ...] = ()
    """Lines printed below the row."""

    def ratios(self) -> list[float]:
        """Ours over theirs, repeat by repeat."""
        return [a / b for a, b in zip(self.ours, self.theirs, strict=bool(self.theirs))]


CHAIN = 80
"""Products in a row."""

USUAL_HEAP = 64 << 20
"""Free memory that glibc by itself comes to keep, at most: twice the largest block not mapped."""

Block = Callable[[], float]
"""Does some work and returns how much: tokens, sentences, operations."""


def timed(block: Block, device: torch.device, *, wall: bool = False) -> float:
    """Units of work per second: of CPU time, of CUDA events, or of wall-clock time."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        done = block()
        end.record()
        torch.cuda.synchronize(device)
        return done / float(start.elapsed_time(end)) * 1000
    clock = time.perf_counter if wall else time.process_time
    begun = clock()
    done = block()
    return done / (clock() - begun)


def alternate(
    bench: Bench,
    ours: Block,
    theirs: Block,
    unit: str,
    *,
    repeats: int | None = None,
    wall: bool = False,
    heap: int = USUAL_HEAP,
) -> Result:
    """Time two sides in turn, A B A B, after one untimed block of each.

    Freed memory is kept as `textvae` does on our side, and up to `heap` bytes on theirs.
    """

    def pair() -> tuple[float, float]:
        keep_freed_memory(size=heap)
        other = timed(theirs, bench.device, wall=wall)
        keep_freed_memory()
        return other, timed(ours, bench.device, wall=wall)

    pair()
    pairs = [pair() for _ in range(repeats or bench.repeats)]
    return Result(unit, tuple(pair[1] for pair in pairs), tuple(pair[0] for pair in pairs))


@cache
def gemm_peak(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """The most floating-point operations per second of a square product, over ten of them."""
    left = uniforms(key(SEED, "matrix"), torch.arange(size), lanes=size).to(device, dtype)
    right, out = left.t().contiguous(), torch.empty_like(left)

    def block() -> float:
        torch.mm(left, right, out=out)
        return 2.0 * size**3

    block()
    return max(timed(block, device) for _ in range(10))


@cache
def recurrent_product(device: torch.device, dtype: torch.dtype, batch: int, hidden: int) -> float:
    """Seconds of one `[B, H] @ [H, 3H]`, each after the one before; on CUDA as a graph.

    A training step has four such chains: two GRUs, forward and backward.
    """
    state = torch.zeros(batch, hidden, device=device, dtype=dtype)
    weight = torch.zeros(hidden, 3 * hidden, device=device, dtype=dtype)
    product = state.new_empty(batch, 3 * hidden)

    def chain() -> None:
        for _ in range(CHAIN):
            torch.mm(state, weight, out=product)

    chain()
    run = chain
    if device.type == "cuda":
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            chain()
        run = graph.replay

    def block() -> float:
        run()
        return float(CHAIN)

    return 1 / max(timed(block, device) for _ in range(10))


def build_model(sizes: ModelSizes, device: torch.device, *, seed: int = SEED) -> VAE:
    """Textvae's model without what the opponents lack: no dropout, no tied embeddings."""
    config = ModelConfig(
        latent_dim=sizes.latent,
        encoder=GRUEncoderConfig(embedding_dim=sizes.embedding, hidden_dim=sizes.hidden),
        decoder=GRUDecoderConfig(
            embedding_dim=sizes.embedding,
            hidden_dim=sizes.hidden,
            tie_embeddings=False,
            output_dropout_rate=0.0,
            skip_connection=False,
        ),
    )
    return config.build(sizes.vocabulary, seed=seed).to(device)


def build_opponent(model: VAE, sizes: ModelSizes) -> Opponent:
    """The opponent with the weights of a model, on its device."""
    opponent = Opponent(*sizes).to(model.device)
    copy_weights(model, opponent)
    return opponent


def textvae_step(
    model: VAE,
    optimizer: Optimizer,
    batch: Batch,
    dtype: torch.dtype,
    *,
    step: int = 0,
    seed: int = SEED,
) -> Tensor:
    """A step of textvae's training loop with the opponents' objective and clipping; its loss."""
    made = train_step(
        model,
        optimizer,
        batch,
        StepSettings(OBJECTIVE, seed, CLIP_NORM, dtype),
        Clock(step, step, 1_000_000),  # the schedules are constant
    )
    return made.loss.value


def as_lists(corpus: TokenArray) -> list[list[int]]:
    """A corpus as the lists of ids that the opponents' users have."""
    tokens, offsets = corpus.tokens.tolist(), corpus.offsets.tolist()
    return [tokens[a:b] for a, b in pairwise(offsets)]


def endless_batches(corpus: TokenArray, batch_size: int, seed: int) -> Iterator[tuple[Batch, int]]:
    """Batches of textvae's training loop, epoch after epoch, with their numbers of targets."""
    lengths, epoch = corpus.lengths.cpu(), 0
    while True:
        for indices in PooledBatches().order(lengths, batch_size, seed=seed, epoch=epoch):
            yield corpus.batch(indices), int(lengths[indices].sum())
        epoch += 1


def spread(values: Sequence[float]) -> str:
    """Such as "3.612 (3.524..3.703)": the median, the least and the greatest."""
    middle = statistics.median(values)
    return f"{middle:.4g} ({min(values):.4g}..{max(values):.4g})"


def difference(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """The difference of two means with its standard error over seeds."""
    error = math.sqrt(
        statistics.variance(ours) / len(ours) + statistics.variance(theirs) / len(theirs)
    )
    return f"{statistics.fmean(ours) - statistics.fmean(theirs):+.4f} +- {error:.4f}"
