"""How often sentences sampled with a label carry it: on the embedded corpus, by its parser.

    python scripts/label_samples.py OUT --attribute polarity --labels 1000

Trains M2 by the recipe `embedded` in OUT, unless it is there, with labels for the first of 80,000
sentences, and samples from each label. One line of JSON on stdout: the fractions of samples that
carry the label, that are sentences of the grammar, and of these that carry it; and the accuracy and
calibration of q(y|x) on the test sentences.
"""

import argparse
import json
import time
from pathlib import Path

from textvae.api.classify import classifier
from textvae.api.text_vae import TextVAE
from textvae.data.corpus import sentences_of
from textvae.data.grammar import (
    ATTRIBUTES,
    DrawnSplit,
    EmbeddedSplits,
    embedded_grammar,
    embedded_splits,
)
from textvae.run.experiment import load_config

SETTINGS = (
    *("model.labels.kind=m2", "train.device=cpu", "evaluate.num_samples=1"),
    "evaluate.max_sentences=100",
)


def attribute_values(split: DrawnSplit, attribute: str) -> list[str]:
    """One attribute of each sentence of a split."""
    return [dict(pair.split("=") for pair in line.split())[attribute] for line in split.labels]


def write_corpus(folder: Path, splits: EmbeddedSplits, attribute: str, num_labels: int) -> None:
    """Write the splits, of the training split with the labels of the first `num_labels` only."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, split in splits._asdict().items():
        labels = attribute_values(split, attribute)
        if name == "train":
            labels[num_labels:] = [""] * (len(labels) - num_labels)
        rows = [f"{text},{label}" for text, label in zip(split.texts, labels, strict=True)]
        (folder / f"{name}.csv").write_text("text,label\n" + "\n".join(rows) + "\n")


def counts(vae: TextVAE, attribute: str, count: int) -> dict[str, dict[str, float]]:
    """Fractions, per label, of `count` samples that carry it and that the grammar accepts."""
    grammar, by_label = embedded_grammar(), {}
    for number, label in enumerate(vae.labels):
        samples = vae.sample(count, seed=number, label=label)
        parsed = [values for values in map(grammar.attributes, samples) if values is not None]
        carried, grammatical = sum(v[attribute] == label for v in parsed), len(parsed)
        by_label[label] = {
            "carried": carried / count,
            "grammatical": grammatical / count,
            "carried_of_grammatical": carried / max(1, grammatical),
        }
    return by_label


def main() -> None:
    """Train what is missing, and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--attribute", choices=tuple(ATTRIBUTES), default="polarity")
    parser.add_argument("--labels", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=1000, help="Per label.")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    options = parser.parse_args()
    name = f"{options.attribute}-{options.labels}"
    run, begun = options.out / name / "run", time.process_time()
    if not (run / "manifest.json").exists():
        corpus = options.out / name / "corpus"
        write_corpus(corpus, embedded_splits(), options.attribute, options.labels)
        config = load_config(overrides=[*SETTINGS, *options.settings], recipe="embedded")
        TextVAE.train(corpus, config=config, output=run, report=print)
    vae = TextVAE.from_pretrained(run, device="cpu")
    test = embedded_splits().test
    labels = attribute_values(test, options.attribute)
    accuracy = classifier(vae).evaluate(sentences_of(test.texts, labels, source="test"))
    result = {
        "attribute": options.attribute,
        "labels": options.labels,
        "samples": options.samples,
        "by_label": counts(vae, options.attribute, options.samples),
        "classifier": accuracy._asdict(),
        "cpu_seconds": time.process_time() - begun,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
