"""The training loop: one function to be read from top to bottom.

Everything drawn is a function of (seed, step, sentence), so a run that stopped and goes on equals
one that never stopped, given its parameters, its optimizer and its step.
"""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from textvae import distributed
from textvae.data.batching import TokenArray
from textvae.metrics.latent_usage import diagnosis
from textvae.model.vae import VAE
from textvae.train.averaging import Average
from textvae.train.config import DTYPES, TrainConfig
from textvae.train.labelled import labelled_batch
from textvae.train.metrics import Journal, Progress, Report, RunningSums
from textvae.train.optimizer import set_learning_rate
from textvae.train.parts import Parts
from textvae.train.plateau import NoPlateau
from textvae.train.prior import fit_density, fitted_prior
from textvae.train.signals import agreed_signal, catch_signals
from textvae.train.state import (
    Position,
    Validation,
    copies,
    diverged,
    load_training_tensors,
    restore_position,
    save_position,
)
from textvae.train.step import Step, flush_denormals, train_step
from textvae.train.temperature import calibrate
from textvae.train.validation import validate

JUDGED = 0.25
"""Share of a run after which a latent that says nothing is said to be ignored: after a twentieth,
when annealing may be over, no unit need be active in a run that goes well."""
NONE: Sequence[Tensor] = ()


class TrainResult(NamedTuple):
    """How a run ended; the model holds its best parameters."""

    steps: int
    best_step: int
    best: Validation
    seconds: float
    """Time spent training, all parts of an interrupted run added."""
    signal: int | None
    """The signal that stopped the run before its end."""
    temperature: float = 1.0
    """By which the logits have been divided at the end."""


def train(
    model: VAE,
    corpus: TokenArray,
    valid: TokenArray,
    config: TrainConfig,
    *,
    seed: int,
    run: Path | None,
    report: Report,
) -> TrainResult:
    """Train a model in place and leave it with the parameters of its best validation.

    Args:
        model: already on its device.
        corpus: what is trained on, N sentences.
        valid: what selects the parameters, on the ELBO at KL weight 1, once annealing is over.
        config: resolved: `max_steps`, `validate_every`, `save_every` and `precision` are given.
        seed: of everything drawn.
        run: directory for the training state and metrics.jsonl, from which a run goes on; or None.
        report: takes lines of talk.

    Raises:
        TrainingError: the loss or the gradient is no longer finite; nothing of it is saved.
    """
    total = config.max_steps
    assert total is not None
    assert config.validate_every is not None
    optimizer = config.optimizer.build(model)
    average, begin = Average(config.averaging, total), Position(rate=config.objective.rate.start())
    plateau, procedure = config.learning_rate.plateau, config.procedure
    sums = RunningSums(model.prior.latent_dim, model.device)
    position, best, rewind = restore_position(run, model, optimizer, average, sums, begin)
    run = run if distributed.rank() == 0 else None  # from here on: where this process writes
    journal = Journal(run / "metrics.jsonl" if run else None, position.step)
    corpus, valid = corpus.near(model.device), valid.to(model.device)
    updates = _updates(model, optimizer, corpus, config, seed, report)
    lengths, batch_size = corpus.lookup(), config.batch_size
    batches = config.batches.count(lengths, batch_size)
    progress = Progress(total, position.step, sums, report)
    eligible = _eligible(model, config, total)
    collapse: str | None = None
    order, epoch, begun_at, begun = NONE, -1, position.step, time.perf_counter() - position.seconds
    model.train()
    with flush_denormals(), catch_signals() as caught:
        while (
            position.step < total and not _exhausted(position, config) and not agreed_signal(caught)
        ):
            step = position.step
            if step // batches != epoch:
                epoch = step // batches
                order = config.batches.order(lengths, batch_size, seed=seed, epoch=epoch)
            batch = corpus.batch(order[step % batches]).to(model.device)
            stage = procedure.stage(step, total)
            procedure.prepare(model, optimizer, step, total, seed)
            factor = config.learning_rate.factor(stage.step, stage.total, position.decays)
            set_learning_rate(optimizer, config.optimizer.learning_rate * factor)
            update = partial(updates, step=step, total=total, rate=position.rate, stage=stage)
            terms, loss, finite, rate, fault = procedure.step(
                update, corpus, order, batch, stage=stage, seed=seed, state=position.procedure
            )
            if not finite:
                raise diverged(run, step, begun_at, fault, optimizer, loss.kl_weight)

            if not stage.autoencoder:  # whose decoder is drawn anew: it is in no average
                average.update(model, step)
            sums.add(terms, loss.value, batch.lengths)
            seconds = time.perf_counter() - begun
            position = position._replace(step=step + 1, seconds=seconds, rate=rate)
            progress.advance()
            if _due(step + 1, config.log_every, total):
                interval = sums.read()
                speed = progress.interval(step + 1, interval, loss.kl_weight)
                journal.write(
                    step=step + 1,
                    epoch=(step + 1) / batches,
                    kl_weight=loss.kl_weight,
                    tokens_per_second=speed,
                    seconds=position.seconds,
                    **interval._asdict(),
                )
            if _due(step + 1, config.validate_every, total):
                paused = time.perf_counter()
                with average.in_place_of(model), fitted_prior(model, corpus) as fitted:
                    found = validate(model, valid, seed=seed)
                judged = procedure.judge(  # what is trained, not its average
                    model, valid, position.procedure, seed=seed, report=progress.say
                )
                position = position._replace(procedure=judged)
                better = step + 1 >= eligible and found.elbo > position.best.elbo
                if better:
                    best = average.parameters(model) | fitted
                    if not isinstance(plateau, NoPlateau):
                        rewind = copies(model, optimizer, average)
                    position = position._replace(best_step=step + 1, best=found, bad_validations=0)
                elif step + 1 >= eligible:
                    position = position._replace(bad_validations=position.bad_validations + 1)
                progress.say(_validation_line(step + 1, found, model.prior.latent_dim, better))
                if step + 1 >= max(eligible, JUDGED * total) and collapse is None:
                    collapse = diagnosis(found.kl, found.active_units, model.prior.latent_dim)
                    if collapse is not None:
                        progress.say(collapse)
                journal.write(step=step + 1, validation=found._asdict(), selected=better)
                if rewind and plateau.due(position.bad_validations):
                    # The step, the state of the target rate and that of the procedure stay: they
                    # follow from all batches so far, and a controller soon answers what it sees.
                    load_training_tensors(rewind, model, optimizer, average)
                    position = position._replace(decays=position.decays + 1)
                    progress.say(_plateau_line(position, plateau.factor(position.decays)))
                progress.leave_out(time.perf_counter() - paused)
            if run is not None and config.save_every and _due(step + 1, config.save_every, total):
                save_position(run, model, best, optimizer, position, average, rewind, sums)
    progress.close()
    end = position._replace(seconds=time.perf_counter() - begun)
    stopped = agreed_signal(caught)
    if run is not None and stopped is not None:
        save_position(run, model, best, optimizer, end, average, rewind, sums)
    model.load_state_dict(best or average.parameters(model))
    model.eval()
    result = TrainResult(end.step, end.best_step, end.best, end.seconds, stopped)
    return _finished(result, model, corpus, valid, config, seed=seed, report=report)


