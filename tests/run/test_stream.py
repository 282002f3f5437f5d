"""A streamed corpus: the arrays of one that is in memory, whatever interrupts it on the way."""

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from textvae.errors import CheckpointError, DataError, RankError
from textvae.run import stream as stream_module
from textvae.run.data import SPLITS, DataOptions, RunData, read_splits, tokenize
from textvae.run.experiment import ExperimentConfig, load_config
from textvae.run.stream import stream_run_data

SETTINGS = ("data.tokenizer.kind=word", "data.stream=true", "model.max_length=7")


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "SEGMENT", 37)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Rows of one to nine words; every eleventh is blank, and one has too many characters."""
    words = "abcdefghijklm"
    lines = [" ".join(words[(i * i + j) % 13] for j in range(i % 9 + 1)) for i in range(401)]
    lines = ["" if number % 11 == 0 else line for number, line in enumerate(lines)]
    lines[7] = "x" * 10_001
    file = tmp_path / "corpus.txt"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def config(*more: str) -> ExperimentConfig:
    return load_config(None, [*SETTINGS, *more])


def stream(source: Path, run: Path, settings: ExperimentConfig | None = None) -> RunData:
    run.mkdir(exist_ok=True)
    options = DataOptions(str(source))
    return stream_run_data(options, settings or config(), run, report=lambda line: None)


def content(run: Path) -> dict[str, bytes]:
    files = (run / "data").iterdir()
    return {file.name: file.read_bytes() for file in files if not file.name.startswith(".")}


def test_what_is_streamed_is_what_is_read_whole(source: Path, tmp_path: Path) -> None:
    found = stream(source, tmp_path / "run")
    splits = read_splits(DataOptions(str(source)), config())
    tokenizer = config().data.tokenizer
    assert tokenizer is not None
    whole = tokenize(splits, tokenizer.train(splits.train.texts), str(source), 7)
    assert found.tokenizer.to_json() == whole.tokenizer.to_json()
    assert found.test_texts == whole.test_texts
    for name in SPLITS:
        assert found.arrays[name].tokens.tolist() == whole.arrays[name].tokens.tolist()
        assert found.arrays[name].offsets.tolist() == whole.arrays[name].offsets.tolist()
        one, other = found.facts.splits()[name], whole.facts.splits()[name]
        for field in ("num_words", "num_characters", "too_long_tokens", "num_targets"):
            assert getattr(one, field) == getattr(other, field)
        for field in ("rows", "kept", "blank", "too_long_characters"):
            assert getattr(one.read, field) == getattr(other.read, field)


def test_a_stream_that_is_killed_is_made_anew_by_the_same_call(
    source: Path, tmp_path: Path, killed_at: Callable[[int, Callable[[], object]], bool]
) -> None:
    stream(source, tmp_path / "straight")
    for trial, moment in enumerate((2, 5, 9, 14, 20, 27, 33)):
        run = tmp_path / f"run{trial}"
        assert killed_at(moment, lambda: stream(source, run))  # noqa: B023 -- called at once
        stream(source, run)
        assert content(run) == content(tmp_path / "straight")
        assert list(run.rglob("*.tmp")) == []


def test_a_finished_stream_is_used_again(source: Path, tmp_path: Path) -> None:
    first = stream(source, tmp_path / "run")
    lines: list[str] = []
    options = DataOptions(str(source))
    second = stream_run_data(options, config(), tmp_path / "run", report=lines.append)
    assert lines == []
    assert second.facts == first.facts
    assert second.test_texts == first.test_texts
    assert second.notes == first.notes


def test_another_corpus_or_other_settings_are_refused(source: Path, tmp_path: Path) -> None:
    stream(source, tmp_path / "run")
    with pytest.raises(CheckpointError, match="holds the stream of another corpus or other"):
        stream(source, tmp_path / "run", config("seed=1"))
    stream(source, tmp_path / "run", config("data.workers=3"))  # nothing of the result
    with source.open("a", encoding="utf-8") as file:
        file.write("one more\n")
    with pytest.raises(CheckpointError, match="holds the stream of another corpus or other"):
        stream(source, tmp_path / "run")


def test_contents_decide_not_the_time_of_the_file(source: Path, tmp_path: Path) -> None:
    first = stream(source, tmp_path / "run")
    os.utime(source, ns=(1, 1))
    assert stream(source, tmp_path / "run").facts == first.facts
    text = source.read_bytes()
    source.write_bytes(text[::-1])  # as long
    os.utime(source, ns=(1, 1))
    with pytest.raises(CheckpointError, match="holds the stream of another corpus"):
        stream(source, tmp_path / "run")


def test_settings_added_since_a_stream_was_recorded_have_their_defaults(
    source: Path, tmp_path: Path
) -> None:
    first = stream(source, tmp_path / "run")
    file = tmp_path / "run/data/stream.json"
    record = json.loads(file.read_bytes())
    data, seed, max_length, options = json.loads(record["source"]["settings"])
    del data["too_long"]
    earlier = [data, seed, max_length, options[:6]]  # as of 2026-11-30
    record["source"]["settings"] = json.dumps(earlier, separators=(",", ":"))
    file.write_text(json.dumps(record), encoding="utf-8")
    assert stream(source, tmp_path / "run").facts == first.facts
    for changed in ("data.too_long=cut", "data.max_characters=50"):
        with pytest.raises(CheckpointError, match="holds the stream of another corpus or other"):
            stream(source, tmp_path / "run", config(changed))


@pytest.mark.parametrize(
    "settings",
    ["", "{", "null", "[1, 2]", '[{"new": 1}, 0, 200, []]', "[{}, 0, 200, 7]", "[" * 5000],
)
def test_settings_that_no_version_wrote_are_refused(
    source: Path, tmp_path: Path, settings: str
) -> None:
    stream(source, tmp_path / "run")
    file = tmp_path / "run/data/stream.json"
    record = json.loads(file.read_bytes())
    record["source"]["settings"] = settings
    file.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(CheckpointError, match="holds the stream of another corpus or other"):
        stream(source, tmp_path / "run")


def test_a_stream_that_recorded_no_contents_goes_by_the_time(source: Path, tmp_path: Path) -> None:
    first = stream(source, tmp_path / "run")
    file = tmp_path / "run/data/stream.json"
    record = json.loads(file.read_bytes())
    del record["source"]["sha256"]
    file.write_text(json.dumps(record), encoding="utf-8")
    assert stream(source, tmp_path / "run").facts == first.facts
    os.utime(source, ns=(1, 1))
    with pytest.raises(CheckpointError, match="holds the stream of another corpus"):
        stream(source, tmp_path / "run")


def test_a_worker_that_is_killed_is_one_line_and_the_same_call_continues(
    source: Path, tmp_path: Path
) -> None:
    killed: list[str] = []

    def kill_one(line: str) -> None:
        if "training the tokenizer" in line:
            threading.Thread(target=kill_first_child, daemon=True).start()

    def kill_first_child() -> None:
        children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
        while not killed:
            for child in children.read_text(encoding="ascii").split():
                if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                    os.kill(int(child), signal.SIGKILL)
                    killed.append(child)

    options = DataOptions(str(source))
    with pytest.raises(RankError, match=r"a process that tokenizes was lost .* the same command"):
        stream_run_data(options, config("data.workers=2"), tmp_path / "run", report=kill_one)
    stream(source, tmp_path / "run", config("data.workers=2"))
    stream(source, tmp_path / "straight")
    assert content(tmp_path / "run") == content(tmp_path / "straight")


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("a.csv", "text\nred fox\n", "only plain text, parquet and hub data sets are streamed"),
        ("a.txt", "", "is empty"),
        ("a.txt", "a b c d e f g h\n" * 9, "no sentence for train with at most 7 tokens"),
    ],
)
def test_what_cannot_be_streamed_is_said(tmp_path: Path, name: str, text: str, fault: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=fault):
        stream(tmp_path / name, tmp_path / "run")


@pytest.mark.full
def test_several_processes_and_parquet_give_the_same(source: Path, tmp_path: Path) -> None:
    import datasets  # noqa: PLC0415 -- takes a second

    stream(source, tmp_path / "one")
    stream(source, tmp_path / "many", config("data.workers=3"))
    lines = source.read_text(encoding="utf-8").splitlines()
    datasets.Dataset.from_dict({"text": lines}).to_parquet(tmp_path / "corpus.parquet")
    stream(tmp_path / "corpus.parquet", tmp_path / "parquet")
    one, many, parquet = (content(tmp_path / name) for name in ("one", "many", "parquet"))
    for name in ("train.tokens", "train.offsets", "test.txt"):
        assert one[name] == many[name] == parquet[name]
