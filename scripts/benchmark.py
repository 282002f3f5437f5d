"""The speed of textvae relative to what users of torch write, as ratios measured in turn.

python scripts/benchmark.py [--only train_a,sample] [--json FILE] [--small]

Each row times both sides in one process, A B A B, and prints the median of the ratios with the
least and the greatest. On a CPU the time is CPU-seconds of the process on one thread, which other
load on the machine disturbs less than wall-clock time. The opponents are in scripts/opponents.py.
All rows take tens of minutes on a CPU.
"""

import json
import os
import platform
import statistics
import sys
from pathlib import Path
from typing import NamedTuple, TextIO

import click
import torch
from benchmark_equality import curves, precision
from benchmark_measure import SMALL, Bench, Result, Sizes, spread
from benchmark_memory import memory
from benchmark_speed import (
    feeding,
    gemm,
    importance,
    nucleus,
    sampling,
    threads,
    train_a,
    train_b,
)
from provenance import commit, processor

from textvae.run.experiment import check_device, has_bfloat16
from textvae.version import installed_version

ROWS = {
    "gemm": gemm,
    "feeding": feeding,
    "train_a": train_a,
    "train_b": train_b,
    "curves": curves,
    "sample": sampling,
    "nucleus": nucleus,
    "importance": importance,
    "threads": threads,
    "memory": memory,
    "precision": precision,
}


class Target(NamedTuple):
    """Bounds of a ratio: the target, and the goal beyond it."""

    target: float
    goal: float

    def reached(self, ratio: float, bound: float) -> bool:
        """Compare a ratio with a bound; where less is better, the bounds are below one."""
        return ratio >= bound if self.target > 1 else ratio <= bound

    def verdict(self, ratio: float, bound: float) -> str:
        """A cell of the table, such as ">= 3.5 met"."""
        sign = ">=" if self.target > 1 else "<="
        return f"{sign} {bound:.3g} {'met' if self.reached(ratio, bound) else 'short'}"


TARGETS = {
    "feeding": Target(10.0, 20.0),
    "train_a": Target(3.5, 5.0),
    "train_b": Target(1.3, 2.0),
    "sample": Target(8.0, 15.0),
    "nucleus": Target(12.0, 25.0),
    "importance": Target(2.1, 2.7),
    "threads": Target(1.6, 1.9),
    "memory": Target(1 / 3, 1 / 5),
}
HEADER = ("row", "textvae", "opponent", "unit", "ratio (least..greatest)", "target", "goal")
WIDTHS = (17, 11, 11, 21, 24, 15, 15)


def table_line(name: str, result: Result) -> str:
    """One line: medians of both sides, their ratio with its spread, and the targets."""
    medians = [f"{statistics.median(side):.4g}" if side else "-" for side in result[1:3]]
    ratios = result.ratios()
    cells = [name, *medians, result.unit, spread(ratios) if ratios else "-"]
    target = TARGETS.get(name)
    if target is not None and ratios:
        middle = statistics.median(ratios)
        cells += [target.verdict(middle, bound) for bound in target]
    return columns(cells)


def columns(cells: list[str]) -> str:
    """Cells in columns."""
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=False)).rstrip()


def as_json(name: str, result: Result) -> dict[str, object]:
    """A row with every repeat."""
    ratios = result.ratios()
    row: dict[str, object] = {"row": name, **result._asdict(), "ratios": ratios}
    if ratios:
        middle = statistics.median(ratios)
        row |= {"median": middle, "least": min(ratios), "greatest": max(ratios)}
        target = TARGETS.get(name)
        if target is not None:
            row |= target._asdict() | {
                "target_met": target.reached(middle, target.target),
                "goal_met": target.reached(middle, target.goal),
            }
    return row


def provenance(bench: Bench) -> dict[str, object]:
    """The machine and the versions."""
    machine = processor()
    if bench.device.type == "cuda":
        machine = f"{torch.cuda.get_device_name(bench.device)}; {machine}"
    return {
        "machine": machine,
        "cores": os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "bfloat16": has_bfloat16(bench.device),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "textvae": f"{installed_version()} {commit()}".strip(),
        "device": str(bench.device),
        "threads": bench.threads,
        "precision": bench.precision,
        "repeats": bench.repeats,
        "sizes": "small" if bench.sizes == SMALL else "full",
    }


def chosen_rows(only: str | None) -> list[str]:
    """The names of the rows to run, in the order of ROWS."""
    if only is None:
        return list(ROWS)
    names = only.split(",")
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        raise click.BadParameter(f"no row {', '.join(unknown)}; there are {', '.join(ROWS)}")
    return [name for name in ROWS if name in names]


@click.command()
@click.option("--only", metavar="ROW[,ROW]", help=f"Only these of {', '.join(ROWS)}.")
@click.option("--json", "json_file", metavar="FILE", help="Every repeat as JSON; - for stdout.")
@click.option("--repeats", default=5, show_default=True, help="Times each side is measured.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--threads", "num_threads", default=1, show_default=True, help="Of torch on a CPU.")
@click.option("--small", is_flag=True, help="Tiny sizes, to check that it runs.")
def main(
    only: str | None,
    json_file: str | None,
    repeats: int,
    device: str,
    num_threads: int,
    small: bool,
) -> None:
    """Measure textvae against what users of torch write; every figure is a ratio.

    On CUDA the same rows are timed with CUDA events. That path has not been run yet.
    """
    names = chosen_rows(only)
    torch.set_num_threads(num_threads)
    where = check_device(device)
    if where.type == "cuda":
        torch.cuda.set_device(where)
    dtype = torch.bfloat16 if has_bfloat16(where) else torch.float32
    bench = Bench(where, dtype, num_threads, repeats, SMALL if small else Sizes())
    table: TextIO = sys.stderr if json_file == "-" else sys.stdout
    facts = provenance(bench)
    print(", ".join(f"{name} {value}" for name, value in facts.items()), file=table)
    print(columns(list(HEADER)), file=table, flush=True)
    rows = []
    for name in names:
        result = ROWS[name](bench)
        rows.append(as_json(name, result))
        lines = [table_line(name, result), *(f"    {line}" for line in result.details)]
        print("\n".join(lines), file=table, flush=True)
    text = json.dumps({**facts, "rows": rows}, indent=2) + "\n"
    if json_file == "-":
        print(text, end="")
    elif json_file is not None:
        Path(json_file).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
