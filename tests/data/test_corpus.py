"""Places to splits: what is read, what is carved, and how labels keep step."""

import gzip
import hashlib
import io
import itertools
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from textvae.data.corpus import DataConfig, Sentences, Splits, load_splits, read_sentences
from textvae.errors import DataError

CONFIG = DataConfig()


def write(folder: Path, files: Mapping[str, str]) -> str:
    """Files of these names and contents, packed where the name ends in .gz."""
    for name, content in files.items():
        data = content.encode()
        (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return str(folder)


def sentences(number: int) -> list[str]:
    return [f"sentence number {index} of {index % 7}" for index in range(number)]


def lines(texts: list[str]) -> str:
    return "".join(text + "\n" for text in texts)


def load(data: str | Path, seed: int = 0, **options: object) -> Splits:
    return load_splits(data, config=CONFIG, seed=seed, **options)  # type: ignore[arg-type]


def refusal(data: str | Path, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        load(data, 0, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def parts(splits: Splits) -> tuple[list[str], list[str], list[str]]:
    return splits.train.texts, splits.valid.texts, splits.test.texts


def sets(splits: Splits) -> tuple[set[str], set[str], set[str]]:
    return set(splits.train.texts), set(splits.valid.texts), set(splits.test.texts)


def check_report(part: Sentences) -> None:
    report = part.report
    assert report.rows == report.kept + report.blank + report.too_long_characters
    assert report.kept == len(part.texts)
    content = "\n".join(part.texts) + "\0" + "\n".join(part.labels or [])
    assert report.sha256 == hashlib.sha256(content.encode()).hexdigest()


def test_a_carved_corpus_is_a_partition_in_the_order_of_the_file(tmp_path: Path) -> None:
    texts = sentences(1009)
    splits = load(write(tmp_path, {"a.txt": lines(texts)}) + "/a.txt")
    order = {text: index for index, text in enumerate(texts)}
    assert sorted(itertools.chain(*parts(splits))) == sorted(texts)
    for part, share in zip(splits[:3], (0.90, 0.05, 0.05), strict=True):
        assert part.texts == sorted(part.texts, key=order.__getitem__)
        # five standard deviations of a binomial count
        assert abs(len(part.texts) - 1009 * share) < 5 * (1009 * share * (1 - share)) ** 0.5
        check_report(part)
    assert any("valid carved" in note and "seed 0" in note for note in splits.notes)
    assert any("test carved" in note for note in splits.notes)


def test_carving_depends_on_the_seed_and_the_sentences_alone(tmp_path: Path) -> None:
    texts = sentences(509)
    write(tmp_path, {"a.txt": lines(texts), "b.csv": lines(["text", *reversed(texts)])})
    first = load(tmp_path / "a.txt")
    assert parts(load(tmp_path / "a.txt")) == parts(first)
    assert sets(load(tmp_path / "b.csv")) == sets(first)
    assert sets(load(tmp_path / "a.txt", seed=1)) != sets(first)


def test_old_sentences_stay_where_they_were_when_a_corpus_grows(tmp_path: Path) -> None:
    write(tmp_path, {"a.txt": lines(sentences(499)), "b.txt": lines(sentences(997))})
    for small, large in zip(
        sets(load(tmp_path / "a.txt")), sets(load(tmp_path / "b.txt")), strict=True
    ):
        assert small <= large


def test_copies_of_a_sentence_stay_together_with_their_labels(tmp_path: Path) -> None:
    texts = [text for text in sentences(211) for _ in range(3)]
    labels = [f"{text}/{index}" for index, text in enumerate(texts)]
    write(tmp_path, {"a.txt": lines(texts), "a.labels": lines(labels)})
    splits = load(tmp_path / "a.txt", labels_file=tmp_path / "a.labels")
    train, valid, test = sets(splits)
    assert train.isdisjoint(valid | test)
    assert valid.isdisjoint(test)
    for part in splits[:3]:
        assert part.labels is not None
        assert [label.partition("/")[0] for label in part.labels] == part.texts
        assert len(part.texts) == 3 * len(set(part.texts))
        check_report(part)


@pytest.mark.parametrize("number", [3, 4, 5, 7, 13])
@pytest.mark.parametrize("seed", range(5))
def test_tiny_corpora_fill_every_split(tmp_path: Path, number: int, seed: int) -> None:
    write(tmp_path, {"a.txt": lines(sentences(number) * 2)})
    splits = load(tmp_path / "a.txt", seed=seed)
    assert all(sets(splits))
    assert sum(map(len, sets(splits))) == number


def test_large_shares_leave_something_to_train_on(tmp_path: Path) -> None:
    write(tmp_path, {"a.txt": lines(sentences(3))})
    config = DataConfig(valid_share=0.4, test_share=0.4)
    for seed in range(11):
        assert all(sets(load_splits(tmp_path / "a.txt", config=config, seed=seed)))


def test_too_few_different_sentences(tmp_path: Path) -> None:
    write(tmp_path, {"a.txt": "a\nb\na\nb\n", "one.txt": "a\n"})
    assert "2 different sentences are too few" in refusal(tmp_path / "a.txt")
    splits = load(tmp_path / "a.txt", test=tmp_path / "one.txt")
    assert sorted([*splits.train.texts, *splits.valid.texts]) == ["a", "a", "b", "b"]
    assert all(sets(splits))
    assert "give 2 at least" in refusal(tmp_path / "one.txt", test=tmp_path / "a.txt")
    splits = load(tmp_path / "one.txt", valid=tmp_path / "one.txt", test=tmp_path / "one.txt")
    assert parts(splits) == (["a"], ["a"], ["a"])


@pytest.mark.parametrize("valid", ["valid.txt", "dev.txt.gz", "validation.csv", "val.jsonl"])
def test_a_directory_of_splits(tmp_path: Path, valid: str) -> None:
    content = {"csv": "text\nv\n", "jsonl": '{"text": "v"}\n'}.get(valid.split(".")[1], "v\n")
    files = {"train.txt.gz": "a\n\nb\n", valid: content, "test.tsv": "text\nt\n", "README.md": "x"}
    splits = load(write(tmp_path, files | {"oos_test.txt": "no"}))
    assert parts(splits) == (["a", "b"], ["v"], ["t"])
    assert splits.train.source == str(tmp_path / "train.txt.gz")
    assert any(
        "1 row (row 1, counted from 0) blank or missing, left out" in note for note in splits.notes
    )
    assert not any("carved" in note for note in splits.notes)
    assert read_sentences(tmp_path).texts == ["t"]
    assert read_sentences(tmp_path, split="valid").texts == ["v"]
    for part in splits[:3]:
        check_report(part)


def test_what_a_directory_lacks_is_carved(tmp_path: Path) -> None:
    write(tmp_path, {"train.txt": lines(sentences(101)), "test.txt": "t\n"})
    splits = load(tmp_path)
    train, valid, test = sets(splits)
    assert test == {"t"}
    assert valid
    assert sorted(train | valid) == sorted(sentences(101))
    assert splits.valid.source == f"{splits.train.source} (valid, carved)"
    check_report(splits.valid)


def test_valid_and_test_given_apart(tmp_path: Path) -> None:
    write(tmp_path, {"train.txt": "a\nb\n", "valid.txt": "no\n", "x.csv": "text\nv\n"})
    (tmp_path / "other").mkdir()
    write(tmp_path / "other", {"train.txt": "no\n", "test.txt": "t\n"})
    splits = load(tmp_path, valid=tmp_path / "x.csv", test=tmp_path / "other")
    assert parts(splits) == (["a", "b"], ["v"], ["t"])


def test_directories_that_cannot_train(tmp_path: Path) -> None:
    assert "a directory without a train file" in refusal(tmp_path)
    write(tmp_path, {"valid.txt": "a\n", "test.txt": "b\n"})
    assert "has valid and test but nothing to train on" in refusal(tmp_path)
    write(tmp_path, {"train.txt": "a\n", "train.txt.gz": "b\n"})
    assert "holds both train.txt and train.txt.gz" in refusal(tmp_path)


def test_labels_of_a_directory(tmp_path: Path) -> None:
    files = {
        "train.txt": "a\n\nb\n",
        "train.labels.gz": "x\n\ny\n",
        "valid.txt.gz": "v\n\n",
        "valid.labels": "x",
        "test.txt": "t\n",
    }
    splits = load(write(tmp_path, files))
    assert (splits.train.labels, splits.valid.labels, splits.test.labels) == (
        ["x", "y"],
        ["x"],
        None,
    )
    assert splits.train.report.label_column == str(tmp_path / "train.labels.gz")
    assert "test has no labels, train has" in splits.notes
    assert any("2 different" in note for note in splits.notes)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ("x\n", "1 labels for the 2 rows of"),
        ("x\ny\nz\n", "3 labels for the 2 rows of"),
        ("", "0 labels for the 2 rows of"),
        ("x\0\ny\n", "train.labels:1: holds a NUL"),
    ],
)
def test_labels_out_of_step(tmp_path: Path, labels: str, words: str) -> None:
    write(tmp_path, {"train.txt": "a\nb\n", "train.labels": labels})
    message = refusal(tmp_path)
    assert words in message
    assert "train.labels" in message


def test_labels_files_go_with_one_file(tmp_path: Path) -> None:
    write(tmp_path, {"train.txt": lines(sentences(5)), "x.labels": lines(list("abcde"))})
    labels = tmp_path / "x.labels"
    assert "--labels goes with one file" in refusal(tmp_path, labels_file=labels)
    words = refusal(tmp_path / "train.txt", labels_file=labels, label_column="n")
    assert "not from both" in words
    assert "no such file" in refusal(tmp_path / "train.txt", labels_file=tmp_path / "none")
    write(tmp_path, {"a.csv": "text,label\n" + lines([f"{text},no" for text in sentences(5)])})
    splits = load(tmp_path / "a.csv", labels_file=labels)
    found = [label for part in splits[:3] for label in part.labels or []]
    assert sorted(found) == list("abcde")
    assert splits.train.report.label_column == str(labels)


def test_labels_stay_in_step_past_dropped_rows(tmp_path: Path) -> None:
    write(tmp_path, {"a.txt": "a\n\n" + "x" * 31 + "\nb\n", "l": "1\n2\n3\n4\n"})
    read = read_sentences(tmp_path / "a.txt", labels_file=tmp_path / "l", max_characters=30)
    assert (read.texts, read.labels) == (["a", "b"], ["1", "4"])
    check_report(read)


def test_the_report_of_dropped_rows_stays_with_train(tmp_path: Path) -> None:
    write(tmp_path, {"a.txt": lines([*sentences(53), "", "x" * 41, " "])})
    config = DataConfig(max_characters=40)
    splits = load_splits(tmp_path / "a.txt", config=config, seed=3)
    assert (splits.train.report.blank, splits.train.report.too_long_characters) == (2, 1)
    assert sum(part.report.rows for part in splits[:3]) == 56
    for part in splits[:3]:
        check_report(part)
    notes = [note.removeprefix(f"{tmp_path / 'a.txt'}: ") for note in splits.notes]
    assert notes[:3] == [
        "53 sentences of 56 rows",
        "2 rows (the first is row 53, counted from 0) blank or missing, left out",
        "1 row (row 54, counted from 0) longer than 40 characters, left out",
    ]


def test_standard_input_is_carved() -> None:
    splits = load("-", stdin=io.BytesIO(lines(sentences(11)).encode()))
    assert sum(map(len, sets(splits))) == 11
    assert splits.train.source == "standard input"
    assert "standard input: is empty" in refusal("-", stdin=io.BytesIO())


def test_columns_are_told(tmp_path: Path) -> None:
    rows = [f"{index},{text},{index % 3}" for index, text in enumerate(sentences(41))]
    write(tmp_path, {"a.csv": lines(["id,sentence,label", *rows])})
    splits = load(tmp_path / "a.csv")
    assert any("text from column 'sentence'" in note for note in splits.notes)
    assert any("labels from 'label', 3 different" in note for note in splits.notes)
    assert splits.valid.labels is not None
    write(tmp_path, {"b.csv": lines(["id,sentence,label", *rows, "9,no label here,"])})
    splits = load(tmp_path / "b.csv")
    assert any("3 different; 1 sentences have none" in note for note in splits.notes)


def test_missing_places(tmp_path: Path) -> None:
    write(tmp_path, {"a.txt": lines(sentences(5))})
    assert "no such file" in refusal(tmp_path / "b.txt")
    assert "no such file" in refusal(tmp_path / "a.txt", valid=tmp_path / "none.txt")
    assert "is empty" in refusal("")
    assert "file name" in refusal("a\0b")


def test_a_large_corpus_keeps_every_row(tmp_path: Path) -> None:
    texts = [f"{index} of many" for index in range(100_003)]
    write(tmp_path, {"a.txt.gz": lines(texts)})
    splits = load(tmp_path / "a.txt.gz")
    assert sum(map(len, parts(splits))) == 100_003


@pytest.mark.parametrize(
    "wrong",
    [
        {"valid_share": 0},
        {"test_share": 0.5},
        {"max_length": 0},
        {"max_characters": 0},
        {"tokenizer": {"kind": "words"}},
        {"max_lenght": 5},
    ],
)
def test_config_bounds(wrong: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, DataConfig)
    assert msgspec.convert({}, DataConfig) == DataConfig()


def test_sentences_keep_the_numbers_of_their_rows_and_excluded_rows_their_reasons(
    tmp_path: Path,
) -> None:
    file = tmp_path / "a.txt"
    file.write_text("red fox\n\nold hen\n" + "x" * 29 + "\nodd bee\n", encoding="utf-8")
    sentences = read_sentences(file, max_characters=23)
    assert sentences.texts == ["red fox", "old hen", "odd bee"]
    assert list(sentences.rows) == [0, 2, 4]
    assert sentences.excluded == {1: "blank", 3: "too_long_characters"}
    splits = load_splits(file, config=DataConfig(max_characters=23), seed=3)
    parts = (splits.train, splits.valid, splits.test)
    lines = file.read_text(encoding="utf-8").splitlines()
    assert sorted(row for part in parts for row in part.rows) == [0, 2, 4]
    for part in parts:
        assert [lines[row] for row in part.rows] == part.texts
    assert splits.train.excluded == sentences.excluded
    assert splits.valid.excluded == splits.test.excluded == {}


# -- many files, and the names in which corpora travel ---------------------------------------------


def test_several_files_are_one_corpus(tmp_path: Path) -> None:
    texts = sentences(37)
    files = {"a.txt": "\n".join(texts[:11]), "b.txt": lines(["", *texts[11:23]])}
    folder = tmp_path / "many"
    folder.mkdir()
    write(folder, files | {"c.txt": "\n".join(texts[23:]), "README.txt": "no", "notes.md": "no"})
    names = [folder / name for name in ("a.txt", "b.txt", "c.txt")]
    config = DataConfig()
    for place, more in [(names[0], names[1:]), (folder, []), (folder / "[abc].t?t", [])]:
        splits = load_splits(place, more=list(map(str, more)), config=config, seed=3)
        assert sorted(text for part in splits[:3] for text in part.texts) == sorted(texts)
        assert splits.train.source.endswith("a.txt and 2 more")
        if place == folder:
            assert f"{folder}: not used: README.txt, notes.md" in splits.notes
    whole = read_sentences(folder)
    assert (whole.texts, whole.rows.tolist()) == (texts, [*range(11), *range(12, 38)])
    write(folder, {"d.csv": "text,label\nx,y\n"})
    assert "holds .csv and .txt files; name those to read" in refusal(folder)
    with pytest.raises(DataError, match=r"d\.csv: has no|a\.txt: has no labels"):
        load_splits(folder / "d.csv", more=[str(names[0])], config=config, seed=3)
    assert "no file has such a name" in refusal(folder / "*.tsv")
    (folder / "manifest.json").write_text("{}", encoding="utf-8")
    assert "is a run or a model, not text" in refusal(folder)


@pytest.mark.parametrize(
    "names",
    [
        ("ptb.train.txt", "ptb.valid.txt", "ptb.test.txt"),
        ("train.src", "val.src", "eval.src"),
        ("wiki.train.tokens", "wiki.dev.tokens", "wiki.test.tokens"),
        ("X.train.jsonl", "X.validation.jsonl", "X.eval.jsonl"),
        ("train.txt", "dev.txt", "eval.txt"),
    ],
    ids=lambda names: names[0],
)
def test_splits_under_the_names_in_which_corpora_travel(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    contents = {name: f"{kind}\n" for name, kind in zip(names, "avt", strict=True)}
    if names[0].endswith("jsonl"):
        contents = {name: f'{{"text": "{text[0]}"}}\n' for name, text in contents.items()}
    write(tmp_path, contents | {"vocab.md": "x"})
    splits = load(tmp_path)
    assert parts(splits) == (["a"], ["v"], ["t"])
    assert f"{tmp_path}: not used: vocab.md" in splits.notes
    write(tmp_path, {"other.train.txt": "b\n", "more.train.txt": "b\n"})
    if names[0] not in ("train.txt",):
        assert "holds both" in refusal(tmp_path)
