"""The arrays of a run are the tokenizer's ids, and what fell out is counted and said."""

import re
from pathlib import Path

import pytest
import torch
from msgspec import structs

from textvae.data import grammar
from textvae.data.batching import TokenArray
from textvae.data.corpus import sentences_of
from textvae.data.tokenizer import Tokenizer, WordTokenizerConfig
from textvae.errors import CheckpointError, ConfigError, DataError
from textvae.run import data as run_data
from textvae.run.data import (
    EMBEDDED,
    SPLITS,
    DataOptions,
    RunData,
    data_differences,
    describe,
    load_facts,
    open_split,
    read_splits,
    save_run_data,
    tokenize,
    tokenize_sentences,
)
from textvae.run.experiment import ExperimentConfig, load_config

LIMIT = 5
PARTS = {
    "train": ["one two three", "two", "", "a b c d e f g", "five six", "a b c d e", "x y z x y z"],
    "valid": ["three one", "eleven", "six"],
    "test": ["two two two", "", "", "one", "q w e r t y"],
}


def write(folder: Path, parts: dict[str, list[str]] = PARTS) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in parts.items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(folder)


def prepare(data: str, *overrides: str) -> RunData:
    config = load_config(None, overrides)
    splits = read_splits(DataOptions(data), config)
    tokenizer = (config.data.tokenizer or WordTokenizerConfig()).train(splits.train.texts)
    return tokenize(splits, tokenizer, data, LIMIT)


def ids(array: TokenArray) -> list[list[int]]:
    return [
        array.tokens[first:last].tolist()
        for first, last in zip(array.offsets[:-1], array.offsets[1:], strict=True)
    ]


@pytest.mark.parametrize("kind", ["word", "bpe", "char"])
def test_arrays_are_the_ids_of_the_sentences_within_the_limit(tmp_path: Path, kind: str) -> None:
    data = prepare(
        write(tmp_path / "corpus"), f"data.tokenizer.kind={kind}", "data.max_characters=7"
    )
    for name in SPLITS:
        encoded = [data.tokenizer.encode(line) for line in PARTS[name] if 0 < len(line) <= 7]
        kept = [line for line in encoded if len(line) <= LIMIT]
        assert ids(data.arrays[name]) == kept
        assert data.arrays[name].start == data.tokenizer.start
        assert data.facts.splits()[name].too_long_tokens == len(encoded) - len(kept)


def test_every_row_is_kept_or_counted(tmp_path: Path) -> None:
    data = prepare(write(tmp_path / "corpus"), "data.max_characters=11")
    for name, facts in data.facts.splits().items():
        assert facts.read.rows == len(PARTS[name])
        dropped = facts.read.blank + facts.read.too_long_characters + facts.too_long_tokens
        assert facts.num_sentences + dropped == len(PARTS[name])
        assert facts.num_sentences == data.arrays[name].num_sentences
    train = data.facts.train
    assert (train.read.blank, train.read.too_long_characters, train.too_long_tokens) == (1, 2, 1)
    assert data.test_texts == ["two two two", "one"]


def test_denominators_count_an_end_for_each_sentence(tmp_path: Path) -> None:
    data = prepare(write(tmp_path / "corpus"))
    test = data.facts.test
    assert test.num_targets == data.arrays["test"].num_targets == 4 + 2
    assert test.num_words == 4 + 2
    assert test.num_characters == len("two two two") + len("one") + 2


def test_a_split_of_which_nothing_is_left_is_refused(tmp_path: Path) -> None:
    parts = PARTS | {"valid": ["a b c d e f", "g h i j k l"]}
    words = "no sentence has at most 5 tokens; raise model.max_length"
    with pytest.raises(DataError, match=re.escape("valid.txt: " + words)):
        prepare(write(tmp_path / "corpus", parts))


def test_sentences_in_memory_are_tokenized_alike() -> None:
    tokenizer = WordTokenizerConfig().train(["a b c"])
    part = sentences_of(["a b", "c c c c", "d a"], source="here")
    array, facts, texts, notes = tokenize_sentences(part, tokenizer, 3)
    assert notes == [
        "1 row (row 1, counted from 0) of 3 with more than 3 tokens (model.max_length) left out; "
        "--too-long cut or split keeps them"
    ]
    assert ids(array) == [tokenizer.encode("a b"), tokenizer.encode("d a")]
    assert texts == ["a b", "d a"]
    assert (facts.too_long_tokens, facts.read.source) == (1, "here")


