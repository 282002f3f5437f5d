"""The training state of checkpoint.py: exact, atomic, and never started over by mistake."""

import logging
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from textvae.errors import CheckpointError, StorageError
from textvae.storage.training_state import load_state, save_state, set_aside


def facts(step: int) -> dict[str, object]:
    return {"seed": 18_446_744_073_709_551_557, "best": 0.1 + 0.2, "words": ["x", None, step]}


def state_tensors(step: int) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((3, 5), float(step)), "count": torch.tensor(step)}


def save_steps(run: Path, *steps: int, keep: int = 7) -> None:
    run.mkdir(exist_ok=True)
    for step in steps:
        save_state(run, step, state_tensors(step), facts(step), keep=keep)


def step_loaded(run: Path) -> int | None:
    state = load_state(run)
    if state is None:
        return None
    assert state.facts == facts(state.step)
    expected = state_tensors(state.step)
    assert state.tensors.keys() == expected.keys()
    assert all(torch.equal(state.tensors[name], expected[name]) for name in expected)
    return state.step


def test_no_state_is_none(tmp_path: Path) -> None:
    assert load_state(tmp_path) is None
    assert load_state(tmp_path / "no") is None


def test_a_state_comes_back_exactly(tmp_path: Path) -> None:
    path = save_state(tmp_path, 1234, state_tensors(1234), facts(1234))
    assert path == tmp_path / "state" / "step-00001234"
    assert step_loaded(tmp_path) == 1234


def test_only_the_newest_states_are_kept(tmp_path: Path) -> None:
    save_steps(tmp_path, 2, 3, 5, 7, 11, keep=3)
    names = sorted(path.name for path in (tmp_path / "state").iterdir())
    assert names == ["step-00000005", "step-00000007", "step-00000011"]


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    save_steps(tmp_path, 99_999_999, 100_000_001, keep=1)
    assert step_loaded(tmp_path) == 100_000_001


def test_a_state_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    save_state(tmp_path, 3, {"weight": torch.zeros(2)}, {})
    save_steps(tmp_path, 3)
    assert step_loaded(tmp_path) == 3
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["step-00000003"]


def test_facts_must_be_what_json_can_hold(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_state(tmp_path, 3, {}, {"best": float("inf")})
    assert load_state(tmp_path) is None


def damage_flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def damage_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def damage_delete(path: Path) -> None:
    path.unlink()


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_newer(path: Path) -> None:
    path.write_bytes(b'{"format": 2}')


@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize(
    "damage", [damage_flip, damage_cut, damage_delete, damage_empty, damage_newer]
)
def test_a_damaged_state_is_named_and_the_one_before_is_used(
    tmp_path: Path, name: str, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    save_steps(tmp_path, 3, 5)
    damage(tmp_path / "state" / "step-00000005" / name)
    with caplog.at_level(logging.WARNING):
        assert step_loaded(tmp_path) == 3
    assert len(caplog.records) == 1
    assert f"step-00000005{os.sep}{name}" in caplog.text
    assert "falling back to the state before it" in caplog.text


def test_when_all_states_are_damaged_the_run_does_not_start_over(tmp_path: Path) -> None:
    save_steps(tmp_path, 3, 5)
    for path in (tmp_path / "state").glob("*/state.json"):
        path.unlink()
    with pytest.raises(CheckpointError, match="all 2 saved states are damaged"):
        load_state(tmp_path)


def test_a_renamed_state_is_found(tmp_path: Path) -> None:
    save_steps(tmp_path, 3, 5)
    (tmp_path / "state/step-00000005").rename(tmp_path / "state/step-00000007")
    assert step_loaded(tmp_path) == 3


def test_a_damaged_later_state_does_not_push_out_good_ones(tmp_path: Path) -> None:
    save_steps(tmp_path, 3, 5, 11)
    damage_flip(tmp_path / "state/step-00000011/state.json")
    save_steps(tmp_path, 7, keep=2)
    assert step_loaded(tmp_path) == 7
    names = sorted(path.name for path in (tmp_path / "state").iterdir())
    assert names == ["step-00000005", "step-00000007", "step-00000011"]
    save_steps(tmp_path, 11, keep=2)
    assert step_loaded(tmp_path) == 11


def test_what_a_killed_save_left_is_removed_by_the_next(tmp_path: Path) -> None:
    save_steps(tmp_path, 3)
    for name in (".tmp-step-00000005-99999999", ".del-step-00000002-99999999"):
        (tmp_path / "state" / name).mkdir()
        (tmp_path / "state" / name / "state.json").write_text("half")
    assert step_loaded(tmp_path) == 3
    save_steps(tmp_path, 5)
    names = sorted(path.name for path in (tmp_path / "state").iterdir())
    assert names == ["step-00000003", "step-00000005"]


def test_a_full_disk_leaves_the_state_before(tmp_path: Path) -> None:
    save_steps(tmp_path, 3)
    (tmp_path / "state" / ".tmp-step-00000005-99999999").mkdir()  # space that a save may need
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1009, hard))
    try:
        with pytest.raises(CheckpointError, match="step-00000005: cannot be written: File too lar"):
            save_state(tmp_path, 5, {"weight": torch.zeros(1013)}, {}, keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert step_loaded(tmp_path) == 3
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["step-00000003"]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_kill_at_any_moment_of_saving_a_state_loses_nothing(
    tmp_path: Path,
    killed_at: Callable[[int, Callable[[], object]], bool],
    caplog: pytest.LogCaptureFixture,
) -> None:
    moment, died = 0, True
    while died:
        moment += 1
        run = tmp_path / str(moment)
        save_steps(run, 3, 5)
        died = killed_at(moment, lambda run=run: save_steps(run, 7, keep=2))  # type: ignore[misc]
        assert step_loaded(run) in {5, 7}
        save_steps(run, 7, 11, keep=2)
        assert step_loaded(run) == 11
        names = sorted(path.name for path in (run / "state").iterdir())
        assert names == ["step-00000007", "step-00000011"]
    assert moment > 20  # each file of a state is opened, and each directory renamed
    assert not caplog.records  # no state was ever found half-written


def test_a_run_directory_that_is_gone_is_said_and_not_made_again(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"step-00000003: cannot be written: .*run is gone$"):
        save_state(tmp_path / "run", 3, state_tensors(3), facts(3))
    assert list(tmp_path.iterdir()) == []


def test_a_state_set_aside_is_kept_and_the_one_before_is_loaded(tmp_path: Path) -> None:
    for _ in range(2):  # the second time there is one set aside already
        save_steps(tmp_path, 3, 5)
        set_aside(tmp_path, 5)
        assert step_loaded(tmp_path) == 3
        names = sorted(path.name for path in (tmp_path / "state").iterdir())
        assert names == ["diverged-step-00000005", "step-00000003"]
