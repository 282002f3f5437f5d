"""The saved position: every fact comes back, and a state from before there were more goes on."""

from pathlib import Path

import torch

from textvae.checkpoint import load_state, save_state
from textvae.model.vae import ModelConfig
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
    rate=RateState(1 / 7, 1 / 11),
    procedure=ProcedureState(False, 2 / 3),
)


def test_a_position_comes_back_exactly(tmp_path: Path) -> None:
    vae = ModelConfig(latent_dim=2).build(23)
    optimizer = AdamWConfig().build(vae)
    best = {"weight": torch.arange(3.0)}
    save_position(tmp_path, vae, best, optimizer, POSITION)
    found, tensors = restore_position(tmp_path, vae, optimizer, RateState(0.5))
    assert found == POSITION
    assert torch.equal(tensors["weight"], best["weight"])


def test_without_a_state_a_run_begins_with_its_target_rate() -> None:
    vae = ModelConfig(latent_dim=2).build(23)
    found, tensors = restore_position(None, vae, AdamWConfig().build(vae), RateState(0.5))
    assert found == Position(rate=RateState(0.5))
    assert tensors == {}


def test_a_state_from_before_rates_and_procedures_goes_on(tmp_path: Path) -> None:
    vae = ModelConfig(latent_dim=2).build(23)
    optimizer = AdamWConfig().build(vae)
    save_position(tmp_path, vae, {}, optimizer, POSITION)
    state = load_state(tmp_path)
    assert state is not None
    old = {name: fact for name, fact in state.facts.items() if name not in {"rate", "procedure"}}
    save_state(tmp_path, 7, state.tensors, old)
    found, _ = restore_position(tmp_path, vae, optimizer, RateState())
    assert found == POSITION._replace(rate=RateState(), procedure=ProcedureState())
