"""The numbers behind the charts of a report as CSV files, for whoever wants to draw them again."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from textvae.errors import CheckpointError
from textvae.report.curves import Curves
from textvae.report.material import Map, Material, Missing
from textvae.storage.files import saying_why, write_file

_FORMULA = tuple("=+-@\t\r")
"""First characters by which spreadsheets know a formula (OWASP, CSV injection)."""


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Refuse a directory in use, before any work is done.

    Raises:
        CheckpointError: it is a file, or holds something and may not be overwritten.
    """
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"--csv {folder}: is a file, expected a directory")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise CheckpointError(
            f"--csv {folder}: is in use; name a new or empty directory, or add --overwrite"
        )


def write_csv(material: Material, folder: Path) -> list[Path]:
    """Write a file for each chart that has data; returns their paths.

    Raises:
        CheckpointError, StorageError: one cannot be written.
    """
    with saying_why(folder):
        folder.mkdir(parents=True, exist_ok=True)
    files = csv_tables(material)
    for name, data in files.items():
        write_file(folder / name, data)
    return [folder / name for name in files]


def csv_tables(material: Material) -> dict[str, bytes]:
    """The contents of the files by name."""
    files = {}
    if not isinstance(material.curves, Missing):
        files["training_curves.csv"] = _curve_rows(material.curves)
    if not isinstance(material.kl, Missing):
        bars = zip(material.kl, map(int, material.active), strict=True)
        rows = [[dimension, *bar] for dimension, bar in enumerate(bars)]
        files["kl_per_dimension.csv"] = _csv(["dimension", "kl", "active"], rows)
    if not isinstance(material.map, Missing):
        files["map.csv"] = _map_rows(material.map)
    return files


def _csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_inert, header))
    writer.writerows([_inert(cell) for cell in row] for row in rows)
    return text.getvalue().encode()


def _inert(cell: object) -> object:
    """A cell that no spreadsheet takes for a formula: such text gets an apostrophe before it."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in _FORMULA else cell


def _curve_rows(curves: Curves) -> bytes:
    """A row per step; what was not measured there is empty."""
    names = [name for name in Curves._fields if name != "selected"]
    columns: list[dict[int, float]] = [dict(getattr(curves, name)) for name in names]
    steps = sorted({step for column in columns for step in column})
    rows = [[step, *(column.get(step, "") for column in columns)] for step in steps]
    return _csv(["step", *names], rows)


def _map_rows(sentences: Map) -> bytes:
    points: list[list[float]] = sentences.projection.points.tolist()
    rows: list[list[object]] = []
    for place, (text, point) in enumerate(zip(sentences.texts, points, strict=True)):
        rows.append([*point, text, *(labels.values[place] for labels in sentences.labels)])
    return _csv(["x", "y", "sentence", *(labels.name for labels in sentences.labels)], rows)
