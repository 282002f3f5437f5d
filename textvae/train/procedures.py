"""Training procedures: what a step updates, and how a run is divided. The loop is the same for all.

A procedure is a config with a `kind` here and a name in `ProcedureConfig`. What it remembers is a
`ProcedureState` in the saved position; all else is a function of the step, so that a resumed run
equals a straight one.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

import torch
from msgspec import Meta
from torch import Tensor, nn

from textvae import distributed
from textvae.config import Config
from textvae.data.batching import Batch, TokenArray
from textvae.metrics.latent_usage import mutual_information
from textvae.metrics.likelihood import encode_corpus
from textvae.model.recurrent import initialize
from textvae.model.vae import VAE
from textvae.randomness import hash64, key
from textvae.train.metrics import Report
from textvae.train.objective import Stage
from textvae.train.step import Step

Update = Callable[..., Step]
"""`train_step` of a batch, everything else given; `part` and `seed` may be."""
Share = Annotated[float, Meta(gt=0.0, lt=1.0)]

INFORMATION_SENTENCES = 2000
"""Validation sentences on which the mutual information is estimated; its cap is their logarithm."""


class ProcedureState(NamedTuple):
    """What is remembered from step to step: plain values, exact in JSON."""

    aggressive: bool = True
    """The encoder still gets updates of its own."""
    mutual_information: float = 0.0
    """The last estimate, nats."""


class _Procedure(Config):
    """What a procedure answers; a member overrides what it does otherwise than joint training."""

    def stage(self, step: int, total: int) -> Stage:
        """The clock of the schedules at a step of a run of `total` steps."""
        return Stage(step, total)

    def settled(self, share: float, total: int) -> float:
        """The step from which a schedule that settles at `share` no longer changes."""
        return share * total

    def prepare(
        self, model: VAE, optimizer: torch.optim.Optimizer, step: int, total: int, seed: int
    ) -> None:
        """What is done to the model before a step."""

    def step(
        self,
        update: Update,
        corpus: TokenArray,
        order: Sequence[Tensor],
        batch: Batch,
        *,
        stage: Stage,
        seed: int,
        state: ProcedureState,
    ) -> Step:
        """Make one step of the run.

        Args:
            update: of the model, on a batch.
            corpus: what is trained on.
            order: the batches of this epoch.
            batch: the one whose turn it is.
            stage: what `stage` said.
            seed: of everything drawn.
            state: after the last validation.
        """
        return update(batch)

    def judge(
        self, model: VAE, valid: TokenArray, state: ProcedureState, *, seed: int, report: Report
    ) -> ProcedureState:
        """The state after a validation."""
        return state


class JointProcedure(_Procedure, tag_field="kind", tag="joint"):
    """Every step updates the whole model, once."""


class PretrainingProcedure(_Procedure, tag_field="kind", tag="pretraining"):
    """First an autoencoder, then a new decoder (Li et al. 2019).

    For a share of the run the KL costs nothing: the encoder learns to say all it can. Then the
    decoder is drawn anew (but for word vectors that the encoder reads by), its moments are
    forgotten, and the rest is a run of its own, with schedules from their beginning. z is drawn in
    both parts, as the authors do. Their recipe has
    `free_bits.kind=per_sentence_and_dimension` of 8 nats over all dimensions.
    """

    share: Share = 0.3
    """Of the run that is spent on the autoencoder."""

    def first(self, total: int) -> int:
        """Steps of the autoencoder; a run of one step has none."""
        return min(max(1, round(self.share * total)), total - 1)

    def stage(self, step: int, total: int) -> Stage:
        """The clock of the schedules: each part of the run has its own."""
        first = self.first(total)
        if step < first:
            return Stage(step, first, autoencoder=True)
        return Stage(step - first, total - first)

    def settled(self, share: float, total: int) -> float:
        """The step from which a schedule of the second part no longer changes."""
        first = self.first(total)
        return first + max(1.0, share * (total - first))  # nothing is selected before the reset

    def prepare(
        self, model: VAE, optimizer: torch.optim.Optimizer, step: int, total: int, seed: int
    ) -> None:
        """Between the parts, draw the decoder anew and forget its moments."""
        if step == 0 or step != self.first(total):
            return
        assert isinstance(model.decoder, nn.Module)
        words, shared = model.decoder.word_vectors, model.encoder.shares_words
        kept = words.detach().clone()
        initialize(model.decoder, key(seed, "decoder reset"))
        if shared:
            words.detach().copy_(kept)
        for parameter in model.decoder.parameters():
            if not (shared and parameter is words):
                optimizer.state.pop(parameter, None)


class AggressiveProcedure(_Procedure, tag_field="kind", tag="aggressive"):
    """The encoder is trained until it has caught up, before each update of the decoder.

    He et al. 2019, algorithm 1: encoder updates on random batches until the loss per word stops
    falling, then one update of all the rest. Where a validation finds that the mutual
    information of sentence and latent has not grown, or the share is over, training is joint.
    """

    share: Share = 0.1
    """Of the run that is aggressive at most."""
    max_updates: Annotated[int, Meta(ge=1)] = 100
    """Encoder updates before an update of the rest, at most."""
    check_every: Annotated[int, Meta(ge=1)] = 10
    """Updates whose loss is compared with that of as many before."""

    def step(
        self,
        update: Update,
        corpus: TokenArray,
        order: Sequence[Tensor],
        batch: Batch,
        *,
        stage: Stage,
        seed: int,
        state: ProcedureState,
    ) -> Step:
        """Let the encoder catch up, then update the rest; or all at once, when that is over."""
        if not state.aggressive or stage.step >= self.share * stage.total:
            return update(batch)
        before, loss, targets = float("inf"), 0.0, 0
        for number in range(self.max_updates):
            inner = key(seed, "encoder update", stage.step, number)
            drawn = order[hash64(inner) % len(order)]
            other = corpus.batch(drawn).to(batch.lengths.device) if number else batch
            made = update(other, part="encoder", seed=inner)
            if not made.finite:
                return made
            loss += float(made.loss.value) * other.lengths.shape[0]
            targets += int(other.lengths.sum())
            if (number + 1) % self.check_every == 0:
                if loss / targets >= before:
                    break
                before, loss, targets = loss / targets, 0.0, 0
        return update(batch, part="rest")

    def judge(
        self, model: VAE, valid: TokenArray, state: ProcedureState, *, seed: int, report: Report
    ) -> ProcedureState:
        """Stop where the mutual information of the validation sentences has not grown."""
        if not state.aggressive:
            return state
        posterior = encode_corpus(model, valid.head(INFORMATION_SENTENCES))
        # of the first process, so that no rounding of another machine makes two of one decision
        found = float(distributed.broadcast(repr(mutual_information(posterior, seed=seed).value)))
        grown = found > state.mutual_information
        report(
            f"mutual information {found:.2f} nats: "
            + ("encoder first" if grown else "it no longer grows, so training is joint from here")
        )
        return ProcedureState(grown, found)


ProcedureConfig = JointProcedure | PretrainingProcedure | AggressiveProcedure
