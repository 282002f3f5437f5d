"""A run is planned without a trace, continues exactly, and refuses a place that is not its own."""

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from textvae.errors import CheckpointError, ConfigError, DataError
from textvae.model.vae import VAE
from textvae.run.data import DataOptions
from textvae.run.dry_run import dry_run
from textvae.run.experiment import ExperimentConfig, load_config
from textvae.run.model_directory import load_model, read_results
from textvae.run.plan import Plan, default_name, plan_run
from textvae.run.training import RunOutcome, execute
from textvae.storage.training_state import load_state

SHORT = (
    "train.max_steps=23",
    "train.validate_every=5",
    "train.save_every=7",
    "train.log_every=3",
    "train.objective.kl_weight.share=0.1",
    "evaluate.max_sentences=7",
)
Killer = Callable[[int, Callable[[], object]], bool]


def silent(line: str) -> None:
    pass


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def assert_same_weights(first: VAE, second: VAE) -> None:
    weights, others = first.state_dict(), second.state_dict()
    assert weights.keys() == others.keys()
    for name, value in weights.items():
        assert torch.equal(value, others[name]), name


class Planner:
    """Makes plans on the tiny corpus."""

    def __init__(self, data: Path, overrides: tuple[str, ...], root: Path) -> None:
        self.data, self.overrides, self.root = data, overrides, root

    def config(self, *more: str) -> ExperimentConfig:
        return load_config(None, [*self.overrides, *SHORT, *more])

    def plan(self, name: str, *more: str, data: Path | None = None) -> Plan:
        options = DataOptions(str(data or self.data))
        return plan_run(options, self.config(*more), self.root / name)

    def run(self, name: str, *more: str, report: Callable[[str], None] = silent) -> RunOutcome:
        return execute(self.plan(name, *more), report=report)


@pytest.fixture
def make(tiny_data: Path, tiny_overrides: tuple[str, ...], tmp_path: Path) -> Planner:
    return Planner(tiny_data, tiny_overrides, tmp_path)


@pytest.fixture(scope="module")
def straight(
    tiny_data: Path, tiny_overrides: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> RunOutcome:
    """The short run, never interrupted; not to be written to."""
    return Planner(tiny_data, tiny_overrides, tmp_path_factory.mktemp("straight")).run("run")


# -- plans ---------------------------------------------------------------------------------------


def test_a_plan_writes_nothing(make: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make.root)
    make.plan("run")
    found = plan_run(DataOptions(str(make.data)), make.config(), None)
    assert found.run == Path("runs") / "corpus"
    assert snapshot(make.root) == {}
    assert list(make.root.iterdir()) == []


def test_the_choices_of_a_plan_lead_to_the_same_plan(make: Planner) -> None:
    options = DataOptions(str(make.data))
    first = plan_run(options, load_config(None, ["model.latent_dim=3"]), make.root / "a")
    assert "data.tokenizer.kind=bpe" in first.choices
    given = load_config(None, ["model.latent_dim=3", *first.choices])
    second = plan_run(options, given, make.root / "a")
    assert second.config == first.config
    assert second.choices == []
    assert second.data.facts == first.data.facts


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (None, "embedded"),
        ("-", "stdin"),
        ("my.txt", "my"),
        ("some/where/my.txt.gz", "my"),
        ("corpora/ptb/", "ptb"),
        ("hf:owner/name", "name"),
        ("hf:owner/name:config@v1.2", "name-config"),
        (".", "run"),
        ("..", "run"),
        (".hidden", "run"),
    ],
)
def test_a_run_is_named_after_its_data(data: str | None, name: str) -> None:
    assert default_name(data) == name


def test_faults_of_data_and_machine_are_found_by_the_plan(make: Planner) -> None:
    with pytest.raises(DataError, match=re.escape("nowhere")):
        make.plan("run", data=make.root / "nowhere")
    with pytest.raises(ConfigError, match="--device cuda:97"):
        make.plan("run", "train.device=cuda:97")
    with pytest.raises(DataError, match=re.escape("raise model.max_length")):
        make.plan("run", "model.max_length=2")


# -- dry runs ------------------------------------------------------------------------------------


