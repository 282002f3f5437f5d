"""How well the scores of `textvae score` and simpler methods separate anomalies from normal text.

python scripts/anomaly_tables.py DATA OUT [--task NAME]... [--seed N]... [--ptb MODEL]
python scripts/anomaly_tables.py DATA OUT --table

DATA has a directory per corpus with `SPLIT.txt.gz` and, where it has classes, `SPLIT.labels.gz`,
one sentence or label per line. OUT holds the models, which are trained where they are missing, and
a JSON file per task and seed; --table prints what is in these. Needs scikit-learn.
"""

import gzip
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import click
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.neighbors import NearestNeighbors
from sklearn.svm import OneClassSVM
from torch import Tensor

from textvae.api.text_vae import TextVAE
from textvae.data.batching import TokenArray
from textvae.metrics.anomaly import detection
from textvae.metrics.likelihood import encode_corpus
from textvae.metrics.scores import (
    LATENT_KINDS,
    SCORE_KINDS,
    ScoreFeatures,
    aggregate_of,
    fit_score,
    measure_features,
    unigram_log_probs,
)
from textvae.randomness import key, permutation
from textvae.run.experiment import load_config

T = TypeVar("T")
TASKS = ("clinc150", "sms_spam", "trec", "stackoverflow", "ptb")
LEFT_OUT = {"trec": 2, "stackoverflow": 5}
"""How many classes are never trained on; which ones is a function of the seed."""
NEWS_VALID, NEWS_TEST, PTB_TEST = 1_000, 2_000, 2_000
SMALL = (
    *("model.decoder.embedding_dim=96", "model.decoder.hidden_dim=128"),
    *("train.max_steps=1500", "train.validate_every=125", "train.save_every=1500"),
    "train.patience=3",
    *("evaluate.num_samples=1", "evaluate.max_sentences=50", "train.device=cpu"),
    *("train.precision=bfloat16", "train.optimizer.learning_rate=0.005"),
    *("model.prior.kind=standard_normal", "model.decoder.skip_connection=false"),
    "train.objective.kl_weight.share=0.25",
    *("train.objective.word_dropout.kind=linear", "train.objective.word_dropout.start=0.3"),
    *("train.objective.word_dropout.end=0.0", "train.objective.word_dropout.share=1.0"),
    "train.objective.free_bits.nats=0.15",
)
ENCODER = (
    "model.latent_dim=32",
    "model.encoder.embedding_dim=64",
    "model.encoder.hidden_dim=96",
)
MORE = {"ptb": ("train.max_steps=750",)}
"""Fewer steps: its sentences are long."""
WITHOUT_LATENT = ("model.encoder.kind=none", "model.latent_dim=0")
SUBWORDS = ("data.tokenizer.kind=bpe", "data.tokenizer.vocabulary_size=2000")


class Task(NamedTuple):
    """Normal sentences, and the anomalies to detect."""

    name: str
    train: list[str]
    """Normal, like `valid` and `test`."""
    valid: list[str]
    test: list[str]
    valid_anomalies: list[str]
    """For choosing a score; no score is fitted on these."""
    test_anomalies: list[str]
    without: str
    """The classes that were left out, where there are any."""


def read_task(data: Path, name: str, seed: int) -> Task:
    """One task; the seed decides which classes, or which lines of a large test set, it has."""
    folder = data / name
    if name == "ptb":
        train, valid, test = (
            [line.lower() for line in _lines(folder, split)] for split in ("train", "valid", "test")
        )
        news = [line.lower() for line in _shuffled(_lines(data / "emnlp_news_test", "test"), seed)]
        anomalies = news[:NEWS_VALID], news[NEWS_VALID : NEWS_VALID + NEWS_TEST]
        test = _shuffled(test, seed)[:PTB_TEST]
        return Task(name, train, valid[:NEWS_VALID], test, *anomalies, "")
    if name == "clinc150":
        # The files are in the order of the intents, and the first lines of a set are what is taken.
        train, valid, test = (
            _shuffled(_lines(folder, split), seed) for split in ("train", "valid", "test")
        )
        anomalies = _lines(folder, "oos_valid"), _lines(folder, "oos_test")
        return Task(name, train, valid, test, *anomalies, "")
    splits = {split: _pairs(folder, split) for split in ("train", "test")}
    if (folder / "valid.txt.gz").exists():
        splits["valid"] = _pairs(folder, "valid")
    else:
        shuffled = _shuffled(splits["train"], seed)
        size = len(shuffled) // 8
        splits |= {"valid": shuffled[:size], "train": shuffled[size:]}
    if name == "sms_spam":
        left_out = {"spam"}
    else:
        classes = sorted({label for _, label in splits["train"]})
        # One order for all seeds, so that no two of them leave out the same classes.
        order, count = _shuffled(classes, 0), LEFT_OUT[name]
        left_out = {order[i % len(order)] for i in range(seed * count, (seed + 1) * count)}

    def texts(split: str, *, anomalies: bool) -> list[str]:
        return [text for text, label in splits[split] if (label in left_out) == anomalies]

    train, valid, test = (texts(split, anomalies=False) for split in ("train", "valid", "test"))
    anomalies = texts("valid", anomalies=True), texts("test", anomalies=True)
    return Task(name, train, valid, test, *anomalies, " ".join(sorted(left_out)))


