"""The variational autoencoder: encoder, prior and decoder, and terms per sentence.

Kingma and Welling 2014; for text, Bowman et al. 2016. Nothing is averaged over a batch.
"""

from typing import TYPE_CHECKING, Annotated, Union

import torch
from msgspec import Meta
from torch import Tensor, nn
from torch.nn import functional as F

from textvae.config import Config
from textvae.errors import ConfigError
from textvae.kernels.linear_cross_entropy import CHUNK_ROWS, CrossEntropy, linear_cross_entropy
from textvae.model.decoder import DECODERS, GRUDecoderConfig
from textvae.model.encoder import EncoderConfig, GRUEncoderConfig, NoEncoderConfig
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.inferred import ElboTerms, Inferred
from textvae.model.initialization import initialize
from textvae.model.interfaces import Decoder, Encoder, Labels, Prior
from textvae.model.labelling import Labelled, Labelling
from textvae.model.labels import LabelsConfig, NoLabels, NoLabelsConfig
from textvae.model.prior import PriorConfig
from textvae.model.prior_gaussian import GaussianPriorConfig
from textvae.randomness import Noise
from textvae.storage.files import memory_size

if TYPE_CHECKING:
    DecoderConfig = GRUDecoderConfig
else:
    DecoderConfig = Union[DECODERS]  # noqa: UP007 -- of a tuple


class ModelConfig(Config):
    """Everything that determines the shapes of the weights, except the vocabulary."""

    latent_dim: Annotated[int, Meta(ge=0, le=4096)] = 8
    """Dimensions of the latent; 0, with `encoder.kind = "none"`, is a language model. Few, because
    a nat costs less perplexity in one dimension than spread over several (docs/develop/log.md)."""
    max_length: Annotated[int, Meta(ge=1, le=100_000)] = 200
    """The most tokens of a sentence, `</s>` not counted; longer ones are refused."""
    encoder: EncoderConfig = GRUEncoderConfig()
    prior: PriorConfig = GaussianPriorConfig()
    decoder: DecoderConfig = GRUDecoderConfig()
    labels: LabelsConfig = NoLabelsConfig()
    """The kind of labels, if any."""

    def __post_init__(self) -> None:
        """Refuse an encoder without a latent, a latent without an encoder, labels without both."""
        if isinstance(self.encoder, NoEncoderConfig) and self.latent_dim:
            raise ValueError(
                f"encoder.kind none is a language model, so latent_dim must be 0, "
                f"found {self.latent_dim}"
            )
        if not self.latent_dim and not isinstance(self.encoder, NoEncoderConfig):
            raise ValueError("latent_dim 0 is a language model, so encoder.kind must be none")
        if not self.latent_dim and self.labels.has_labels:
            raise ValueError(
                "a language model has no encoder to classify labels, so labels.kind must be none"
            )

    def build(self, vocabulary_size: int, *, num_labels: int = 0, seed: int | None = 0) -> "VAE":
        """The model on the CPU; with `seed` None its parameters are left unset, to be loaded.

        `num_labels` is 0 where `labels.kind` is none.
        """
        condition_dim = self.latent_dim + (num_labels if self.labels.has_labels else 0)
        with torch.device("meta"):
            decoder = self.decoder.build(vocabulary_size, condition_dim)
            word_dim = decoder.word_vectors.shape[1]
            encoder = self.encoder.build(vocabulary_size, self.latent_dim, word_dim)
            labels = self.labels.build(encoder.feature_dim, self.latent_dim, num_labels)
            prior = self.prior.build(self.latent_dim)
        model = VAE(encoder, prior, decoder, labels)
        # Counted before anything is allocated: a system that promises more memory than it has
        # would end the process only when the parameters are filled.
        needed = sum(p.numel() * p.element_size() for p in model.state_dict().values())
        if needed > (there := memory_size()):
            raise ConfigError(
                f"model: its parameters take {needed / 2**30:,.0f} GiB, this machine has "
                f"{there / 2**30:,.0f}; choose a smaller model"
            )
        model.to_empty(device="cpu")
        if seed is not None:
            initialize(model, seed)
        return model


