"""Batches in parts: the same gradient, and parts that become smaller where memory is short."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from textvae.data.batching import TokenArray
from textvae.errors import ConfigError
from textvae.model.decoder import GRUDecoderConfig
from textvae.model.encoder import GRUEncoderConfig
from textvae.model.posterior import BatchNormConfig
from textvae.model.vae import VAE, ModelConfig
from textvae.randomness import hashes, key
from textvae.train.objective import FreeBitsPerDimension, ObjectiveConfig
from textvae.train.optimizer import AdamWConfig
from textvae.train.parts import Parts, out_of_memory
from textvae.train.step import train_step

V, Z, B, MIB = 211, 3, 53, 2**20
AIM = ObjectiveConfig(free_bits=FreeBitsPerDimension(nats=0.1))


def stepped(parts: Parts, longest: int, embedding_dim: int | None = 31) -> VAE:
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
    given = {"step": 3, "total": 10, "seed": 1, "clip_norm": 5.0}
    train_step(vae, optimizer, batch, AIM, parts=parts, **given)
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
    whole = stepped(Parts(), 7, embedding_dim)
    assert far(whole, stepped(Parts(micro), 7, embedding_dim)) < 1e-12


def address_space() -> int:
    """Bytes of this process."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmSize")))


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS and /proc are those of Linux")
def test_where_memory_is_short_parts_become_smaller() -> None:
    """In a process of its own: one that has run other tests has memory to reuse."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, __file__], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def in_short_memory() -> None:
    """A step that needs some 10 MiB more than the address space that is left, and gets less."""
    whole = stepped(Parts(), 53)
    said = list[str]()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    for allowance in (5, 3, 2, 1):  # how much of its heap is free differs from start to start
        parts = Parts(None, said.append)
        resource.setrlimit(resource.RLIMIT_AS, (address_space() + allowance * MIB, hard))
        made = stepped(parts, 53)
        if parts.micro_batch_size is not None:
            break
    assert parts.micro_batch_size in {27, 14, 7}
    assert {line.split(":")[0] for line in said} == {"out of memory"}
    assert far(whole, made) < 1e-12


def test_one_sentence_that_does_not_fit_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"^out of memory with one sentence at a time"):
        Parts()._halve(1, MemoryError())


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_what_is_a_lack_of_memory(error: Exception, found: bool) -> None:
    assert out_of_memory(error) == found


if __name__ == "__main__":
    in_short_memory()
