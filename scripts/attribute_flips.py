"""How well attributes can be changed by adding a vector to the latent, as JSON.

python scripts/attribute_flips.py [RUN] [--pairs N] [--train N]      (RUN: runs/embedded)

On the embedded corpus, for each attribute and each ordered pair of its values: vectors are
estimated on training sentences, the estimator and the strength are chosen on validation sentences
(one choice per attribute), and test sentences are edited and parsed. An edit may count in three
ways. In each the sentence parses and the attribute has the new value; what else must not change is

    all             every other attribute of the sentence
    held            those that reconstruction preserves for a fraction HELD of the sentences
    reconstruction  every other attribute of the model's own reconstruction of the sentence

A model that loses an attribute in reconstruction cannot keep it in an edit, so `all` is at most
about what reconstruction reaches (`reconstruction.all`). The choice is by `held`.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from functools import partial
from itertools import permutations, product
from typing import NamedTuple

import torch
from torch import Tensor

import textvae
from textvae.data.grammar import ATTRIBUTES, DrawnSplit, embedded_grammar, embedded_splits

STRENGTHS = (0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
HELD = 0.8
COUNTS = ("parses", "changed", "all", "held", "reconstruction")

Values = dict[str, str]
Vectors = dict[tuple[str, str], Tensor]
"""For each attribute and value, where sentences with it lie; differences are what is added."""


class Part(NamedTuple):
    """Encoded sentences of a split."""

    mean: Tensor
    values: list[Values]
    reconstructed: list[Values | None]


class Trial(NamedTuple):
    """One edit: sentence `row`, attribute `name` from `old` to `new`."""

    row: int
    name: str
    old: str
    new: str


def parse(labels: list[str]) -> list[Values]:
    """Labels such as "topic=garden place=coast" as dicts."""
    return [dict(pair.split("=") for pair in label.split()) for label in labels]


def encode(vae: textvae.TextVAE, split: DrawnSplit, size: int) -> Part:
    """Encode and reconstruct the first sentences of a split."""
    mean = vae.encode(split.texts[:size]).mean.cpu()
    grammar = embedded_grammar()
    return Part(mean, parse(split.labels[:size]), list(map(grammar.attributes, vae.decode(mean))))


def class_means(mean: Tensor, values: list[Values]) -> Vectors:
    """The mean latent of the sentences with each value."""
    return {
        (name, value): mean[torch.tensor([row[name] == value for row in values])].mean(0)
        for name, choices in ATTRIBUTES.items()
        for value in choices
    }


def least_squares(mean: Tensor, values: list[Values]) -> Vectors:
    """Coefficients of the latent on all attributes at once: each with the others held fixed."""
    pairs = [(name, value) for name, choices in ATTRIBUTES.items() for value in choices]
    columns = [[float(row[name] == value) for row in values] for name, value in pairs]
    design = torch.tensor([*columns, [1.0] * len(values)], dtype=torch.float64).t()
    # One column of each attribute is redundant: the solution of least norm, whose differences
    # are those of any other.
    solution = torch.linalg.lstsq(design, mean.double(), driver="gelsd").solution
    return dict(zip(pairs, solution.float(), strict=False))


def probe(mean: Tensor, values: list[Values]) -> Vectors:
    """Weights of a softmax classifier for each attribute, as long as the class means are apart."""
    means = class_means(mean, values)
    vectors: Vectors = {}
    for name, choices in ATTRIBUTES.items():
        targets = torch.tensor([choices.index(row[name]) for row in values])
        weight = torch.zeros(len(choices), mean.shape[1] + 1, requires_grad=True)
        optimizer = torch.optim.LBFGS([weight], max_iter=50)

        def loss(weight: Tensor = weight, targets: Tensor = targets) -> Tensor:
            weight.grad = None
            logits = torch.nn.functional.linear(mean, weight[:, :-1], weight[:, -1])
            value = torch.nn.functional.cross_entropy(logits, targets)
            value = value + 1e-4 * weight.square().sum()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimizer.step(loss)  # type: ignore[no-untyped-call]
        points = weight.detach()[:, :-1]
        apart = torch.stack([means[name, value] for value in choices])
        points = points * (torch.pdist(apart).mean() / torch.pdist(points).mean())
        vectors |= {(name, value): row for value, row in zip(choices, points, strict=True)}
    return vectors


ESTIMATORS: dict[str, Callable[[Tensor, list[Values]], Vectors]] = {
    "class means": class_means,
    "least squares": least_squares,
    "probe": probe,
}


def trials(part: Part, size: int) -> Iterator[Trial]:
    """For each ordered pair of values, the first sentences with the one, to be given the other."""
    for name, choices in ATTRIBUTES.items():
        for old, new in permutations(choices, 2):
            rows = [row for row, values in enumerate(part.values) if values[name] == old]
            yield from (Trial(row, name, old, new) for row in rows[:size])


def preserves(trial: Trial, before: Values | None, after: Values | None, names: list[str]) -> bool:
    """Return whether an edit made its change, and left the other named attributes as they were."""
    if before is None or after is None or after[trial.name] != trial.new:
        return False
    return all(after[name] == before[name] for name in names if name != trial.name)


def evaluate_edits(
    vae: textvae.TextVAE, part: Part, edits: list[Trial], steps: Tensor, held: list[str]
) -> list[dict[str, bool]]:
    """Edit each trial's sentence by its step, `[N, Z]`, and parse the result."""
    rows = torch.tensor([trial.row for trial in edits])
    grammar, outcomes = embedded_grammar(), []
    for trial, text in zip(edits, vae.decode(part.mean[rows] + steps), strict=True):
        after, before = grammar.attributes(text), part.values[trial.row]
        counted = (
            after is not None,
            preserves(trial, before, after, []),
            preserves(trial, before, after, list(ATTRIBUTES)),
            preserves(trial, before, after, held),
            preserves(trial, part.reconstructed[trial.row], after, list(ATTRIBUTES)),
        )
        outcomes.append(dict(zip(COUNTS, counted, strict=True)))
    return outcomes


