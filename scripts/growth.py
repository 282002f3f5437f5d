"""The speed of training against batch size, hidden size and vocabulary.

python scripts/growth.py [--json FILE]

Targets per CPU-second on one thread, on simulated text of newspaper lengths, a few steps each.
"""

import json
import sys
import time
from pathlib import Path
from typing import NamedTuple

import click
import torch
from provenance import processor
from simulated import simulated_corpus

from textvae.cli.process import keep_freed_memory
from textvae.model.decoder import GRUDecoderConfig
from textvae.model.encoder import GRUEncoderConfig
from textvae.model.vae import VAE, ModelConfig
from textvae.run.experiment import has_bfloat16
from textvae.train.config import Precision, StepSettings, TrainConfig
from textvae.train.optimizer import AdamWConfig
from textvae.train.schedules import Clock
from textvae.train.step import flush_denormals, train_step

BATCH, HIDDEN, VOCABULARY = 64, 256, 8_000
BATCHES = (4, 8, 16, 32, 64, 128, 256, 512)
HIDDENS = (32, 64, 128, 256, 512, 1024)
VOCABULARIES = (500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000)
WARM_UP, MEASURED = 10, 10
STEPS = 2_000
PRECISION: Precision = "bfloat16" if has_bfloat16(torch.device("cpu")) else "float32"
DTYPE = getattr(torch, PRECISION)


class Point(NamedTuple):
    """One measured training."""

    axis: str
    value: int
    tokens_per_second: float
    """Targets per CPU-second on one thread."""


def build(hidden: int, vocabulary: int) -> VAE:
    """The default model with another hidden size, or another vocabulary."""
    return ModelConfig(
        encoder=GRUEncoderConfig(hidden_dim=hidden), decoder=GRUDecoderConfig(hidden_dim=hidden)
    ).build(vocabulary)


def point(axis: str, value: int, batch: int, hidden: int, vocabulary: int) -> Point:
    """Time some steps of one size."""
    model, config = build(hidden, vocabulary).train(), TrainConfig(batch_size=batch)
    corpus = simulated_corpus(batch * 50, vocabulary, seed=1)
    order = config.batches.order(corpus.lengths, batch, seed=1, epoch=0)
    optimizer = AdamWConfig().build(model)
    seconds, tokens = 0.0, 0
    for step in range(WARM_UP + MEASURED):
        batch_of_step = corpus.batch(order[step])
        begun = time.process_time()
        train_step(
            model,
            optimizer,
            batch_of_step,
            StepSettings(config.objective, 1, config.clip_norm, DTYPE),
            Clock(step, step, STEPS),
        )
        if step >= WARM_UP:
            seconds += time.process_time() - begun
            tokens += int(batch_of_step.lengths.sum())
    return Point(axis, value, tokens / seconds)


@click.command()
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write each point here.")
def main(file: Path | None) -> None:
    """Measure, and print a line per point."""
    sizes = [("batch", b, b, HIDDEN, VOCABULARY) for b in BATCHES]
    sizes += [("hidden size", h, BATCH, h, VOCABULARY) for h in HIDDENS]
    sizes += [("vocabulary", v, BATCH, HIDDEN, v) for v in VOCABULARIES]
    print(f"{processor()}, torch {torch.__version__}, {PRECISION}", file=sys.stderr)
    keep_freed_memory()  # as `textvae` does
    torch.set_num_threads(1)
    points = []
    with flush_denormals():
        for arguments in sizes:
            points.append(point(*arguments))
            print(f"{points[-1].axis} {points[-1].value:,}: {points[-1].tokens_per_second:,.0f}")
    if file is not None:
        lines = [json.dumps(point._asdict()) + "\n" for point in points]
        file.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
