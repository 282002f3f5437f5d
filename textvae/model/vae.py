"""The variational autoencoder: ties encoder, prior and decoder, and returns terms by sentence.

Kingma and Welling 2014; for text, Bowman et al. 2016. Nothing here is averaged over a batch.
"""

from typing import Annotated, NamedTuple

import torch
from msgspec import Meta
from torch import Tensor, nn

from textvae.config import Config
from textvae.errors import ConfigError
from textvae.files import memory_size
from textvae.kernels.linear_cross_entropy import CrossEntropy, linear_cross_entropy
from textvae.model.decoder import DecoderConfig, GRUDecoderConfig
from textvae.model.encoder import EncoderConfig, GRUEncoderConfig
from textvae.model.encoder_none import NoEncoderConfig
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.interfaces import Decoder, Encoder, Prior
from textvae.model.prior import PriorConfig, StandardNormalPriorConfig
from textvae.model.recurrent import initialize
from textvae.randomness import Noise


class ModelConfig(Config):
    """Everything that decides the shapes of the weights, but for the vocabulary."""

    latent_dim: Annotated[int, Meta(ge=0, le=4096)] = 32
    """Dimensions of the latent; 0, with `encoder.kind = "none"`, is a language model."""
    max_length: Annotated[int, Meta(ge=1, le=100_000)] = 200
    """The most tokens of a sentence, `</s>` not counted; longer ones are refused."""
    encoder: EncoderConfig = GRUEncoderConfig()
    prior: PriorConfig = StandardNormalPriorConfig()
    decoder: DecoderConfig = GRUDecoderConfig()

    def __post_init__(self) -> None:
        """Refuse an encoder without a latent, and a latent without an encoder."""
        if isinstance(self.encoder, NoEncoderConfig) and self.latent_dim:
            raise ValueError(
                f"encoder.kind none is a language model, so latent_dim must be 0, "
                f"found {self.latent_dim}"
            )
        if not self.latent_dim and not isinstance(self.encoder, NoEncoderConfig):
            raise ValueError("latent_dim 0 is a language model, so encoder.kind must be none")

    def build(self, vocabulary_size: int, *, seed: int | None = 0) -> "VAE":
        """The model on the CPU; with `seed` None its parameters are left unset, to be loaded."""
        with torch.device("meta"):
            encoder = self.encoder.build(vocabulary_size, self.latent_dim)
            decoder = self.decoder.build(vocabulary_size, self.latent_dim)
        model = VAE(encoder, self.prior.build(self.latent_dim), decoder)
        # Counted before anything is allocated: a system that promises more memory than it has
        # would end the process only when the parameters are filled.
        needed = sum(p.numel() * p.element_size() for p in model.parameters())
        if needed > (there := memory_size()):
            raise ConfigError(
                f"model: its parameters take {needed / 2**30:,.0f} GiB, this machine has "
                f"{there / 2**30:,.0f}; choose a smaller model"
            )
        model.to_empty(device="cpu")
        if seed is not None:
            initialize(model, seed)
        return model


class ElboTerms(NamedTuple):
    """The two halves of the ELBO, and what they came from."""

    reconstruction: CrossEntropy
    """-log p(x|z): total over the batch (with gradient), and a row for each target."""
    kl: Tensor
    """KL(q(z|x) || p(z)) `[B, Z]`, nats."""
    posterior: DiagonalGaussian
    """`[B, Z]`."""


class VAE(nn.Module):
    """Any objects that honour `model.interfaces` can be put together here."""

    def __init__(self, encoder: Encoder, prior: Prior, decoder: Decoder) -> None:
        super().__init__()
        self.encoder, self.prior, self.decoder = encoder, prior, decoder

    @property
    def is_language_model(self) -> bool:
        """Whether there is no latent: the KL is 0 and the ELBO is the log-likelihood."""
        return self.prior.latent_dim == 0

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def forward(
        self,
        inputs: Tensor,
        targets: Tensor,
        lengths: Tensor,
        normals: Tensor,
        *,
        decoder_inputs: Tensor | None = None,
        noise: Noise | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> ElboTerms:
        """The terms of the one-sample ELBO.

        Args:
            inputs: `[B, T]`, `<s>` and the words.
            targets: `[B, T]`, the words and `</s>`; the encoder reads these.
            lengths: int64 `[B]`, `</s>` counted.
            normals: `[B, Z]`, the standard normals of the reparameterisation.
            decoder_inputs: `[B, T]` in place of `inputs`, after word dropout.
            noise: dropout masks; None in evaluation.
            dtype: of the matrix products; KL and softmax stay float32.
        """
        posterior = self.encoder(targets, lengths, noise=noise, dtype=dtype)
        latents = posterior.sample(normals)
        reconstruction = self.reconstruct(
            inputs if decoder_inputs is None else decoder_inputs,
            targets,
            lengths,
            latents,
            noise=noise,
            dtype=dtype,
        )
        return ElboTerms(reconstruction, self.prior.kl(posterior), posterior)

    def reconstruct(
        self,
        inputs: Tensor,
        targets: Tensor,
        lengths: Tensor,
        latents: Tensor,
        *,
        noise: Noise | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> CrossEntropy:
        """-log p(x|z) at latents `[B, Z]`; padding leaves before the vocabulary projection."""
        features = self.decoder(inputs, latents, noise=noise, dtype=dtype)
        mask = target_mask(lengths, targets.shape[1])
        return linear_cross_entropy(
            features[mask],
            self.decoder.output_weight,
            self.decoder.output_bias,
            targets[mask],
            dtype=dtype,
        )


def target_mask(lengths: Tensor, steps: int) -> Tensor:
    """True at the targets of each sentence, `</s>` included: bool `[B, T]`."""
    return torch.arange(steps, device=lengths.device) < lengths[:, None]


def sum_by_sentence(rows: Tensor, lengths: Tensor) -> Tensor:
    """Sum the rows of masked targets, `[N]` in the order of the mask, to `[B]`."""
    sentence = torch.repeat_interleave(lengths)
    return rows.new_zeros(lengths.shape[0]).index_add_(0, sentence, rows)
