"""Small models and their sentences, for tests."""

from collections.abc import Mapping
from typing import Any

import torch

from textvae.data.batching import TokenArray
from textvae.model.decoder import GRUDecoderConfig
from textvae.model.encoder import GRUEncoderConfig
from textvae.model.vae import ModelConfig
from textvae.randomness import hashes, key


def small_config(
    latent_dim: int,
    embedding_dim: int,
    hidden_dim: int,
    *,
    encoder: Mapping[str, Any] | None = None,
    decoder: Mapping[str, Any] | None = None,
    **fields: Any,
) -> ModelConfig:
    """A model whose encoder and decoder have these sizes; further fields of each by name."""
    sizes: dict[str, Any] = {"embedding_dim": embedding_dim, "hidden_dim": hidden_dim}
    return ModelConfig(
        latent_dim=latent_dim,
        encoder=GRUEncoderConfig(**sizes, **(encoder or {})),
        decoder=GRUDecoderConfig(**sizes, **(decoder or {})),
        **fields,
    )


def drawn_corpus(name: str, size: int, vocabulary_size: int) -> TokenArray:
    """Sentences of 0 to 6 words, drawn by a name."""
    words = hashes(key(1, name), torch.arange(size), lanes=7) % (vocabulary_size - 1) + 1
    return TokenArray.from_lists([row[: row[0] % 7] for row in words.tolist()], vocabulary_size)
