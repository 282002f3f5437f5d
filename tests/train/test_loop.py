"""Training: a stopped run goes on as if it had not stopped, and selects what it should."""

import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
import torch
from small import drawn_corpus, small_config

from textvae.data.batching import TokenArray
from textvae.errors import TrainingError
from textvae.model.vae import VAE
from textvae.storage.training_state import load_state
from textvae.train.config import TrainConfig
from textvae.train.loop import TrainResult, train
from textvae.train.objective import FreeBitsPerDimension, NoFreeBits, ObjectiveConfig
from textvae.train.optimizer import AdamWConfig, LearningRateConfig, OptimizerConfig, SGDConfig
from textvae.train.procedures import AggressiveProcedure, ProcedureConfig
from textvae.train.rate import RateConfig
from textvae.train.schedules import ConstantSchedule, LinearSchedule
from textvae.train.validation import validate

V, E, H, Z, N = 23, 5, 11, 2, 61
CONSTANT = LearningRateConfig(warmup_share=0.0, decay=ConstantSchedule())
CLEAN = ObjectiveConfig(
    kl_weight=ConstantSchedule(), free_bits=NoFreeBits(), word_dropout=ConstantSchedule(value=0.0)
)
NOISY = ObjectiveConfig(
    kl_weight=LinearSchedule(share=0.5),
    free_bits=FreeBitsPerDimension(nats=0.1),
    word_dropout=ConstantSchedule(value=0.2),
)
PLAIN = TrainConfig(
    batch_size=13,
    max_steps=23,
    validate_every=5,
    save_every=7,
    log_every=1,
    precision="float32",
    objective=NOISY,
    optimizer=AdamWConfig(learning_rate=1e-2, weight_decay=0.01),
    learning_rate=LearningRateConfig(
        warmup_share=0.1, decay=LinearSchedule(start=1.0, end=0.1, share=1.0)
    ),
)


def changed(**fields: Any) -> TrainConfig:
    return msgspec.structs.replace(PLAIN, **fields)


def model(dropout: float = 0.2) -> VAE:
    config = small_config(
        Z,
        E,
        H,
        encoder={"dropout_rate": dropout},
        decoder={"tie_embeddings": False, "output_dropout_rate": dropout, "skip_connection": False},
    )
    return config.build(V, seed=1)


def corpus(name: str = "train", size: int = N) -> TokenArray:
    return drawn_corpus(name, size, V)


def run(
    config: TrainConfig,
    path: Path | None = None,
    report: Callable[[str], None] = lambda _: None,
    seed: int = 0,
) -> tuple[dict[str, torch.Tensor], TrainResult]:
    vae = model()
    if path is not None:
        path.mkdir(exist_ok=True)
    found = train(vae, corpus(), corpus("valid", 17), config, seed=seed, run=path, report=report)
    return vae.state_dict(), found


def journal(path: Path) -> list[dict[str, Any]]:
    lines = (path / "metrics.jsonl").read_bytes().splitlines()
    return [msgspec.json.decode(line) for line in lines]


def validations(path: Path) -> list[dict[str, Any]]:
    return [line for line in journal(path) if "validation" in line]


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def untimed(found: TrainResult) -> TrainResult:
    return found._replace(seconds=0.0)


# -- a run that stops and goes on ------------------------------------------------------------------

VARIANTS: list[dict[str, Any]] = [
    *({"optimizer": kind(learning_rate=1e-2)} for kind in get_args(OptimizerConfig)),
    {"optimizer": SGDConfig(learning_rate=1e-2, momentum=0.9)},
    *({"procedure": kind()} for kind in get_args(ProcedureConfig)),
    {"procedure": AggressiveProcedure(share=0.6, max_updates=5, check_every=2)},
    *({"objective": msgspec.structs.replace(NOISY, rate=kind())} for kind in get_args(RateConfig)),
]


def at(step: int, action: Callable[[], object]) -> Callable[[str], None]:
    """A report that does something when the line of a step is said."""

    def report(line: str) -> None:
        if line.startswith(f"step {step}/"):
            action()

    return report


def denormals_exist() -> bool:
    return float(torch.full((), 1e-310, dtype=torch.float64).mul(2.0)) > 0.0


