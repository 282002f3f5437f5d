"""Training on CUDA: updates without a wait, steps that are not finite, what only a GPU shows."""

from pathlib import Path

import pytest
import torch

from textvae.data.batching import TokenArray
from textvae.errors import TrainingError
from textvae.model.decoder import GRUDecoderConfig
from textvae.model.encoder import GRUEncoderConfig
from textvae.model.vae import VAE, ModelConfig
from textvae.randomness import hashes, key
from textvae.train.config import TrainConfig
from textvae.train.loop import train
from textvae.train.objective import NoFreeBits, ObjectiveConfig
from textvae.train.optimizer import AdamWConfig, OptimizerConfig, SGDConfig
from textvae.train.schedules import LinearSchedule

V = 17


def build(device: torch.device | str) -> VAE:
    config = ModelConfig(
        latent_dim=3,
        encoder=GRUEncoderConfig(embedding_dim=5, hidden_dim=7, bidirectional=True, num_layers=2),
        decoder=GRUDecoderConfig(embedding_dim=5, hidden_dim=7, num_layers=2),
    )
    return config.build(V, seed=1).to(device)


def corpus(name: str, size: int) -> TokenArray:
    words = hashes(key(1, name), torch.arange(size), lanes=7) % (V - 1) + 1
    return TokenArray.from_lists([row[: row[0] % 7] for row in words.tolist()], V)


def trained(
    device: torch.device | str,
    optimizer: OptimizerConfig,
    *,
    steps: int = 17,
    clip_norm: float = 5.0,
    log_every: int = 100,
    run: Path | None = None,
) -> VAE:
    model = build(device)
    config = TrainConfig(
        batch_size=13,
        max_steps=steps,
        validate_every=100,
        save_every=5,
        log_every=log_every,
        clip_norm=clip_norm,
        precision="float32",
        optimizer=optimizer,
    )
    data = corpus("train", 53), corpus("valid", 11)
    train(model, *data, config, seed=0, run=run, report=lambda line: None)
    return model


@pytest.mark.parametrize("clip_norm", [0.5, 50.0])
@pytest.mark.parametrize("optimizer", [AdamWConfig(), SGDConfig(learning_rate=0.1, momentum=0.5)])
def test_updates_without_a_wait_are_those_of_the_cpu(
    cuda: torch.device, optimizer: OptimizerConfig, clip_norm: float
) -> None:
    models = [trained(device, optimizer, clip_norm=clip_norm) for device in ("cpu", cuda)]
    for left, right in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(left, right.cpu(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("log_every", [1, 7, 100])
def test_a_step_that_is_not_finite_is_named_although_it_is_noticed_later(
    cuda: torch.device, log_every: int, tmp_path: Path
) -> None:
    hopeless = AdamWConfig(learning_rate=1e36)
    errors = []
    for device in ("cpu", cuda):
        run = tmp_path / str(device)
        run.mkdir()
        with pytest.raises(TrainingError) as error:
            trained(device, hopeless, log_every=log_every, run=run)
        errors.append(str(error.value).replace(str(run), "run"))
    assert errors[0] == errors[1]
    assert errors[0].startswith("step 1: ")


CHANGING = ObjectiveConfig(
    kl_weight=LinearSchedule(share=1.0),
    word_dropout=LinearSchedule(start=0.5, end=0.0, share=0.8),
    free_bits=NoFreeBits(),
)
"""Everything that changes from step to step: beside it the learning rate, and all noise."""


def history(device: torch.device, *, cuda_graph: bool) -> tuple[list[str], VAE]:
    """The lines of a run that reads its figures at every step, and the model."""
    config = ModelConfig(
        latent_dim=3,
        encoder=GRUEncoderConfig(embedding_dim=5, hidden_dim=7, dropout_rate=0.2),
        decoder=GRUDecoderConfig(
            embedding_dim=5, hidden_dim=7, dropout_rate=0.2, weight_dropout_rate=0.3
        ),
    )
    model, lines = config.build(V, seed=1).to(device), list[str]()
    training = TrainConfig(
        batch_size=13,
        max_steps=61,
        log_every=1,
        validate_every=30,
        precision="float32",
        clip_norm=0.5,
        objective=CHANGING,
        cuda_graph=cuda_graph,
    )
    data = corpus("train", 53), corpus("valid", 11)
    train(model, *data, training, seed=0, run=None, report=lines.append)
    return [line.partition("  tokens/s")[0] for line in lines], model


def test_steps_of_graphs_are_those_of_a_run_without(cuda: torch.device) -> None:
    eager, model = history(cuda, cuda_graph=False)
    replayed, other = history(cuda, cuda_graph=True)
    assert replayed == eager
    for left, right in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)
