"""Normal and strange sentences of five corpora, for `anomaly_tables.py`; and the models of each.

A directory for each corpus with `SPLIT.txt.gz` and, where it has classes, `SPLIT.labels.gz`, one
sentence or label a line.
"""

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from textvae.api.text_vae import TextVAE
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
"""For time: its sentences are long."""
WITHOUT_LATENT = ("model.encoder.kind=none", "model.latent_dim=0")
SUBWORDS = ("data.tokenizer.kind=bpe", "data.tokenizer.vocabulary_size=2000")


class Task(NamedTuple):
    """What is normal, and what is to be told from it."""

    name: str
    train: list[str]
    """Normal, like `valid` and `test`."""
    valid: list[str]
    test: list[str]
    valid_strange: list[str]
    """For choosing a score; no score is fitted on these."""
    test_strange: list[str]
    without: str
    """The classes that were left out, where there are any."""


def read_task(data: Path, name: str, seed: int) -> Task:
    """One task; the seed decides which classes, or which lines of a large test set, it has."""
    if name == "ptb":
        news = [line.lower() for line in _chosen(_lines(data / "emnlp_news_test", "test"), seed)]
        strange = (news[:NEWS_VALID], news[NEWS_VALID : NEWS_VALID + NEWS_TEST])
        splits = [[t.lower() for t in _lines(data / name, s)] for s in ("train", "valid", "test")]
        test = _chosen(splits[2], seed)[:PTB_TEST]
        return Task(name, splits[0], splits[1][:NEWS_VALID], test, *strange, "")
    place = data / name
    if name == "clinc150":
        # The files are in the order of the intents, and the first lines of a set are what is taken.
        normal = [_chosen(_lines(place, split), seed) for split in ("train", "valid", "test")]
        return Task(name, *normal, _lines(place, "oos_valid"), _lines(place, "oos_test"), "")
    splits = {s: _pairs(place, s) for s in ("train", "test")}
    if (place / "valid.txt.gz").exists():
        splits["valid"] = _pairs(place, "valid")
    else:
        shuffled = _chosen(splits["train"], seed)
        splits["valid"], splits["train"] = (
            shuffled[: len(shuffled) // 8],
            shuffled[len(shuffled) // 8 :],
        )
    if name == "sms_spam":
        out = {"spam"}
    else:
        classes = sorted({label for _, label in splits["train"]})
        # One order for all seeds, so that no two of them leave out the same classes.
        order, many = _chosen(classes, 0), LEFT_OUT[name]
        out = {order[place % len(order)] for place in range(seed * many, (seed + 1) * many)}
    normal = [[t for t, label in splits[s] if label not in out] for s in ("train", "valid", "test")]
    strange = [[t for t, label in splits[s] if label in out] for s in ("valid", "test")]
    return Task(name, *normal, *strange, " ".join(sorted(out)))


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


def _lines(place: Path, split: str) -> list[str]:
    with gzip.open(place / f"{split}.txt.gz", "rt", encoding="utf-8", newline="\n") as file:
        return [line.removesuffix("\n") for line in file]


def _pairs(place: Path, split: str) -> list[tuple[str, str]]:
    with gzip.open(place / f"{split}.labels.gz", "rt", encoding="utf-8", newline="\n") as file:
        labels = [line.strip() for line in file]
    return list(zip(_lines(place, split), labels, strict=True))


def _chosen(items: Sequence[T], seed: int) -> list[T]:
    order = permutation(key(seed, "anomaly tasks"), len(items))
    return [items[index] for index in order.tolist()]
