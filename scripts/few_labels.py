"""Learning from few labels: accuracies of M1 and M2 beside common baselines.

    PYTHONPATH=. python scripts/few_labels.py DATA_DIR [SET ...] --seeds 0 1 2 --sizes 100 1000

SET is a folder of DATA_DIR with train, test and their labels (short_yelp uses its own subsets), or
`embedded:ATTRIBUTE`. A size is the number of labelled sentences, at least two per class; up to
--unlabelled other training sentences have none. Test sentences: a random 1,000. One line of JSON
per result on stdout, so that a run can be split; `--table FILE` makes the table of them.

The GRU classifier is the q(y|x) of M2 by itself, trained on the labelled sentences alone. M1 is a
model without labels and logistic regression on its posterior means. How well samples carry their
label is measured by `label_samples.py`: here the decoder reads no words, so it writes no sentences.
"""

import argparse
import gzip
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F

from textvae.data.batching import TokenArray
from textvae.data.grammar import embedded_grammar
from textvae.data.tokenizer import WordTokenizerConfig
from textvae.metrics.classification import classification
from textvae.metrics.likelihood import encode_corpus, label_log_posteriors
from textvae.model.vae import VAE
from textvae.randomness import Noise, key, permutation
from textvae.run.experiment import choose_training, load_config
from textvae.train.config import TrainConfig
from textvae.train.labelled import LabelledBatches
from textvae.train.loop import train

METHODS = ("tfidf", "gru", "m1", "m2")
LONGEST, HELD_OUT, GRU_STEPS = 24, 500, 300
SETTINGS = (
    "model.latent_dim=64",
    *("model.encoder.embedding_dim=64", "model.encoder.hidden_dim=128"),
    *("model.encoder.pooling=mean", "model.decoder.skip_connection=true"),
    *("model.decoder.embedding_dim=64", "model.decoder.hidden_dim=64"),
    "model.decoder.output_dropout_rate=0.0",
    "train.objective.word_dropout.value=1.0",
    *("model.prior.kind=standard_normal", "train.objective.kl_weight.share=0.25"),
    *("train.objective.free_bits.kind=none", "train.objective.beta=0.1"),
    *("train.device=cpu", "train.precision=bfloat16", "train.batch_size=64"),
    *("train.optimizer.learning_rate=0.01", "train.log_every=100000"),
)
"""The decoder reads no words, so that the latent has to hold them."""
Pairs = list[tuple[str, str]]


def lines(path: Path) -> list[str]:
    """The lines of a packed file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [line.rstrip("\n") for line in file]


def pairs_of(folder: Path, name: str) -> Pairs:
    """Sentences and labels of one file."""
    texts, labels = lines(folder / f"{name}.txt.gz"), lines(folder / f"{name}.labels.gz")
    return list(zip(texts, labels, strict=True))


def embedded(attribute: str, count: int, first: int) -> Pairs:
    """Draws of the embedded grammar, each with one of its attributes."""
    grammar = embedded_grammar()
    draws = [grammar.draw(0, index) for index in range(first, first + count)]
    return [(text, attributes[attribute]) for text, attributes in draws]


def shuffled(pairs: Pairs, seed: int, name: str) -> Pairs:
    """The pairs in an order that is a function of the seed."""
    return [pairs[i] for i in permutation(key(seed, "few labels", name), len(pairs)).tolist()]


def data_of(
    root: Path, name: str, size: int, seed: int, *, unlabelled: int, split: str
) -> tuple[Pairs, list[str], Pairs]:
    """Labelled, unlabelled and test (or valid) sentences, as a function of the seed."""
    set_name, _, attribute = name.partition(":")
    subset: Pairs | None = None  # labelled sentences that come with the set
    if attribute:
        whole = embedded(attribute, 2 * unlabelled, 0)
        test = embedded(attribute, 2000, 100_000 if split == "test" else 110_000)
    else:
        whole = pairs_of(root / name, "train")
        if set_name == "short_yelp":
            subset = pairs_of(root / name, f"train.{size}")
        if split == "test" or (root / name / f"{split}.txt.gz").exists():
            test = pairs_of(root / name, split)
        else:  # the last training sentences, which the sets without it do not train on either
            test = whole[-HELD_OUT:]
        if not (root / name / "valid.txt.gz").exists():
            whole = whole[:-HELD_OUT]
    whole = shuffled(whole, seed, name)
    kinds = len({label for _, label in whole})
    labelled = subset or whole[: max(size, 2 * kinds)]
    rest = [text for text, _ in whole[0 if subset else len(labelled) :]][:unlabelled]
    test = shuffled(test, seed, name)
    known = {label for _, label in labelled}
    return labelled, rest, [pair for pair in test if pair[1] in known][:1000]


class Case:
    """One set, size and seed, tokenized."""

    def __init__(
        self, labelled: Pairs, rest: list[str], test: Pairs, seed: int, settings: list[str]
    ) -> None:
        self.labelled, self.test, self.seed, self.settings = labelled, test, seed, settings
        texts = [text for text, _ in labelled] + rest
        self.tokenizer = WordTokenizerConfig(vocabulary_size=3000, lowercase=True).train(texts)
        self.names = sorted({label for _, label in labelled})
        known = [self.names.index(label) for _, label in labelled]
        self.labels = torch.tensor(known + [-1] * len(rest))
        self.corpus = self.array(texts)._replace(labels=self.labels)
        self.test_array = self.array([text for text, _ in test])
        self.truth = torch.tensor([self.names.index(label) for _, label in test])
        self.valid = self.array(rest[-300:])

    def array(self, texts: list[str]) -> TokenArray:
        """The first LONGEST tokens of each sentence."""
        ids = [row[:LONGEST] for row in self.tokenizer.encode_batch(texts)]
        return TokenArray.from_lists(ids, self.tokenizer.start)

    def build(self, kind: str, steps: int) -> tuple[VAE, TrainConfig]:
        """A model with labels of a kind, and how it is trained."""
        more = [f"model.labels.kind={kind}", f"train.max_steps={steps}"]
        if kind != "none":
            more.append("model.labels.summed_labels=2")
        config = load_config(
            None, [*SETTINGS, *more, f"train.validate_every={steps}", *self.settings]
        )
        config, _ = choose_training(config, lengths=self.corpus.lengths)
        model = config.model.build(
            self.tokenizer.vocabulary_size, num_labels=len(self.names), seed=self.seed
        )
        model.labels.set_counts(self.labels)
        return model, config.train

    def trained(self, kind: str, steps: int) -> VAE:
        """A model trained by the package's own loop."""
        model, config = self.build(kind, steps)
        parts = self.corpus, self.valid, config
        train(model, *parts, seed=self.seed, run=None, report=lambda line: None)
        return model

    def figures(self, method: str, log_q: Tensor) -> dict[str, float]:
        """Accuracy and expected calibration error on the test sentences."""
        result = classification(log_q, self.truth)
        return {method: result.accuracy, f"{method}_ece": result.calibration_error}


