"""Several processes for one: the same curve, and an end for all where one of them ends.

The processes are forked, with the environment that torchrun gives: it takes seconds to start.
"""

import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from textvae import distributed
from textvae.data.batching import EqualLengthBatches, TokenArray
from textvae.errors import RankError, TrainingError
from textvae.metrics.likelihood import encode_corpus, importance_weighted
from textvae.model.decoder import GRUDecoderConfig
from textvae.model.encoder import GRUEncoderConfig, NoEncoderConfig
from textvae.model.labelling import UNKNOWN_LABEL
from textvae.model.labels import LabelsConfig, M2LabelsConfig, NoLabelsConfig
from textvae.model.posterior import BatchNormConfig
from textvae.model.vae import VAE, ModelConfig
from textvae.randomness import hashes, key
from textvae.storage.training_state import load_state
from textvae.train.averaging import ExponentialAveraging
from textvae.train.config import TrainConfig
from textvae.train.loop import train
from textvae.train.objective import (
    FreeBitsConfig,
    FreeBitsPerDimension,
    FreeBitsTotal,
    NoFreeBits,
    ObjectiveConfig,
)
from textvae.train.optimizer import AdamWConfig, DivideOnPlateau, LearningRateConfig
from textvae.train.procedures import AggressiveProcedure, PretrainingProcedure
from textvae.train.rate import ControlledRate, LagrangianRate
from textvae.train.schedules import ConstantSchedule, LinearSchedule

V, E, H, Z, N, B, L = 23, 5, 11, 3, 61, 13, 5
"""Every epoch of 61 sentences has batches of 13 and one of 9: no two or three ranks have alike."""
SECONDS = 60.0
"""Within a minute all processes have ended."""


