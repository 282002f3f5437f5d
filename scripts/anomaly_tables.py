"""How well the scores of `textvae score` and simpler methods tell strange from normal sentences.

python scripts/anomaly_tables.py DATA OUT [--task NAME]... [--seed N]... [--ptb MODEL]
python scripts/anomaly_tables.py DATA OUT --table

DATA holds the corpora (see `anomaly_tasks.py`), OUT the models, which are trained where they are
not there, and a JSON file for each task and seed; --table prints what is in these. Needs
scikit-learn.
"""

import json
import time
from pathlib import Path
from typing import get_args

import click
import torch
from anomaly_tasks import TASKS, Task, model_of, read_task
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.neighbors import NearestNeighbors
from sklearn.svm import OneClassSVM
from torch import Tensor

from textvae.api.text_vae import TextVAE
from textvae.data.batching import TokenArray
from textvae.metrics.anomaly import detection
from textvae.metrics.likelihood import encode_corpus
from textvae.metrics.scores import (
    Features,
    ScoreConfig,
    aggregate_of,
    measure_features,
    unigram_log_probs,
)

SETS = ("valid", "test", "valid_strange", "test_strange")
NUM_SAMPLES, MOST, MOMENTS, RESAMPLES = 5, 500, 500, 200
"""K, sentences of a set, training sentences for the aggregate posterior, and of the bootstrap."""
SVM_TRAINING = 2_000

Scores = dict[str, Tensor]
"""By the names in SETS."""


def tokens(vae: TextVAE, sentences: list[str]) -> TokenArray:
    """Sentences as the model reads them, however long."""
    return TokenArray.from_lists(vae.tokenizer.encode_batch(sentences), vae.tokenizer.start)


def model_scores(task: Task, vae: TextVAE, language: TextVAE) -> dict[str, Scores]:
    """Every score of the package on every set, and the two that need the language model."""
    unigram = unigram_log_probs(tokens(vae, task.train))
    aggregate = aggregate_of(encode_corpus(vae.model, tokens(vae, task.train[:MOMENTS])))
    features: dict[str, Features] = {}
    alone: dict[str, Features] = {}
    for name in SETS:
        data = tokens(vae, getattr(task, name)[:MOST])
        features[name] = measure_features(
            vae.model, data, num_samples=NUM_SAMPLES, seed=0, unigram=unigram, aggregate=aggregate
        )
        alone[name] = measure_features(language.model, data, num_samples=1, seed=0, unigram=unigram)
    found: dict[str, Scores] = {}
    for member in get_args(ScoreConfig):
        tag, needs_latent = (
            member.__struct_config__.tag,
            member.__name__ in {"KLScore", "MahalanobisScore"},
        )
        fitted = member().fit(features["valid"])
        found[tag] = {name: fitted(features[name]) for name in SETS}
        if needs_latent:
            continue
        fitted = member().fit(alone["valid"])
        if tag != "elbo":  # of a language model it is the nll
            found[f"language model: {tag}"] = {name: fitted(alone[name]) for name in SETS}
    found["likelihood_ratio, language model"] = {
        name: features[name].nll - alone[name].nll for name in SETS
    }
    return found


def baselines(task: Task) -> dict[str, Scores]:
    """What a user would try first: words weighted by TF-IDF, and scikit-learn."""
    words = TfidfVectorizer(sublinear_tf=True)
    train = words.fit_transform(task.train)
    sets = {name: words.transform(getattr(task, name)[:MOST]) for name in SETS}
    machine = OneClassSVM(kernel="linear", nu=0.1).fit(train[:SVM_TRAINING])
    near = NearestNeighbors(n_neighbors=1, metric="cosine", algorithm="brute").fit(train)
    return {
        "TF-IDF, one-class SVM": {
            name: torch.tensor(-machine.decision_function(rows)) for name, rows in sets.items()
        },
        "TF-IDF, nearest neighbour": {
            name: torch.tensor(near.kneighbors(rows)[0][:, 0]) for name, rows in sets.items()
        },
    }


def measure(data: Path, out: Path, name: str, seed: int, ptb: Path | None) -> None:
    """One task with one seed: train what is missing, score, and write the figures."""
    begun, task = time.process_time(), read_task(data, name, seed)
    language = model_of(task, seed, out, latent=False)
    given = name == "ptb" and ptb is not None
    vae = (
        TextVAE.from_pretrained(ptb, device="cpu")
        if given
        else model_of(task, seed, out, latent=True)
    )
    rows: dict[str, object] = {}
    for method, scores in {**model_scores(task, vae, language), **baselines(task)}.items():
        found = {
            split: detection(
                scores[split], scores[f"{split}_strange"], seed=seed, num_resamples=RESAMPLES
            )._asdict()
            for split in ("valid", "test")
        }
        rows[method] = found
    facts = {"without": task.without, "sizes": {s: len(getattr(task, s)[:MOST]) for s in SETS}}
    facts |= {"num_train": len(task.train), "cpu_seconds": time.process_time() - begun}
    (out / f"{name}-{seed}.json").write_text(json.dumps({**facts, "methods": rows}))


def table(out: Path) -> str:
    """AUROC, average precision and FPR at 95 % TPR on the test sets, means over the seeds."""
    found: dict[str, list[dict[str, dict[str, dict[str, dict[str, list[float]]]]]]] = {}
    for name in TASKS:
        files = sorted(out.glob(f"{name}-?.json"))
        if files:
            found[name] = [json.loads(file.read_text())["methods"] for file in files]
    lines = ["| score | valid | " + " | ".join(f"{n} ({len(r)})" for n, r in found.items()) + " |"]
    lines.append("|---" * (len(found) + 2) + "|")
    for method in next(iter(found.values()))[0]:
        cells, valid = [], []
        for runs in found.values():
            figures = [run[method]["test"] for run in runs]
            columns = [
                torch.tensor([run[name][0] for run in figures], dtype=torch.float64) * 100
                for name in ("auroc", "average_precision", "fpr_at_95_tpr")
            ]
            spread = f" +- {columns[0].std():.1f}" if len(runs) > 1 else ""
            others = " / ".join(f"{float(column.mean()):.0f}" for column in columns[1:])
            cells.append(f"{float(columns[0].mean()):.1f}{spread}; {others}")
            valid.append(sum(run[method]["valid"]["auroc"][0] for run in runs) / len(runs))
        mean = 100 * sum(valid) / len(valid)
        lines.append(f"| {method} | {mean:.1f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


@click.command(help=__doc__)
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--task", "tasks", multiple=True, type=click.Choice(TASKS), default=TASKS)
@click.option("--seed", "seeds", multiple=True, type=int, default=(0, 1, 2))
@click.option("--ptb", type=click.Path(path_type=Path), help="A model of the Penn Treebank.")
@click.option("--table", "only_table", is_flag=True, help="Print what has been measured.")
def main(
    data: Path,
    out: Path,
    tasks: tuple[str, ...],
    seeds: tuple[int, ...],
    ptb: Path | None,
    only_table: bool,
) -> None:
    """Measure, and print the table."""
    for seed in () if only_table else seeds:
        for name in tasks:
            measure(data, out, name, seed, ptb)
    print(table(out))


if __name__ == "__main__":
    main()
