"""A run that diverges: what is said, what is not saved, and where the same command goes on."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from small import drawn_corpus, small_config

from textvae.data.batching import TokenArray
from textvae.errors import TrainingError
from textvae.model.vae import VAE
from textvae.storage.training_state import load_state, save_state
from textvae.train.averaging import Average, NoAveraging
from textvae.train.config import TrainConfig
from textvae.train.loop import train
from textvae.train.metrics import RunningSums
from textvae.train.optimizer import AdamWConfig
from textvae.train.procedures import AggressiveProcedure
from textvae.train.state import Position, TrainingState

V = 17
CONFIG = TrainConfig(
    batch_size=13,
    max_steps=17,
    validate_every=17,
    save_every=17,
    log_every=1,
    precision="float32",
    optimizer=AdamWConfig(learning_rate=1e-2),
)


def model() -> VAE:
    return small_config(3, 5, 7, decoder={"tie_embeddings": False}).build(V, seed=1)


def corpus(name: str, size: int) -> TokenArray:
    return drawn_corpus(name, size, V)


def run(path: Path, stop: int | None = None) -> dict[str, torch.Tensor]:
    def report(line: str) -> None:
        if line.startswith(f"step {stop}/"):
            os.kill(os.getpid(), signal.SIGTERM)

    path.mkdir(exist_ok=True)
    vae, data = model(), (corpus("train", 53), corpus("valid", 11))
    train(vae, *data, CONFIG, seed=0, run=path, report=report)
    return vae.state_dict()


def poison(path: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Change the output weights of the newest state."""
    state, name = load_state(path), "model.decoder.output_embedding"
    assert state is not None
    save_state(path, state.step, state.tensors | {name: change(state.tensors[name])}, state.facts)


def test_a_state_that_only_leads_to_an_error_is_set_aside(tmp_path: Path) -> None:
    straight = run(tmp_path / "straight")
    for stop in (5, 11):
        run(tmp_path / "run", stop)
    poison(
        tmp_path / "run", lambda weight: torch.full_like(weight, 3e38) * weight.sign()
    )  # finite and hopeless
    said = "step 11 only leads here and was set aside, so the same command resumes from step 5"
    with pytest.raises(TrainingError, match=said):
        run(tmp_path / "run")
    again = run(tmp_path / "run")
    assert all(torch.equal(straight[name], again[name]) for name in straight)


def test_what_is_not_finite_is_named(tmp_path: Path) -> None:
    run(tmp_path, 5)
    poison(tmp_path, lambda weight: weight + float("inf"))
    named = (
        r"^step 5: the parameter decoder.output_embedding is not finite .* its last saved state$"
    )
    for _ in range(2):  # the only state of a run stays
        with pytest.raises(TrainingError, match=named) as caught:
            run(tmp_path)
        assert caught.value.exit_code == 4


def test_an_update_that_destroys_the_parameters_is_not_saved(tmp_path: Path) -> None:
    vae = model()
    with torch.no_grad():
        vae.decoder.output_bias[3] = float("nan")
    optimizer, average = CONFIG.optimizer.build(vae), Average(NoAveraging(), 7)
    sums = RunningSums(3, vae.device)
    state = TrainingState(vae, optimizer, average, sums, Position(step=7))
    with pytest.raises(TrainingError, match=r"^step 6: the update left model.decoder.output_bias"):
        state.save(tmp_path)
    assert load_state(tmp_path) is None


def test_a_run_ends_at_the_first_update_that_is_not_finite() -> None:
    """The rest is not updated after an update of the encoder has failed."""
    vae = model()
    with torch.no_grad():
        vae.get_parameter("encoder.posterior_bias")[0] = float("inf")
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    config = msgspec.structs.replace(CONFIG, procedure=AggressiveProcedure())
    with pytest.raises(TrainingError, match=r"^step 0: the parameter encoder.posterior_bias"):
        train(vae, corpus("train", 53), corpus("valid", 11), config, seed=0, run=None, report=print)
    assert all(torch.equal(value, vae.state_dict()[name]) for name, value in before.items())