def test_a_dry_run_writes_nothing_and_its_numbers_make_sense(
    make: Planner, straight: RunOutcome
) -> None:
    plan = make.plan("run", "train.max_steps=1009")
    found = dry_run(plan)
    assert snapshot(make.root) == {}
    assert found.num_parameters == sum(p.numel() for p in straight.model.parameters())
    assert found.vocabulary_size == 5 + 7 + 3 + 1 + 2
    assert found.memory_bytes > 16 * found.num_parameters
    assert found.max_steps == 1009
    assert 1e-5 < found.seconds_per_step < 10.0
    assert 1009 * found.seconds_per_step <= found.seconds < 10 * 1009 * found.seconds_per_step
    assert found.choices == plan.choices
    text = "\n".join(found.lines())
    assert "train: 89 sentences" in text
    assert "steps: 1,009 at" in text
    assert_same_weights(execute(make.plan("run"), report=silent).model, straight.model)


# -- running -------------------------------------------------------------------------------------


def test_a_run_leaves_a_model_its_numbers_and_its_state(straight: RunOutcome) -> None:
    results, state = read_results(straight.path), load_state(straight.path)
    assert results is not None
    assert state is not None
    assert straight.result is not None
    assert results.evaluation == straight.evaluation
    assert results.training.finished
    assert (results.training.steps, state.step) == (23, 23)
    assert results.training.best_step == straight.result.best_step > 0
    assert straight.evaluation is not None
    assert straight.evaluation.num_sentences == 7
    assert straight.evaluation.source.startswith("7 of ")
    assert_same_weights(load_model(straight.path).model, straight.model)
    assert load_config(straight.path / "experiment.json").train.max_steps == 23


def test_the_same_command_gives_the_same_run(make: Planner, straight: RunOutcome) -> None:
    again = make.run("again")
    assert_same_weights(again.model, straight.model)
    assert again.evaluation is not None
    assert straight.evaluation is not None
    assert again.evaluation.nll == straight.evaluation.nll


def test_a_finished_run_trains_nothing_and_says_its_numbers_again(
    make: Planner, straight: RunOutcome
) -> None:
    shutil.copytree(straight.path, make.root / "run")
    before, lines = snapshot(make.root), []
    again = make.run("run", report=lines.append)
    assert again.result is None
    assert again.evaluation == straight.evaluation
    assert_same_weights(again.model, straight.model)
    assert snapshot(make.root) == before
    assert lines == [f"{make.root / 'run'}: this run is finished; nothing is left to train"]


def steps(run: Path) -> list[tuple[int, bool]]:
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [(json.loads(line)["step"], "validation" in json.loads(line)) for line in lines]


@pytest.mark.parametrize("moment", ["step 3/23", "step 12/23", "step 20 "])
def test_a_run_stopped_by_a_signal_continues_as_if_nothing_had_been(
    make: Planner, straight: RunOutcome, moment: str
) -> None:
    def stop(line: str) -> None:
        if line.startswith(moment):
            os.kill(os.getpid(), signal.SIGTERM)

    stopped = make.run("run", report=stop)
    assert stopped.result is not None
    assert stopped.result.signal == signal.SIGTERM
    assert stopped.evaluation is None
    results = read_results(stopped.path)
    assert results is not None
    assert not results.training.finished
    assert_same_weights(load_model(stopped.path).model, stopped.model)
    lines: list[str] = []
    resumed = make.run("run", report=lines.append)
    assert lines[0] == f"{stopped.path}: resumes from step {stopped.result.steps}"
    assert_same_weights(resumed.model, straight.model)
    assert resumed.evaluation is not None
    assert straight.evaluation is not None
    assert resumed.evaluation.nll == straight.evaluation.nll
    assert steps(resumed.path) == steps(straight.path)


class CrashError(Exception):
    pass


def crash_at(moment: str) -> Callable[[str], None]:
    def report(line: str) -> None:
        if line.startswith(moment):
            raise CrashError

    return report


@pytest.mark.parametrize("moment", ["step 3/23", "step 18/23", "step 23/23"])
def test_a_run_that_crashed_continues_from_its_last_state(
    make: Planner, straight: RunOutcome, moment: str
) -> None:
    with pytest.raises(CrashError):
        make.run("run", report=crash_at(moment))
    resumed = make.run("run")
    assert_same_weights(resumed.model, straight.model)
    assert steps(resumed.path) == steps(straight.path)