def forked(size: int, action: Callable[[int], None]) -> list[int]:
    """The exit codes of so many processes, each of which calls `action(rank)` with the others.

    0 is a return, 4 a TrainingError, 75 a RankError, 1 another exception, -n a signal.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(size):
        child = os.fork()
        if child:
            children.append(child)
            continue
        code = 1
        try:
            os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            with distributed.joined():
                action(rank)
            code = 0
        except TrainingError:
            code = 4
        except RankError:
            code = 75
        except BaseException:
            traceback.print_exc(file=sys.stderr)
        finally:
            os._exit(code)
    return [_code(child, time.monotonic() + SECONDS) for child in children]


def _code(child: int, until: float) -> int:
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail(f"a process had not ended after {SECONDS} seconds")


def model(labels: LabelsConfig = NoLabelsConfig(), **encoder: Any) -> VAE:  # noqa: B008 -- frozen
    config = ModelConfig(
        labels=labels,
        latent_dim=Z,
        encoder=GRUEncoderConfig(**{"embedding_dim": E} | encoder, hidden_dim=H, dropout_rate=0.1),
        decoder=GRUDecoderConfig(embedding_dim=E, hidden_dim=H, dropout_rate=0.1),
    )
    return config.build(V, num_labels=L, seed=1)


def corpus(name: str = "train", size: int = N) -> TokenArray:
    """Two of three sentences have a label, for models that know labels."""
    words = hashes(key(1, name), torch.arange(size), lanes=7) % (V - 1) + 1
    data = TokenArray.from_lists([row[: row[0] % 7] for row in words.tolist()], V)
    numbers = torch.arange(size)
    return data._replace(labels=torch.where(numbers % 3 > 0, numbers % L, UNKNOWN_LABEL))


def config(free_bits: FreeBitsConfig | None = None, **fields: Any) -> TrainConfig:
    aim = ObjectiveConfig(
        kl_weight=LinearSchedule(share=0.3),
        free_bits=free_bits or FreeBitsPerDimension(nats=0.1),
        word_dropout=ConstantSchedule(value=0.2),
        rate=fields.pop("rate", ObjectiveConfig().rate),
    )
    return msgspec.structs.replace(
        TrainConfig(
            batch_size=B,
            max_steps=11,
            validate_every=3,
            save_every=4,
            log_every=1,
            precision="float32",
            objective=aim,
            optimizer=AdamWConfig(learning_rate=0.02),
        ),
        **fields,
    )


def language_model() -> VAE:
    decoder = GRUDecoderConfig(embedding_dim=E, hidden_dim=H, dropout_rate=0.1)
    return ModelConfig(latent_dim=0, encoder=NoEncoderConfig(), decoder=decoder).build(V, seed=1)


def silent(line: str) -> None:
    """Talk that nobody hears."""


def curve(
    run: Path,
    vae: VAE,
    settings: TrainConfig,
    dtype: torch.dtype,
    report: Callable[[str], None] = silent,
) -> None:
    run.mkdir(exist_ok=True)
    train(vae.to(dtype), corpus(), corpus("valid", 7), settings, seed=5, run=run, report=report)


def far(first: Path, second: Path) -> float:
    """The greatest difference of two runs in their tensors and their metrics, relative to 1."""
    one, other = load_state(first), load_state(second)
    assert one is not None
    assert other is not None
    assert one.tensors.keys() == other.tensors.keys()
    gaps = []
    for name, tensor in one.tensors.items():
        a, b = tensor.double(), other.tensors[name].double()
        gaps += ((a - b).abs() / (1 + a.abs())).flatten().tolist()
    texts = [(run / "metrics.jsonl").read_text(encoding="utf-8") for run in (first, second)]
    assert len(texts[0].splitlines()) > 11
    for rows in zip(*(text.splitlines() for text in texts), strict=True):
        a, b = (_numbers(json.loads(row)) for row in rows)
        assert a.keys() == b.keys()
        gaps += [abs(a[name] - b[name]) / (1 + abs(a[name])) for name in a]
    return max(gaps)


def _numbers(row: dict[str, Any]) -> dict[str, float]:
    row |= row.pop("validation", {})
    return {n: float(v) for n, v in row.items() if n not in ("seconds", "tokens_per_second")}


def compare(
    path: Path, size: int, settings: TrainConfig, dtype: torch.dtype, build: Callable[[], VAE]
) -> float:
    """How far a run of several processes is from that of one, which takes batches in one piece."""
    alone = msgspec.structs.replace(settings, micro_batch_size=None)
    curve(path / "one", build(), alone, dtype)
    codes = forked(size, lambda rank: curve(path / "many", build(), settings, dtype))
    assert codes == [0] * size
    return far(path / "one", path / "many")


MICRO = {1: None, 2: 4, 4: 2}
"""Sentences at once for so many parts a process and step, of the 7 that the larger of two has."""
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "total": {"free_bits": FreeBitsTotal(nats=1.0), "rate": ControlledRate(nats=2.0)},
    "plateau": {"learning_rate": LearningRateConfig(plateau=DivideOnPlateau(validations=1))},
    "pretraining": {"procedure": PretrainingProcedure(share=0.3)},
    "aggressive": {"procedure": AggressiveProcedure(share=0.4, max_updates=4, check_every=2)},
    "equal lengths": {"batches": EqualLengthBatches()},  # some of one, fewer than processes
    "language model": {"free_bits": NoFreeBits()},
    "m2": {"labelled_batch_size": 7},
    "m2, labels drawn": {"labelled_batch_size": 7},
}
MODELS: dict[str, Callable[[], VAE]] = {
    "language model": language_model,
    "m2": partial(model, M2LabelsConfig()),
    "m2, labels drawn": partial(model, M2LabelsConfig(summed_labels=2)),
}


def test_two_processes_are_one(tmp_path: Path) -> None:
    """What couples the sentences of a batch: a floor under its mean KL, and its statistics."""
    settings = config(
        rate=LagrangianRate(nats=2.0), averaging=ExponentialAveraging(), micro_batch_size=4
    )
    vae = partial(model, posterior=BatchNormConfig(), embedding_dim=None)  # the decoder's words
    assert compare(tmp_path, 2, settings, torch.float64, vae) < 1e-12


def test_two_processes_are_one_with_labels(tmp_path: Path) -> None:
    settings = config(micro_batch_size=4, calibrate=True, **KINDS["m2, labels drawn"])
    assert compare(tmp_path, 2, settings, torch.float64, MODELS["m2, labels drawn"]) < 1e-12


@pytest.mark.full
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("parts", MICRO)
@pytest.mark.parametrize(("dtype", "gap"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_processes_and_parts_is_one(
    tmp_path: Path, size: int, parts: int, dtype: torch.dtype, gap: float, kind: str
) -> None:
    settings = config(micro_batch_size=MICRO[parts], **KINDS[kind])
    assert compare(tmp_path, size, settings, dtype, MODELS.get(kind, model)) < gap


def test_evaluation_is_shared_bit_for_bit(tmp_path: Path) -> None:
    data, vae = corpus(size=67), model().eval()

    def figures(rank: int) -> None:
        posterior = encode_corpus(vae, data)
        found = importance_weighted(vae, data, posterior, num_samples=3, seed=2, rows=11)
        figures = torch.cat(
            [posterior.mean, posterior.log_variance, torch.stack(found, dim=1).float()], dim=1
        )
        (tmp_path / f"{distributed.size()}-{rank}").write_bytes(figures.numpy().tobytes())

    figures(0)
    assert forked(2, figures) == [0, 0]
    first, *others = ((tmp_path / name).read_bytes() for name in ("1-0", "2-0", "2-1"))
    assert others == [first, first]


def test_messages_reach_all(tmp_path: Path) -> None:
    def action(rank: int) -> None:
        said = distributed.broadcast("a\u2028\ud800" if rank == 1 else None, source=1)
        assert said == "a\u2028\ud800"
        assert distributed.broadcast("" if rank == 0 else "not looked at") == ""
        assert distributed.all_reduce_max(rank * 7) == 14

    assert forked(3, action) == [0, 0, 0]


def trouble_at(step: int, make: Callable[[], object]) -> Callable[[str], None]:
    """Talk that makes trouble when it hears of a step."""

    def hear(line: str) -> None:
        if line.startswith(f"step {step}/"):
            make()

    return hear


def last_good_step(run: Path) -> int:
    state = load_state(run)
    assert state is not None
    assert all(bool(tensor.isfinite().all()) for tensor in state.tensors.values())
    return state.step


def test_the_death_of_one_ends_all(tmp_path: Path) -> None:
    def action(rank: int) -> None:
        report = trouble_at(6, lambda: os.kill(os.getpid(), signal.SIGKILL))
        curve(tmp_path, model(), config(), torch.float32, report if rank == 1 else silent)

    assert forked(2, action) == [75, -signal.SIGKILL]
    assert last_good_step(tmp_path) == 4


def test_a_nan_of_one_ends_all(tmp_path: Path) -> None:
    def action(rank: int) -> None:
        vae = model()

        def spoil() -> None:
            with torch.no_grad():
                next(vae.encoder.parameters())[2:].fill_(float("nan"))

        curve(tmp_path, vae, config(), torch.float32, trouble_at(6, spoil) if rank else silent)

    assert forked(2, action) == [4, 4]
    assert last_good_step(tmp_path) == 4


def test_a_signal_to_one_stops_all_and_another_number_goes_on(tmp_path: Path) -> None:
    """Two stop where one of them is told to; one alone then ends the run like a straight one."""

    def action(rank: int) -> None:
        report = trouble_at(5, lambda: os.kill(os.getpid(), signal.SIGTERM))
        curve(tmp_path / "one", model(), config(), torch.float64, report if rank else silent)

    assert forked(2, action) == [0, 0]
    assert last_good_step(tmp_path / "one") == 5
    curve(tmp_path / "one", model(), config(), torch.float64)
    curve(tmp_path / "straight", model(), config(), torch.float64)
    assert far(tmp_path / "straight", tmp_path / "one") < 1e-12


@pytest.mark.full
@pytest.mark.parametrize("trial", range(20))
def test_trouble_of_any_one_at_any_step_ends_all(tmp_path: Path, trial: int) -> None:
    draws = hashes(key(trial, "trouble"), torch.arange(3)).tolist()
    size, step = 2 + draws[0] % 2, 5 + draws[1] % 6
    unlucky, kind = draws[2] % size, ("kill", "nan", "signal")[trial % 3]

    def action(rank: int) -> None:
        vae = model()

        def make() -> None:
            if kind == "nan":
                with torch.no_grad():
                    next(vae.encoder.parameters())[2:].fill_(float("nan"))
            else:
                number = signal.SIGKILL if kind == "kill" else signal.SIGINT
                os.kill(os.getpid(), number)

        report = trouble_at(step, make) if rank == unlucky else silent
        curve(tmp_path, vae, config(), torch.float32, report)

    codes, expected = forked(size, action), {"kill": 75, "nan": 4, "signal": 0}[kind]
    assert codes == [
        -signal.SIGKILL if kind == "kill" and rank == unlucky else expected for rank in range(size)
    ]
    # The line of step 8 comes before its save, and a state whose first step fails is set aside.
    saved = step > 8 or (step == 8 and kind == "kill" and unlucky > 0)
    assert last_good_step(tmp_path) == (step if kind == "signal" else 8 if saved else 4)