def fractions(outcomes: list[dict[str, bool]]) -> dict[str, float]:
    """The fraction of each count, and the number of edits."""
    size = len(outcomes)
    by_count = {name: round(sum(one[name] for one in outcomes) / size, 4) for name in COUNTS}
    return by_count | {"edits": size}


def reconstruction(part: Part) -> dict[str, object]:
    """Fractions of sentences whose reconstruction has the same attributes: a bound of edits."""
    pairs = list(zip(part.values, part.reconstructed, strict=True))
    each = {
        name: round(sum(b is not None and a[name] == b[name] for a, b in pairs) / len(pairs), 4)
        for name in ATTRIBUTES
    }
    return {"all": round(sum(a == b for a, b in pairs) / len(pairs), 4), "each": each}


def steps_of(edits: list[Trial], vectors: Vectors, strength: float) -> Tensor:
    """The steps to add to each trial's latent, `[N, Z]`."""
    return torch.stack(
        [strength * (vectors[t.name, t.new] - vectors[t.name, t.old]) for t in edits]
    )


def measure(vae: textvae.TextVAE, train: Part, valid: Part, test: Part, size: int) -> object:
    """Choose estimator and strength on `valid`, edit `test`."""
    preserved = reconstruction(valid)["each"]
    assert isinstance(preserved, dict)
    held = [name for name, fraction in preserved.items() if fraction >= HELD]
    vectors = {name: fit(train.mean, train.values) for name, fit in ESTIMATORS.items()}
    edits = list(trials(valid, size))
    score: dict[tuple[str, str, float], float] = {}
    for estimator, strength in product(vectors, STRENGTHS):
        steps = steps_of(edits, vectors[estimator], strength)
        outcomes = evaluate_edits(vae, valid, edits, steps, held)
        for name in ATTRIBUTES:
            score[name, estimator, strength] = fractions(of_attributes(edits, outcomes, [name]))[
                "held"
            ]
    edits = list(trials(test, size))

    def outcomes_of(choice: dict[str, tuple[str, float]]) -> list[dict[str, bool]]:
        steps = [steps_of([t], vectors[choice[t.name][0]], choice[t.name][1]) for t in edits]
        return evaluate_edits(vae, test, edits, torch.cat(steps), held)

    def rank(name: str, option: tuple[str, float]) -> float:
        return score[name, *option]

    def best(estimators: list[str]) -> dict[str, tuple[str, float]]:
        return {
            name: max(product(estimators, STRENGTHS), key=partial(rank, name))
            for name in ATTRIBUTES
        }

    choice = best(list(vectors))
    outcomes = outcomes_of(choice)
    return {
        "held": held,
        "reconstruction": reconstruction(test),
        "overall": fractions(outcomes),
        "overall_of_held": fractions(of_attributes(edits, outcomes, held)),
        "by_attribute": {
            name: {"estimator": estimator, "strength": strength}
            | fractions(of_attributes(edits, outcomes, [name]))
            for name, (estimator, strength) in choice.items()
        },
        "overall_by_estimator": {name: fractions(outcomes_of(best([name]))) for name in vectors},
    }


def of_attributes(
    edits: list[Trial], outcomes: list[dict[str, bool]], names: list[str]
) -> list[dict[str, bool]]:
    """The outcomes of edits of these attributes."""
    return [outcome for t, outcome in zip(edits, outcomes, strict=True) if t.name in names]


def main() -> None:
    """Print the figures of a run as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", nargs="?", default="runs/embedded")
    parser.add_argument("--pairs", type=int, default=40, help="sentences per ordered pair")
    parser.add_argument("--train", type=int, default=20_000, help="sentences to estimate from")
    options = parser.parse_args()
    vae, splits = textvae.TextVAE.from_pretrained(options.run), embedded_splits()
    first = options.train
    mean = vae.encode(splits.train.texts[:first]).mean.cpu()
    train = Part(mean, parse(splits.train.labels[:first]), [])
    valid, test = (encode(vae, split, 2000) for split in (splits.valid, splits.test))
    print(json.dumps(measure(vae, train, valid, test, options.pairs), indent=2))


if __name__ == "__main__":
    main()