def model_of(task: Task, seed: int, folder: Path, *, latent: bool) -> TextVAE:
    """The small model of a task, trained unless it is there already."""
    corpus = folder / f"{task.name}-{seed}"
    run = corpus / ("vae" if latent else "language-model")
    if not (run / "manifest.json").exists():
        corpus.mkdir(parents=True, exist_ok=True)
        for name in ("train", "valid", "test"):
            lines = "\n".join(getattr(task, name)) + "\n"
            (corpus / f"{name}.txt").write_text(lines, encoding="utf-8")
        kind = ENCODER if latent else WITHOUT_LATENT
        settings = [*SMALL, *kind, *SUBWORDS, *MORE.get(task.name, ()), f"seed={seed}"]
        TextVAE.train(corpus, config=load_config(None, settings), output=run, report=print)
    return TextVAE.from_pretrained(run, device="cpu")


def _lines(folder: Path, split: str) -> list[str]:
    with gzip.open(folder / f"{split}.txt.gz", "rt", encoding="utf-8", newline="\n") as file:
        return [line.removesuffix("\n") for line in file]


def _pairs(folder: Path, split: str) -> list[tuple[str, str]]:
    with gzip.open(folder / f"{split}.labels.gz", "rt", encoding="utf-8", newline="\n") as file:
        labels = [line.strip() for line in file]
    return list(zip(_lines(folder, split), labels, strict=True))


def _shuffled(items: Sequence[T], seed: int) -> list[T]:
    order = permutation(key(seed, "anomaly tasks"), len(items))
    return [items[index] for index in order.tolist()]


SETS = ("valid", "test", "valid_anomalies", "test_anomalies")
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
    features: dict[str, ScoreFeatures] = {}
    alone: dict[str, ScoreFeatures] = {}
    for name in SETS:
        data = tokens(vae, getattr(task, name)[:MOST])
        features[name] = measure_features(
            vae.model, data, num_samples=NUM_SAMPLES, seed=0, unigram=unigram, aggregate=aggregate
        )
        alone[name] = measure_features(language.model, data, num_samples=1, seed=0, unigram=unigram)
    scores: dict[str, Scores] = {}
    for kind in SCORE_KINDS:
        fitted = fit_score(kind, features["valid"])
        scores[kind] = {name: fitted(features[name]) for name in SETS}
        # The others need a latent; the ELBO of a language model is its nll.
        if kind != "elbo" and kind not in LATENT_KINDS:
            fitted = fit_score(kind, alone["valid"])
            scores[f"language model: {kind}"] = {name: fitted(alone[name]) for name in SETS}
    scores["likelihood_ratio, language model"] = {
        name: features[name].nll - alone[name].nll for name in SETS
    }
    return scores


def baselines(task: Task) -> dict[str, Scores]:
    """Words weighted by TF-IDF with scikit-learn's detectors, the usual first attempt."""
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
    if name == "ptb" and ptb is not None:
        vae = TextVAE.from_pretrained(ptb, device="cpu")
    else:
        vae = model_of(task, seed, out, latent=True)
    methods = {
        method: {
            split: detection(
                scores[split], scores[f"{split}_anomalies"], seed=seed, num_resamples=RESAMPLES
            )._asdict()
            for split in ("valid", "test")
        }
        for method, scores in {**model_scores(task, vae, language), **baselines(task)}.items()
    }
    row = {
        "without": task.without,
        "sizes": {split: len(getattr(task, split)[:MOST]) for split in SETS},
        "num_train": len(task.train),
        "cpu_seconds": time.process_time() - begun,
        "methods": methods,
    }
    (out / f"{name}-{seed}.json").write_text(json.dumps(row))


Figures = dict[str, dict[str, list[float]]]
"""Split -> figure -> estimate, and the ends of its interval."""


def table(out: Path) -> str:
    """AUROC, average precision and FPR at 95 % TPR on the test sets, means over the seeds."""
    measured: dict[str, list[dict[str, Figures]]] = {}
    for name in TASKS:
        files = sorted(out.glob(f"{name}-?.json"))
        if files:
            measured[name] = [json.loads(file.read_text())["methods"] for file in files]
    heads = " | ".join(f"{name} ({len(runs)})" for name, runs in measured.items())
    lines = [f"| score | valid | {heads} |", "|---" * (len(measured) + 2) + "|"]
    for method in next(iter(measured.values()))[0]:
        cells, valid = [], []
        for runs in measured.values():
            columns = [
                torch.tensor([run[method]["test"][figure][0] for run in runs], dtype=torch.float64)
                * 100
                for figure in ("auroc", "average_precision", "fpr_at_95_tpr")
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
