"""The cost of a corpus larger than memory: drawn, streamed, and trained on for 2,000 steps.

python scripts/scaling.py draw 10000000 FILE          different sentences of the embedded grammar
python scripts/scaling.py train FILE RUN [--steps N] [--batch-size N]   CPU-seconds, memory, speed

`train` streams FILE into RUN (a stream that is there already costs nothing) and trains the
default model. One JSON object on stdout, for docs/develop/scaling.md.
"""

import json
import resource
import sys
import time
from hashlib import blake2b
from pathlib import Path

import click
import torch
from msgspec import structs

from textvae.data.grammar import embedded_grammar
from textvae.run.data import DataOptions
from textvae.run.experiment import load_config
from textvae.run.plan import plan_run
from textvae.train.loop import train

STATUS = Path("/proc/self/status")


def resident() -> dict[str, float]:
    """MiB in memory now: all, and the part that is pages of mapped files, and the peak of all."""
    fields = dict(line.split(":", 1) for line in STATUS.read_text(encoding="utf-8").splitlines())
    sizes = {name: int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "RssFile")}
    return sizes | {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


@click.group()
def main() -> None:
    """Draw a corpus, or train on one."""


@main.command()
@click.argument("size", type=int)
@click.argument("file", type=click.Path(path_type=Path))
def draw(size: int, file: Path) -> None:
    """Write SIZE different sentences: the draws of seed 0, without repetitions."""
    grammar, begun = embedded_grammar(), time.process_time()
    # 8 bytes stand for a sentence: 1 GB for 10^7, and a collision leaves a different sentence out.
    seen: set[bytes] = set()
    draws = 0
    with file.open("w", encoding="utf-8") as out:
        while len(seen) < size:
            line = grammar.draw(0, draws)[0]
            draws += 1
            digest = blake2b(line.encode(), digest_size=8).digest()
            if digest not in seen:
                seen.add(digest)
                out.write(line + "\n")
    facts = {"sentences": size, "draws": draws, "cpu_seconds": time.process_time() - begun}
    print(json.dumps(facts))


@main.command(name="train")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--steps", default=2_000)
@click.option("--batch-size", default=64)
def measure(file: Path, run: Path, steps: int, batch_size: int) -> None:
    """Stream FILE into RUN and train on it."""
    torch.set_num_threads(1)
    overrides = ["data.stream=true", "data.tokenizer.kind=word", f"train.max_steps={steps}"]
    overrides += [f"train.log_every={steps // 10}", f"train.validate_every={steps}"]
    overrides += [f"train.batch_size={batch_size}"]
    config = load_config(None, [*overrides, "train.device=cpu", "train.precision=float32"])
    begun = time.process_time()

    def report(line: str) -> None:
        now = resident()
        print(f"{line}  [{now['VmRSS']:.0f} MiB, {now['RssFile']:.0f} mapped]", file=sys.stderr)

    plan = plan_run(DataOptions(str(file)), config, run, report=report)
    streamed, after = time.process_time() - begun, resident()
    corpus, valid = plan.data.arrays["train"], plan.data.arrays["valid"].head(1_000)
    model = plan.config.model.build(plan.data.facts.vocabulary_size)
    settings = structs.replace(plan.config.train, save_every=None)
    begun = time.process_time()
    train(model, corpus, valid, settings, seed=0, run=None, report=report)
    trained = time.process_time() - begun
    targets = steps * settings.batch_size * corpus.num_targets / corpus.num_sentences
    facts = {
        "sentences": corpus.num_sentences,
        "targets": corpus.num_targets,
        "stream_cpu_seconds": streamed,
        "train_cpu_seconds": trained,
        "targets_per_cpu_second": targets / trained,
        "after_stream_mib": after,
        "at_end_mib": resident(),
        "array_mib": (corpus.tokens.nbytes + corpus.offsets.nbytes) / 2**20,
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