def _finished(
    result: TrainResult,
    model: VAE,
    corpus: TokenArray,
    valid: TokenArray,
    config: TrainConfig,
    *,
    seed: int,
    report: Report,
) -> TrainResult:
    """The result after what is done once, in place: a mixture as the prior, and calibration.

    A run that stopped has no end yet, and what no validation has selected is left as it is.
    """
    if result.signal is not None or result.best_step < 0:
        return result
    validated = partial(validate, model, valid, seed=seed)
    best = fit_density(model, corpus, result.best, validated, seed=seed, report=report)
    result = result._replace(best=best)
    if not config.calibrate:
        return result
    found = calibrate(model, lambda: validated().elbo)
    bound = "nll" if model.is_language_model else "nll <="
    report(f"temperature {found.temperature:.3f}: validation {bound} {-found.elbo:.3f}")
    best = result.best._replace(elbo=found.elbo)  # the latent is what it was
    return result._replace(best=best, temperature=found.temperature)


def _updates(
    model: VAE,
    optimizer: torch.optim.Optimizer,
    corpus: TokenArray,
    config: TrainConfig,
    seed: int,
    report: Report,
) -> partial[Step]:
    """`train_step` of this run; what changes from step to step is still to be given."""
    return partial(
        train_step,
        model,
        optimizer,
        config=config.objective,
        seed=seed,
        clip_norm=config.clip_norm,
        dtype=DTYPES[config.precision or "float32"],
        parts=Parts(config.micro_batch_size, report),
        labelled=partial(labelled_batch, corpus, config.labelled_batch_size, seed=seed),
    )


def _eligible(model: VAE, config: TrainConfig, total: int) -> float:
    """The step from which validations select: when annealing is over."""
    if model.is_language_model:
        return 0  # without a latent there is no KL whose annealing would have to be over
    return config.procedure.settled(config.objective.kl_weight.settled(), total)


def _due(step: int, every: int, total: int) -> bool:
    return step % every == 0 or step == total


def _exhausted(position: Position, config: TrainConfig) -> bool:
    if config.learning_rate.plateau.exhausted(position.decays):
        return True
    return config.patience is not None and position.bad_validations >= config.patience


def _validation_line(step: int, found: Validation, latent_dim: int, better: bool) -> str:
    if latent_dim == 0:
        return f"step {step}  validation: nll {-found.elbo:.3f}{'  *' if better else ''}"
    return (
        f"step {step}  validation: nll <= {-found.elbo:.3f}  kl {found.kl:.2f}  "
        f"active {'?' if found.active_units is None else found.active_units}/{latent_dim}"
        f"{'  *' if better else ''}"
    )


def _plateau_line(position: Position, factor: float) -> str:
    return (
        f"step {position.step}  no better for {position.bad_validations} validations: back to step "
        f"{position.best_step}, at {factor:.3g} of the learning rate"
    )
