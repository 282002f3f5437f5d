"""The table of results: trained and measured once, and no row lost to another's failure."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner, Result

from textvae.api.evaluate import run_evaluators
from textvae.api.text_vae import TextVAE
from textvae.errors import ConfigError
from textvae.evaluate.bounds import LikelihoodEvaluator
from textvae.evaluate.latent import LatentEvaluator
from textvae.evaluate.reconstruction import ReconstructionEvaluator
from textvae.run.experiment import load_config

SCRIPTS = Path(__file__).parents[2] / "scripts"


def script(name: str) -> ModuleType:
    sys.path.insert(0, str(SCRIPTS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(SCRIPTS))


reproduce, rows, methods = map(script, ("reproduce", "reproduce_rows", "reproduce_methods"))


def run(*arguments: object) -> Result:
    words = [str(argument) for argument in arguments]
    return CliRunner(catch_exceptions=False).invoke(reproduce.main, words)


@pytest.fixture(scope="module")
def settings(tiny_overrides: tuple[str, ...]) -> list[str]:
    skipped = ("train.objective", "train.max_steps", "train.validate_every")
    kept = [text for text in tiny_overrides if not text.startswith(skipped)]
    return [word for text in kept for word in ("--set", text)]


def test_a_table_is_made_once(tiny_data: Path, tmp_path: Path, settings: list[str]) -> None:
    output = tmp_path / "out"
    fixed = [*settings, "--samples", "3", "--limit", "7", "--max-steps", "6", "--output", output]
    names = "language_model,pretraining,aggressive"
    # A method whose directory is taken fails; the others do not.
    (output / "pretraining-seed1").mkdir(parents=True)
    (output / "pretraining-seed1" / "notes.txt").write_text("mine", encoding="utf-8")
    first = run("default", tiny_data, "--methods", names, "--seeds", "1", *fixed)
    assert first.exit_code == 1
    assert "failed: pretraining 1: " in first.stdout
    assert "is in use and holds no run of textvae" in first.stdout
    assert [path.name for path in sorted((output / "rows").iterdir())] == [
        "aggressive-seed1-K3-7.json",
        "language_model-seed1-K3-7.json",
    ]
    (output / "pretraining-seed1" / "notes.txt").unlink()
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*.safetensors")}
    file = tmp_path / "rows.json"
    second = run("default", tiny_data, "--methods", names, "--seeds", "1", *fixed, "--json", file)
    assert second.exit_code == 0
    assert second.stderr.count("measured before") == 2
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    found = {row["method"]: row for row in json.loads(file.read_text(encoding="utf-8"))}
    assert list(found) == names.split(",")
    assert found["pretraining"]["steps"] == 6
    assert found["aggressive"]["steps"] == 3  # a step costs two
    for name, row in found.items():
        vae = TextVAE.from_pretrained(output / f"{name}-seed1")
        assert vae.results is not None
        assert row["seconds"] == vae.results.training.seconds
        assert row["num_sentences"] == 7
        assert row["command"].startswith(f"textvae train {tiny_data} --set ")
        assert "trained elsewhere" not in row["hardware"]
    assert found["language_model"]["reconstruction_bleu"] is None
    assert found["language_model"]["num_samples"] == 1
    assert found["pretraining"]["mutual_information_cap"] == pytest.approx(1.9459, abs=1e-3)
    assert "| pretraining | 1 | " in second.stdout


def test_a_run_that_is_finished_is_measured_as_evaluate_does(
    tiny_data: Path, tiny_run: Path, tmp_path: Path
) -> None:
    file = tmp_path / "rows.json"
    fixed = ["--methods", "none", "--samples", "3", "--output", tmp_path, "--json", file]
    found = run("default", tiny_data, "--run", f"mine={tiny_run}", *fixed)
    assert found.exit_code == 0
    (row,) = json.loads(file.read_text(encoding="utf-8"))
    texts = (tiny_data / "test.txt").read_text(encoding="utf-8").splitlines()
    chosen = [LikelihoodEvaluator(num_samples=3), LatentEvaluator(), ReconstructionEvaluator()]
    expected = run_evaluators(TextVAE.from_pretrained(tiny_run), texts, evaluators=chosen)
    for name in ("nll", "nll_stderr", "perplexity", "kl", "active_units", "reconstruction_bleu"):
        assert row[name] == pytest.approx(expected.flat()[name])
    assert row["num_sentences"] == 11
    assert row["hardware"] == "cpu, 1 threads, trained elsewhere"
    assert row["test_sha256"] == expected.data.sha256
    lost = run("default", tiny_data, "--run", "nothing", *fixed)
    assert lost.exit_code == 1
    assert "failed: nothing: --run nothing: must be METHOD=DIR" in lost.stdout


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_method_is_a_config(name: str, tmp_path: Path) -> None:
    protocol = reproduce.Protocol("ptb", "PTB", "ptb", (), 100, None, tmp_path)
    config, overrides = reproduce.configure(protocol, name, 3)
    assert config.seed == 3
    assert load_config(None, overrides, recipe="ptb") == config
    recipe = load_config(None, recipe="ptb")
    assert config.train.max_steps == round(7000 / methods.METHODS[name].cost)
    assert config.model.decoder.hidden_dim == recipe.model.decoder.hidden_dim
    others = [other for other in methods.METHODS if other != name]
    assert all(reproduce.configure(protocol, other, 3)[0] != config for other in others)


def test_rows_depend_on_what_made_them(tiny_data: Path, tmp_path: Path) -> None:
    protocol = reproduce.Protocol("default", str(tiny_data), "tiny", (), 5, None, tmp_path)
    config, _ = reproduce.configure(protocol, "plain", 0)
    other, _ = reproduce.configure(protocol, "plain", 1)
    marks = {
        reproduce.fingerprint(protocol, config),
        reproduce.fingerprint(protocol, other),
        reproduce.fingerprint(protocol._replace(limit=3), config),
        reproduce.fingerprint(protocol._replace(num_samples=3), config),
        reproduce.fingerprint(protocol._replace(data=None), config),
    }
    assert len(marks) == 5
    with pytest.raises(ConfigError, match="give --max-steps for equal compute"):
        reproduce.configure(protocol, "aggressive", 0)
    with pytest.raises(ConfigError, match="the embedded corpus is trained with a recipe"):
        reproduce.configure(protocol._replace(data=None), "plain", 0)


def made_up(method: str, seed: int, perplexity: float) -> object:
    latent = 0 if method == "language_model" else 5
    return rows.Row(
        **{"key": "", "corpus": "ptb", "recipe": "ptb", "paper": "", "num_sentences": 11},
        **{"num_tokens": 97, "num_samples": 3, "nll": 100.0 + seed, "nll_stderr": 0.5},
        **{"tokenizer": "word", "elbo": -101.0, "kl": 2.5, "mutual_information": 1.25},
        **{"mutual_information_cap": 2.4, "active_units": 3 + seed, "latent_dim": latent},
        **{"permutation_cost": 4.0, "reconstruction_bleu": 12.3, "bleu_signature": ""},
        **{"num_parameters": 7, "steps": 13, "seconds": 90.0, "evaluation_seconds": 1.0},
        **{"precision": "float32", "hardware": "a machine", "commit": "0123", "created": ""},
        **{"test_sha256": "f" * 64, "command": "", "method": method, "seed": seed},
        perplexity=perplexity,
    )


def test_published_figures_stand_in_columns_of_their_own() -> None:
    ours = [made_up("pretraining", 0, 95.0), made_up("pretraining", 1, 97.0)]
    theirs = [one for one in methods.PUBLISHED if one.corpus == "ptb"]
    lines = rows.markdown([*ours, made_up("language_model", 0, 99.0)], theirs).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert {len(row) for row in cells} == {14}
    both = next(row for row in cells if row[0] == "pretraining")
    assert both[1:4] == ["0, 1", "100.500 +- 0.500", "96.00 (95.00 to 97.00)"]
    assert both[4:10] == ["2.50", "1.25 (2.40)", "3.5 of 5", "4.00", "12.3", "1.5"]
    assert both[10:13] == ["96.86", "5.31", "32"]
    assert both[13].startswith("published, as quoted by Li et al. 2020")
    alone = next(row for row in cells if row[0] == "cyclical")
    assert alone[1:10] == ["-"] * 9
    assert alone[10] == "108.81"
    without = rows.markdown([made_up("language_model", 0, 99.0)], []).splitlines()
    assert {line.count("|") for line in without} == {11}
    assert "| - | - | - | - |" in without[2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--methods", "plane"], "plane: they are recipe, language_model"),
        (["--methods", ","], "nothing: they are"),
        (["--seeds", "1,x"], "1,x: must be numbers such as 0,1,2"),
    ],
)
def test_bad_arguments_are_refused(arguments: list[str], said: str) -> None:
    found = run("default", "corpus", *arguments)
    assert found.exit_code == 2
    assert said in " ".join(found.output.split())
