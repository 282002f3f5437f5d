"""The plots as files."""

import csv
import io
import sys
from pathlib import Path

import pytest

from textvae.api.text_vae import TextVAE
from textvae.errors import CheckpointError, ConfigError
from textvae.report.corpus import DataChoice
from textvae.report.material import Map, Material, Missing, gather
from textvae.report.plots import check_plots, tables, write_plots
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


def test_the_numbers_behind_each_plot(material: Material) -> None:
    assert isinstance(material.map, Map)
    assert not isinstance(material.curves, Missing)
    assert not isinstance(material.kl, Missing)
    files = {name: read(data) for name, data in tables(material).items()}
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


@pytest.mark.slow
def test_every_plot_as_png(material: Material, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    written = write_plots(material, tmp_path / "plots")
    assert sorted(path.name for path in written) == [
        "kl_per_dimension.csv",
        "kl_per_dimension.png",
        "map.csv",
        "map_1_kind.png",
        "map_2_a_b.png",
        "training_curves.csv",
        "training_curves.png",
    ]
    for path in written:
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG\r\n")
    again = write_plots(material, tmp_path / "again")
    for one, other in zip(written, again, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_without_matplotlib_it_says_how_to_get_it(
    vae: TextVAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"pip install 'textvae\[plot\]'"):
        write_report(vae, tmp_path / "a.html", plots=tmp_path / "plots")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("kept", encoding="utf-8")
    with pytest.raises(CheckpointError, match="is in use"):
        check_plots(tmp_path, overwrite=False)
    with pytest.raises(CheckpointError, match="is a file"):
        check_plots(tmp_path / "kept.txt", overwrite=True)
