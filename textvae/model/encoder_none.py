"""No encoder: the decoder alone, a language model in the same harness as the autoencoder."""

import torch
from torch import Tensor, nn

from textvae.config import Config
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.interfaces import Decoder, Features
from textvae.randomness import Noise


class NoEncoderConfig(Config, tag_field="kind", tag="none"):
    """A language model: `latent_dim` is 0; it has nothing to choose."""

    def build(self, vocabulary_size: int, latent_dim: int, word_dim: int) -> "NoEncoder":
        """An encoder without parameters, for latents of dimension 0."""
        return NoEncoder(latent_dim)


class NoEncoder(nn.Module):
    """The contract is `model.interfaces.Encoder`, for a latent of no dimension.

    The space of such latents has one point, which has density 1 under posterior and prior. So the
    KL is 0, and the ELBO is the log-likelihood itself, without an approximation
    (docs/concepts/math.md).
    """

    shares_words = False
    description = "none"

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        assert latent_dim == 0, f"no encoder for a latent of {latent_dim} dimensions"
        self.feature_dim = 0

    def activation_bytes(self, batch: int, length: int) -> int:
        """0: it computes nothing."""
        return 0

    def attach(self, decoder: Decoder) -> None:
        """Nothing to do: no words are read."""

    def follow_word_vectors(self, factor: float) -> None:
        """Nothing to do."""

    def read(
        self, tokens: Tensor, lengths: Tensor, *, noise: Noise | None, dtype: torch.dtype
    ) -> Features:
        """Nothing, `[B, 0]`."""
        return Features(torch.empty(tokens.shape[0], 0, device=tokens.device), ())

    def moments_of(self, features: Features) -> Tensor:
        """Nothing, `[B, 0]`."""
        return features.last

    def forward(
        self,
        tokens: Tensor,
        lengths: Tensor,
        *,
        noise: Noise | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> DiagonalGaussian:
        """The posterior over nothing, `[B, 0]`, of tokens `[B, T]`; see the contract."""
        return self.posterior(self.moments(tokens, lengths), training=noise is not None)

    def moments(
        self,
        tokens: Tensor,
        lengths: Tensor,
        *,
        noise: Noise | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Nothing, `[B, 0]`."""
        return torch.empty(tokens.shape[0], 0, device=tokens.device)

    def posterior(self, moments: Tensor, *, training: bool) -> DiagonalGaussian:
        """The posterior over nothing."""
        return DiagonalGaussian(moments, moments)
