"""The check for a GPU runs in all its parts, tiny and on the pretend device."""

import json
from pathlib import Path

import gpu_check
import pytest
from click.testing import CliRunner

from textvae.run.experiment import load_config


def test_every_part_runs_without_a_gpu(tmp_path: Path) -> None:
    files = tmp_path / "gpu.json", tmp_path / "gpu.md"
    arguments = ["--dry-run", "--json", str(files[0]), "--table", str(files[1])]
    result = CliRunner().invoke(gpu_check.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    rows = json.loads(files[0].read_text())["rows"]
    assert {row["part"] for row in rows} == set(gpu_check.PARTS)
    assert "failed" not in {row["value"] for row in rows}
    assert files[1].read_text().count("\n") == len(rows) + 2
    values = {(row["part"], row["name"]): row["value"] for row in rows}
    assert values["ptb", "steps"] == 20.0
    assert "tests collected" in values["tests", "all"]


def test_what_a_stopped_part_has_measured_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "part.py"
    script.write_text(
        "import json, sys, time\n"
        "with open(sys.argv[sys.argv.index('--lines') + 1], 'w') as file:\n"
        "    row = json.dumps({'part': 'step', 'name': 'a', 'value': 1.0})\n"
        "    print(row, file=file, flush=True)\n"
        "    time.sleep(60)\n"
    )
    monkeypatch.setattr(gpu_check, "__file__", str(script))
    rows = gpu_check.run_with_limit("step", 2, [], tmp_path / "lines.jsonl")
    assert [row.value for row in rows] == [1.0, "stopped after 2 s"]


def test_it_needs_a_gpu_or_a_dry_run() -> None:
    if gpu_check.torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    result = CliRunner().invoke(gpu_check.main, [])
    assert result.exit_code == 1
    assert "--dry-run" in result.output


def test_the_parts_take_fifteen_minutes_in_all() -> None:
    assert sum(part.seconds for part in gpu_check.PARTS.values()) <= 15 * 60
    assert load_config(None, recipe="ptb_gpu").model.decoder.num_layers == 2
