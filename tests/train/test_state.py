"""The saved position: every fact comes back, and a state from before there were more goes on."""

from pathlib import Path

import pytest
import torch

from textvae.model.vae import VAE, ModelConfig
from textvae.storage.training_state import load_state, save_state
from textvae.train.averaging import Average, ExponentialAveraging
from textvae.train.metrics import RunningSums
from textvae.train.optimizer import AdamWConfig
from textvae.train.procedures import ProcedureState
from textvae.train.rate import RateState
from textvae.train.state import Position, Validation, restore_position, save_position

POSITION = Position(
    step=7,
    best_step=5,
    best=Validation(-21.3, 1 / 3, 2),
    bad_validations=1,
    seconds=0.1 + 0.2,
    decays=3,
    rate=RateState(1 / 7, 1 / 11),
    procedure=ProcedureState(False, 2 / 3),
)


SUMS = RunningSums(2, torch.device("cpu"))


def parts() -> tuple[VAE, torch.optim.Optimizer, Average]:
    vae = ModelConfig(latent_dim=2).build(23)
    return vae, AdamWConfig().build(vae), Average(ExponentialAveraging(), 11)


def test_a_position_comes_back_exactly(tmp_path: Path) -> None:
    vae, optimizer, average = parts()
    best, rewind = {"weight": torch.arange(3.0)}, {"model.weight": torch.arange(5.0)}
    save_position(tmp_path, vae, best, optimizer, POSITION, average, rewind, SUMS)
    found = restore_position(tmp_path, vae, optimizer, average, SUMS, Position(rate=RateState(0.5)))
    assert found[0] == POSITION
    assert torch.equal(found[1]["weight"], best["weight"])
    assert torch.equal(found[2]["model.weight"], rewind["model.weight"])


def test_without_a_state_a_run_begins_with_its_target_rate() -> None:
    begin = Position(rate=RateState(0.5))
    assert restore_position(None, *parts(), SUMS, begin) == (begin, {}, {})


@pytest.mark.parametrize("missing", [{"rate", "procedure"}, {"rate", "procedure", "decays"}])
def test_a_state_from_before_rates_procedures_and_plateaus_goes_on(
    missing: set[str], tmp_path: Path
) -> None:
    vae, optimizer, average = parts()
    save_position(tmp_path, vae, {}, optimizer, POSITION, average, {}, SUMS)
    state = load_state(tmp_path)
    assert state is not None
    old = {name: fact for name, fact in state.facts.items() if name not in missing}
    save_state(tmp_path, 7, state.tensors, old)
    begin = Position(rate=RateState(0.5))
    found, _, _ = restore_position(tmp_path, vae, optimizer, average, SUMS, begin)
    decays = 0 if "decays" in missing else POSITION.decays
    assert found == POSITION._replace(rate=begin.rate, procedure=ProcedureState(), decays=decays)
