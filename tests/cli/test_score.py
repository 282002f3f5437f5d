"""score on one tiny model: a filter."""

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

import textvae
from textvae.api.score import DEFAULT
from textvae.cli import options
from textvae.metrics.scores import SCORE_KINDS
from textvae.run.model_directory import publish

ROOT = Path(__file__).parents[2]
LINES = ["the dog sees the cat .", "the the cow cow", "a fox finds the bird ."]
STDIN = "\n".join(LINES).encode()
FEW = ["--samples", "3"]
KEYS = ["sentence", "row", "cut", "score", "nll", "kl", "reconstruction"]
KEYS += ["num_tokens", "num_unknown", "percentile"]
BLANK = "standard input: 2 rows (the first is row 3, counted from 0) blank or missing, left out\n"

Invoke = Callable[..., Result]


def test_the_scores_of_the_option_are_those_there_are() -> None:
    assert set(options.SCORES) == set(SCORE_KINDS)
    assert options.SCORES[0] == DEFAULT


def test_a_filter_is_the_python_call(copy: Path, invoke: Invoke) -> None:
    vae = textvae.TextVAE.from_pretrained("runs/tiny")
    normal = textvae.reference_of(vae, num_samples=3)
    for kind in (options.SCORES[0], "kl"):
        found = list(textvae.score(vae, LINES, normal, by=kind))
        result = invoke("score", "runs/tiny", "--score", kind, *FEW, stdin=STDIN)
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout.splitlines() == [f"{one.score:.4f}" for one in found]
        lines = invoke("score", "--score", kind, *FEW, "--json", stdin=STDIN + b"\n\n \n")
        assert lines.stderr == "model: runs/tiny\n" + BLANK
        rows = [json.loads(line) for line in lines.stdout.splitlines()]
        assert [list(row) for row in rows] == [KEYS] * 3
        assert [list(row.values()) for row in rows] == [list(one) for one in found]
    assert found[0].score != next(textvae.score(vae, LINES[:1], normal)).score  # by default
    (copy / "lines.txt").write_bytes(STDIN)
    buffered = invoke("score", "runs/tiny", "lines.txt", *FEW, "--line-buffered").stdout
    assert buffered == invoke("score", "runs/tiny", "-", *FEW, stdin=STDIN).stdout


def test_many_unknown_words_are_counted_and_warned_of(copy: Path, invoke: Invoke) -> None:
    text = b"the zzyzx qwrtp\nthe dog sees the cat .\n"
    result = invoke("score", "runs/tiny", *FEW, "--json", stdin=text)
    assert [json.loads(row)["num_unknown"] for row in result.stdout.splitlines()] == [2, 0]
    warning = "18 % of the tokens are words unknown to the model"
    assert f"standard input: {warning}\n" in result.stderr
    vae = textvae.TextVAE.from_pretrained("runs/tiny")  # a model from before there was one:
    publish(copy / "runs" / "tiny", vae.model, vae.config, vae.tokenizer, vae.results)
    shutil.rmtree(next((copy / "runs" / "tiny").glob("scoring*")))
    older = invoke("score", "runs/tiny", *FEW, stdin=text)
    assert older.exit_code == 0
    assert "has no model of spelling; an unknown word costs no more than <unk>" in older.stderr


def test_the_log_probabilities_of_tokens_are_those_of_python(copy: Path, invoke: Invoke) -> None:
    vae = textvae.TextVAE.from_pretrained("runs/tiny")
    options = ["--json", "--token-log-probs", *FEW]
    result = invoke("score", "runs/tiny", *options, stdin=STDIN)
    rows = [json.loads(row) for row in result.stdout.splitlines()]
    for row, tokens in zip(rows, vae.token_log_probs(LINES, num_samples=3), strict=True):
        assert row["tokens"] == [*row["sentence"].split(), "</s>"]
        assert row["increments"] == pytest.approx(tokens.increments, abs=1e-4)
        assert row["latent"] + sum(row["increments"]) == pytest.approx(-row["nll"], abs=1e-4)
    refused = invoke("score", "runs/tiny", "--token-log-probs", stdin=STDIN)
    assert refused.exit_code == 2
    assert "--token-log-probs: goes with --json" in refused.stderr


def test_a_threshold_says_what_is_strange(copy: Path, invoke: Invoke) -> None:
    given = ["score", "runs/tiny", *FEW, "--valid", "tiny.txt", "--threshold", "0.25"]
    text = (copy / "tiny.txt").read_bytes()
    first = invoke(*given, stdin=text)
    assert first.stderr.startswith("measuring ")
    words = [line.split("\t")[1] for line in first.stdout.splitlines()]
    assert set(words) == {"strange", "normal"}
    rows = [json.loads(line) for line in invoke(*given, "--json", stdin=text).stdout.splitlines()]
    assert [row["strange"] for row in rows] == [word == "strange" for word in words]
    # of 100: the 25th score is the bound itself, on which rounding decides (other batches)
    told = [row["strange"] for row in sorted(rows, key=lambda row: -row["score"])]
    assert told[:24].count(True) == 24
    assert told[25:].count(False) == 75


