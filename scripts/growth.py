"""How the speed of training grows with batch, hidden size, vocabulary and corpus.

python scripts/growth.py [--corpus 10000,100000,...] [--json FILE]

Targets per CPU-second on one thread: the first three on simulated text of newspaper lengths, a few
steps each; corpora are drawn from the embedded grammar and trained on for 2,000 steps.
"""

import json
import platform
import resource
import sys
import time
from array import array
from pathlib import Path
from typing import NamedTuple

import click
import torch
from simulated import simulated_corpus

from textvae.cli.process import keep_freed_memory
from textvae.data.batching import TokenArray
from textvae.data.grammar import embedded_grammar
from textvae.data.tokenizer import Tokenizer, WordTokenizerConfig
from textvae.model.decoder import GRUDecoderConfig
from textvae.model.encoder import GRUEncoderConfig
from textvae.model.vae import VAE, ModelConfig
from textvae.run.experiment import has_bfloat16
from textvae.train.config import Precision, TrainConfig
from textvae.train.loop import train
from textvae.train.optimizer import AdamWConfig
from textvae.train.step import flush_denormals, train_step

BATCH, HIDDEN, VOCABULARY = 64, 256, 8_000
BATCHES = (4, 8, 16, 32, 64, 128, 256, 512)
HIDDENS = (32, 64, 128, 256, 512, 1024)
VOCABULARIES = (500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000)
WARM_UP, MEASURED = 10, 10
STEPS = 2_000
PRECISION: Precision = "bfloat16" if has_bfloat16(torch.device("cpu")) else "float32"
DTYPE = getattr(torch, PRECISION)
DRAWN_TOGETHER = 10_000


class Point(NamedTuple):
    """One measured training."""

    axis: str
    value: int
    tokens_per_second: float
    """Targets per CPU-second on one thread."""
    details: dict[str, float]


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
            config.objective,
            step=step,
            total=STEPS,
            seed=1,
            clip_norm=config.clip_norm,
            dtype=DTYPE,
        )
        if step >= WARM_UP:
            seconds += time.process_time() - begun
            tokens += int(batch_of_step.lengths.sum())
    return Point(axis, value, tokens / seconds, {})


def draw_corpus(size: int, tokenizer: Tokenizer, first: int) -> TokenArray:
    """Draws from the embedded grammar, as ids."""
    grammar, flat, lengths = embedded_grammar(), array("i"), array("q")
    for begin in range(first, first + size, DRAWN_TOGETHER):
        end = min(begin + DRAWN_TOGETHER, first + size)
        texts = [grammar.draw(0, index)[0] for index in range(begin, end)]
        for ids in tokenizer.encode_batch(texts):
            flat.extend(ids)
            lengths.append(len(ids))
    return TokenArray.from_flat(flat, lengths, tokenizer.start)


def corpus_point(size: int) -> Point:
    """Train on a corpus of this size; time and memory are in the details."""
    tokenizer = WordTokenizerConfig().train([" ".join(embedded_grammar().vocabulary())])
    begun = time.process_time()
    corpus, valid = draw_corpus(size, tokenizer, 0), draw_corpus(1_000, tokenizer, size)
    drawn = time.process_time() - begun
    model = build(HIDDEN, tokenizer.vocabulary_size)
    config = TrainConfig(
        max_steps=STEPS, validate_every=STEPS, log_every=STEPS, precision=PRECISION
    )
    begun = time.process_time()
    result = train(model, corpus, valid, config, seed=0, run=None, report=lambda line: None)
    trained = time.process_time() - begun
    begun = time.process_time()
    config.batches.order(corpus.lengths, config.batch_size, seed=0, epoch=1)
    ordering = time.process_time() - begun
    tokens = STEPS * config.batch_size * corpus.num_targets / corpus.num_sentences
    details = {
        "valid_elbo": result.best.elbo,
        "seconds_training": trained,
        "seconds_drawing": drawn,
        "seconds_ordering_an_epoch": ordering,
        "array_mib": (corpus.tokens.nbytes + corpus.offsets.nbytes) / 2**20,
        "peak_resident_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    return Point("corpus", size, tokens / trained, details)


@click.command()
@click.option("--corpus", default="10000,100000,1000000", help="Sizes, with commas; `-` for none.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Append each point.")
@click.option("--steps/--no-steps", default=True, help="Time batch, hidden size and vocabulary.")
def main(corpus: str, json_file: Path | None, steps: bool) -> None:
    """Measure, and print a line per point."""
    points: list[Point] = []
    if json_file is not None and json_file.exists():
        lines = json_file.read_text(encoding="utf-8").splitlines()
        points = [Point(**json.loads(line)) for line in lines]
    sizes_timed = [("batch", b, b, HIDDEN, VOCABULARY) for b in BATCHES]
    sizes_timed += [("hidden size", h, BATCH, h, VOCABULARY) for h in HIDDENS]
    sizes_timed += [("vocabulary", v, BATCH, HIDDEN, v) for v in VOCABULARIES]
    sizes = [] if corpus == "-" else [int(size) for size in corpus.split(",")]
    machine = platform.processor() or platform.machine()
    print(f"{machine}, torch {torch.__version__}, {PRECISION}", file=sys.stderr)
    keep_freed_memory()  # as `textvae` does
    torch.set_num_threads(1)
    with flush_denormals():
        for arguments in sizes_timed if steps else []:
            points.append(point(*arguments))
            print(f"{points[-1].axis} {points[-1].value:,}: {points[-1].tokens_per_second:,.0f}")
    for size in sizes:
        points.append(corpus_point(size))
        print(f"corpus {size:,}: {points[-1].tokens_per_second:,.0f} {points[-1].details}")
    if json_file is not None:
        written = "".join(json.dumps(p._asdict()) + "\n" for p in points)
        json_file.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