def gru_classifier(case: Case, steps: int) -> VAE:
    """The q(y|x) of M2, trained by itself on the labelled sentences."""
    model, _ = case.build("m2", steps)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)
    model.train()
    batches = LabelledBatches(case.corpus, 32, seed=case.seed)
    for step in range(steps):
        batch = batches.at(step)
        assert batch is not None
        assert batch.labels is not None
        noise = Noise(case.seed, step, batch.indices)
        log_q = model.label_log_posterior(batch.targets, batch.lengths, noise=noise)
        optimizer.zero_grad()
        F.nll_loss(log_q, batch.labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval()


def tfidf(case: Case) -> float:
    """TF-IDF with logistic regression."""
    vectors = TfidfVectorizer(token_pattern=r"\S+")
    words = vectors.fit_transform([text for text, _ in case.labelled])
    fitted = LogisticRegression(max_iter=1000).fit(words, [label for _, label in case.labelled])
    test = vectors.transform([text for text, _ in case.test])
    return float(fitted.score(test, [label for _, label in case.test]))


def measure(case: Case, steps: int, methods: Sequence[str]) -> dict[str, float]:
    """The figures of each method, and the CPU seconds of all."""
    figures: dict[str, float] = {}
    begun = time.process_time()
    if "tfidf" in methods:
        figures["tfidf"] = tfidf(case)
    if "gru" in methods:
        log_q = label_log_posteriors(gru_classifier(case, GRU_STEPS), case.test_array)
        figures |= case.figures("gru", log_q)
    if "m2" in methods:
        m2 = case.trained("m2", steps)
        figures |= case.figures("m2", label_log_posteriors(m2, case.test_array))
    if "m1" in methods:
        m1 = case.trained("none", steps)
        known = case.corpus.head(len(case.labelled))
        means = [encode_corpus(m1, array).mean for array in (known, case.test_array)]
        fitted = LogisticRegression(max_iter=1000).fit(means[0], case.labels[: len(case.labelled)])
        log_q = torch.tensor(fitted.predict_log_proba(means[1]))
        figures |= case.figures("m1", log_q)
    return figures | {"cpu_seconds": time.process_time() - begun}


def table(rows: list[dict[str, object]], columns: Sequence[str]) -> str:
    """Percentages: means over seeds, the smallest and the largest in brackets; "-" is not run."""
    groups: dict[tuple[str, object], dict[object, dict[str, object]]] = defaultdict(dict)
    for row in rows:  # the methods of one case may be in several rows
        runs = groups[str(row["set"]), row["size"]]
        runs[row["seed"]] = runs.get(row["seed"], {}) | row
    out = ["| set | labels | " + " | ".join(columns) + " |", "|---" * (2 + len(columns)) + "|"]
    for (name, size), runs in groups.items():
        cells = []
        for column in columns:
            values = [100 * float(str(row[column])) for row in runs.values() if column in row]
            cell = f"{mean(values):.1f}" if values else "-"
            if len(values) > 1:
                cell += f" ({min(values):.1f}-{max(values):.1f})"
            cells.append(cell if len(values) in {0, len(runs)} else f"{cell} of {len(values)}")
        out.append(f"| {name} | {size} | " + " | ".join(cells) + " |")
    return "\n".join(out)


def main() -> None:
    """Measure, or make the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("sets", nargs="*")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--methods", nargs="+", default=["tfidf", "gru", "m1", "m2"])
    parser.add_argument("--split", choices=("test", "valid"), default="test")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--unlabelled", type=int, default=10_000)
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    if options.table is not None:
        rows = [json.loads(line) for line in options.table.read_text().splitlines()]
        print(table(rows, METHODS))
        print(table(rows, [f"{method}_ece" for method in METHODS[1:]]))
        return
    for size in options.sizes:
        for seed in options.seeds:
            for name in options.sets:
                sources = {"unlabelled": options.unlabelled, "split": options.split}
                data = data_of(options.root, name, size, seed, **sources)
                figures = measure(
                    Case(*data, seed, options.settings), options.steps, options.methods
                )
                row = {"set": name, "size": size, "seed": seed, "steps": options.steps, **figures}
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
