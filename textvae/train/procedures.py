"""Training procedures: the stages of a run, and the updates of each step. The loop runs them.

A procedure is a config with a `kind` here and a name in `ProcedureConfig`. All it remembers is a
`ProcedureState` in the saved position; the rest is a function of the step, so that a resumed run
equals an uninterrupted one.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Literal, NamedTuple

import torch
from msgspec import Meta
from torch import Tensor, nn

from textvae import distributed
from textvae.config import Config
from textvae.data.batching import TokenArray
from textvae.metrics.latent_usage import mutual_information
from textvae.metrics.likelihood import encode_corpus
from textvae.model.initialization import initialize
from textvae.model.vae import VAE
from textvae.randomness import hash64, key
from textvae.train.schedules import Clock

Part = Literal["encoder", "rest"]
"""The encoder, or all but the encoder."""
Fraction = Annotated[float, Meta(gt=0.0, lt=1.0)]
Report = Callable[[str], object]

INFORMATION_SENTENCES = 2000
"""Validation sentences on which the mutual information is estimated; its cap is their logarithm."""


class ProcedureState(NamedTuple):
    """The memory of a procedure from step to step: plain values, exact in JSON."""

    aggressive: bool = True
    """The encoder still gets updates of its own."""
    mutual_information: float = 0.0
    """The last estimate, nats."""


class Update(NamedTuple):
    """One update of the parameters; a step makes one or more, the last of them on its own batch."""

    part: Part | None = None
    """The part of the model that changes; None is all of it."""
    rows: Tensor | None = None
    """int64 `[B]`: the sentences of the corpus; None is the batch of the step."""
    seed: int | None = None
    """Seed of all noise of this update; None is that of the run."""


class UpdateLoss(NamedTuple):
    """The loss of an update that has been made."""

    value: Tensor
    """Scalar, nats per sentence."""
    lengths: Tensor
    """int64 `[B]`: tokens of each sentence."""


Losses = Sequence[UpdateLoss]
"""Losses of the updates that a step has made so far."""
Order = Sequence[Tensor]
"""Batches of an epoch: int64 rows of the corpus."""


class _Procedure(Config):
    """The interface of a procedure, with the behaviour of joint training."""

    def clock(self, step: int, total: int) -> Clock:
        """The position of the schedules at a step of a run of `total` steps."""
        return Clock(step, step, total)

    def settled(self, fraction: float, total: int) -> float:
        """The step from which a schedule that settles at a fraction of its stage is constant."""
        return fraction * total

    def prepare(
        self, model: VAE, optimizer: torch.optim.Optimizer, step: int, total: int, seed: int
    ) -> None:
        """Change the model before a step, between two stages of the run."""

    def updates(
        self, losses: Losses, order: Order, clock: Clock, state: ProcedureState, *, seed: int
    ) -> Iterator[Update]:
        """Yield the updates of one step, each of which is made before the next is asked for.

        `losses` are those of the updates made so far, to which the loop appends; `order` has
        batches from which an update may take another one than that of the step; `state` is the one
        after the last validation.
        """
        yield Update()

    def after_validation(
        self, model: VAE, valid: TokenArray, state: ProcedureState, *, seed: int, report: Report
    ) -> ProcedureState:
        """The state after a validation."""
        return state


class JointProcedure(_Procedure, tag_field="kind", tag="joint"):
    """Every step updates the whole model, once."""


class PretrainingProcedure(_Procedure, tag_field="kind", tag="pretraining"):
    """First an autoencoder, then a new decoder (Li et al. 2019).

    For a fraction of the run the KL is not in the loss. Then the decoder is initialized again (but
    for word vectors that the encoder shares), its moments are dropped, and the rest is a run of its
    own, with schedules from their beginning. z is sampled in both stages, as the authors do. Their
    recipe has `free_bits.kind=per_sentence_and_dimension` of 8 nats over all dimensions.
    """

    share: Fraction = 0.3
    """Fraction of the run that trains the autoencoder."""

    def first(self, total: int) -> int:
        """Steps of the autoencoder; a run of one step has none."""
        return min(max(1, round(self.share * total)), total - 1)

    def clock(self, step: int, total: int) -> Clock:
        """The position of the schedules: each stage of the run has its own."""
        first = self.first(total)
        if step < first:
            return Clock(step, step, first, autoencoder=True)
        return Clock(step, step - first, total - first)

    def settled(self, fraction: float, total: int) -> float:
        """The step from which a schedule of the second stage is constant."""
        first = self.first(total)
        return first + max(1.0, fraction * (total - first))  # nothing is selected before the reset

    def prepare(
        self, model: VAE, optimizer: torch.optim.Optimizer, step: int, total: int, seed: int
    ) -> None:
        """Initialize the decoder again between the stages, and drop its moments."""
        if step == 0 or step != self.first(total):
            return
        assert isinstance(model.decoder, nn.Module)
        words, shared = model.decoder.word_vectors, model.encoder.shares_words
        trained_words = words.detach().clone()
        initialize(model.decoder, key(seed, "decoder reset"))
        if shared:
            words.detach().copy_(trained_words)
        for parameter in model.decoder.parameters():
            if not (shared and parameter is words):
                optimizer.state.pop(parameter, None)


class AggressiveProcedure(_Procedure, tag_field="kind", tag="aggressive"):
    """Several updates of the encoder before each update of the decoder.

    He et al. 2019, algorithm 1: encoder updates on random batches until the loss per token stops
    falling, then one update of all the rest. Training is joint after the fraction `share` of the
    run, or when the mutual information of sentence and latent has not grown between validations.
    """

    share: Fraction = 0.1
    """Largest fraction of the run that is aggressive."""
    max_updates: Annotated[int, Meta(ge=1)] = 100
    """Most encoder updates before an update of the rest."""
    check_every: Annotated[int, Meta(ge=1)] = 10
    """Updates whose mean loss is compared with that of as many before."""

    def updates(
        self, losses: Losses, order: Order, clock: Clock, state: ProcedureState, *, seed: int
    ) -> Iterator[Update]:
        """Yield updates of the encoder until its loss stops falling, then one of the rest."""
        if not state.aggressive or clock.stage_step >= self.share * clock.stage_total:
            yield Update()
            return
        before = float("inf")
        for number in range(self.max_updates):
            update_seed = key(seed, "encoder update", clock.stage_step, number)
            rows = order[hash64(update_seed) % len(order)] if number else None
            yield Update("encoder", rows, update_seed)
            if (number + 1) % self.check_every == 0:
                loss = _loss_per_token(losses[-self.check_every :])
                if loss >= before:
                    break
                before = loss
        yield Update("rest")

    def after_validation(
        self, model: VAE, valid: TokenArray, state: ProcedureState, *, seed: int, report: Report
    ) -> ProcedureState:
        """Become joint if the mutual information of the validation sentences has not grown."""
        if not state.aggressive:
            return state
        posterior = encode_corpus(model, valid.head(INFORMATION_SENTENCES))
        estimate = mutual_information(posterior, seed=seed).value
        # That of the first process, so that rounding cannot make two processes decide differently.
        nats = float(distributed.broadcast(repr(estimate)))
        grown = nats > state.mutual_information
        report(
            f"mutual information {nats:.2f} nats: "
            + ("encoder first" if grown else "it no longer grows, so training is joint from here")
        )
        return ProcedureState(grown, nats)


def _loss_per_token(losses: Losses) -> float:
    """Nats per token over several updates; waits for the device."""
    nats, tokens = 0.0, 0
    for loss in losses:
        nats += float(loss.value) * loss.lengths.shape[0]
        tokens += int(loss.lengths.sum())
    return nats / tokens


ProcedureConfig = JointProcedure | PretrainingProcedure | AggressiveProcedure
