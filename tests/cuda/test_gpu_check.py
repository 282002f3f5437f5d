"""The check for a GPU runs in all its parts, tiny and on the pretend device."""

import json
import sys
import time
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
    shares = [row["note"] for row in rows if row["name"].startswith("default: ")]
    assert len(shares) == gpu_check.PROFILED
    assert 0.0 < sum(float(share.split(" %")[0]) for share in shares) < 100.5


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


@pytest.mark.parametrize("seconds", [99.0, 101.0])
def test_other_seeds_of_ptb_run_side_by_side_where_the_first_was_quick(
    seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, calls = iter((0.0, seconds)), []

    def train_and_measure(_: gpu_check.Check, seeds: list[int]) -> list[gpu_check.Row]:
        calls.append(seeds)
        return []

    monkeypatch.setattr(gpu_check.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(gpu_check, "train_and_measure", train_and_measure)
    check = gpu_check.Check(dry_run=False, data="PTB", seeds=3, cuda_graph=False)
    rows = list(gpu_check.run_ptb(check))
    assert calls == ([[0], [1, 2]] if seconds < 100 else [[0]])
    assert [row.value for row in rows] == ([] if seconds < 100 else ["not run"])


def test_seeds_are_measured_by_the_bound_and_the_latent_in_bfloat16(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[dict[int, list[str]]] = []

    def together(commands: dict[int, list[str]]) -> dict[int, gpu_check.Ended]:
        calls.append(commands)
        codes = {1: 0, 2: 0 if len(calls) > 1 else 4}
        return {seed: gpu_check.Ended(codes[seed], '{"nll": 1.5}', 3.0) for seed in commands}

    monkeypatch.setattr(gpu_check, "together", together)
    check = gpu_check.Check(dry_run=False, data="PTB", seeds=3, cuda_graph=True)
    rows = list(gpu_check.train_and_measure(check, [1, 2]))
    trained, measured = calls
    assert [command[-3:] for command in trained.values()] == [
        ["--set", "train.cuda_graph=true", "--json"]
    ] * 2
    assert list(measured) == [1], "a run that failed is not measured"
    options = ["--precision", "bfloat16", "--evaluators", "likelihood,latent"]
    assert measured[1][-4:] == options
    assert [(row.name, row.value) for row in rows] == [
        ("seed 1: training", 3.0),
        ("seed 2: training", 3.0),
        ("seed 1: nll", 1.5),
    ]


def test_commands_run_at_the_same_time() -> None:
    meet = "import sys, time; time.sleep(1); print('x' * 200_000); sys.exit(int(sys.argv[1]))"
    started = time.monotonic()
    ended = gpu_check.together({n: [sys.executable, "-c", meet, str(n)] for n in (0, 3)})
    assert time.monotonic() - started < 1.9
    assert {n: (one.code, len(one.output)) for n, one in ended.items()} == {
        0: (0, 200_001),
        3: (3, 200_001),
    }


def test_it_needs_a_gpu_or_a_dry_run() -> None:
    if gpu_check.torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    result = CliRunner().invoke(gpu_check.main, [])
    assert result.exit_code == 1
    assert "--dry-run" in result.output


def test_the_parts_take_fifteen_minutes_in_all() -> None:
    assert sum(part.seconds for part in gpu_check.PARTS.values()) <= 15 * 60
    assert load_config(None, recipe="ptb_gpu").model.decoder.num_layers == 2
