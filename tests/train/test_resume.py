"""What is part of a training state: a run that stops anywhere equals one that does not."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
import torch
from small import drawn_corpus

from textvae.data.batching import TokenArray
from textvae.model.decoder import GRUDecoderConfig
from textvae.model.encoder import EncoderConfig, GRUEncoderConfig, NoEncoderConfig
from textvae.model.posterior import BatchNormConfig
from textvae.model.vae import VAE, ModelConfig
from textvae.storage.training_state import State, load_state, save_state
from textvae.train.averaging import AveragingConfig, ExponentialAveraging, TailAveraging
from textvae.train.config import TrainConfig
from textvae.train.loop import TrainResult, train
from textvae.train.objective import NoFreeBits, ObjectiveConfig
from textvae.train.optimizer import AdamWConfig, DivideOnPlateau, LearningRateConfig, SGDConfig
from textvae.train.procedures import AggressiveProcedure, PretrainingProcedure
from textvae.train.rate import LagrangianRate
from textvae.train.schedules import ConstantSchedule, LinearSchedule
from textvae.train.validation import validate

V, E, H, Z, N = 23, 5, 11, 2, 61
PLAIN = TrainConfig(
    batch_size=13,
    max_steps=23,
    validate_every=2,
    save_every=7,
    log_every=1,
    precision="float32",
    objective=ObjectiveConfig(
        kl_weight=LinearSchedule(share=0.2),
        free_bits=NoFreeBits(),
        word_dropout=ConstantSchedule(value=0.2),
    ),
    optimizer=AdamWConfig(learning_rate=0.1),  # noise is learned by heart: validations get worse
    learning_rate=LearningRateConfig(warmup_share=0.1),
)


def changed(**fields: Any) -> TrainConfig:
    return msgspec.structs.replace(PLAIN, **fields)


def model(encoder: EncoderConfig | None = None) -> VAE:
    config = ModelConfig(
        latent_dim=0 if isinstance(encoder, NoEncoderConfig) else Z,
        encoder=encoder or GRUEncoderConfig(embedding_dim=E, hidden_dim=H),
        decoder=GRUDecoderConfig(
            embedding_dim=E,
            hidden_dim=H,
            dropout_rate=0.2,
            output_dropout_rate=0.2,
            locked_dropout=True,
            embedding_dropout_rate=0.1,
            weight_dropout_rate=0.1,
            skip_connection=True,
        ),
    )
    return config.build(V, seed=1)


def corpus(name: str = "train", size: int = N) -> TokenArray:
    return drawn_corpus(name, size, V)


def run(
    config: TrainConfig,
    path: Path | None = None,
    report: Callable[[str], None] = lambda _: None,
    vae: VAE | None = None,
) -> tuple[dict[str, torch.Tensor], TrainResult]:
    vae = vae or model()
    if path is not None:
        path.mkdir(exist_ok=True)
    found = train(vae, corpus(), corpus("valid", 17), config, seed=0, run=path, report=report)
    return vae.state_dict(), found._replace(seconds=0.0)


def stop_at(step: int) -> Callable[[str], None]:
    def report(line: str) -> None:
        if line.startswith(f"step {step}/"):
            signal.raise_signal(signal.SIGTERM)

    return report


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def state(path: Path) -> State:
    found = load_state(path)
    assert found is not None
    return found


TARGET = msgspec.structs.replace(PLAIN.objective, rate=LagrangianRate(nats=3.0))
PLATEAU = LearningRateConfig(decay=ConstantSchedule(), plateau=DivideOnPlateau(validations=1))
CONSTANT = LearningRateConfig(warmup_share=0.0, decay=ConstantSchedule())
NORMALISED = GRUEncoderConfig(hidden_dim=H, posterior=BatchNormConfig())
VARIANTS: dict[str, dict[str, Any]] = {
    **{str(kind.__name__): {"averaging": kind()} for kind in get_args(AveragingConfig)},
    "long tail": {"averaging": TailAveraging(share=0.6)},
    "plateau": {"learning_rate": PLATEAU},
    "plateau and average": {
        "learning_rate": PLATEAU,
        "averaging": ExponentialAveraging(decay=0.5),
        "validate_every": 1,
    },
    "plateau and momentum": {
        "learning_rate": PLATEAU,
        "optimizer": SGDConfig(learning_rate=1.0, momentum=0.9),
    },
    "plateau, target rate and average": {
        "learning_rate": PLATEAU,
        "objective": TARGET,
        "averaging": ExponentialAveraging(decay=0.5),
        "validate_every": 1,
    },
    "plateau, pretraining and average": {
        "learning_rate": PLATEAU,
        "procedure": PretrainingProcedure(share=0.5),
        "averaging": ExponentialAveraging(),
        "validate_every": 1,
    },
    "plateau and aggressive": {
        "learning_rate": PLATEAU,
        "procedure": AggressiveProcedure(share=0.9, max_updates=5, check_every=2),
    },
}


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS.keys())
@pytest.mark.parametrize("stop", [13, *(pytest.param(n, marks=pytest.mark.slow) for n in (5, 22))])
def test_a_run_stopped_by_a_signal_goes_on_bit_for_bit(
    fields: dict[str, Any], stop: int, tmp_path: Path
) -> None:
    config = changed(**fields)
    expected, whole = run(config, tmp_path / "straight")
    _, part = run(config, tmp_path / "stopped", stop_at(stop))
    assert (part.steps, part.signal) == (stop, signal.SIGTERM)
    weights, found = run(config, tmp_path / "stopped")
    assert equal(weights, expected)
    assert found == whole
    first, second = state(tmp_path / "straight"), state(tmp_path / "stopped")
    assert equal(first.tensors, second.tensors)
    assert first.facts | {"seconds": 0} == second.facts | {"seconds": 0}
    if "learning_rate" in fields:
        assert first.facts["decays"] != 0, "a plateau was reached"


@pytest.mark.parametrize("encoder", [NoEncoderConfig(), NORMALISED], ids=str)
@pytest.mark.parametrize("fields", [{}, VARIANTS["plateau and average"]], ids=["plain", "both"])
def test_other_encoders_go_on_bit_for_bit(
    encoder: EncoderConfig, fields: dict[str, Any], tmp_path: Path
) -> None:
    config = changed(**fields)
    expected, whole = run(config, tmp_path / "straight", vae=model(encoder))
    assert (state(tmp_path / "straight").facts["decays"] != 0) is bool(fields)
    run(config, tmp_path / "stopped", stop_at(13), model(encoder))
    weights, found = run(config, tmp_path / "stopped", vae=model(encoder))
    assert equal(weights, expected)
    assert found == whole
    assert (found.best.kl == 0.0) is (encoder is not NORMALISED)


# -- averages ----------------------------------------------------------------------------------


@pytest.mark.parametrize("averaging", [ExponentialAveraging(), TailAveraging()], ids=str)
def test_an_average_is_what_is_validated_and_saved_and_training_does_not_notice(
    averaging: AveragingConfig, tmp_path: Path
) -> None:
    run(PLAIN, tmp_path / "plain")
    vae = model()
    _, found = run(changed(averaging=averaging), tmp_path / "averaged", vae=vae)
    plain, averaged = state(tmp_path / "plain").tensors, state(tmp_path / "averaged").tensors
    for name, value in plain.items():
        assert name.startswith("best.") or torch.equal(value, averaged[name]), name
    assert any(name.startswith("average.mean.") for name in averaged)
    assert validate(vae, corpus("valid", 17), seed=0) == found.best
    best = {n.removeprefix("best."): v for n, v in averaged.items() if n.startswith("best.")}
    assert equal(best, vae.state_dict())


def test_the_average_of_a_run_is_that_of_its_steps(tmp_path: Path) -> None:
    """Six states of runs that stop one step later each time, averaged by hand."""
    averaging = TailAveraging(share=0.3)  # the last six of 23
    run(changed(averaging=averaging), tmp_path / "run")
    found = state(tmp_path / "run").tensors
    assert int(found["average.count"]) == 6
    states = []
    for step in range(18, 24):
        run(PLAIN, tmp_path / str(step), stop_at(step))
        states.append(state(tmp_path / str(step)).tensors)
    for name in model().state_dict():
        mean = torch.stack([tensors[f"model.{name}"] for tensors in states]).mean(0)
        torch.testing.assert_close(found[f"average.mean.{name}"], mean)


def test_a_run_stopped_before_any_selection_ends_with_its_average(tmp_path: Path) -> None:
    vae, config = model(), changed(averaging=ExponentialAveraging(), validate_every=23)
    run(config, tmp_path, stop_at(11), vae)
    tensors = state(tmp_path).tensors
    for name, value in vae.named_parameters():
        assert torch.equal(value, tensors[f"average.mean.{name}"])
        assert not torch.equal(value, tensors[f"model.{name}"])


def test_an_average_has_the_newest_buffers_and_can_be_evaluated(tmp_path: Path) -> None:
    """The KL in evaluation is near the bound that batch normalisation gives it in training."""
    vae, config = model(NORMALISED), changed(averaging=TailAveraging(share=0.5), max_steps=61)
    _, found = run(config, tmp_path, vae=vae)
    tensors, buffers = state(tmp_path).tensors, [name for name, _ in vae.named_buffers()]
    assert len(buffers) == 5
    for name in vae.state_dict():
        same = torch.equal(tensors[f"average.mean.{name}"], tensors[f"model.{name}"])
        assert same is (name in buffers), name
    assert validate(vae, corpus("valid", 17), seed=0) == found.best
    assert found.best.kl > 0.8 * Z * BatchNormConfig().scale ** 2 / 2


@pytest.mark.parametrize("averaging", [ExponentialAveraging(), TailAveraging(share=1.0)], ids=str)
def test_no_average_holds_the_decoder_that_was_pretrained(
    averaging: AveragingConfig, tmp_path: Path
) -> None:
    """Its first member is what the first step after the reset left; 12 steps come before that."""
    config = changed(averaging=averaging, procedure=PretrainingProcedure(share=0.5))
    vae = model()
    run(config, tmp_path / "12", stop_at(12), vae)
    found = state(tmp_path / "12").tensors
    assert not any(name.startswith("average.") for name in found)
    assert all(torch.equal(v, found[f"model.{n}"]) for n, v in vae.state_dict().items())
    run(config, tmp_path / "13", stop_at(13))
    found = state(tmp_path / "13").tensors
    assert int(found["average.count"]) == 1
    for name in model().state_dict():
        assert torch.equal(found[f"average.mean.{name}"], found[f"model.{name}"])
    run(config, tmp_path / "run")
    assert int(state(tmp_path / "run").tensors["average.count"]) == 11


# -- plateaus ----------------------------------------------------------------------------------


def plateau(**fields: Any) -> TrainConfig:
    rates = LearningRateConfig(
        warmup_share=0.0, decay=ConstantSchedule(), plateau=DivideOnPlateau(**fields)
    )
    return changed(learning_rate=rates, max_steps=41)


@pytest.mark.parametrize("averaging", [{}, {"averaging": ExponentialAveraging()}], ids=str)
def test_on_a_plateau_a_run_goes_back_to_its_best(
    averaging: dict[str, Any], tmp_path: Path
) -> None:
    """Stopped where it has just gone back, its state is that of the best step, but for the step."""
    config, said = msgspec.structs.replace(plateau(validations=2), **averaging), []

    def report(line: str) -> None:
        if "back to step" in line:
            said.append(line)
            signal.raise_signal(signal.SIGTERM)

    run(config, tmp_path / "gone back", report)
    found = state(tmp_path / "gone back")
    best = found.facts["best_step"]
    assert isinstance(best, int)
    assert found.step == best + 4, "two validations, two steps apart"
    assert (found.facts["bad_validations"], found.facts["decays"]) == (2, 1)
    assert said == [
        f"step {found.step}  no better for 2 validations: back to step {best}, at 0.5 of the "
        "learning rate"
    ]
    run(config, tmp_path / "best", stop_at(best))
    expected = state(tmp_path / "best").tensors
    for name, value in expected.items():
        assert torch.equal(found.tensors[name], value), name
    assert found.tensors.keys() >= expected.keys()
    assert any(name.startswith("optimizer.") for name in expected)


def test_on_a_plateau_the_target_rate_goes_on(tmp_path: Path) -> None:
    """Its multiplier is the one that followed from all steps, not that of the best one."""

    def report(line: str) -> None:
        if "back to step" in line:
            signal.raise_signal(signal.SIGTERM)

    config = msgspec.structs.replace(plateau(validations=2), objective=TARGET)
    run(config, tmp_path / "gone back", report)
    back = state(tmp_path / "gone back")
    assert back.facts["decays"] == 1
    still = msgspec.structs.replace(config, learning_rate=CONSTANT)
    for step in (back.facts["best_step"], back.step):
        assert isinstance(step, int)
        run(still, tmp_path / str(step), stop_at(step))
    best, newest = (state(tmp_path / str(s)) for s in (back.facts["best_step"], back.step))
    assert back.facts["rate"] == newest.facts["rate"] != best.facts["rate"]
    assert all(torch.equal(back.tensors[n], v) for n, v in best.tensors.items())


def test_a_plateau_does_not_go_back_behind_the_reset_of_the_decoder(tmp_path: Path) -> None:
    """Also where nothing is annealed, so that all of the second part may be selected."""
    objective = msgspec.structs.replace(PLAIN.objective, kl_weight=ConstantSchedule())
    procedure = PretrainingProcedure(share=0.5)
    fields = {"objective": objective, "procedure": procedure, "validate_every": 1}
    run(msgspec.structs.replace(plateau(validations=1), **fields), tmp_path)
    found, first = state(tmp_path), procedure.first(41)
    assert found.facts["decays"] != 0
    lines = (tmp_path / "metrics.jsonl").read_bytes().splitlines()
    assert min(r["step"] for r in map(msgspec.json.decode, lines) if r.get("selected")) == first + 1


def test_after_a_plateau_the_rate_is_divided(tmp_path: Path) -> None:
    """By so much that nothing moves any more: the best parameters stay to the end."""
    run(plateau(validations=1, divisor=1e30), tmp_path)
    found = state(tmp_path)
    assert found.step == 41
    assert found.facts["decays"] != 0
    for name, _ in model().named_parameters():
        assert torch.equal(found.tensors[f"model.{name}"], found.tensors[f"best.{name}"])


def test_a_run_ends_where_its_rate_would_fall_too_often(tmp_path: Path) -> None:
    still = {"optimizer": AdamWConfig(learning_rate=1e-30), "validate_every": 1}
    config = msgspec.structs.replace(plateau(validations=2, max_decays=1), **still)
    _, found = run(config, tmp_path)
    first = 9  # annealing ends at 8.2 of 41 steps; nothing moves, so nothing is better
    assert (found.best_step, found.steps) == (first, first + 4)
    _, patient = run(msgspec.structs.replace(config, patience=3))
    assert patient.steps == first + 3


def test_a_state_of_before_there_were_plateaus_goes_on(tmp_path: Path) -> None:
    expected, _ = run(PLAIN)
    run(PLAIN, tmp_path, stop_at(13))
    old = state(tmp_path)
    facts = {name: value for name, value in old.facts.items() if name != "decays"}
    save_state(tmp_path, old.step, old.tensors, facts)
    assert equal(run(PLAIN, tmp_path)[0], expected)
