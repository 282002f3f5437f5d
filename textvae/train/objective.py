"""The training loss: reconstruction, and the KL with a weight and free bits."""

import math
from typing import Annotated, NamedTuple

from msgspec import Meta
from torch import Tensor

from textvae.config import Config
from textvae.model.inferred import ElboTerms
from textvae.model.interfaces import UNKNOWN
from textvae.randomness import keyed, replace_words
from textvae.train.denoise import DenoiseConfig
from textvae.train.rate import NoTargetRate, RateConfig, RateState
from textvae.train.schedules import Clock, ConstantSchedule, LinearSchedule, ScheduleConfig


class _FreeBits(Config):
    """The KL term of the loss; its kinds define `_term`."""

    def __call__(self, kl: Tensor) -> Tensor:
        """KL `[B, Z]` in nats -> scalar, in nats per sentence, averaged over the batch."""
        return self._term(kl)

    def _term(self, kl: Tensor) -> Tensor:
        raise NotImplementedError


class NoFreeBits(_FreeBits, tag_field="kind", tag="none"):
    """The KL unchanged."""

    def _term(self, kl: Tensor) -> Tensor:
        return kl.sum(1).mean()


class FreeBitsPerDimension(_FreeBits, tag_field="kind", tag="per_dimension"):
    """`nats` of each dimension are free: sum over d of max(nats, mean KL of d).

    Kingma et al. 2016, section 2.4. The mean is over the batch.
    """

    nats: Annotated[float, Meta(gt=0.0)] = 0.25
    """KL of a dimension that is free."""

    def _term(self, kl: Tensor) -> Tensor:
        return kl.mean(0).clamp(min=self.nats).sum()


class FreeBitsPerSentenceAndDimension(
    _FreeBits, tag_field="kind", tag="per_sentence_and_dimension"
):
    """`nats` of each sentence and dimension are free: mean over i of sum_d max(nats, KL_id).

    Li et al. 2019, who divide a target KL of the sentence by the number of dimensions.
    """

    nats: Annotated[float, Meta(gt=0.0)] = 0.25
    """KL of a dimension that is free."""

    def _term(self, kl: Tensor) -> Tensor:
        return kl.clamp(min=self.nats).sum(1).mean()


class FreeBitsTotal(_FreeBits, tag_field="kind", tag="total"):
    """`nats` of the whole latent are free: max(nats, mean KL).

    Kingma et al. 2016 with all dimensions in one group. The mean is over the batch.
    """

    nats: Annotated[float, Meta(gt=0.0)] = 8.0
    """KL of the latent that is free."""

    def _term(self, kl: Tensor) -> Tensor:
        return kl.sum(1).mean().clamp(min=self.nats)


class FreeBitsPerSentence(_FreeBits, tag_field="kind", tag="per_sentence"):
    """`nats` of the latent of each sentence are free: mean over i of max(nats, KL_i).

    The limit at one group of Li et al. 2019's floor under every sentence's own KL.
    """

    nats: Annotated[float, Meta(gt=0.0)] = 8.0
    """KL of the latent that is free."""

    def _term(self, kl: Tensor) -> Tensor:
        return kl.sum(1).clamp(min=self.nats).mean()


FreeBitsConfig = (
    NoFreeBits
    | FreeBitsPerDimension
    | FreeBitsPerSentenceAndDimension
    | FreeBitsTotal
    | FreeBitsPerSentence
)


