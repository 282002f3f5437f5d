"""The contracts of the parts of a model, with every shape. Read this first.

Letters used for shapes everywhere in the package:

    B  sentences of a batch            T  positions, the end of the sentence included
    V  words the decoder can write     E  embedding        H  units of a GRU
    D  features before the softmax     Z  latent           K  latents per sentence
    C  condition of the decoder: the latent; a latent and a label; or nothing

Batch first, samples before the batch: `[K, B, Z]`. Tokens are int64. `</s>` is 0, `<unk>` is 1,
words go from 2 to V - 1; `<s>` is V, an input that is never written. There is no pad token: cells
at and beyond `lengths` may hold anything and are masked where they are summed.
Log-likelihoods are in nats, summed over a sentence.
"""

from typing import Any, NamedTuple, Protocol, Self, TypeVar, runtime_checkable

import torch
from torch import Tensor

from textvae.model.density import FitContext
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.inferred import Inferred
from textvae.model.labelling import Labelling
from textvae.model.mixture import GaussianMixture
from textvae.randomness import Noise

END, UNKNOWN = 0, 1


class Features(NamedTuple):
    """States of an encoder, from which posteriors and labels are computed."""

    last: Tensor
    """`[B, F]` or, of two poolings side by side, `[B, 2F]`: the posterior is made from it."""
    states: tuple[Tensor, ...]
    """`[B, T, H]` for each direction, to be averaged over positions; they make up F."""

    def mean(self, lengths: Tensor) -> Tensor:
        """The mean over the positions of each sentence, `[B, F]`."""
        positions = torch.arange(self.states[0].shape[1], device=lengths.device)
        mask = (positions < lengths[:, None])[:, :, None].to(self.last)
        sums = torch.cat([(states * mask).sum(1) for states in self.states], dim=1)
        return sums / lengths[:, None]


@runtime_checkable
class CheckedBuffers(Protocol):
    """A module with buffers that not every finite value is valid for."""

    def buffer_fault(self) -> str | None:
        """The name of a buffer and what is wrong with its values, or None."""


class Encoder(Protocol):
    """Maps a sentence to the posterior of its latent."""

    feature_dim: int
    """F of `Features`."""

    @property
    def description(self) -> str:
        """For a reader, such as "GRU, 1 x 256, both directions"."""

    def activation_bytes(self, batch: int, length: int) -> int:
        """Memory for training on sentences `[B, T]`, estimated, in bytes."""

    @property
    def shares_words(self) -> bool:
        """True if words are read by the decoder's vectors."""

    def attach(self, decoder: "Decoder") -> None:
        """Called once, by the model: the decoder whose word vectors it may read words by."""

    def follow_word_vectors(self, factor: float) -> None:
        """Undo in the weights that the decoder's vectors were multiplied by a factor."""

    def read(
        self, tokens: Tensor, lengths: Tensor, *, noise: Noise | None, dtype: torch.dtype
    ) -> Features:
        """Read each sentence by itself.

        Args:
            tokens: `[B, T]`, the words and the final `</s>`.
            lengths: int64 `[B]`, at least 1, `</s>` counted.
            noise: the source of dropout masks; None in evaluation.
            dtype: of the matrix products; features are float32.

        Returns:
            Features that do not depend on the cells beyond the lengths, nor on other sentences.
        """

    def moments_of(self, features: Features) -> Tensor:
        """Moments of the posteriors, `[B, 2Z]`, row by row."""

    def posterior(self, moments: Tensor, *, training: bool) -> DiagonalGaussian:
        """The posteriors q(z|x) `[B, Z]` of a batch from its moments, float32.

        In training they may depend on each other, and running statistics are updated.
        """


class Prior(Protocol):
    """A distribution over latents."""

    latent_dim: int
    """Z."""

    has_moments: bool
    """True if `fit_moments` changes it."""
    fit_sentences: int
    """Most posteriors that `fit` is given when training ends; 0 if there is nothing to fit."""

    @property
    def description(self) -> str:
        """Such as "gaussian prior" or "mixture prior (64 Gaussians)"."""

    @property
    def kl_is_exact(self) -> bool:
        """True if `kl` is analytic, False if it is an estimate, as it is to a fitted density."""

    @property
    def mixture(self) -> GaussianMixture | None:
        """The density as a mixture of Gaussians, for paths along the data; None otherwise."""

    def fit_moments(self, posterior: DiagonalGaussian) -> None:
        """Become the Gaussian with the moments of the aggregate of N posteriors `[N, Z]`."""

    def reset(self) -> None:
        """Become N(0, 1) again, the prior that the steps of training see."""

    def fit(self, posterior: DiagonalGaussian, *, seed: int, context: FitContext) -> None:
        """Fit the density to N posteriors `[N, Z]` when training ends, within a time limit.

        A fit that is no better than the moments changes nothing. One process calls it; `broadcast`
        gives the result to the others.
        """

    def broadcast(self) -> None:
        """Take the density from the first process; every process calls this."""

    def reset_to_gaussian(self) -> None:
        """Drop the density and keep the moments."""

    def kl(self, posterior: DiagonalGaussian) -> Tensor:
        """KL(q || p) `[B, Z]` in nats, dimension by dimension; the sum over Z is the KL."""

    def log_prob(self, latents: Tensor) -> Tensor:
        """Log p(z) in nats, `[..., Z]` -> `[...]`."""

    def sample(self, num_samples: int, *, seed: int, start: int = 0) -> Tensor:
        """Draws `start` to `start + N - 1`, `[N, Z]`, on the CPU; draw i is one of (seed, i)."""

    def to_normals(self, latents: Tensor) -> Tensor:
        """Latents `[..., Z]` in units of the prior; of a mixture, in those of N(m, C)."""