# -- on disk -------------------------------------------------------------------------------------


def test_validation_sentences_of_another_kind_are_left_out_and_reported(tmp_path: Path) -> None:
    """As where the training set is of one label, and the validation set holds anomalies too."""
    rows = {
        "train": [(f"fox {n} eats", "normal") for n in "abcdefg"],
        "valid": [("fox h eats", "normal"), ("zz qq", "anomaly"), ("fox i", ""), ("vv", "anomaly")],
        "test": [("fox j eats", "normal"), ("yy", "anomaly")],
    }
    for name, pairs in rows.items():
        lines = "".join(f"{text},{label}\n" for text, label in pairs)
        (tmp_path / f"{name}.csv").write_text("text,label\n" + lines, encoding="utf-8")
    data = prepare(str(tmp_path))
    assert data.facts.valid.num_sentences == 2
    assert data.facts.test.num_sentences == 2
    (note,) = [line for line in data.notes if "left out" in line]
    assert note.startswith("valid: 2 of 4 sentences left out, whose labels no training sentence")
    assert note.endswith(": anomaly")


def test_what_was_saved_is_opened_again(tmp_path: Path) -> None:
    data = prepare(write(tmp_path / "corpus"))
    folder = tmp_path / "run" / "data"
    assert load_facts(folder) is None
    save_run_data(folder, data)
    assert load_facts(folder) == data.facts
    for name in SPLITS:
        array, facts = open_split(folder, name)
        assert facts == data.facts.splits()[name]
        assert torch.equal(array.tokens, data.arrays[name].tokens)
        assert torch.equal(array.offsets, data.arrays[name].offsets)
        assert array.start == data.arrays[name].start


def test_data_that_are_not_there_are_missed_in_words(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the data of this run are missing"):
        open_split(tmp_path, "test")
    save_run_data(tmp_path, prepare(write(tmp_path / "corpus")))
    (tmp_path / "test.tokens").unlink()
    with pytest.raises(
        DataError, match=re.escape("test.tokens: the tokens of this run are missing")
    ):
        open_split(tmp_path, "test")


def test_arrays_that_were_cut_are_refused(tmp_path: Path) -> None:
    save_run_data(tmp_path, prepare(write(tmp_path / "corpus")))
    file = tmp_path / "test.tokens"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(DataError, match="do not belong together"):
        open_split(tmp_path, "test")


def test_facts_that_are_damaged_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text('{"source": 3}', encoding="utf-8")
    with pytest.raises(ConfigError, match=re.escape("data.json")):
        load_facts(tmp_path)


def test_facts_come_last(tmp_path: Path) -> None:
    data = prepare(write(tmp_path / "corpus"))
    (tmp_path / "run").write_text("in the way", encoding="utf-8")
    with pytest.raises(CheckpointError, match="File exists"):
        save_run_data(tmp_path / "run", data)
    (tmp_path / "data" / "test.offsets").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=re.escape("test.offsets: cannot be written")):
        save_run_data(tmp_path / "data", data)
    assert load_facts(tmp_path / "data") is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("test.tokens", "does not match its checksum in data.json"),
        ("test.offsets", "do not belong together"),
    ],
)
def test_damaged_arrays_are_not_used(tmp_path: Path, name: str, words: str) -> None:
    save_run_data(tmp_path / "data", prepare(write(tmp_path / "corpus")))
    file = tmp_path / "data" / name
    file.write_bytes(bytes(8) + file.read_bytes()[8:] + bytes(8) * ("offsets" in name))
    with pytest.raises(DataError, match=words):
        open_split(tmp_path / "data", "test")


# -- differences and descriptions ----------------------------------------------------------------


def test_the_same_data_have_no_differences(tmp_path: Path) -> None:
    first, second = (prepare(write(tmp_path / name)).facts for name in ("a", "b"))
    assert data_differences(first, second) == []