@pytest.mark.parametrize("stdin", [b"", b"\n \n\n"], ids=["nothing", "blank lines"])
def test_an_empty_stream_is_no_output(copy: Path, invoke: Invoke, stdin: bytes) -> None:
    for extra in ([], ["--json"], ["--threshold", "0.1"]):
        result = invoke("score", "runs/tiny", *extra, stdin=stdin)
        lines = "" if extra == ["--json"] else "\n" * stdin.count(b"\n")
        assert (result.exit_code, result.stdout) == (0, lines)
        first = "standard input: 3 rows (the first is row 0, counted from 0) blank or missing"
        said = f"{first}, left out\n" if stdin else ""
        assert result.stderr == said
    assert not list(copy.glob("runs/tiny/scoring*"))


def test_too_long_is_refused_after_the_others_or_left_out(copy: Path, invoke: Invoke) -> None:
    stdin = b"the cat\n" + b"the " * 20 + b"\nthe dog"
    result = invoke("score", "runs/tiny", *FEW, "--too-long", "refuse", stdin=stdin)
    assert result.exit_code == 2
    assert len(result.stdout.splitlines()) == 1
    assert "standard input: row 1 (counted from 0) has 20 tokens" in result.stderr
    for option in (["--skip-too-long"], ["--too-long", "drop"]):
        result = invoke("score", "runs/tiny", *FEW, *option, "--json", stdin=stdin)
        assert [json.loads(line)["row"] for line in result.stdout.splitlines()] == [0, 2]
        assert "1 row (row 1, counted from 0) with more than the model's 19" in result.stderr
        lines = invoke("score", "runs/tiny", *FEW, *option, stdin=stdin).stdout.splitlines()
        assert [bool(line) for line in lines] == [True, False, True]
    result = invoke("score", "runs/tiny", *FEW, "--json", stdin=b"\n" + stdin)
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(row["row"], row["cut"]) for row in found] == [(1, False), (2, True), (3, False)]
    assert found[1]["sentence"] == ("the " * 19).strip()
    assert (
        "1 row (row 2, counted from 0) with more than the model's 19 tokens, cut" in result.stderr
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.txt"], "missing.txt: there is no such model directory and no such file"),
        (["runs/tiny", "missing.txt"], "missing.txt: there is no such file"),
        (["a", "b", "c"], "MODEL and FILE are 2 arguments at most"),
        (["--score", "odd"], "'odd' is not one of"),
        (["--threshold", "0"], "0.0 is not in the range"),
        (["--threshold", "0.001"], "validation sentences tell no rate below"),
        (["--samples", "0"], "0 is not in the range"),
        (["--score", "combined", "--background", "missing"], "missing: there is no such directory"),
        (
            ["--score", "combined", "--background", "runs/tiny"],
            "runs/tiny: has a latent; a background is a language",
        ),
        (["--background", "runs/tiny"], "--background belongs to likelihood_r"),
        (["--reference", "missing.txt"], "missing.txt: there is no such file"),
        (["--valid", "empty.txt"], "empty.txt: is empty"),
        (["--device", "abacus"], "--device abacus: this machine has cpu"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(copy: Path, invoke: Invoke, arguments: list[str], said: str) -> None:
    (copy / "empty.txt").write_bytes(b"")
    result = invoke("score", *arguments, stdin=STDIN)
    assert (result.exit_code, result.stdout) == (2, "")
    line = result.stderr.splitlines()[-1]
    assert line.startswith("error: ")
    assert said in line


def test_a_reader_that_goes_away_ends_it_silently(copy: Path) -> None:
    (copy / "many.txt").write_bytes((STDIN + b"\n") * 700)
    command = "python -m textvae score runs/tiny many.txt --samples 1 | head -1"
    process = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command.replace('python', sys.executable)}"],
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0
    assert len(process.stdout.splitlines()) == 1
    assert "error" not in process.stderr
    assert "Traceback" not in process.stderr


def test_memory_does_not_grow_with_the_stream(copy: Path) -> None:
    vae = textvae.TextVAE.from_pretrained("runs/tiny", device="cpu")
    normal = textvae.reference_of(vae, num_samples=1, keep=False)
    size = 4_000

    def scored(times: int) -> int:
        lines = (f"the dog sees the cat{number}" for number in range(times * size))
        assert sum(1 for _ in textvae.score(vae, lines, normal)) == times * size
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes

    before = scored(1)
    assert scored(3) - before < 5 * 1024


def test_the_reference_moves_with_the_model(copy: Path, invoke: Invoke) -> None:
    first = invoke("score", "runs/tiny", *FEW, stdin=STDIN)
    assert "runs/tiny/scoring-3-0: stores them for the next time" in first.stderr
    shutil.copytree("runs/tiny", "elsewhere", ignore=shutil.ignore_patterns("data", "state"))
    again = invoke("score", "elsewhere", *FEW, stdin=STDIN)
    assert (again.stdout, again.stderr) == (first.stdout, "")
    shutil.rmtree("elsewhere/scoring-3-0")
    refused = invoke("score", "elsewhere", *FEW, stdin=STDIN)
    assert refused.exit_code == 2
    assert "name a file of them with --reference" in refused.stderr
