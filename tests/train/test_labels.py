"""Training with labels: a stopped run goes on exactly, and what its batches hold."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from small import drawn_corpus, small_config

from textvae.data.batching import TokenArray
from textvae.model.labels import LabelsConfig, M2LabelsConfig
from textvae.model.posterior import BatchNormConfig
from textvae.model.vae import VAE
from textvae.storage.training_state import load_state
from textvae.train.config import TrainConfig
from textvae.train.labelled import LabelledBatches
from textvae.train.loop import train

V, N, L = 23, 61, 5
CONFIG = TrainConfig(
    batch_size=13, labelled_batch_size=3, max_steps=11, validate_every=2, save_every=7
)


KINDS = [M2LabelsConfig(), M2LabelsConfig(summed_labels=2)]


def model(labels: LabelsConfig, **encoder: Any) -> VAE:
    config = small_config(2, 5, 7, encoder=encoder, labels=labels)
    return config.build(V, num_labels=L, seed=1)


def corpus() -> TokenArray:
    labels = torch.arange(N) % L
    return drawn_corpus("train", N, V)._replace(labels=labels.where(labels.gt(0), -1))


@pytest.mark.parametrize("labels", KINDS)
def test_a_run_that_stops_goes_on_as_if_it_had_not(labels: LabelsConfig, tmp_path: Path) -> None:
    found = []
    for name in ("straight", "stopped"):
        run = tmp_path / name
        run.mkdir()
        if name == "stopped":
            _stopped_at_7(model(labels), run)
        vae = model(labels)  # new, as a new process has it
        train(vae, corpus(), corpus().head(11), CONFIG, seed=3, run=run, report=_silent)
        state = load_state(run)
        assert state is not None
        found.append((vae.state_dict(), state.tensors))
    for straight, stopped in zip(*found, strict=True):
        assert straight.keys() == stopped.keys()
        assert all(torch.equal(straight[name], stopped[name]) for name in straight)


def _silent(line: str) -> None:
    """Nobody listens."""


def _stopped_at_7(vae: VAE, run: Path) -> None:
    """A run that dies after its state of step 7."""

    def die(line: str) -> None:
        if line.startswith("step 8"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(vae, corpus(), corpus().head(11), CONFIG, seed=3, run=run, report=die)


def test_labelled_sentences_are_drawn_for_each_step() -> None:
    data = corpus()
    drawn = [LabelledBatches(data, 3, seed=1).at(step) for step in range(200)]
    indices = torch.cat([batch.indices for batch in drawn if batch is not None])
    assert len(indices) == 600
    assert set(indices.tolist()) == {i for i in range(N) if i % L}
    again = LabelledBatches(data, 3, seed=1).at(7)
    assert again is not None
    assert drawn[7] is not None
    assert torch.equal(again.indices, drawn[7].indices)
    few = data._replace(labels=torch.where(torch.arange(N) < 4, data.labels, -1))  # type: ignore[arg-type]
    every = LabelledBatches(few, 7, seed=1).at(0)
    assert every is not None
    assert every.indices.tolist() == [1, 2, 3]
    assert LabelledBatches(data._replace(labels=None), 3, seed=1).at(0) is None


@pytest.mark.parametrize("micro", [1, 4, 12])
@pytest.mark.parametrize("labels", KINDS)
def test_parts_are_the_whole_batch(labels: LabelsConfig, micro: int) -> None:
    """Of 13 sentences, and of 7 labelled ones besides."""
    found = []
    for size in (None, micro):
        settings = msgspec.structs.replace(
            CONFIG, micro_batch_size=size, labelled_batch_size=7, precision="float32"
        )
        vae = model(labels, dropout_rate=0.1, posterior=BatchNormConfig()).double()
        train(vae, corpus(), corpus().head(11), settings, seed=3, run=None, report=_silent)
        found.append(vae.state_dict())
    whole, parts = found
    for name, tensor in whole.items():
        assert float((tensor - parts[name]).abs().max()) < 1e-12, name
