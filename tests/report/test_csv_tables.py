"""The numbers behind the charts as files."""

import csv
import io
from pathlib import Path

import pytest

from textvae.api.text_vae import TextVAE
from textvae.errors import CheckpointError
from textvae.report.corpus import DataChoice
from textvae.report.csv_tables import check_folder, csv_tables
from textvae.report.material import Map, Material, Missing, gather
from textvae.report.writing import write_report

TEXTS = [f"red {noun} eats" for noun in ("cat", "dog", "fox", "hen", "cow", "bee", "ant")]
LABELS = [f"kind={kind} a/b={k % 3}" for k, kind in enumerate(["$\\frac$", "_x", *"cdefg"])]


@pytest.fixture(scope="module")
def vae(tiny_run: Path) -> TextVAE:
    return TextVAE.from_pretrained(tiny_run, device="cpu")


@pytest.fixture(scope="module")
def material(vae: TextVAE) -> Material:
    return gather(vae, DataChoice(TEXTS, labels=LABELS), num_samples=2)


def read(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode())))


def test_the_numbers_behind_each_chart(material: Material) -> None:
    assert isinstance(material.map, Map)
    assert not isinstance(material.curves, Missing)
    assert not isinstance(material.kl, Missing)
    files = {name: read(data) for name, data in csv_tables(material).items()}
    assert list(files) == ["training_curves.csv", "kl_per_dimension.csv", "map.csv"]
    rows = files["map.csv"]
    assert [row["sentence"] for row in rows] == TEXTS
    assert [f"kind={row['kind']} a/b={row['a/b']}" for row in rows] == LABELS
    points = [[float(row["x"]), float(row["y"])] for row in rows]
    assert points == material.map.projection.points.tolist()
    assert [float(row["kl"]) for row in files["kl_per_dimension.csv"]] == material.kl
    steps = {int(row["step"]): row for row in files["training_curves.csv"]}
    assert material.curves.train_nll
    for point in material.curves.train_nll:
        assert float(steps[point.step]["train_nll"]) == point.value
    assert steps[127]["valid_nll"] == str(material.curves.valid_nll[-1].value)


def test_they_are_written_beside_the_page(vae: TextVAE, tmp_path: Path) -> None:
    folder, choice = tmp_path / "csv", DataChoice(TEXTS, labels=LABELS)
    written = write_report(vae, tmp_path / "a.html", choice, num_samples=2, csv_folder=folder)
    assert written.csv_files == [folder / name for name in csv_tables(written.material)]
    for path in written.csv_files:
        assert path.read_bytes() == csv_tables(written.material)[path.name]


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("kept", encoding="utf-8")
    with pytest.raises(CheckpointError, match="is in use"):
        check_folder(tmp_path, overwrite=False)
    with pytest.raises(CheckpointError, match="is a file"):
        check_folder(tmp_path / "kept.txt", overwrite=True)
