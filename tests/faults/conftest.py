"""A training run of milliseconds a step, and processes that are forked, stopped and compared.

A forked child has torch already, so that a trial costs the run and not the import.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small import small_config

from textvae.data.batching import TokenArray
from textvae.model.vae import VAE
from textvae.randomness import hashes, key
from textvae.storage.training_state import load_state
from textvae.train.config import TrainConfig
from textvae.train.loop import train
from textvae.train.optimizer import AdamWConfig

V = 17


def _model() -> VAE:
    return small_config(3, 5, 7, encoder={"dropout_rate": 0.1}).build(V, seed=1)


def _corpus(name: str, size: int) -> TokenArray:
    words = hashes(key(1, name), torch.arange(size), lanes=7) % (V - 1) + 1
    return TokenArray.from_lists([row[: row[0] % 7] for row in words.tolist()], V)


def _config(steps: int, save_every: int = 2) -> TrainConfig:
    return TrainConfig(
        batch_size=13,
        max_steps=steps,
        validate_every=29,
        save_every=save_every,
        log_every=3,
        precision="float32",
        optimizer=AdamWConfig(learning_rate=1e-2),
    )


class Training:
    """The run: the same model, corpus and settings each time."""

    def run(
        self,
        path: Path,
        steps: int,
        save_every: int = 2,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Begin it, or go on."""
        path.mkdir(exist_ok=True)
        data = _corpus("train", 53), _corpus("valid", 11)
        train(_model(), *data, _config(steps, save_every), seed=0, run=path, report=report)

    def outcome(self, path: Path) -> tuple[str, list[dict[str, object]]]:
        """The hash of the newest state, and metrics.jsonl but for the times."""
        state = load_state(path)
        assert state is not None
        digest = hashlib.sha256()
        for name, tensor in sorted(state.tensors.items()):
            digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
        facts = {name: value for name, value in state.facts.items() if name != "seconds"}
        digest.update(json.dumps(facts, sort_keys=True).encode())
        lines = [json.loads(line) for line in (path / "metrics.jsonl").read_bytes().splitlines()]
        times = ("seconds", "tokens_per_second")
        kept = [{k: v for k, v in line.items() if k not in times} for line in lines]
        return digest.hexdigest(), kept


@pytest.fixture(scope="session")
def training() -> Training:
    """The run; the first optimizer of a process imports for a second, so one is made here."""
    AdamWConfig().build(_model())
    return Training()