def test_an_unfinished_run_loads_its_best_weights_so_far(make: Planner) -> None:
    with pytest.raises(CrashError):
        make.run("run", report=crash_at("step 18/23"))
    state = load_state(make.root / "run")
    assert state is not None
    assert state.step == 14
    found = load_model(make.root / "run")
    for name, value in found.model.state_dict().items():
        assert torch.equal(value, state.tensors[f"best.{name}"])
    plan = make.plan("run")
    assert found.tokenizer.to_json() == plan.data.tokenizer.to_json()
    assert found.config == plan.config.model
    assert found.results is None


def test_an_unfinished_run_without_a_state_is_no_model_yet(make: Planner) -> None:
    with pytest.raises(CrashError):
        make.run("run", report=crash_at("step 3/23"))
    with pytest.raises(CheckpointError, match="has saved no model yet; continue it with the same"):
        load_model(make.root / "run")


def test_a_run_killed_while_it_begins_begins_again(make: Planner, killed_at: Killer) -> None:
    plan = make.plan("run", "train.max_steps=1")
    for moment in (3, 4, 5, 6, 11, 17, 23, 31):
        shutil.rmtree(plan.run, ignore_errors=True)
        assert killed_at(moment, lambda: execute(plan, report=silent))
        assert execute(plan, report=silent).evaluation is not None


# -- used directories ----------------------------------------------------------------------------


def refused(plan: Plan, *words: str) -> None:
    before = snapshot(plan.run) if plan.run.is_dir() else plan.run.read_bytes()
    with pytest.raises(CheckpointError) as caught:
        execute(plan, report=silent)
    for word in (str(plan.run), *words):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (snapshot(plan.run) if plan.run.is_dir() else plan.run.read_bytes()) == before


def test_another_config_is_refused_by_name(make: Planner, straight: RunOutcome) -> None:
    shutil.copytree(straight.path, make.root / "run")
    refused(make.plan("run", "model.latent_dim=3"), "holds another run", "model.latent_dim: 5 -> 3")
    refused(make.plan("run", "seed=1"), "seed: 0 -> 1")
    refused(make.plan("run", "train.max_steps=29"), "train.max_steps: 23 -> 29", "--output")


def test_other_data_are_refused_by_name(make: Planner, straight: RunOutcome) -> None:
    shutil.copytree(straight.path, make.root / "run")
    other = make.root / "other"
    shutil.copytree(make.data, other)
    (other / "test.txt").write_text("red cat eats\nshy dog sees\n", encoding="utf-8")
    where = f"test: 11 sentences of {make.data / 'test.txt'} -> 2 of {other / 'test.txt'}"
    refused(make.plan("run", data=other), "holds another run", where)


def test_data_of_another_size_are_named_beside_the_settings_they_change(make: Planner) -> None:
    options = ("train.max_steps=null", "train.max_epochs=2")
    execute(make.plan("run", *options), report=silent)
    other = make.root / "other"
    shutil.copytree(make.data, other)
    lines = (other / "train.txt").read_text(encoding="utf-8").splitlines()
    (other / "train.txt").write_text("\n".join(lines[:43]) + "\n", encoding="utf-8")
    plan = make.plan("run", *options, data=other)
    refused(plan, "train: 89 sentences", "-> 43 of", "train.max_steps: 6 -> 4")


def test_the_same_data_elsewhere_are_the_same_run(make: Planner, straight: RunOutcome) -> None:
    shutil.copytree(straight.path, make.root / "run")
    shutil.copytree(make.data, make.root / "moved")
    again = execute(make.plan("run", data=make.root / "moved"), report=silent)
    assert again.result is None


def test_a_place_in_use_is_refused(make: Planner) -> None:
    (make.root / "full").mkdir()
    (make.root / "full" / "thesis.tex").write_text("precious", encoding="utf-8")
    refused(make.plan("full"), "is in use and holds no run of textvae", "--output")
    (make.root / "file").write_text("precious", encoding="utf-8")
    refused(make.plan("file"), "is in use and holds no run of textvae")


def test_an_empty_directory_is_taken(make: Planner, straight: RunOutcome) -> None:
    (make.root / "empty").mkdir()
    assert_same_weights(make.run("empty").model, straight.model)


def test_a_place_that_cannot_be_made_is_refused_in_words(make: Planner) -> None:
    (make.root / "file").write_text("precious", encoding="utf-8")
    with pytest.raises(CheckpointError, match="cannot be written: Not a directory"):
        make.run("file/run")
