"""The rows of the benchmark about learning: the trainers reach the same losses."""

import statistics
from collections.abc import Iterator
from typing import NamedTuple

import torch
from benchmark_measure import (
    LEARNING_RATE,
    SEED,
    Bench,
    ModelSizes,
    Result,
    as_lists,
    build_model,
    build_opponent,
    difference,
    endless_batches,
    textvae_step,
)
from benchmark_speed import endless, on
from opponents import (
    Opponent,
    PaddedBatch,
    as_padded,
    careful_optimizer,
    equal_length_batches,
    naive_optimizer,
    prepared,
    random_batches,
    seed_everything,
    train_step,
)
from simulated import simulated_corpus
from torch import Tensor

from textvae.data.batching import TokenArray
from textvae.model.vae import VAE
from textvae.randomness import key, normals
from textvae.run.experiment import has_bfloat16
from textvae.train.optimizer import AdamWConfig
from textvae.train.step import flush_denormals

TOPICS = 10
"""The sentences have topics, so that the latent has something to encode."""
HELD_OUT = 512
WINDOWS = 4
EVALUATION_BATCH = 64


class Curve(NamedTuple):
    """Minus the ELBO of a trainer, nats per target; all start from the same weights."""

    windows: tuple[float, ...]
    """The loss of the batches trained on, by quarters of the run."""
    held_out: float
    """The loss of held-out sentences, in float32, with the same noise for every trainer."""


class Task(NamedTuple):
    """Data and sizes of a comparison of curves."""

    bench: Bench
    sizes: ModelSizes
    steps: int
    corpus: TokenArray
    held_out: TokenArray


def task(bench: Bench, sizes: ModelSizes) -> Task:
    """A corpus whose sentences have topics, and another from the same source."""
    total, vocabulary = bench.sizes.curve_sentences, sizes.vocabulary
    corpus = simulated_corpus(total, vocabulary, seed=SEED, num_topics=TOPICS)
    held_out = simulated_corpus(min(HELD_OUT, total), vocabulary, seed=SEED + 1, num_topics=TOPICS)
    return Task(
        bench, sizes, bench.sizes.curve_steps, corpus.to(bench.device), held_out.to(bench.device)
    )


def curves(bench: Bench) -> Result:
    """Minus the ELBO of held-out sentences after the same number of steps, against A's.

    All three start from the same weights; seeds decide batching and noise.
    """
    setup = task(bench, bench.sizes.curve_model)
    trainers = {"textvae": textvae_curve, "A": naive_curve, "B": careful_curve}
    seeds = range(1, setup.bench.sizes.curve_seeds + 1)
    curves_of = {name: [train(setup, seed) for seed in seeds] for name, train in trainers.items()}
    finals = {name: tuple(curve.held_out for curve in runs) for name, runs in curves_of.items()}
    details = [curve_line(name, runs) for name, runs in curves_of.items()]
    for name in ("A", "B"):
        gap = difference(finals["textvae"], finals[name])
        details.append(f"textvae minus {name}, held out: {gap} (standard error over seeds)")
    return Result("nats/target", finals["textvae"], finals["A"], tuple(details))


def precision(bench: Bench) -> Result:
    """Minus the ELBO after training in bfloat16 against float32, the same batches and noise."""
    setup = task(bench, bench.sizes.precision_model)
    seeds = range(1, bench.sizes.curve_seeds + 1)
    half = [textvae_curve(setup, seed, torch.bfloat16) for seed in seeds]
    single = [textvae_curve(setup, seed, torch.float32) for seed in seeds]
    finals = [tuple(curve.held_out for curve in runs) for runs in (half, single)]
    gaps = [a - b for a, b in zip(*finals, strict=True)]
    details = (
        curve_line("bfloat16", half) + ("" if has_bfloat16(bench.device) else " (emulated)"),
        curve_line("float32", single),
        f"bfloat16 minus float32, seed by seed: {', '.join(f'{gap:+.4f}' for gap in gaps)}; "
        f"standard deviation between seeds {statistics.stdev(finals[1]):.4f}",
    )
    return Result("nats/target", finals[0], finals[1], details)


