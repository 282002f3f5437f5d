"""A run that starts from a finished model: where it starts, what it keeps, what it refuses."""

import json
import re
from pathlib import Path

import pytest
import torch

from textvae import CheckpointError, ConfigError, DataError, TextVAE
from textvae.config import differences
from textvae.run.experiment import load_config, read_experiment
from textvae.run.model_directory import load_model, weights_sha256
from textvae.run.start import start_settings
from textvae.train.procedures import JointProcedure

QUIET = {"evaluate": {"num_samples": 2, "max_sentences": 7}}
SHORT = QUIET | {"train": {"max_steps": 13, "validate_every": 4, "device": "cpu"}}


def validations(run: Path) -> list[tuple[int, float]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [(line["step"], line["validation"]["elbo"]) for line in lines if "validation" in line]


@pytest.fixture(scope="module")
def halves(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two directories of different training sentences with the same validation and test sets."""
    lines = (tiny_data / "train.txt").read_text(encoding="utf-8").splitlines()
    folders = []
    for number in range(2):
        folder = tmp_path_factory.mktemp(f"half{number}") / "corpus"
        folder.mkdir()
        text = "".join(f"{line}\n" for line in lines[number::2])
        (folder / "train.txt").write_text(text, encoding="utf-8")
        for name in ("valid.txt", "test.txt"):
            (folder / name).write_bytes((tiny_data / name).read_bytes())
        folders.append(folder)
    return folders[0], folders[1]


@pytest.fixture(scope="module")
def first(
    halves: tuple[Path, Path],
    tiny_overrides: tuple[str, ...],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A model of the first half of the corpus."""
    run = tmp_path_factory.mktemp("first") / "run"
    more = ["data.tokenizer.min_count=2", "train.objective.kl_weight.end=0.7"]
    TextVAE.train(halves[0], config=load_config(None, [*tiny_overrides, *more]), output=run)
    return run


def test_the_second_half_starts_where_the_first_ended_and_beats_a_new_model(
    halves: tuple[Path, Path], first: Path, tiny_overrides: tuple[str, ...], tmp_path: Path
) -> None:
    lines: list[str] = []
    vae = TextVAE.train(
        halves[1], start_from=first, config=SHORT, output=tmp_path / "run", report=lines.append
    )
    (ended,) = [elbo for _, elbo in validations(first)]
    started = validations(tmp_path / "run")
    assert [step for step, _ in started] == [0, 4, 8, 12, 13]
    assert started[0][1] == pytest.approx(ended, rel=0.02)
    new = load_config(None, tiny_overrides)  # 127 steps, ten times as many
    TextVAE.train(halves[1], config=new, output=tmp_path / "new")
    assert max(elbo for _, elbo in started) > max(e for _, e in validations(tmp_path / "new"))
    results, origin = vae.results, TextVAE.from_pretrained(first)
    assert results is not None
    assert results.start_from is not None
    assert results.start_from.path == str(first)
    assert results.start_from.weights_sha256 == weights_sha256(origin.model)
    assert "train.max_steps: 127 -> 13" in results.start_from.differences
    assert any(line.startswith("train: 45 sentences") for line in results.start_from.differences)
    card = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert f"Started from the model of {first}" in card
    assert weights_sha256(origin.model) in card
    assert "- train.max_steps: 127 -> 13\n" in card
    assert vae.tokenizer.to_json() == origin.tokenizer.to_json()
    assert load_model(tmp_path / "run").config == load_model(first).config


def test_the_settings_are_those_of_the_model_but_for_what_it_is_past(first: Path) -> None:
    before, config = read_experiment(first / "experiment.json"), start_settings(first)
    assert config.train.objective.kl_weight(0, 100) == pytest.approx(0.7)
    assert config.train.procedure == JointProcedure()
    changed = {line.partition(":")[0] for line in differences(before, config)}
    weight = {f"train.objective.kl_weight.{key}" for key in ("kind", "start", "end", "share")}
    chosen = {"max_steps", "validate_every", "save_every", "device", "precision"}
    start = {f"start_from.{key}" for key in ("path", "weights_sha256", "differences")}
    expected = weight | {f"train.{name}" for name in chosen} | start
    assert changed <= {
        *expected,
        "start_from",
        "train.objective.kl_weight.value",
        "train.selection",
    }
    assert {"train.max_steps", "train.device"} <= changed


def test_a_started_run_continues_exactly_and_only_from_its_origin(
    halves: tuple[Path, Path], first: Path, tmp_path: Path
) -> None:
    def stop(line: str) -> None:
        if line.startswith("step 4"):
            raise InterruptedError

    config = {**SHORT, "train": {**SHORT["train"], "save_every": 3}}
    plain = TextVAE.train(halves[1], start_from=first, config=config, output=tmp_path / "plain")
    with pytest.raises(InterruptedError):
        TextVAE.train(
            halves[1], start_from=first, config=config, output=tmp_path / "cut", report=stop
        )
    copy = tmp_path / "copy of the origin"
    TextVAE.from_pretrained(first).save_pretrained(copy)
    again = TextVAE.train(halves[1], start_from=first, config=config, output=tmp_path / "cut")
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    with pytest.raises(CheckpointError, match="holds another run"):
        TextVAE.train(
            halves[1], start_from=tmp_path / "plain", config=config, output=tmp_path / "cut"
        )
    # The same weights at another place are the same origin.
    TextVAE.train(
        halves[1],
        start_from=copy,
        config=read_experiment(tmp_path / "cut" / "experiment.json"),
        output=tmp_path / "cut",
    )


def test_a_model_directory_without_a_run_is_an_origin(
    halves: tuple[Path, Path], first: Path, tmp_path: Path
) -> None:
    TextVAE.from_pretrained(first).save_pretrained(tmp_path / "model")
    config = {**SHORT, "model": {"decoder": {"dropout_rate": 0.2}}}
    vae = TextVAE.train(
        halves[1], start_from=tmp_path / "model", config=config, output=tmp_path / "run"
    )
    assert vae.config.decoder.dropout_rate == 0.2
    assert vae.tokenizer.to_json() == TextVAE.from_pretrained(first).tokenizer.to_json()


def test_what_does_not_fit_the_weights_is_refused(
    halves: tuple[Path, Path], first: Path, tmp_path: Path
) -> None:
    def refused(error: type[Exception], words: str, **values: object) -> None:
        options = {"start_from": first, "output": tmp_path / "run", **values}
        with pytest.raises(error, match=re.escape(words)):
            TextVAE.train(halves[1], **options)
        assert not (tmp_path / "run").exists()

    fit = f"--start-from {first}: its weights do not fit model.latent_dim: 5 -> 6; leave out"
    refused(ConfigError, fit, config={"model": {"latent_dim": 6}})
    tokenizer = f"--start-from {first}: brings its tokenizer; leave out data.tokenizer"
    refused(ConfigError, tokenizer, config={"data": {"tokenizer": {"kind": "bpe"}}})
    refused(CheckpointError, "there is no such run", start_from=tmp_path / "nowhere")
    refused(ConfigError, "config: ", config={"trian": {"max_steps": 9}})
    refused(TypeError, "config: found list, expected textvae.load_config", config=["train"])


def test_labels_have_to_be_those_of_the_model(model_kinds: dict[str, Path], tmp_path: Path) -> None:
    names, words = ("red", "big", "odd"), ("cat", "dog", "fox", "hen", "cow", "bee", "ant")
    rows = "".join(f"{name} {word} eats,{name}\n" for name in names for word in words)
    (tmp_path / "table.csv").write_text("text,label\n" + rows, encoding="utf-8")
    with pytest.raises(DataError, match=r"has the labels big, odd, red, but .* trained with"):
        TextVAE.train(
            tmp_path / "table.csv", start_from=model_kinds["labels"], output=tmp_path / "run"
        )
