"""checkpoint.py: what is saved comes back, damage never does, and a kill loses nothing."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from textvae.errors import CheckpointError, TextVAEError
from textvae.storage.checkpoint import (
    FileCheck,
    ModelFiles,
    newest_run,
    open_model_directory,
    save_model_directory,
    verify_directory,
)
from textvae.storage.manifest import make_manifest
from textvae.storage.tensors import tensor_shapes, tensors_to_bytes
from textvae.storage.training_state import save_state

TENSORS = {"gru.weight": torch.arange(33.0).view(3, 11), "bias": torch.tensor([2.0, -3.0, 5.0])}
NAMES = ("README.md", "config.json", "model.safetensors", "tokenizer.json")


def model_files(salt: str = "") -> dict[str, bytes]:
    return {
        "config.json": b'{"latent_dim": 2}\n',
        "model.safetensors": tensors_to_bytes({k: v + len(salt) for k, v in TENSORS.items()}),
        "tokenizer.json": b'{"words": ["a", "b"]}\n',
        "README.md": f"# A model{salt}\n".encode(),
    }


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_model_directory(tmp_path / "model", model_files())
    return tmp_path / "model"


def load(path: Path, *, verify: bool = True) -> tuple[ModelFiles, dict[str, torch.Tensor]]:
    files = open_model_directory(path, verify=verify)
    return files, files.read_tensors()


def refusal(path: Path, *, verify: bool = True) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(path, verify=verify)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < len(str(path)) + 200
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


# -- tensors ---------------------------------------------------------------------------------


def test_views_tied_and_transposed_tensors_come_back_equal(model: Path) -> None:
    big = torch.arange(1001.0)
    tensors = {
        "tied": big,
        "also tied": big,
        "view": big[3:10],
        "transposed": torch.arange(35.0).view(5, 7).T,
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "grad": torch.ones(2, requires_grad=True),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "flags": torch.tensor([True, False]),
    }
    files = model_files() | {"model.safetensors": tensors_to_bytes(tensors)}
    save_model_directory(model, files)
    loaded = load(model)[1]
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)
    assert len(tensors_to_bytes({"view": big[3:10]})) < 200


def test_the_same_tensors_are_the_same_bytes_in_any_order() -> None:
    backwards = dict(reversed(TENSORS.items()))
    assert tensors_to_bytes(TENSORS) == tensors_to_bytes(backwards)


def test_shapes_come_from_a_header_that_accounts_for_every_byte(tmp_path: Path) -> None:
    data, file = tensors_to_bytes(TENSORS), tmp_path / "a.safetensors"
    file.write_bytes(data)
    shapes = {"gru.weight": (3, 11), "bias": (3,)}
    assert tensor_shapes(file, len(data)) == shapes
    for size in (len(data) - 1, len(data) + 1):
        with pytest.raises(CheckpointError, match=f"holds {len(data)} bytes, expected {size}, so"):
            tensor_shapes(file, size)
    for other in (data[:-4], data + bytes(4)):
        file.write_bytes(other)
        with pytest.raises(CheckpointError, match=f"describes {len(data)} bytes, it holds"):
            tensor_shapes(file, len(other))


# -- the model directory ---------------------------------------------------------------------


def test_what_is_saved_is_loaded(model: Path) -> None:
    files, tensors = load(model)
    assert files.config == b'{"latent_dim": 2}\n'
    assert files.tokenizer == b'{"words": ["a", "b"]}\n'
    assert files.card == "# A model\n"
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert sorted(path.name for path in model.iterdir()) == sorted([*NAMES, "manifest.json"])


def test_a_second_save_replaces_the_first_and_spares_other_files(model: Path) -> None:
    (model / "experiment.json").write_text("{}")
    save_model_directory(model, model_files("!"))
    assert load(model)[0].card == "# A model!\n"
    assert (model / "experiment.json").read_text() == "{}"


def test_a_change_of_any_byte_of_any_file_is_found(model: Path) -> None:
    for path in sorted(model.iterdir()):
        good = path.read_bytes()
        for position in range(len(good)):
            bad = bytearray(good)
            bad[position] ^= 1 << position % 8
            path.write_bytes(bad)
            assert refusal(model).startswith(f"/{path.name}: ")
        path.write_bytes(good)
    load(model)


@pytest.mark.parametrize("name", [*NAMES, "manifest.json"])
def test_every_cut_and_every_addition_is_found(model: Path, name: str) -> None:
    path = model / name
    good = path.read_bytes()
    for length in range(len(good)):
        path.write_bytes(good[:length])
        assert refusal(model, verify=False).startswith(f"/{name}: ")
    path.write_bytes(good + b" ")
    assert refusal(model, verify=False).startswith(f"/{name}: ")


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named(model: Path, name: str) -> None:
    (model / name).unlink()
    assert refusal(model) == f"/{name}: the file is missing"


@pytest.mark.parametrize("name", NAMES)
def test_a_link_in_place_of_a_file_is_refused(model: Path, name: str) -> None:
    (model / name).rename(model / "elsewhere")
    (model / name).symlink_to("elsewhere")
    assert "is a link" in refusal(model)


def test_swapped_files_are_found(model: Path) -> None:
    first, second = model / "config.json", model / "tokenizer.json"
    contents = first.read_bytes(), second.read_bytes()
    first.write_bytes(contents[1])
    second.write_bytes(contents[0])
    assert refusal(model).startswith("/config.json: holds")


def test_weights_of_another_model_of_the_same_size_are_found(model: Path, tmp_path: Path) -> None:
    save_model_directory(tmp_path / "other", model_files("?"))
    (tmp_path / "other" / "model.safetensors").replace(model / "model.safetensors")
    assert "does not match its checksum in manifest.json" in refusal(model)


def test_what_is_no_model_is_said_in_words(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no") == ": there is no such run or model directory"
    assert refusal(tmp_path) == ": has no manifest.json, so it is no run or model of textvae"
    (tmp_path / "experiment.json").write_text("{}")
    assert refusal(tmp_path) == (
        ": this run has not finished a model yet; continue it with the same train command"
    )
    assert refusal(tmp_path / "experiment.json").endswith(
        "is a file, expected a run or model directory"
    )


def test_a_manifest_without_a_file_that_a_model_needs(model: Path) -> None:
    files = model_files()
    del files["tokenizer.json"]
    (model / "manifest.json").write_bytes(make_manifest(files))
    assert refusal(model).endswith("lists no tokenizer.json, which a model needs")


@pytest.mark.parametrize(
    "weights",
    [
        b"",
        b"no tensors at all",
        (1 << 63).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"{}" + b"trailing",
        b"\x80\x04cposix\nsystem\n(Vtouch canary\ntR.",
        save({"a": torch.ones(3)}).replace(b'"F32"', b'"F99"'),
        (67).to_bytes(8, "little")  # a number format that torch has and safetensors' reader lacks
        + b'{"a":{"dtype":"F8_E8M0","shape":[4],"data_offsets":[0,4]}}         '
        + bytes(4),
    ],
)
def test_unreadable_weights_with_a_right_checksum_are_refused(model: Path, weights: bytes) -> None:
    save_model_directory(model, model_files() | {"model.safetensors": weights})
    assert "not readable as safetensors" in refusal(model)


def test_a_card_that_is_no_text_is_refused(model: Path) -> None:
    save_model_directory(model, model_files() | {"README.md": b"\xff"})
    assert refusal(model) == "/README.md: not UTF-8, so the file is damaged"


def test_errors_are_ours_and_runtime_errors() -> None:
    assert issubclass(CheckpointError, TextVAEError)
    assert issubclass(CheckpointError, RuntimeError)


def test_verify_lists_every_file_and_every_fault(model: Path) -> None:
    for step in (3, 5):
        save_state(model, step, TENSORS, {})
    names = ["manifest.json", *NAMES]
    names += [
        f"state/step-0000000{step}/{name}"
        for step in (3, 5)
        for name in ("manifest.json", "state.json", "state.safetensors")
    ]
    assert verify_directory(model) == [FileCheck(name, None) for name in names]
    (model / "README.md").write_bytes(b"changed")
    (model / "state/step-00000005/state.json").unlink()
    (model / "state/step-00000003/manifest.json").write_bytes(b"{}")
    problems = {check.name: check.problem for check in verify_directory(model) if check.problem}
    assert sorted(problems) == [
        "README.md",
        "state/step-00000003/manifest.json",
        "state/step-00000005/state.json",
    ]
    assert problems["state/step-00000005/state.json"].endswith("the file is missing")


# -- the newest run ---------------------------------------------------------------------------


def test_the_newest_run_is_the_one_worked_on_last(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no run; name a run directory"):
        newest_run(tmp_path / "runs")
    for number, name in enumerate(["b", "a", "c"]):
        (tmp_path / name).mkdir()
        (tmp_path / name / "experiment.json").write_text("{}")
        os.utime(tmp_path / name / "experiment.json", (number, number))
    (tmp_path / "no run").mkdir()
    (tmp_path / "a file").write_text("")
    assert newest_run(tmp_path) == tmp_path / "c"
    (tmp_path / "b" / "metrics.jsonl").write_text("")
    assert newest_run(tmp_path) == tmp_path / "b"


# -- kill -9 -----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_kill_at_any_moment_of_saving_a_model_leaves_old_new_or_unfinished(
    tmp_path: Path, killed_at: Callable[[int, Callable[[], object]], bool]
) -> None:
    moment, died, cards = 0, True, set()
    while died:
        moment += 1
        run = tmp_path / str(moment)
        save_model_directory(run, model_files())
        (run / "experiment.json").write_text("{}")
        died = killed_at(moment, lambda run=run: save_model_directory(run, model_files("!")))  # type: ignore[misc]
        try:
            cards.add(load(run)[0].card)
        except CheckpointError as error:
            cards.add(str(error).partition(": ")[2])
        save_model_directory(run, model_files("?"))
        assert load(run)[0].card == "# A model?\n"
        assert not list(run.glob(".*"))
    assert cards == {
        "# A model\n",
        "# A model!\n",
        "this run has not finished a model yet; continue it with the same train command",
    }
