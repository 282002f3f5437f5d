"""How well `textvae attribute --least` changes a label of sentences and keeps the rest, as JSON.

python scripts/least_edits.py TRAIN.csv EDITED.csv MODEL --judge LANGUAGE_MODEL [--limit N]
                              [--margin X] [--show N]

The tables have columns `text` and `label`, with two labels. Sentences of EDITED are given the other
label: validation sentences while settings are chosen, test sentences for the table. A line for each
direction: the fraction whose label an outside classifier (logistic regression on words and pairs of
words of TRAIN, whose accuracy on EDITED is stated) sees changed, corpus BLEU to the source, and the
perplexity of the texts by the judge over that of the sources. Needs scikit-learn.
"""

import argparse
import csv
import json
from pathlib import Path

from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from textvae import TextVAE
from textvae.api.least_edit import MARGIN, attribute_of, edit_least
from textvae.metrics.text_quality import corpus_bleu, tokenization_for


def read(path: str) -> tuple[list[str], list[str]]:
    """Texts and labels."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["text"] for row in rows], [row["label"] for row in rows]


def main() -> None:
    """Print the figures of both directions, and some edits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train")
    parser.add_argument("edited")
    parser.add_argument("model")
    parser.add_argument("--judge", required=True)
    parser.add_argument("--limit", type=int, default=500, help="Sentences in each direction.")
    parser.add_argument("--margin", type=float, default=MARGIN)
    parser.add_argument("--show", type=int, default=0, help="Edits to print, the first ones.")
    arguments = parser.parse_args()
    (texts, labels), (others, others_labels) = read(arguments.train), read(arguments.edited)
    words = CountVectorizer(ngram_range=(1, 2), token_pattern=r"\S+", binary=True, min_df=2)
    outside = LogisticRegression(max_iter=300).fit(words.fit_transform(texts), labels)
    accuracy = float(outside.score(words.transform(others), others_labels))
    print(json.dumps({"outside_accuracy": accuracy, "num_sentences": len(others)}))
    vae = TextVAE.from_pretrained(arguments.model)
    judge = TextVAE.from_pretrained(arguments.judge)
    first, second = sorted(set(labels))
    for old, new in ((first, second), (second, first)):
        sets = [[t for t, y in zip(texts, labels, strict=True) if y == one] for one in (old, new)]
        attribute = attribute_of(vae, *sets)
        pairs = zip(others, others_labels, strict=True)
        sources = [text for text, label in pairs if label == old][: arguments.limit]
        edits = list(edit_least(vae, sources, attribute, margin=arguments.margin))
        written = [one.text if one.text.strip() else "." for one in edits]
        changed = outside.predict(words.transform(written)) == new
        bleu = corpus_bleu(written, sources, tokenization_for(vae.tokenizer.kind, sources)).value
        perplexities = [judge.evaluate(x, num_samples=1).perplexity for x in (written, sources)]
        figures = {
            "from": old,
            "to": new,
            "num_edited": len(edits),
            "changed": float(changed.mean()),
            "bleu_to_source": bleu,
            "perplexity_over_source": perplexities[0] / perplexities[1],
            "accepted": sum(one.accepted for one in edits) / len(edits),
        }
        print(json.dumps(figures), flush=True)
        for one in edits[: arguments.show]:
            print(f"    {one.sentence}  ->  {one.text}")


if __name__ == "__main__":
    main()