class ObjectiveConfig(Config):
    """The loss: reconstruction + beta * kl_weight(step) * free_bits(KL), as `rate` changes it."""

    kl_weight: ScheduleConfig = LinearSchedule(share=0.05)
    """The annealing of the KL term."""
    beta: Annotated[float, Meta(ge=0.0)] = 1.0
    """A constant factor on the KL term (Higgins et al. 2017)."""
    free_bits: FreeBitsConfig = FreeBitsPerDimension(nats=0.5)
    """A floor under the KL; below it the KL has no gradient."""
    rate: RateConfig = NoTargetRate()
    """A target KL in nats, for which the weight is adapted; the schedule then scales it."""
    word_dropout: ScheduleConfig = ConstantSchedule(value=0.0)
    """Fraction of words that the decoder reads as `<unk>` (Bowman et al. 2016), such as
    `{kind = "linear", start = 0.3, end = 0.0, share = 0.1}`; 0 by default, since with free bits it
    does not help (docs/develop/log.md)."""
    denoise: DenoiseConfig = DenoiseConfig()
    """Noise on what the encoder reads (Shen et al. 2020), such as `{drop = 0.3}`."""
    classification_weight: Annotated[float, Meta(ge=0.0)] = 10.0
    """Weight of -log q(y|x) of labelled sentences (alpha of Kingma et al. 2014), where the model
    has labels."""

    def __post_init__(self) -> None:
        """Refuse a word dropout above 1, which the type of a schedule's value allows."""
        values = [getattr(self.word_dropout, name, 0.0) for name in ("value", "start", "end")]
        if max(values) > 1.0:
            raise ValueError(f"word_dropout {max(values)}: a rate is at most 1")

    def selection_loss(self, elbo: float, kl: float) -> float:
        """The trained objective of a validation, nats per sentence, by which parameters compete.

        From the ELBO at KL weight 1, and the KL to the fitted prior.

        Reconstruction + w KL, w the weight at the end of the run, without floor. With a target
        rate w is 1, and a KL below the target counts as the target.
        """
        if isinstance(self.rate, NoTargetRate):
            return -elbo - (1.0 - self.beta * self.kl_weight(1, 1)) * kl
        return -elbo + max(0.0, self.rate.nats - kl)

    @property
    def selects_by_elbo(self) -> bool:
        """True if the trained objective is the ELBO."""
        weight = self.beta * self.kl_weight(1, 1)
        return isinstance(self.rate, NoTargetRate) and math.isclose(weight, 1.0)


class Loss(NamedTuple):
    """The loss of a batch."""

    value: Tensor
    """Scalar, nats per sentence."""
    kl_weight: float
    """Weight of the KL above its floor: beta times the schedule, as the target rate changes it."""


def objective(config: ObjectiveConfig, terms: ElboTerms, clock: Clock, rate: RateState) -> Loss:
    """Compute the loss of a batch at a position of a run, in the state of its target rate."""
    value = terms.reconstruction.total / terms.kl.shape[0]
    if clock.autoencoder:
        return Loss(value + _label_loss(config, terms), 0.0)
    scheduled = config.beta * config.kl_weight(*clock.stage)
    penalty, reward = config.rate.weights(scheduled, rate)
    value = value + penalty * config.free_bits(terms.kl)
    if reward:
        value = value - reward * terms.kl.sum(1).mean()
    if terms.labels is not None:  # the label is a latent too, whose KL is annealed with the other
        value = value + penalty * terms.labels.kl.mean()
    return Loss(value + _label_loss(config, terms), penalty - reward)


def _label_loss(config: ObjectiveConfig, terms: ElboTerms) -> Tensor | float:
    """The weighted cross-entropy of labels, which is not part of the bound."""
    if terms.labels is None:
        return 0.0
    return config.classification_weight * terms.labels.cross_entropy


def drop_words(
    inputs: Tensor, indices: Tensor, rate: float | Tensor, *, seed: int, step: int | Tensor
) -> Tensor:
    """Replace words of decoder inputs `[B, T]` by `<unk>` with probability `rate`.

    `<s>`, in the first column, is never replaced; padding may be. Drawn by (seed, step, sentence,
    position); `indices` is int64 `[B]`.
    """
    if not isinstance(rate, Tensor) and rate <= 0.0:
        return inputs
    return replace_words(inputs, keyed(step, seed, "word dropout"), indices, rate, UNKNOWN)
