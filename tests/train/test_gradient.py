"""The gradient of a batch: the same in micro-batches, and one line where memory is short."""

import pytest
import torch

from textvae.data.batching import TokenArray
from textvae.errors import MemoryLimitError, is_out_of_memory
from textvae.model.decoder import GRUDecoderConfig
from textvae.model.encoder import GRUEncoderConfig
from textvae.model.posterior import BatchNormConfig
from textvae.model.vae import VAE, ModelConfig
from textvae.randomness import hashes, key
from textvae.train.config import StepSettings
from textvae.train.objective import FreeBitsPerDimension, ObjectiveConfig
from textvae.train.optimizer import AdamWConfig
from textvae.train.schedules import Clock
from textvae.train.step import train_step

V, Z, B = 211, 3, 53
AIM = ObjectiveConfig(free_bits=FreeBitsPerDimension(nats=0.1))


def step_from_start(micro: int | None, longest: int, embedding_dim: int | None = 31) -> VAE:
    """A model in float64 after one step, with its gradients."""
    config = ModelConfig(
        latent_dim=Z,
        encoder=GRUEncoderConfig(
            embedding_dim=embedding_dim,
            hidden_dim=61,
            dropout_rate=0.1,
            posterior=BatchNormConfig(),
        ),
        decoder=GRUDecoderConfig(embedding_dim=31, hidden_dim=61, dropout_rate=0.1),
    )
    vae = config.build(V, seed=1).double()
    words = hashes(key(1, "words"), torch.arange(B), lanes=longest) % (V - 2) + 2
    corpus = TokenArray.from_lists([row[: longest - row[0] % 7] for row in words.tolist()], V)
    optimizer = AdamWConfig(learning_rate=1e-5).build(vae)
    batch = corpus.batch(torch.arange(B))
    settings = StepSettings(AIM, seed=1, micro_batch_size=micro)
    train_step(vae, optimizer, batch, settings, Clock(3, 3, 10))
    return vae


def far(one: VAE, other: VAE) -> float:
    """The greatest difference of statistics, and of gradients relative to the largest."""
    pairs = zip(one.buffers(), other.buffers(), strict=True)
    gaps = [float((a - b).abs().max()) for a, b in pairs]
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        gaps.append(float((a.grad - b.grad).abs().max() / a.grad.abs().max()))
    return max(gaps)


@pytest.mark.parametrize("embedding_dim", [31, None])
@pytest.mark.parametrize("micro", [1, 26, 52])
def test_micro_batches_have_the_gradient_of_the_batch(
    micro: int, embedding_dim: int | None
) -> None:
    whole = step_from_start(None, 7, embedding_dim)
    assert far(whole, step_from_start(micro, 7, embedding_dim)) < 1e-12


@pytest.mark.parametrize(
    ("micro", "remedy"),
    [
        (None, "53 sentences at once: set train.micro_batch_size below 53, which does not change"),
        (5, "5 sentences at once: set train.micro_batch_size below 5, which does not change"),
        (1, "1 sentences at once: lower hidden_dim, max_length or the size of the vocabulary"),
    ],
)
@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't allocate memory: you")])
def test_a_lack_of_memory_is_refused_with_the_setting_that_helps(
    error: Exception, micro: int | None, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short_of_memory(*_: object) -> None:
        raise error

    monkeypatch.setattr(torch.Tensor, "backward", short_of_memory)
    with pytest.raises(MemoryLimitError, match=f"^out of memory in a step with {remedy}"):
        step_from_start(micro, 7)


def test_other_errors_of_a_step_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(torch.Tensor, "backward", fault)
    with pytest.raises(RuntimeError, match="mat1"):
        step_from_start(None, 7)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_errors_for_lack_of_memory_are_recognized(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) == expected
