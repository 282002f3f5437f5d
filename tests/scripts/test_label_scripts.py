"""The scripts about labels and anomalies: which sentences they take, and how rows go together."""

import csv
import gzip
from pathlib import Path

import anomaly_tables
import few_labels
import label_samples
import pytest

from textvae.data.grammar import embedded_grammar, embedded_splits


def test_few_labels_takes_sentences_of_no_two_sets() -> None:
    def data(split: str) -> tuple[list[tuple[str, str]], list[str], list[tuple[str, str]]]:
        name = "embedded:tense"
        return few_labels.data_of(Path(), name, 13, 5, unlabelled=97, split=split)

    labelled, rest, test = data("test")
    assert (len(labelled), len(rest), len(test)) == (13, 97, 1000)
    assert data("valid")[:2] == (labelled, rest)
    assert data("valid")[2] != test
    grammar = embedded_grammar()
    for text, label in labelled + test[:7]:
        attributes = grammar.attributes(text)
        assert attributes is not None
        assert attributes["tense"] == label


def test_a_set_without_validation_sentences_holds_some_back(tmp_path: Path) -> None:
    for name, count in (("train", few_labels.HELD_OUT + 31), ("test", 11)):
        for kind in ("txt", "labels"):
            lines = [f"{name} {i}" if kind == "txt" else str(i % 2) for i in range(count)]
            (tmp_path / "set").mkdir(exist_ok=True)
            with gzip.open(tmp_path / "set" / f"{name}.{kind}.gz", "wt") as file:
                file.write("\n".join(lines) + "\n")
    found = few_labels.data_of(tmp_path, "set", 7, 0, unlabelled=1000, split="valid")
    taken = {text for text, _ in found[0]} | set(found[1])
    assert taken == {f"train {i}" for i in range(31)}
    assert not taken & {text for text, _ in found[2]}


def test_the_table_puts_the_rows_of_a_case_together() -> None:
    rows: list[dict[str, object]] = [
        {"set": "a", "size": 7, "seed": seed, "tfidf": value}
        for seed, value in ((0, 0.5), (1, 0.7))
    ]
    rows.append({"set": "a", "size": 7, "seed": 1, "m2": 0.9})
    last = few_labels.table(rows, ("tfidf", "m2", "m1")).splitlines()[-1]
    assert last == "| a | 7 | 60.0 (50.0-70.0) | 90.0 of 1 | - |"


def test_label_samples_hides_all_labels_but_some(tmp_path: Path) -> None:
    label_samples.write_corpus(tmp_path, embedded_splits(num_train=211), "polarity", 41)
    with (tmp_path / "train.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 211
    assert [number for number, row in enumerate(rows) if row["label"]] == list(range(41))
    attributes = embedded_grammar().attributes(rows[3]["text"])
    assert attributes is not None
    assert attributes["polarity"] == rows[3]["label"]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_two_seeds_leave_out_the_same_classes_of_trec(tmp_path: Path, seed: int) -> None:
    (tmp_path / "trec").mkdir()
    for name in ("train", "test"):
        for kind in ("txt", "labels"):
            with gzip.open(tmp_path / "trec" / f"{name}.{kind}.gz", "wt") as file:
                file.writelines(f"{'ABCDEF'[i % 6]}\n" for i in range(120))
    left = [set(anomaly_tables.read_task(tmp_path, "trec", s).without.split()) for s in range(3)]
    assert len(left[seed]) == 2
    assert set.union(*left) == set("ABCDEF")
