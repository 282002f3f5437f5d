"""The training loop, from top to bottom: batch, updates, journal, validation, save.

Everything drawn is a function of (seed, step, sentence), so an interrupted run that resumes equals
one that never stopped, given its parameters, its optimizer and its step.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from textvae import distributed
from textvae.data.batching import Batch, TokenArray
from textvae.metrics.latent_usage import diagnosis
from textvae.model.vae import VAE
from textvae.train.averaging import Average
from textvae.train.config import StepSettings, TrainConfig
from textvae.train.graph import StepGraphs, reason_against
from textvae.train.labelled import LabelledBatches, labelling_of
from textvae.train.metrics import (
    DEFAULT_MONITOR,
    Interval,
    Journal,
    Monitor,
    Progress,
    Report,
    RunningSums,
)
from textvae.train.objective import Loss
from textvae.train.optimizer import NoPlateau, UpdateGuard, set_learning_rate
from textvae.train.prior import fit_density, fitted_prior
from textvae.train.procedures import JointProcedure, Update, UpdateLoss
from textvae.train.rate import NoTargetRate
from textvae.train.schedules import Clock
from textvae.train.signals import agreed_signal, catch_signals
from textvae.train.state import Position, TrainingState, diverged
from textvae.train.step import StepResult, flush_denormals, train_step
from textvae.train.temperature import calibrate
from textvae.train.validation import Validation, validate

COLLAPSE_CHECK_FRACTION = 0.25
"""Fraction of a run after which an ignored latent is reported: after a twentieth, when annealing
may be over, no unit need be active in a run that goes well."""


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
    """The divisor of the logits that calibration has chosen."""


def train(
    model: VAE,
    corpus: TokenArray,
    valid: TokenArray,
    config: TrainConfig,
    *,
    seed: int,
    run: Path | None,
    report: Report,
    monitor: Monitor = DEFAULT_MONITOR,
    validate_first: bool = False,
) -> TrainResult:
    """Train a model in place and leave it with the parameters of its best validation.

    Args:
        model: already on its device.
        corpus: the training set, N sentences.
        valid: selects the parameters, as `config.selection` says, once annealing is over.
        config: with `max_steps` set; where `validate_every` is None, only the end is validated.
        seed: of everything drawn.
        run: directory of the training state and metrics.jsonl, from which a run resumes; or None.
        report: receives lines of progress.
        monitor: a callback that receives the figures, and whether a bar is shown.
        validate_first: also validate, and maybe select, the parameters before the first step.

    Raises:
        TrainingError: the loss or the gradient is no longer finite; the step is not saved.
        MemoryLimitError: a step does not fit into memory.
    """
    total, procedure = config.max_steps, config.procedure
    assert total is not None
    optimizer, settings = config.optimizer.build(model), config.step_settings(seed)
    average, begin = Average(config.averaging, total), Position(rate=config.objective.rate.start())
    sums = RunningSums(model.prior.latent_dim, model.device)
    state = TrainingState(model, optimizer, average, sums, begin).restored(run)
    run = run if distributed.rank() == 0 else None  # from here on: where this process writes
    journal = Journal(run / "metrics.jsonl" if run else None, state.position.step, monitor)
    progress = Progress(total, state.position.step, sums, report, monitor)
    corpus, valid, lengths = corpus.near(model.device), valid.to(model.device), corpus.lookup()
    select = Selector(corpus, valid, config, seed, progress, journal)
    if validate_first and state.position.step == 0:
        state = validate_and_select(state, select)
    labelled = LabelledBatches(corpus, config.labelled_batch_size, seed=seed)
    batches_per_epoch = config.batches.count(lengths, config.batch_size)
    order: Sequence[Tensor] = ()
    guard, position = _update_guard(state, config, settings, report), state.position
    epoch, resumed_at, started = -1, position.step, time.perf_counter() - position.seconds
    model.train()
    with flush_denormals(), catch_signals() as signals:
        while position.step < total and not _stops_early(position, config, signals):
            step = position.step
            if step // batches_per_epoch != epoch:
                epoch = step // batches_per_epoch
                order = config.batches.order(lengths, config.batch_size, seed=seed, epoch=epoch)
            batch = corpus.batch(order[step % batches_per_epoch]).to(model.device)
            clock = procedure.clock(step, total)
            procedure.prepare(model, optimizer, step, total, seed)
            factor = config.learning_rate.factor(*clock.stage, position.decays)
            set_learning_rate(optimizer, config.optimizer.learning_rate * factor)
            losses: list[UpdateLoss] = []  # of this step: joint training makes one update
            for update in procedure.updates(losses, order, clock, position.procedure, seed=seed):
                result = _run_update(update, state, corpus, batch, settings, clock, labelled, guard)
                if not result.finite:
                    raise diverged(run, state, resumed_at, result.fault, result.loss.kl_weight)
                losses.append(UpdateLoss(result.loss.value, result.lengths))
            step, seconds = step + 1, time.perf_counter() - started
            if skipped := _num_skipped(guard, step, config, total):
                # The parameters are those before the first of them: repeat it without the guard.
                guard, position = None, position._replace(step=step - skipped)
                state = state._replace(position=position)
                continue
            if not clock.autoencoder:  # its decoder is initialized again: it is in no average
                average.update(model, clock.step)
            sums.add(result.terms, result.loss.value, batch.lengths)
            position = position._replace(step=step, seconds=seconds, rate=result.rate)
            state = state._replace(position=position)
            progress.advance()
            if _is_due(step, config.log_every, total):
                _log_interval(sums.read(), state, step / batches_per_epoch, result.loss, select)
            if _is_due(step, config.validate_every, total):
                state = validate_and_select(state, select)
                position = state.position
            if run is not None and config.save_every and _is_due(step, config.save_every, total):
                state.save(run)
    progress.close()
    state = state._replace(position=position._replace(seconds=time.perf_counter() - started))
    signal = agreed_signal(signals)
    if run is not None and signal is not None and not (guard is not None and guard.num_skipped()):
        state.save(run)
    return _finish(state, corpus, valid, config, signal, seed=seed, report=report)


def _run_update(
    update: Update,
    state: TrainingState,
    corpus: TokenArray,
    batch: Batch,
    settings: StepSettings,
    clock: Clock,
    labelled: LabelledBatches,
    guard: UpdateGuard | StepGraphs | None,
) -> StepResult:
    """Make one update of a step: on the batch of the step, or on the one that the update names."""
    if isinstance(guard, StepGraphs):
        return guard.step(batch, clock)
    model = state.model
    if update.rows is not None:
        batch = corpus.batch(update.rows).to(model.device)
    if update.seed is not None:
        settings = settings._replace(seed=update.seed)
    return train_step(
        model,
        state.optimizer,
        batch,
        settings,
        clock,
        rate=state.position.rate,
        part=update.part,
        labelling=labelling_of(model, batch, labelled, seed=settings.seed, step=clock.step),
        guard=guard,
    )


def _log_interval(
    interval: Interval,
    state: TrainingState,
    epochs: float,
    loss: Loss,
    select: "Selector",
) -> None:
    """Report the figures of the last steps: a line of progress, and one of metrics.jsonl."""
    position = state.position
    select.journal.write(
        step=position.step,
        epoch=epochs,
        kl_weight=loss.kl_weight,
        tokens_per_second=select.progress.interval(position.step, interval, loss.kl_weight),
        seconds=position.seconds,
        **interval._asdict(),
    )


def _update_guard(
    state: TrainingState, config: TrainConfig, settings: StepSettings, report: Report
) -> UpdateGuard | StepGraphs | None:
    """A guard on CUDA, unless a step needs figures of the one before it; or graphs with a guard."""
    guard, device = None, state.model.device
    plain = isinstance(config.objective.rate, NoTargetRate)
    if device.type == "cuda" and plain and isinstance(config.procedure, JointProcedure):
        guard = UpdateGuard(state.optimizer, device)
    if not config.cuda_graph:
        return guard
    reason = reason_against(config, state.model)
    if reason is not None or guard is None:
        report(f"train.cuda_graph has no effect: {reason}")
        return guard
    return StepGraphs(state.model, state.optimizer, settings, guard)


def _num_skipped(
    guard: UpdateGuard | StepGraphs | None, step: int, config: TrainConfig, total: int
) -> int:
    """How many of the last steps a guard has skipped, asked where the run reads figures anyway."""
    intervals = (config.log_every, config.validate_every, config.save_every)
    if guard is None or not any(_is_due(step, every, total) for every in intervals):
        return 0
    skipped = guard.num_skipped()
    if skipped:
        guard.remove()
    return skipped


class Selector(NamedTuple):
    """The data and the settings by which parameters are selected, and where that is reported."""

    corpus: TokenArray
    valid: TokenArray
    config: TrainConfig
    seed: int
    progress: Progress
    journal: Journal


def validate_and_select(state: TrainingState, select: Selector) -> TrainingState:
    """Validate the parameters, or their average, and keep them if they are the best so far."""
    corpus, valid, config, seed, progress, journal = select
    started = time.perf_counter()
    model, average, position = state.model, state.average, state.position
    step, plateau, total = position.step, config.learning_rate.plateau, config.max_steps or 1
    with average.in_place_of(model), fitted_prior(model, corpus) as prior_buffers:
        validation = validate(model, valid, seed=seed)
    procedure = config.procedure.after_validation(  # of the parameters, not of their average
        model, valid, position.procedure, seed=seed, report=progress.print
    )
    position = position._replace(procedure=procedure)
    eligible = _first_eligible_step(model, config, total)
    loss, least = (_selection_loss(config, one) for one in (validation, position.best))
    selected = step >= eligible and loss < least
    if selected:
        state = state._replace(best=average.parameters(model) | prior_buffers)
        if not isinstance(plateau, NoPlateau):
            state = state._replace(rewind=state.snapshot())
        position = position._replace(best_step=step, best=validation, bad_validations=0)
    elif step >= eligible:
        position = position._replace(bad_validations=position.bad_validations + 1)
    line = _validation_line(step, validation, model.prior.latent_dim)
    if config.selection == "objective":
        line += f"  objective {loss:.3f}"
    progress.print(f"{line}{'  *' if selected else ''}")
    if step >= max(eligible, COLLAPSE_CHECK_FRACTION * total):
        collapse = diagnosis(validation.kl, validation.active_units, model.prior.latent_dim)
        if collapse is not None:
            progress.print_once("collapse", collapse)
    journal.write(step=step, validation=validation._asdict(), selected=selected)
    if state.rewind and plateau.due(position.bad_validations):
        # The step, the target rate and the procedure keep their state: it follows from all batches
        # so far, and a controller soon answers to what it sees.
        state.load_snapshot(state.rewind)
        position = position._replace(decays=position.decays + 1)
        progress.print(_plateau_line(position, plateau.factor(position.decays)))
    progress.leave_out(time.perf_counter() - started)
    return state._replace(position=position)


def _finish(
    state: TrainingState,
    corpus: TokenArray,
    valid: TokenArray,
    config: TrainConfig,
    signal: int | None,
    *,
    seed: int,
    report: Report,
) -> TrainResult:
    """Load the best parameters; fit a prior and calibrate, unless the run was stopped."""
    model, position = state.model, state.position
    model.load_state_dict(state.best or state.average.parameters(model))
    model.eval()
    result = TrainResult(position.step, position.best_step, position.best, position.seconds, signal)
    if signal is not None or position.best_step < 0:
        return result

    def validate_model() -> Validation:
        return validate(model, valid, seed=seed)

    best = fit_density(
        model, corpus, result.best, validate_model, seed=seed, seconds=result.seconds, report=report
    )
    result = result._replace(best=best)
    if not config.calibrate:
        return result
    calibration = calibrate(model, lambda: validate_model().elbo)
    bound = "nll" if model.is_language_model else "nll <="
    report(f"temperature {calibration.temperature:.3f}: validation {bound} {-calibration.elbo:.3f}")
    best = result.best._replace(elbo=calibration.elbo)  # the latent is unchanged
    return result._replace(best=best, temperature=calibration.temperature)


def _first_eligible_step(model: VAE, config: TrainConfig, total: int) -> float:
    """The step from which validations select: when annealing is over."""
    if model.is_language_model:
        return 0  # without a latent there is no KL to anneal
    return config.procedure.settled(config.objective.kl_weight.settled(), total)


def _is_due(step: int, every: int | None, total: int) -> bool:
    return step == total or (every is not None and step % every == 0)


def _stops_early(position: Position, config: TrainConfig, signals: list[int]) -> bool:
    """Test for an end before the last step: by plateaus, patience, or a signal."""
    if config.learning_rate.plateau.exhausted(position.decays):
        return True
    if config.patience is not None and position.bad_validations >= config.patience:
        return True
    return agreed_signal(signals) is not None


def _selection_loss(config: TrainConfig, validation: Validation) -> float:
    """The number by which validations compete: the lowest is selected."""
    if config.selection == "objective":
        return config.objective.selection_loss(validation.elbo, validation.kl)
    return -validation.elbo


def _validation_line(step: int, validation: Validation, latent_dim: int) -> str:
    if latent_dim == 0:
        return f"step {step}  validation: nll {-validation.elbo:.3f}"
    active = "?" if validation.active_units is None else validation.active_units
    return (
        f"step {step}  validation: nll <= {-validation.elbo:.3f}  kl {validation.kl:.2f}  "
        f"active {active}/{latent_dim}"
    )


def _plateau_line(position: Position, factor: float) -> str:
    return (
        f"step {position.step}  no better for {position.bad_validations} validations: back to step "
        f"{position.best_step}, at {factor:.3g} of the learning rate"
    )