@pytest.mark.parametrize("name", SPLITS)
def test_the_split_that_differs_is_named(tmp_path: Path, name: str) -> None:
    before = prepare(write(tmp_path / "a")).facts
    for lines in ([*PARTS[name][:-1], "other"], ["one", *PARTS[name]], PARTS[name][::-1]):
        now = prepare(write(tmp_path / "b", PARTS | {name: lines})).facts
        found = data_differences(before, now)
        assert len(found) == 1
        assert found[0].startswith(f"{name}: {before.splits()[name].num_sentences} sentences")
        assert f"{now.splits()[name].num_sentences} of {tmp_path / 'b' / name}.txt" in found[0]


def test_another_limit_is_a_difference(tmp_path: Path) -> None:
    data = prepare(write(tmp_path / "a"))
    fewer = structs.replace(data.facts.train, num_sentences=2)
    assert len(data_differences(data.facts, structs.replace(data.facts, train=fewer))) == 1


def test_the_description_has_a_line_a_split_with_every_reason(tmp_path: Path) -> None:
    facts = prepare(write(tmp_path / "a"), "data.max_characters=11").facts
    assert describe(facts) == [
        "train: 3 sentences, 11 tokens with </s>; "
        "dropped 1 blank, 2 with too many characters, 1 with too many tokens",
        "valid: 3 sentences, 7 tokens with </s>",
        "test: 2 sentences, 6 tokens with </s>; dropped 2 blank, 1 with too many tokens",
    ]


# -- the embedded corpus -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["valid", "test", "text_column", "label_column", "labels"])
def test_options_of_data_need_data(name: str) -> None:
    option = "--" + name.replace("_", "-")
    with pytest.raises(DataError, match=f"{option}.*needs DATA"):
        read_splits(DataOptions(**{name: "x"}), ExperimentConfig())


def test_the_embedded_corpus_has_labels_and_names_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert grammar.SPLIT_SIZES == {"train": 80_000, "valid": 2_000, "test": 2_000}
    monkeypatch.setattr(grammar, "SPLIT_SIZES", {"train": 31, "valid": 11, "test": 13})
    splits = read_splits(DataOptions(), ExperimentConfig())
    assert [len(part.texts) for part in splits[:3]] == [31, 11, 13]
    for name, part in zip(SPLITS, splits[:3], strict=True):
        assert part.source == part.report.source == f"{EMBEDDED}, {name}"
        assert part.labels is not None
        assert len(part.labels) == len(part.texts)


def test_the_unknown_word_of_a_corpus_is_the_unknown_token(tmp_path: Path) -> None:
    parts = PARTS | {"test": ["one <unk> zzz", "</s> <s> two"]}
    data = prepare(write(tmp_path / "corpus", parts))
    tokenizer: Tokenizer = data.tokenizer
    assert ids(data.arrays["test"]) == [
        [tokenizer.encode("one")[0], 1, 1],
        [1, 1, tokenizer.encode("two")[0]],
    ]


def test_a_corpus_is_tokenized_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [" ".join(["a", "bb", "c"][: 1 + i % 3]) + " x" * (i == 11) for i in range(23)]
    part = sentences_of(texts, None, source="here")
    tokenizer = WordTokenizerConfig().train(texts)
    whole = tokenize_sentences(part, tokenizer, 3)
    monkeypatch.setattr(run_data, "ENCODED_TOGETHER", 7)
    pieces = tokenize_sentences(part, tokenizer, 3)
    assert pieces[1:] == whole[1:]
    assert pieces[0].tokens.tolist() == whole[0].tokens.tolist()
    assert pieces[0].offsets.tolist() == whole[0].offsets.tolist()
    assert whole[1].num_sentences == 22
    assert whole[1].too_long_tokens == 1


def test_copies_and_leaks_are_counted(tmp_path: Path) -> None:
    parts = {
        "train": ["a b", "a b", "b c", "c"],
        "valid": ["d", "b c", "b c"],
        "test": ["c", "a b"],
    }
    data = prepare(write(tmp_path / "corpus", parts))
    counts = {n: (s.num_copies, s.num_in_train) for n, s in data.facts.splits().items()}
    assert counts == {"train": (1, 0), "valid": (1, 2), "test": (0, 2)}
    said = "2 of 3 sentences stand in the training set too (the first is row 1, counted from 0)"
    assert any(f"valid: {said}" in note for note in data.notes)
    assert "train: 1 of 4 sentences are copies of earlier ones" in data.notes
    assert any("; 2 in train too" in line for line in describe(data.facts))
