"""Which sentences a report is about, and that labels stay with their sentences."""

import shutil
from pathlib import Path

import pytest
from msgspec import structs

from textvae.api.text_vae import TextVAE
from textvae.config import encode_json
from textvae.data.corpus import read_sentences
from textvae.errors import DataError
from textvae.report.corpus import DataChoice, Property, properties, read_corpus
from textvae.run.data import DATA, load_facts


@pytest.fixture(scope="module")
def vae(tiny_run: Path) -> TextVAE:
    return TextVAE.from_pretrained(tiny_run, device="cpu")


def test_labels_are_one_property_or_several() -> None:
    assert properties(["a", "b", "a", "c", "a", "b"])[0].by_frequency() == ["a", "b", "c"]
    found = properties(["x=1 y=p z=k", "x=2 y=q z=k", "x=3 y=p z=k"])
    assert [(one.name, one.values) for one in found] == [
        ("x", ["1", "2", "3"]),
        ("y", ["p", "q", "p"]),  # and z, which is the same for all, is not there
    ]
    for plain in (
        ["x=1", "2"],
        ["x=1", "y=1"],
        ["x=1 y", "x=2 y"],
        ["x=1 x=2", "x=2 x=1"],
        ["", "a"],
    ):
        assert [(one.name, one.values) for one in properties(plain)] == [("label", plain)]
    assert properties(["same", "same"]) == []
    assert properties([]) == []


def test_the_test_set_of_a_run(vae: TextVAE, tiny_data: Path) -> None:
    texts = (tiny_data / "test.txt").read_text(encoding="utf-8").splitlines()
    whole = read_corpus(vae, DataChoice(), limit=100, seed=0)
    assert whole.texts == texts
    assert whole.source == whole.whole_source == str(tiny_data / "test.txt")
    assert (whole.is_test_of_run, whole.is_embedded, whole.labels) == (True, False, [])
    some = read_corpus(vae, DataChoice(), limit=5, seed=0)
    assert len(some.texts) == 5
    assert some.texts == [text for text in texts if text in some.texts]
    assert some.source == f"5 of 11 of {tiny_data / 'test.txt'}"
    assert read_corpus(vae, DataChoice(), limit=5, seed=1).texts != some.texts


def test_labels_stay_with_their_sentences(vae: TextVAE, tmp_path: Path) -> None:
    long = "red " * 9
    rows = [("red cat eats", "a"), (long, "b"), ("", "c"), ("big dog sees", "d"), ("shy hen", "e")]
    table = tmp_path / "some.tsv"
    lines = ["text\tlabel", *(f"{text}\t{label}" for text, label in rows)]
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = read_corpus(vae, DataChoice(table), limit=100, seed=0)
    expected = [(text, label) for text, label in rows if text and text != long]
    assert list(zip(found.texts, found.labels[0].values, strict=True)) == expected
    assert found.facts.too_long_tokens == 1
    for seed in range(5):
        some = read_corpus(vae, DataChoice(table), limit=3, seed=seed)
        pairs = list(zip(some.texts, some.labels[0].values, strict=True))
        assert pairs == [pair for pair in expected if pair in pairs]
    plain, labels = tmp_path / "some.txt", tmp_path / "some.labels"
    plain.write_text("".join(f"{text}\n" for text, _ in rows), encoding="utf-8")
    labels.write_text("".join(f"{label}\n" for _, label in rows), encoding="utf-8")
    again = read_corpus(vae, DataChoice(plain, labels=labels), limit=100, seed=0)
    assert (again.texts, again.labels) == (found.texts, found.labels)
    texts, given = zip(*expected, strict=True)
    listed = read_corpus(vae, DataChoice(texts, labels=given), limit=100, seed=0)
    assert (listed.texts, listed.labels) == (found.texts, found.labels)


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (DataChoice(labels="x.labels"), "belong to DATA"),
        (DataChoice(text_column="text"), "belong to DATA"),
        (DataChoice("one string", labels=["a"]), "give a file"),
        (DataChoice(["red cat"], labels=["a", "b"]), "2 labels for 1 sentences"),
        (DataChoice(["red cat"], labels="x.labels"), "labels in a list"),
        (DataChoice("nowhere.txt"), "no such file"),
        (DataChoice([]), "is empty"),
    ],
)
def test_what_cannot_be_read(vae: TextVAE, choice: DataChoice, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_corpus(vae, choice, limit=7, seed=0)


def test_a_model_without_a_run_needs_data(vae: TextVAE) -> None:
    bare = TextVAE(vae.model, vae.tokenizer, vae.config)
    with pytest.raises(DataError, match="give the sentences"):
        read_corpus(bare, DataChoice(), limit=7, seed=0)
    assert read_corpus(bare, DataChoice(["red cat", "big dog"]), limit=7, seed=0).labels == []


def test_labels_of_a_run_are_read_again_while_its_file_is_what_it_was(
    tiny_run: Path, tmp_path: Path
) -> None:
    run, text, labels = tmp_path / "run", tmp_path / "test.txt", tmp_path / "test.labels"
    shutil.copytree(tiny_run, run)
    facts = load_facts(run / DATA)
    assert facts is not None
    shutil.copy(facts.test.read.source, text)
    names = [f"kind {number % 3}" for number in range(facts.test.num_sentences)]
    labels.write_text("\n".join(names), encoding="utf-8")
    read = read_sentences(text, labels_file=labels).report
    changed = structs.replace(facts, test=structs.replace(facts.test, read=read))
    (run / DATA / "data.json").write_bytes(encode_json(changed))
    vae = TextVAE.from_pretrained(run, device="cpu")
    assert read_corpus(vae, DataChoice(), limit=99, seed=0).labels == [Property("label", names)]
    labels.write_text("\n".join(reversed(names)), encoding="utf-8")
    assert read_corpus(vae, DataChoice(), limit=99, seed=0).labels == []
    labels.unlink()
    assert read_corpus(vae, DataChoice(), limit=99, seed=0).labels == []