def curve_line(name: str, runs: list[Curve]) -> str:
    """Means over seeds: the windows, and what was held out with its deviation between seeds."""
    columns = zip(*(curve.windows for curve in runs), strict=True)
    windows = " ".join(f"{statistics.fmean(column):.4f}" for column in columns)
    finals = [curve.held_out for curve in runs]
    return (
        f"{name}: training {windows}; held out {statistics.fmean(finals):.4f}, "
        f"standard deviation between seeds {statistics.stdev(finals):.4f}"
    )


def textvae_curve(setup: Task, seed: int, dtype: torch.dtype | None = None) -> Curve:
    """Train textvae's model on its own batches."""
    model = build_model(setup.sizes, setup.bench.device).train()
    optimizer = AdamWConfig(learning_rate=LEARNING_RATE).build(model)
    batches = endless_batches(setup.corpus, setup.bench.sizes.batch, seed)
    losses, targets = [], []
    with flush_denormals():
        for number in range(setup.steps):
            batch, count = next(batches)
            loss = textvae_step(
                model, optimizer, batch, dtype or setup.bench.dtype, step=number, seed=seed
            )
            losses.append(float(loss) * batch.lengths.shape[0])
            targets.append(count)
    return Curve(by_window(losses, targets), held_out_loss(setup, model.eval()))


def naive_curve(setup: Task, seed: int) -> Curve:
    """Train A on its own batches."""
    opponent, sentences = start_opponent(setup, seed)
    optimizer = naive_optimizer(opponent, LEARNING_RATE)
    loader = random_batches(sentences, setup.bench.sizes.batch, opponent.padding)
    return opponent_curve(setup, opponent, optimizer, endless(loader), autocast=False)


def careful_curve(setup: Task, seed: int) -> Curve:
    """Train B on its own batches."""
    opponent, sentences = start_opponent(setup, seed)
    optimizer = careful_optimizer(opponent, LEARNING_RATE)
    loader = equal_length_batches(sentences, setup.bench.sizes.batch, opponent.padding)
    autocast = has_bfloat16(setup.bench.device)
    return opponent_curve(setup, opponent, optimizer, endless(loader), autocast=autocast)


def start_opponent(setup: Task, seed: int) -> tuple[Opponent, list[Tensor]]:
    """An opponent with textvae's initial weights, and the corpus as it reads it."""
    seed_everything(seed)
    model = build_model(setup.sizes, setup.bench.device)
    opponent = build_opponent(model, setup.sizes).train()
    return opponent, prepared(as_lists(setup.corpus), opponent)


def opponent_curve(
    setup: Task,
    opponent: Opponent,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[PaddedBatch],
    *,
    autocast: bool,
) -> Curve:
    """Train an opponent."""
    losses, targets = [], []
    for _ in range(setup.steps):
        batch = on(setup.bench.device, next(batches))
        losses.append(float(train_step(opponent, optimizer, batch, autocast=autocast)))
        targets.append(int(batch.lengths.sum()))
    return Curve(by_window(losses, targets), held_out_loss(setup, opponent.eval()))


def by_window(losses: list[float], targets: list[int]) -> tuple[float, ...]:
    """Nats per target in each quarter of a run, from sums over batches."""
    size = len(losses) // WINDOWS
    starts = range(0, WINDOWS * size, size)
    return tuple(sum(losses[i : i + size]) / sum(targets[i : i + size]) for i in starts)


@torch.no_grad()
def held_out_loss(setup: Task, model: VAE | Opponent) -> float:
    """Minus the ELBO of held-out sentences, nats per target."""
    total = 0.0
    for batch in setup.held_out.batches_by_length(EVALUATION_BATCH):
        noise = normals(key(SEED, "held out"), batch.indices, lanes=setup.sizes.latent)
        if isinstance(model, Opponent):
            loss = model(as_padded(batch, model), noise)
            total += float(loss.cross_entropy) + float(loss.kl)
        else:
            terms = model(batch.inputs, batch.targets, batch.lengths, noise)
            total += float(terms.reconstruction.total) + float(terms.kl.sum())
    return total / setup.held_out.num_targets