def check_journal(path: Path, straight: Path) -> None:
    """Every step once, and the figures of the straight run, but for the time they took."""
    lines, expected = journal(path), journal(straight)
    steps = [(line["step"], "validation" in line) for line in lines]
    assert steps == sorted(set(steps))
    assert [s for s, validated in steps if not validated] == list(range(1, 24))
    timed = {"tokens_per_second", "seconds"}
    for line, other in zip(lines, expected, strict=True):
        assert {k: v for k, v in line.items() if k not in timed} == {
            k: v for k, v in other.items() if k not in timed
        }


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_run_stopped_by_a_signal_goes_on_bit_for_bit(
    variant: dict[str, Any], tmp_path: Path
) -> None:
    config = changed(**variant)
    number = signal.SIGTERM if isinstance(config.optimizer, SGDConfig) else signal.SIGINT
    expected, whole = run(config, tmp_path / "straight")
    handler = signal.getsignal(number)
    stop = at(11, lambda: os.kill(os.getpid(), number))
    _, part = run(config, tmp_path / "stopped", stop)
    assert (part.steps, part.signal) == (11, number)
    assert signal.getsignal(number) is handler
    weights, found = run(config, tmp_path / "stopped")
    assert equal(weights, expected)
    assert untimed(found) == untimed(whole)
    assert whole.signal is None
    check_journal(tmp_path / "stopped", tmp_path / "straight")


def test_a_run_that_was_killed_goes_on_from_its_last_state_bit_for_bit(tmp_path: Path) -> None:
    straight, moments = tmp_path / "straight", (6, 9, 20)  # before any state; after 7; after 14

    def copy(line: str) -> None:
        for step in moments:
            at(step, lambda step=step: shutil.copytree(straight, tmp_path / str(step)))(line)

    expected, whole = run(PLAIN, straight, copy)
    for step in moments:
        weights, found = run(PLAIN, tmp_path / str(step))
        assert equal(weights, expected)
        assert untimed(found) == untimed(whole)
        check_journal(tmp_path / str(step), straight)