class VAE(nn.Module):
    """Encoder, prior, decoder and labels: any objects that honour `model.interfaces`."""

    def __init__(
        self, encoder: Encoder, prior: Prior, decoder: Decoder, labels: Labels | None = None
    ) -> None:
        super().__init__()
        self.encoder, self.prior, self.decoder = encoder, prior, decoder
        self.labels: Labels = NoLabels() if labels is None else labels
        encoder.attach(decoder)

    @property
    def is_language_model(self) -> bool:
        """True without a latent: the KL is 0 and the ELBO is the log-likelihood."""
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
        encoder_sentences: tuple[Tensor, Tensor] | None = None,
        noise: Noise | None = None,
        dtype: torch.dtype = torch.float32,
        labelling: Labelling | None = None,
    ) -> ElboTerms:
        """The terms of the one-sample ELBO.

        Args:
            inputs: `[B, T]`, `<s>` and the words.
            targets: `[B, T]`, the words and `</s>`; the encoder reads these.
            lengths: int64 `[B]`, `</s>` counted.
            normals: `[B, Z]`, the standard normals of the reparameterization.
            decoder_inputs: `[B, T]` in place of `inputs`, after word dropout.
            encoder_sentences: tokens `[B, T]` and lengths `[B]` that the encoder reads in place of
                `targets` and `lengths`, after denoising noise.
            noise: dropout masks; None in evaluation.
            dtype: of the matrix products; KL and softmax stay float32.
            labelling: the labels of the batch; None if all are unknown.
        """
        inputs = inputs if decoder_inputs is None else decoder_inputs
        tokens, read_lengths = encoder_sentences or (targets, lengths)
        readings = self.read(tokens, read_lengths, noise=noise, dtype=dtype)
        inferred = self.infer(readings, normals, labelling=labelling, noise=noise)
        reconstruction = self.reconstruct_inferred(
            inputs, targets, lengths, inferred, noise=noise, dtype=dtype
        )
        labelled = None if labelling is None else labelling.labelled
        if labelled is None:
            return inferred.terms(reconstruction, torch.zeros((), device=self.device))
        return inferred.terms(reconstruction, self.label_cross_entropy(labelled, dtype=dtype))

    # The same in phases, for a batch that is cut into parts: read each sentence by itself, infer
    # the latents of the whole batch, reconstruct each sentence by itself.

    @property
    def reading_dim(self) -> int:
        """The size of a row of `read`: 2Z and, with labels, L."""
        return 2 * self.prior.latent_dim + self.labels.num_labels

    def read(
        self, targets: Tensor, lengths: Tensor, *, noise: Noise | None, dtype: torch.dtype
    ) -> Tensor:
        """Moments of q(z|x) and log q(y|x) of each sentence, `[B, reading_dim]`.

        A row does not depend on the other sentences of the batch.
        """
        features = self.encoder.read(targets, lengths, noise=noise, dtype=dtype)
        log_q = self.labels.log_posterior(features, lengths, noise=noise)
        return torch.cat([self.encoder.moments_of(features), log_q], dim=1)

    def base_posterior(
        self, readings: Tensor, *, training: bool = False
    ) -> tuple[DiagonalGaussian, Tensor]:
        """q(z|x) before labels shift it, and log q(y|x) `[B, L]`, of rows of `read`."""
        moments, log_q = readings.tensor_split([2 * self.prior.latent_dim], dim=1)
        return self.encoder.posterior(moments, training=training), log_q

    def infer(
        self,
        readings: Tensor,
        normals: Tensor,
        *,
        labelling: Labelling | None,
        noise: Noise | None,
    ) -> Inferred:
        """Latents of a whole batch and their KL, from the rows of `read`."""
        base, log_q = self.base_posterior(readings, training=noise is not None)
        return self.labels.infer(base, log_q, normals, labelling, self.prior)

    def reconstruct_inferred(
        self,
        inputs: Tensor,
        targets: Tensor,
        lengths: Tensor,
        inferred: Inferred,
        *,
        noise: Noise | None,
        dtype: torch.dtype,
    ) -> CrossEntropy:
        """-log p(x|z) of a batch at latents of `infer`; with labels its expectation over q(y|x)."""
        pairs = inferred.pairs
        if pairs is None:
            return self.reconstruct(
                inputs, targets, lengths, inferred.latents, noise=noise, dtype=dtype
            )
        rows = pairs.rows
        if noise is not None:
            noise = noise._replace(examples=noise.examples[rows])
        return self.reconstruct(
            inputs[rows],
            targets[rows],
            lengths[rows],
            self.condition(inferred.latents, pairs.labels),
            noise=noise,
            dtype=dtype,
            weights=pairs.weights,
        )

    def label_cross_entropy(
        self, labelled: Labelled, *, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """-log q(y|x) of labelled sentences, averaged: scalar nats."""
        log_q = self.label_log_posterior(
            labelled.tokens, labelled.lengths, noise=labelled.noise, dtype=dtype
        )
        return F.nll_loss(log_q, labelled.labels)

    def label_log_posterior(
        self,
        tokens: Tensor,
        lengths: Tensor,
        *,
        noise: Noise | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Log q(y|x) `[B, L]` in nats."""
        features = self.encoder.read(tokens, lengths, noise=noise, dtype=dtype)
        return self.labels.log_posterior(features, lengths, noise=noise)

    def posterior(
        self,
        tokens: Tensor,
        lengths: Tensor,
        labels: Tensor | None = None,
        *,
        dtype: torch.dtype = torch.float32,
    ) -> DiagonalGaussian:
        """q(z|x), or q(z|x, y) for labels int64 `[B]`, by default the likeliest."""
        readings = self.read(tokens, lengths, noise=None, dtype=dtype)
        base, log_q = self.base_posterior(readings)
        if labels is None:
            labels = self.labels.likeliest(log_q)
        return self.labels.posterior(base, labels)

    def condition(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """The decoder's condition `[..., C]`: latents `[..., Z]` and, of M2, labels `[...]`."""
        return self.labels.condition(latents, labels)

    def activation_bytes(self, batch: int, length: int) -> int:
        """Memory for training on sentences `[B, T]` besides the parameters, estimated, in bytes.

        The logits of a chunk of rows at a time, with their softmax and gradient, come on top of
        what encoder and decoder need.
        """
        logits = 4 * 3 * CHUNK_ROWS * self.decoder.output_bias.shape[0]
        parts = (part.activation_bytes(batch, length) for part in (self.encoder, self.decoder))
        return sum(parts) + logits

    @torch.no_grad()
    def scale_logits(self, factor: float) -> None:
        """Multiply the logits of all words by a factor, in the weights; nothing else changes."""
        self.encoder.follow_word_vectors(self.decoder.scale_logits(factor))

    def reconstruct(
        self,
        inputs: Tensor,
        targets: Tensor,
        lengths: Tensor,
        conditions: Tensor,
        *,
        noise: Noise | None = None,
        dtype: torch.dtype = torch.float32,
        weights: Tensor | None = None,
    ) -> CrossEntropy:
        """-log p(x|z) at conditions `[B, C]`; padding is removed before the vocabulary projection.

        On CUDA, where counting the targets would wait for the device, padding has a weight of 0
        instead, and the rows are `[B, T]`. `weights` `[B]` are those of the sentences in the total;
        None is 1 for each.
        """
        features = self.decoder(inputs, conditions, noise=noise, dtype=dtype)
        mask = target_mask(lengths, targets.shape[1])
        if features.is_cuda:
            mask = mask.to(features.dtype)
            row_weights = mask if weights is None else mask * weights[:, None]
            reconstruction = linear_cross_entropy(
                features.transpose(0, 1).flatten(0, 1),  # as they lie in memory
                self.decoder.output_weight,
                self.decoder.output_bias,
                targets.t().flatten(),
                row_weights=row_weights.t().flatten(),
                dtype=dtype,
            )
            rows = reconstruction.rows.view(targets.shape[1], -1).t()
            return reconstruction._replace(rows=rows)
        return linear_cross_entropy(
            features[mask],
            self.decoder.output_weight,
            self.decoder.output_bias,
            targets[mask],
            row_weights=None if weights is None else weights.repeat_interleave(lengths),
            dtype=dtype,
        )


def target_mask(lengths: Tensor, steps: int) -> Tensor:
    """True at the targets of each sentence, `</s>` included: bool `[B, T]`."""
    return torch.arange(steps, device=lengths.device) < lengths[:, None]


def sum_by_sentence(rows: Tensor, lengths: Tensor) -> Tensor:
    """Sum the rows of a reconstruction over each sentence, to `[B]`.

    They are `[N]` in the order of the mask of targets, or `[B, T]`.
    """
    if rows.dim() == 2:
        return (rows * target_mask(lengths, rows.shape[1])).sum(1)
    sentence = torch.repeat_interleave(lengths)
    return rows.new_zeros(lengths.shape[0]).index_add_(0, sentence, rows)
