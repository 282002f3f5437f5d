"""What the aggregate posterior of a run on the embedded corpus is worth, as JSON.

python scripts/aggregate_figures.py [RUN] [--samples N] [--pairs N]      (RUN: runs/embedded)

After `textvae aggregate RUN`. The share of grammatical samples from either prior, with the same
seed; and for each kind of path, over the same pairs of test sentences: how much its steps change,
the sentences between, and the density where it has least.
"""

import argparse
import json
import math
from typing import get_args

import textvae
from textvae.api.interpolate import walk
from textvae.data.grammar import embedded_grammar, embedded_splits
from textvae.generate.interpolation import PathKind
from textvae.generate.latents import PriorKind


def priors(vae: textvae.TextVAE, size: int) -> dict[str, dict[str, float]]:
    """The share of grammatical sentences, its standard error, and how many differ."""
    found = {}
    for kind in get_args(PriorKind):
        samples = vae.sample(size, seed=7, prior=kind)
        share = sum(map(embedded_grammar().accepts, samples)) / size
        found[kind] = {
            "grammatical": share,
            "stderr": math.sqrt(share * (1 - share) / size),
            "distinct": len(set(samples)) / size,
        }
    return found


def paths(vae: textvae.TextVAE, pairs: int) -> dict[str, dict[str, float]]:
    """Means over the paths, of seven steps each."""
    test, found = embedded_splits().test.texts, {}
    for kind in get_args(PathKind):
        walks = [walk(vae, [test[i], test[i + pairs]], path=kind) for i in range(pairs)]
        inner = [step for one in walks for step in one.steps[1:-1]]
        found[kind] = {
            "mean_change": sum(one.mean_change for one in walks) / pairs,
            "largest_change": sum(max(s.change or 0.0 for s in w.steps) for w in walks) / pairs,
            "inner_grammatical": sum(embedded_grammar().accepts(s.text) for s in inner)
            / len(inner),
            "inner_reconstruction": sum(s.reconstruction for s in inner) / len(inner),
            "least_log_density": sum(min(s.log_density or 0.0 for s in w.steps) for w in walks)
            / pairs,
        }
    return found


def main() -> None:
    """Read the arguments, and write the object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", nargs="?", default="runs/embedded")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--pairs", type=int, default=50)
    given = parser.parse_args()
    vae = textvae.TextVAE.from_pretrained(given.run)
    print(
        json.dumps(
            {"priors": priors(vae, given.samples), "paths": paths(vae, given.pairs)}, indent=2
        )
    )


if __name__ == "__main__":
    main()