def test_a_run_stopped_twice_before_its_first_validation_goes_on(tmp_path: Path) -> None:
    config = changed(save_every=None)
    expected, whole = run(config)
    for step in (2, 4):
        run(config, tmp_path, at(step, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    weights, found = run(config, tmp_path)
    assert equal(weights, expected)
    assert untimed(found) == untimed(whole)


def test_a_finished_run_trains_no_step_more_and_gives_the_same_weights(tmp_path: Path) -> None:
    expected, whole = run(PLAIN, tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    weights, found = run(PLAIN, tmp_path)
    assert equal(weights, expected)
    assert untimed(found) == untimed(whole)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_training_runs_outside_the_main_thread_too() -> None:
    found: list[TrainResult] = []
    thread = threading.Thread(target=lambda: found.append(run(changed(max_steps=3))[1]))
    thread.start()
    thread.join()
    assert found[0].steps == 3


# -- what the result is a function of --------------------------------------------------------------


def test_two_runs_alike_are_identical_and_another_seed_differs() -> None:
    state = torch.get_rng_state()
    assert denormals_exist()
    first, facts = run(PLAIN)
    assert denormals_exist(), "without them zero passes for more than zero"
    second, again = run(PLAIN)
    assert equal(first, second)
    assert untimed(facts) == untimed(again)
    assert torch.equal(torch.get_rng_state(), state)
    assert not equal(first, run(PLAIN, seed=1)[0])


def test_how_often_a_run_logs_validates_and_saves_does_not_change_its_path(tmp_path: Path) -> None:
    rare = changed(log_every=23, validate_every=23, save_every=23)
    run(PLAIN, tmp_path / "often")
    run(rare, tmp_path / "rare")
    often, seldom = load_state(tmp_path / "often"), load_state(tmp_path / "rare")
    assert often is not None
    assert seldom is not None
    for name in seldom.tensors:
        assert name.startswith("best.") or torch.equal(often.tensors[name], seldom.tensors[name])


GOLDEN = [4.856538, 22.160439, 18.172369, 13.849831, 9.505364, 18.2174]
GOLDEN += [9.543303, 4.966746, 13.958032, 21.974468, 4.94915, 21.982462]


def test_golden_losses(tmp_path: Path) -> None:
    run(changed(max_steps=12, validate_every=12, save_every=None), tmp_path)
    losses = [line["loss"] for line in journal(tmp_path) if "loss" in line]
    assert losses == pytest.approx(GOLDEN, rel=1e-4)


# -- a loss that is not finite ---------------------------------------------------------------------


def test_a_loss_that_is_not_finite_is_an_error_and_nothing_of_it_is_saved(tmp_path: Path) -> None:
    config = changed(
        optimizer=SGDConfig(learning_rate=1e38), learning_rate=CONSTANT, save_every=3, max_steps=3
    )
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(TrainingError, match=r"step 1: .* not finite .*learning rate 1e\+38"):
        run(config, tmp_path)
    assert load_state(tmp_path) is None
    assert {line["step"] for line in journal(tmp_path)} == {1}
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert denormals_exist()


# -- selection and stopping ------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "first"), [(0.5, 6), (1.0, 12), (0.3, 4)])
def test_nothing_is_selected_before_annealing_has_settled(
    share: float, first: int, tmp_path: Path
) -> None:
    aim = msgspec.structs.replace(CLEAN, kl_weight=LinearSchedule(share=share))
    config = changed(objective=aim, max_steps=12, validate_every=1)
    _, found = run(config, tmp_path)
    lines = validations(tmp_path)
    assert len(lines) == 12
    best = float("-inf")
    for line in lines:
        elbo = line["validation"]["elbo"]
        assert line["selected"] == (line["step"] >= first and elbo > best)
        best = elbo if line["selected"] else best
    assert lines[first - 1]["selected"]
    assert found.best.elbo == best
    assert found.best_step == max(line["step"] for line in lines if line["selected"])


@pytest.mark.parametrize("beta", [0.05, 1.0])
def test_selection_by_the_objective_is_that_of_its_beta(beta: float, tmp_path: Path) -> None:
    """A rate that grows makes the ELBO worse and the objective of a low beta better."""
    lines = list[str]()
    config = changed(
        objective=msgspec.structs.replace(CLEAN, beta=beta),
        optimizer=AdamWConfig(learning_rate=0.05),
        selection="objective",
        max_steps=30,
        validate_every=2,
    )
    data, valid = corpus(), corpus("valid", 17)
    found = train(model(0.0), data, valid, config, seed=0, run=tmp_path, report=lines.append)
    least, best = float("inf"), dict[str, float]()
    for line in validations(tmp_path):
        values = line["validation"]
        loss = -values["elbo"] - (1 - beta) * values["kl"]
        assert line["selected"] == (loss < least), line
        if line["selected"]:
            least, best = loss, values
    assert found.best.elbo == best["elbo"]
    assert any(f"  objective {least:.3f}  *" in line for line in lines)
    highest = max(line["validation"]["elbo"] for line in validations(tmp_path))
    assert (found.best.elbo < highest) is (beta < 1), "the ELBO would have selected another step"


def test_patience_counts_only_validations_after_annealing_has_settled(tmp_path: Path) -> None:
    still = AdamWConfig(learning_rate=1e-30)  # nothing moves, so no validation is better
    config = changed(max_steps=20, validate_every=1, patience=2, optimizer=still, save_every=20)
    _, found = run(config, tmp_path)
    assert (found.steps, found.best_step) == (12, 10)
    assert [line["step"] for line in validations(tmp_path) if line["selected"]] == [10]
    _, without = run(changed(max_steps=20, validate_every=1, optimizer=still))
    assert without.steps == 20


def test_a_better_validation_gives_back_the_whole_patience(tmp_path: Path) -> None:
    config = changed(
        objective=CLEAN,
        learning_rate=CONSTANT,
        optimizer=SGDConfig(learning_rate=0.3),
        max_steps=60,
        validate_every=1,
        patience=4,
    )
    _, found = run(config, tmp_path)
    selected = [line["selected"] for line in validations(tmp_path)]
    assert found.steps == len(selected) < 60
    assert selected[-5:] == [True, False, False, False, False]
    assert selected[:-5].count(False) > 0, "there were bad ones before the last good one"
    assert found.best_step == found.steps - 4


def test_patience_is_remembered_over_a_stop(tmp_path: Path) -> None:
    still = AdamWConfig(learning_rate=1e-30)
    config = changed(max_steps=20, validate_every=1, patience=3, optimizer=still)
    run(config, tmp_path, at(12, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    _, found = run(config, tmp_path)
    assert (found.steps, found.best_step) == (13, 10)


def test_the_model_holds_its_best_weights_at_the_end() -> None:
    config = changed(
        objective=CLEAN,
        learning_rate=CONSTANT,
        optimizer=AdamWConfig(learning_rate=0.1),
        max_steps=40,
        validate_every=4,
    )
    vae, valid = model(), corpus("valid", 17)
    found = train(vae, corpus(), valid, config, seed=0, run=None, report=lambda _: None)
    assert 0 < found.best_step < found.steps == 40, "this corpus of noise is learned by heart"
    assert validate(vae, valid, seed=0) == found.best
    assert not vae.training
    short = msgspec.structs.replace(config, max_steps=found.best_step)
    assert equal(run(short)[0], vae.state_dict())


def test_a_run_in_low_precision_is_selected_in_float32() -> None:
    vae, valid = model(), corpus("valid", 17)
    config = changed(precision="bfloat16", max_steps=6, validate_every=3)
    found = train(vae, corpus(), valid, config, seed=0, run=None, report=lambda _: None)
    assert validate(vae, valid, seed=0) == found.best
    assert not equal(vae.state_dict(), run(changed(max_steps=6, validate_every=3))[0])
