"""`textvae evaluate`: which evaluators run, where the figures go, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

import textvae
from textvae.api.evaluate import run_evaluators
from textvae.api.reconstruct import reconstructions
from textvae.evaluate.measurements import read_measurements
from textvae.metrics.text_quality import cut

Invoke = Callable[..., Result]
FEW = ("--samples", "3")


def test_the_figures_are_kept_in_the_model_directory(copy: Path, invoke: Invoke) -> None:
    assert invoke("evaluate", "runs/tiny", *FEW).exit_code == 0
    found = read_measurements(copy / "runs/tiny/evaluation.json")
    vae = textvae.TextVAE.from_pretrained("runs/tiny")
    old = vae.evaluate(num_samples=3)
    for name in ("nll", "elbo", "kl", "perplexity", "mutual_information", "permutation_cost"):
        assert found[name].value == pytest.approx(getattr(old, name), rel=1e-6)
    assert found["nll"].stderr == pytest.approx(old.nll_stderr, rel=1e-6)
    assert (found.data.sha256, found.data.num_tokens) == (old.sha256, old.num_tokens)
    assert found.data.num_unknown == old.num_unknown
    weights = json.loads((copy / "runs/tiny/manifest.json").read_text(encoding="utf-8"))
    assert found.model.sha256 == weights["files"]["model.safetensors"]["sha256"]
    assert found.versions.keys() >= {"textvae", "python", "torch"}
    assert invoke("info", "runs/tiny", "--verify").exit_code == 0


def test_the_file_and_the_line_say_the_same(copy: Path, invoke: Invoke) -> None:
    result = invoke("evaluate", "tiny.txt", *FEW, "--output", "kept.json", "--json")
    said = json.loads(result.stdout)
    assert not (copy / "runs/tiny/evaluation.json").exists()
    found = read_measurements(copy / "kept.json")
    written = json.loads((copy / "kept.json").read_text(encoding="utf-8"))
    assert {name: said[name] for name in written} == written
    assert {name: said[name] for name in found.flat()} == found.flat()
    assert result.stderr == "model: runs/tiny\n"


def test_evaluators_are_named_or_configured(copy: Path, invoke: Invoke) -> None:
    invoke("evaluate", "--evaluators", "latent", "--output", "one.json")
    assert [one.kind for one in read_measurements(copy / "one.json").measured] == ["latent"]
    (copy / "some.toml").write_text(
        '[[evaluate.evaluators]]\nkind = "likelihood"\nnum_samples = 2\n', encoding="utf-8"
    )
    invoke("evaluate", "--config", "some.toml", "--output", "two.json")
    (one,) = read_measurements(copy / "two.json").measured
    assert one.evaluator == {"kind": "likelihood", "num_samples": 2}
    both = ["--config", "some.toml", "--evaluators", "latent, likelihood"]
    invoke("evaluate", *both, "--output", "two.json")
    kinds = [
        one.evaluator.get("num_samples") for one in read_measurements(Path("two.json")).measured
    ]
    assert kinds == [None, 2]
    # A run's own config is where the evaluators come from without one.
    file = copy / "runs/tiny/experiment.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["evaluate"]["evaluators"] = [{"kind": "latent"}]
    file.write_text(json.dumps(config), encoding="utf-8")
    vae = textvae.TextVAE.from_pretrained("runs/tiny")
    assert [one.kind for one in run_evaluators(vae).measured] == ["latent"]


def test_what_cannot_be_kept_is_shown_all_the_same(copy: Path, invoke: Invoke) -> None:
    (copy / "runs/tiny/evaluation.json").mkdir()
    result = invoke("evaluate", *FEW)
    assert result.exit_code == 0
    assert "perplexity" in result.stdout
    assert "evaluation.json: cannot be written" in result.stderr
    assert "--output FILE" in result.stderr


def test_reconstruct_says_how_near_it_comes(place: Path, invoke: Invoke) -> None:
    lines = (place / "tiny.txt").read_text(encoding="utf-8").splitlines()[:13]
    vae = textvae.TextVAE.from_pretrained("runs/tiny")
    found = reconstructions(vae, lines)
    assert [row.reconstruction for row in found.rows] == vae.reconstruct(lines)
    rows = [
        json.loads(row)
        for row in invoke("reconstruct", "runs/tiny", *lines, "--json").stdout.splitlines()
    ]
    unranked = [row._asdict() for row in found.rows]
    assert rows == [{k: v for k, v in row.items() if v is not None} for row in unranked]
    for row in rows:
        assert row["exact_match"] == (row["sentence"] == row["reconstruction"])
    stdin = "\n".join(lines).encode()
    scores = json.loads(invoke("reconstruct", "--scores", "--json", stdin=stdin).stdout)
    assert scores == found.scores._asdict()
    assert scores["exact_match"] == pytest.approx(sum(row["exact_match"] for row in rows) / 13)
    assert scores["edit_distance"] == pytest.approx(sum(row["edit_distance"] for row in rows) / 13)
    table = invoke("reconstruct", "--scores", "--tokenize", "char", stdin=stdin).stdout
    assert "tok:char" in table
    assert [line.split("  ")[0] for line in table.splitlines()] == [
        "exact match",
        "bleu",
        "chrf",
        "edit distance",
        "edit share",
    ]


def test_each_of_the_n_best_has_its_own_scores(place: Path, invoke: Invoke) -> None:
    arguments = ["reconstruct", "the dog sees the cat .", "--n-best", "3", "--beam-size", "3"]
    rows = [json.loads(row) for row in invoke(*arguments, "--json").stdout.splitlines()]
    assert [row["rank"] for row in rows] == [1, 2, 3]
    for row in rows:
        exact = row["reconstruction"] == row["sentence"]
        assert row["exact_match"] == exact == (row["edit_distance"] == 0)
    best = json.loads(invoke(*arguments, "--scores", "--json").stdout)
    assert best["edit_distance"] == rows[0]["edit_distance"]


def test_an_unknown_tokenization_is_refused() -> None:
    with pytest.raises(textvae.ConfigError, match="tokenize 14a: must be one of none, 13a"):
        cut(["a"], "14a")  # type: ignore[arg-type]