class DecoderState(Protocol):
    """The state of a decoder between two positions, for the rows of a batch.

    It belongs to the decoder whose writer made it.
    """

    def select(self, rows: Tensor) -> Self:
        """The state of rows of the batch, int64 `[b]`."""

    def join(self, other: Self) -> Self:
        """The state of these rows followed by others."""


StateT = TypeVar("StateT", bound=DecoderState)


class Writer(Protocol[StateT]):
    """A decoder ready to write word by word: its weights cast once, without gradients."""

    def start(self, condition: Tensor) -> StateT:
        """The state before the first word, for conditions `[B, C]` (C may be 0)."""

    def step(self, tokens: Tensor, state: StateT) -> tuple[Tensor, StateT]:
        """Read one token `[B]`: logits `[B, V]` of the next word, and the new state."""


class Decoder(Protocol):
    """Writes a sentence for a condition, word by word."""

    architecture: str
    """Such as "GRU"."""

    @property
    def description(self) -> str:
        """For a reader, such as "GRU, 1 x 256"."""

    def activation_bytes(self, batch: int, length: int) -> int:
        """Memory for training on sentences `[B, T]` but for the logits, estimated, in bytes."""

    @property
    def output_weight(self) -> Tensor:
        """`[V, D]`."""

    @property
    def output_bias(self) -> Tensor:
        """`[V]`."""

    def __call__(
        self, inputs: Tensor, condition: Tensor | None, *, noise: Noise | None, dtype: torch.dtype
    ) -> Tensor:
        """Features `[B, T, D]` at each position under teacher forcing.

        Args:
            inputs: `[B, T]`, `<s>` and then the words.
            condition: `[B, C]`, or None for a decoder built with a condition of size 0.
            noise: the source of dropout masks; None in evaluation.
            dtype: of the matrix products.
        """

    @property
    def word_vectors(self) -> Tensor:
        """`[V + 1, E]`: input vectors of words and `<s>`."""

    def scale_logits(self, factor: float) -> float:
        """Multiply all logits by a positive factor, in the weights.

        Returns:
            The factor by which the word vectors changed; the decoder reads words as before.
        """

    def expanded(self, inputs: Tensor, conditions: Tensor, *, dtype: torch.dtype) -> Tensor:
        """Features `[T, K, B, D]` of inputs `[B, T]` for K conditions each, `[K, B, C]`.

        No gradient; equal to calling the decoder K times.
        """

    def writer(self, *, dtype: torch.dtype, tabulate: bool) -> Writer[Any]:
        """For generation.

        `tabulate` computes the contribution of every word beforehand, which pays off if more words
        are written than the vocabulary has.
        """


class Labels(Protocol):
    """Labels of sentences, of which most may be unknown; `NoLabels` for a model without."""

    num_labels: int
    """L; 0 for a model without labels."""
    condition_dim: int
    """The columns that a label adds to the condition of the decoder."""

    def set_counts(self, labels: Tensor) -> None:
        """Let p(y) follow the labels of the training sentences, int64 `[N]`."""

    def log_prior(self) -> Tensor:
        """Log p(y) in nats, `[L]`."""

    def sample(self, num_samples: int, *, seed: int, start: int = 0) -> Tensor | None:
        """Draws `start` to `start + N - 1` of p(y), int64 `[N]`, on the CPU; None without labels.

        Draw i is a function of (seed, i).
        """

    def log_posterior(
        self, features: Features, lengths: Tensor, *, noise: Noise | None = None
    ) -> Tensor:
        """Log q(y|x) in nats, `[B, L]`."""

    def likeliest(self, log_posterior: Tensor) -> Tensor | None:
        """The label with the largest log q(y|x), int64 `[B]`; None for a model without labels."""

    def posterior(self, base: DiagonalGaussian, labels: Tensor | None) -> DiagonalGaussian:
        """q(z|x, y) from q(z|x) `[..., Z]` and labels, int64 `[...]`."""

    def infer(
        self,
        base: DiagonalGaussian,
        log_posterior: Tensor,
        normals: Tensor,
        labelling: Labelling | None,
        prior: Prior,
    ) -> Inferred:
        """The latents that the decoder is to read, and their KL.

        Args:
            base: q(z|x), `[B, Z]`.
            log_posterior: log q(y|x), `[B, L]`.
            normals: `[B, Z]`, the standard normals of the reparameterization.
            labelling: the labels of the batch; None if all are unknown.
            prior: p(z).
        """

    def kl(self, base: DiagonalGaussian, log_posterior: Tensor, prior: Prior) -> Tensor:
        """The KL from posterior to prior of each sentence, labels included: `[B]` nats."""

    def condition(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """The decoder's condition `[..., C]` for latents `[..., Z]` and labels, int64 `[...]`."""
