"""How often sentences asked for with a label carry it: on the embedded corpus, by its parser.

    python scripts/label_samples.py OUT --attribute polarity --labels 1000

Trains M2 by the recipe `embedded` in OUT, unless it is there: 80,000 sentences, of which so many
have a label. Then `textvae sample --label` for each value. One line of JSON on stdout: of the
samples, the share that carry the label, that are sentences of the grammar, and that, being
sentences, carry it; and the accuracy and calibration of q(y|x) on the test sentences.
"""

import argparse
import json
import time
from pathlib import Path

from textvae.api.classify import classifier
from textvae.api.text_vae import TextVAE
from textvae.data.corpus import sentences_of
from textvae.data.grammar import ATTRIBUTES, embedded_grammar, embedded_splits
from textvae.run.experiment import load_config

SETTINGS = (
    *("model.labels.kind=m2", "train.device=cpu", "evaluate.num_samples=1"),
    "evaluate.max_sentences=100",
)


def write_corpus(folder: Path, attribute: str, num_labels: int) -> None:
    """The embedded corpus with the labels of the first `num_labels` sentences."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, split in embedded_splits()._asdict().items():
        told = [dict(pair.split("=") for pair in line.split())[attribute] for line in split.labels]
        kept = num_labels if name == "train" else len(told)
        rows = [
            f"{text},{label if number < kept else ''}"
            for number, (text, label) in enumerate(zip(split.texts, told, strict=True))
        ]
        (folder / f"{name}.csv").write_text("text,label\n" + "\n".join(rows) + "\n")


def counts(vae: TextVAE, attribute: str, count: int) -> dict[str, dict[str, float]]:
    """By label, of `count` samples each: shares that carry it and that the grammar accepts."""
    grammar, found = embedded_grammar(), {}
    for number, label in enumerate(vae.labels):
        told = [grammar.attributes(text) for text in vae.sample(count, seed=number, label=label)]
        carried = sum(one is not None and one[attribute] == label for one in told)
        grammatical = sum(one is not None for one in told)
        found[label] = {
            "carried": carried / count,
            "grammatical": grammatical / count,
            "carried_of_grammatical": carried / max(1, grammatical),
        }
    return found


def main() -> None:
    """Train what is missing, and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--attribute", choices=tuple(ATTRIBUTES), default="polarity")
    parser.add_argument("--labels", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=1000, help="Of each label.")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    given = parser.parse_args()
    name = f"{given.attribute}-{given.labels}"
    run, begun = given.out / name / "run", time.process_time()
    if not (run / "manifest.json").exists():
        write_corpus(given.out / name / "corpus", given.attribute, given.labels)
        config = load_config(overrides=[*SETTINGS, *given.settings], recipe="embedded")
        TextVAE.train(given.out / name / "corpus", config=config, output=run, report=print)
    vae = TextVAE.from_pretrained(run, device="cpu")
    test = embedded_splits().test
    labels = [dict(p.split("=") for p in line.split())[given.attribute] for line in test.labels]
    told = classifier(vae).evaluate(sentences_of(test.texts, labels, source="test"))
    found: dict[str, object] = {
        "attribute": given.attribute,
        "labels": given.labels,
        "samples": given.samples,
    }
    found |= {"by_label": counts(vae, given.attribute, given.samples)}
    found |= {"classifier": told._asdict(), "cpu_seconds": time.process_time() - begun}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
