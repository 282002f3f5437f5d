"""The saved position: every fact comes back, and a state from before there were more resumes."""

from pathlib import Path

import pytest
import torch

from textvae.model.vae import ModelConfig
from textvae.storage.training_state import load_state, save_state
from textvae.train.averaging import Average, ExponentialAveraging
from textvae.train.metrics import RunningSums
from textvae.train.optimizer import AdamWConfig
from textvae.train.procedures import ProcedureState
from textvae.train.rate import RateState
from textvae.train.state import Position, TrainingState
from textvae.train.validation import Validation

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


def state(position: Position) -> TrainingState:
    vae = ModelConfig(latent_dim=2).build(23)
    average, sums = Average(ExponentialAveraging(), 11), RunningSums(2, torch.device("cpu"))
    return TrainingState(vae, AdamWConfig().build(vae), average, sums, position)


def test_a_position_comes_back_exactly(tmp_path: Path) -> None:
    best, rewind = {"weight": torch.arange(3.0)}, {"model.weight": torch.arange(5.0)}
    state(POSITION)._replace(best=best, rewind=rewind).save(tmp_path)
    restored = state(Position(rate=RateState(0.5))).restored(tmp_path)
    assert restored.position == POSITION
    assert torch.equal(restored.best["weight"], best["weight"])
    assert torch.equal(restored.rewind["model.weight"], rewind["model.weight"])


def test_without_a_state_a_run_begins_with_its_target_rate() -> None:
    begin = state(Position(rate=RateState(0.5)))
    assert begin.restored(None) is begin
    assert (begin.best, begin.rewind) == ({}, {})


@pytest.mark.parametrize("missing", [{"rate", "procedure"}, {"rate", "procedure", "decays"}])
def test_a_state_from_before_rates_procedures_and_plateaus_resumes(
    missing: set[str], tmp_path: Path
) -> None:
    state(POSITION).save(tmp_path)
    saved = load_state(tmp_path)
    assert saved is not None
    old = {name: fact for name, fact in saved.facts.items() if name not in missing}
    save_state(tmp_path, 7, saved.tensors, old)
    begin = Position(rate=RateState(0.5))
    decays = 0 if "decays" in missing else POSITION.decays
    expected = POSITION._replace(rate=begin.rate, procedure=ProcedureState(), decays=decays)
    assert state(begin).restored(tmp_path).position == expected
