"""The plots of a report as files: PNG for papers, CSV for whoever wants to draw them again."""

import csv
import io
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from textvae.errors import CheckpointError, ConfigError
from textvae.report.corpus import Labels
from textvae.report.curves import Curves, Point
from textvae.report.material import Map, Material, Missing
from textvae.storage.files import saying_why, write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES, BARS, MAP = "training_curves", "kl_per_dimension", "map"
COLOURS = ("#2f6db3", "#c2570c", "#2b7d55", "#7f4fb0", "#c0354a", "#12808c", "#8a6218", "#8b93a0")
MARKERS = "os^DvPX."
DPI = 200


def check_plots(folder: Path, *, overwrite: bool) -> None:
    """Refuse a directory in use, and plots without what draws them, before any work is done.

    Raises:
        CheckpointError: the directory holds something, and may not be overwritten.
        ConfigError: matplotlib is not installed.
    """
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"--plots {folder}: is a file, expected a directory")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise CheckpointError(
            f"--plots {folder}: is in use; name a new or empty directory, or add --overwrite"
        )
    if find_spec("matplotlib") is None:
        raise ConfigError(
            "--plots needs matplotlib, which is not installed: pip install 'textvae[plot]'"
        )


def write_plots(material: Material, folder: Path) -> list[Path]:
    """Write each plot that there is something for, as PNG and as CSV; the files, by name.

    Raises:
        CheckpointError, StorageError: one cannot be written.
    """
    with saying_why(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        # A font without the characters of a label draws boxes, and says so once for each.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        files = tables(material) | pictures(material)
    for name, data in files.items():
        write_file(folder / name, data)
    return [folder / name for name in files]


def tables(material: Material) -> dict[str, bytes]:
    """The numbers behind each plot as CSV, by the name of the file."""
    files = {}
    if not isinstance(material.curves, Missing):
        files[f"{CURVES}.csv"] = _curve_rows(material.curves)
    if not isinstance(material.kl, Missing):
        files[f"{BARS}.csv"] = _bar_rows(material.kl, material.active)
    if not isinstance(material.map, Missing):
        files[f"{MAP}.csv"] = _map_rows(material.map)
    return files


def pictures(material: Material) -> dict[str, bytes]:
    """Each plot as PNG, by the name of the file; a map for each property of the sentences."""
    files = {}
    if not isinstance(material.curves, Missing):
        files[f"{CURVES}.png"] = _curves(material.curves, material.vae.config.latent_dim)
    if not isinstance(material.kl, Missing):
        files[f"{BARS}.png"] = _bars(material.kl, material.active)
    if isinstance(material.map, Missing):
        return files
    several = material.map.labels
    if len(several) < 2:
        return files | {f"{MAP}.png": _map(material.map, several[0] if several else None)}
    for number, labels in enumerate(several, start=1):  # two names may look alike in a file's
        files[f"{MAP}_{number}_{_file_name(labels.name)}.png"] = _map(material.map, labels)
    return files


def _file_name(text: str) -> str:
    return "".join(one if one.isalnum() or one in "-_" else "_" for one in text)[:80]


def _csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def _curve_rows(curves: Curves) -> bytes:
    """A row for each step; what was not measured there is empty."""
    names = [name for name in Curves._fields if name != "selected"]
    columns: list[dict[int, float]] = [dict(getattr(curves, name)) for name in names]
    steps = sorted({step for column in columns for step in column})
    rows = [[step, *(column.get(step, "") for column in columns)] for step in steps]
    return _csv(["step", *names], rows)


def _bar_rows(kl: Sequence[float], active: Sequence[bool]) -> bytes:
    rows = [[k, value, int(lit)] for k, (value, lit) in enumerate(zip(kl, active, strict=True))]
    return _csv(["dimension", "kl", "active"], rows)


def _map_rows(found: Map) -> bytes:
    points: list[list[float]] = found.projection.points.tolist()
    rows: list[list[object]] = []
    for place, (text, point) in enumerate(zip(found.texts, points, strict=True)):
        rows.append([*point, text, *(labels.values[place] for labels in found.labels)])
    return _csv(["x", "y", "sentence", *(labels.name for labels in found.labels)], rows)


def _figure(width: float, height: float) -> "Figure":
    """A sheet of its own: nothing of matplotlib's global state is read or changed."""
    from matplotlib.figure import Figure  # noqa: PLC0415 -- an extra

    return Figure(figsize=(width, height), layout="constrained")


def _png(figure: "Figure") -> bytes:
    """The same bytes for the same figure: matplotlib would write its version into the file."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=DPI, metadata={"Software": None})
    return data.getvalue()


def _clean(axes: "Axes") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _curves(curves: Curves, latent_dim: int) -> bytes:
    panels: list[tuple[str, list[tuple[str, list[Point]]]]] = [
        (
            "NLL (nats a sentence)",
            [("training", curves.train_nll), ("validation", curves.valid_nll)],
        )
    ]
    if latent_dim:
        panels += [
            ("KL (nats)", [("training", curves.train_kl), ("validation", curves.valid_kl)]),
            ("KL weight", [("weight", curves.kl_weight)]),
            (f"active units of {latent_dim}", [("active", curves.active_units)]),
        ]
    rows = (len(panels) + 1) // 2
    figure = _figure(8.0 if len(panels) > 1 else 4.5, 2.8 * rows)
    grid = figure.subplots(rows, min(2, len(panels)), squeeze=False)
    for axes, (title, lines) in zip(grid.flat, panels, strict=False):
        _clean(axes)
        axes.set_title(title, fontsize=9, loc="left")
        for colour, (name, points) in zip(COLOURS, lines, strict=False):
            if points:
                steps, values = zip(*points, strict=True)
                axes.plot(steps, values, color=colour, linewidth=1.4, label=name)
        axes.set_xlabel("step", fontsize=8)
        if not title.startswith("NLL"):
            axes.set_ylim(bottom=0.0)
        if len(lines) > 1:
            axes.legend(fontsize=8, frameon=False)
    return _png(figure)


def _bars(kl: Sequence[float], active: Sequence[bool]) -> bytes:
    order = sorted(range(len(kl)), key=lambda index: (-kl[index], index))
    figure = _figure(8.0, 2.8)
    axes = figure.subplots()
    _clean(axes)
    colours = [COLOURS[0] if active[k] else COLOURS[-1] for k in order]
    axes.bar(range(len(order)), [kl[k] for k in order], color=colours)
    if len(order) <= 64:
        axes.set_xticks(range(len(order)), [str(k) for k in order], fontsize=7)
    axes.set_xlabel("dimension, the largest KL first; grey is not active", fontsize=8)
    axes.set_ylabel("KL (nats)", fontsize=8)
    return _png(figure)


def _map(found: Map, labels: Labels | None) -> bytes:
    figure = _figure(6.4, 5.6)
    axes = figure.subplots()
    _clean(axes)
    points = found.projection.points
    values = ["sentences"] * len(found.texts) if labels is None else labels.values
    order = ["sentences"] if labels is None else labels.by_frequency()
    last = len(COLOURS) - 1
    named = order[:last]
    groups = [(value, [k for k, one in enumerate(values) if one == value]) for value in named]
    rest = set(order[last:])
    if rest:
        groups.append((f"{len(rest)} others", [k for k, one in enumerate(values) if one in rest]))
    colours = [*range(len(named)), last]
    for colour, (name, rows) in zip(colours, groups, strict=False):
        axes.scatter(
            points[rows, 0].tolist(),
            points[rows, 1].tolist(),
            s=14,
            linewidths=0,
            alpha=0.8,
            color=COLOURS[colour],
            marker=MARKERS[colour],
            label=f" {name}",  # one that begins with an underscore would be left out
        )
    axes.set_aspect("equal", adjustable="datalim")
    names = [
        f"{name} component ({100 * share:.0f} % of the variance)"
        for name, share in zip(("first", "second"), found.projection.shares, strict=True)
    ]
    axes.set_xlabel(names[0], fontsize=8)
    axes.set_ylabel(names[1], fontsize=8)
    if labels is not None:
        legend = axes.legend(fontsize=8, frameon=False, title=labels.name, title_fontsize=8)
        for text in [*legend.get_texts(), legend.get_title()]:
            text.set_parse_math(False)  # a label with dollars is no formula
    return _png(figure)
