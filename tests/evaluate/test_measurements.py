"""The file of figures: what is written is read again, whole or not at all."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import UNSET, structs

from textvae.errors import CheckpointError, DataError
from textvae.evaluate.measurements import (
    Figure,
    Measured,
    MeasuredCorpus,
    MeasuredModel,
    Measurements,
    read_measurements,
    write_measurements,
)

FIGURES = [
    Figure("nll", 2.5, "nats per sentence", "K = 3", stderr=0.25),
    Figure("kl", 4.0, "nats a sentence"),
    Figure(name="active_units", value=None, stderr=None),
    Figure(name="kl_per_dimension", value=[0.5, 3.5], settings="7 sentences"),
    Figure(name="novelty", value=0.125, unit="share"),
    Figure(name="huge", value=12345678.9),
    Figure(name="signature", value="nrefs:1"),
]


@pytest.fixture
def found() -> Measurements:
    return Measurements(
        created="2026-01-02T03:04:05+00:00",
        seconds=1.5,
        model=MeasuredModel(
            path=None,
            sha256="0" * 64,
            tokenizer="word",
            vocabulary_size=23,
            latent_dim=2,
            num_parameters=101,
        ),
        data=MeasuredCorpus(
            source="there",
            sha256="1" * 64,
            num_sentences=7,
            num_tokens=31,
            num_words=29,
            num_characters=97,
            num_unknown=3,
        ),
        training=None,
        seed=5,
        precision="float32",
        device="cpu",
        num_threads=1,
        versions={"torch": "2"},
        measured=[
            Measured(evaluator={"kind": "first", "n": 2}, figures=FIGURES[:2], seconds=0.5),
            Measured(evaluator={"kind": "second"}, figures=FIGURES[2:], seconds=1.0),
        ],
    )


def test_what_is_written_is_read_again(found: Measurements, tmp_path: Path) -> None:
    file = tmp_path / "evaluation.json"
    write_measurements(file, found)
    again = read_measurements(file)
    assert again == found
    assert list(again) == FIGURES
    assert (again["nll"].stderr, again["kl"].stderr, again["active_units"].stderr) == (
        0.25,
        UNSET,
        None,
    )
    assert "novelty" in again
    assert "bleu" not in again
    with pytest.raises(KeyError):
        again["bleu"]
    plain = json.loads(file.read_text(encoding="utf-8"))
    assert plain["version"] == 1
    assert plain["measured"][1]["figures"][0] == {
        "name": "active_units",
        "value": None,
        "stderr": None,
    }


def test_flat_names_each_figure_and_each_error(found: Measurements) -> None:
    flat = found.flat()
    assert flat.keys() == {figure.name for figure in FIGURES} | {
        "nll_stderr",
        "active_units_stderr",
    }
    assert (flat["nll"], flat["nll_stderr"], flat["active_units_stderr"]) == (2.5, 0.25, None)


def test_the_table_says_value_error_and_settings(found: Measurements) -> None:
    lines = found.table().splitlines()
    assert lines[0] == "7 sentences of there, </s> counted (float32, seed 5)"
    assert lines[1].startswith("  3 of 31 tokens are <unk> (9.68 %)")
    expected = {
        "nll": ["2.500 +- 0.250", "nats per sentence, K = 3"],
        "active units": ["unknown +- unknown"],
        "kl per dimension": ["0.500 to 3.500", "7 sentences"],
        "novelty": ["12.5 %"],
        "huge": ["1.23e+07"],
        "signature": ["nrefs:1"],
    }
    for name, parts in expected.items():
        (line,) = [line for line in lines if line.startswith(f"  {name} ")]
        assert line.split(maxsplit=len(name.split()))[-1].startswith(parts[0])
        assert all(part in line for part in parts)


def test_the_table_says_where_the_text_is_not_at_hand(found: Measurements) -> None:
    assert "decode to" not in found.table()
    data = structs.replace(found.data, decoded=True, num_unknown=0)
    lines = structs.replace(found, data=data).table().splitlines()
    assert "the text is not available" in lines[1]
    assert not any("<unk>" in line for line in lines)


def test_a_later_version_is_refused(found: Measurements, tmp_path: Path) -> None:
    file = tmp_path / "evaluation.json"
    write_measurements(file, structs.replace(found, version=2))
    with pytest.raises(DataError, match=r"evaluation\.json: is of version 2, this textvae reads 1"):
        read_measurements(file)


@pytest.mark.parametrize("content", [b"", b"[1]", b"{}", b'{"version": 1}', b"\xff", b"[" * 9999])
def test_what_is_no_evaluation_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "some.json"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"some\.json: is no evaluation of textvae"):
        read_measurements(file)
    with pytest.raises(CheckpointError, match="the file is missing"):
        read_measurements(tmp_path / "none.json")


def test_a_crash_leaves_the_old_file_or_the_new_one(
    found: Measurements, tmp_path: Path, killed_at: Callable[[int, Callable[[], object]], bool]
) -> None:
    file, later = tmp_path / "evaluation.json", structs.replace(found, seed=7)
    write_measurements(file, found)
    moment = 1
    while killed_at(moment, lambda: write_measurements(file, later)):
        assert read_measurements(file) in (found, later)
        moment += 1
    assert moment > 3
    assert read_measurements(file) == later
