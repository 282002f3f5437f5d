"""A planned run: begun or continued, trained, measured, and published as a model directory."""

from pathlib import Path
from typing import NamedTuple

import msgspec
import torch
from msgspec import structs

from textvae import distributed
from textvae.config import differences, encode_json
from textvae.data.corpus import sentences_of
from textvae.data.tokenizer import Tokenizer
from textvae.errors import CheckpointError
from textvae.evaluate.summary import Evaluation, evaluate
from textvae.model.vae import VAE
from textvae.randomness import key, permutation
from textvae.run.data import (
    DATA,
    EMBEDDED,
    Report,
    data_differences,
    load_facts,
    open_run_data,
    save_run_data,
    tokenize_sentences,
)
from textvae.run.experiment import StartFrom, read_experiment
from textvae.run.held_out import HeldOut, Origin, subject_of
from textvae.run.model_directory import (
    SPELLING,
    Results,
    TrainingFacts,
    load_model,
    publish,
    read_results,
)
from textvae.run.plan import Plan, no_report
from textvae.run.stream import STREAM
from textvae.storage.checkpoint import EXPERIMENT, TOKENIZER
from textvae.storage.files import saying_why, write_file
from textvae.storage.lock import LOCK, only_writer
from textvae.storage.training_state import load_state
from textvae.train.loop import TrainResult, train
from textvae.train.metrics import DEFAULT_MONITOR, Event, Monitor


class RunOutcome(NamedTuple):
    """The result of `execute`."""

    path: Path
    model: VAE
    result: TrainResult | None
    """None if the run was finished before."""
    evaluation: Evaluation | None
    """None if a signal stopped the run."""


def execute(plan: Plan, *, report: Report, monitor: Monitor = DEFAULT_MONITOR) -> RunOutcome:
    """Train a run, or continue it; then measure it and publish the model directory.

    Raises:
        CheckpointError: the directory holds something else, or a run of another config or on
            other data, or another process writes to it.
        TrainingError: the run diverged.
    """
    if _is_begun(plan):
        results = read_results(plan.run)
        if results is not None and results.training.finished and results.evaluation is not None:
            report(f"{plan.run}: this run is finished; nothing is left to train")
            _announce(plan.run, finished=True)
            return RunOutcome(plan.run, load_model(plan.run).model, None, results.evaluation)
    with saying_why(plan.run):
        plan.run.mkdir(parents=True, exist_ok=True)
    with only_writer(plan.run):
        if not _is_begun(plan):  # again: another process may have begun it meanwhile
            _begin(plan)
        _announce(plan.run, finished=False)
        return _train(plan, report, monitor)


def follow() -> RunOutcome:
    """Train, in every process but the first, the run that the first one executes."""
    run, finished = Path(distributed.broadcast(None)), bool(distributed.all_reduce_max(0))
    if finished:
        return RunOutcome(run, load_model(run).model, None, None)
    config = read_experiment(run / EXPERIMENT)
    tokenizer = Tokenizer.from_json((run / TOKENIZER).read_bytes())
    return _train(Plan(config, [], open_run_data(run / DATA, tokenizer), run), no_report)


def _announce(run: Path, *, finished: bool) -> None:
    """Broadcast to the processes that `follow`."""
    distributed.broadcast(str(run.resolve()))
    distributed.all_reduce_max(int(finished))


def _train(plan: Plan, report: Report, monitor: Monitor = DEFAULT_MONITOR) -> RunOutcome:
    """Train from the newest state, measure, and publish."""
    model, arrays, config = plan.build_model(), plan.data.arrays, plan.config
    state = load_state(plan.run)
    start = "starts" if state is None else f"resumes from step {state.step:,}"
    report(f"{plan.run}: {start}")
    result = train(
        model,
        arrays["train"],
        arrays["valid"],
        config.train,
        seed=config.seed,
        run=plan.run,
        report=report,
        monitor=monitor,
        validate_first=config.start_from is not None,
    )
    training = TrainingFacts(
        steps=result.steps,
        best_step=result.best_step,
        validation_elbo=result.best.elbo if result.best_step >= 0 else None,
        validation_kl=result.best.kl,
        seconds=result.seconds,
        precision=str(config.train.precision),
        device=str(config.train.device),
        num_threads=torch.get_num_threads(),
        finished=result.signal is None,
        temperature=result.temperature,
    )
    evaluation = _measure(plan, model) if result.signal is None else None
    if evaluation is not None and monitor.callback is not None:
        monitor.callback(evaluation_event(result.steps, evaluation))
    results = Results(
        data=plan.data.facts,
        training=training,
        evaluation=evaluation,
        start_from=config.start_from,
    )
    if distributed.rank() == 0:
        names = plan.data.facts.label_names
        # A run that was begun before there were models of spelling stays as it was begun.
        spelling = plan.data.spelling if (plan.run / SPELLING).is_file() else None
        tokenizer = plan.data.tokenizer
        publish(plan.run, model, config.model, tokenizer, results, names, spelling)
    return RunOutcome(plan.run, model, result, evaluation)


def evaluation_event(step: int, evaluation: Evaluation) -> Event:
    """The event at the end of training: the figures of the test set that are numbers."""
    figures = msgspec.to_builtins(evaluation)
    return Event(
        "evaluation", step, {n: x for n, x in figures.items() if isinstance(x, int | float)}
    )


def _is_begun(plan: Plan) -> bool:
    """True if the directory holds this run; another run or other files there are refused."""
    run, experiment = plan.run, plan.run / EXPERIMENT
    if experiment.is_file():
        before = read_experiment(experiment)
        if _same_start(before.start_from, plan.config.start_from):
            before = structs.replace(before, start_from=plan.config.start_from)
        facts = load_facts(run / DATA)
        # Data first: of another size, they also change the settings that follow from the size.
        changes = [] if facts is None else data_differences(facts, plan.data.facts)
        if changes := [*changes, *differences(before, plan.config)]:
            raise CheckpointError(
                f"{run}: holds another run ({'; '.join(changes)}); give --output another directory"
            )
        return facts is not None
    if run.exists() and not _is_free(run):
        raise CheckpointError(
            f"{run}: is in use and holds no run of textvae; choose another directory with --output"
        )
    return False


def _same_start(before: StartFrom | None, now: StartFrom | None) -> bool:
    """True if both are the same weights, wherever they are and whatever was written beside them."""
    return before is not None and now is not None and before.weights_sha256 == now.weights_sha256


def _begin(plan: Plan) -> None:
    run = plan.run
    write_file(run / EXPERIMENT, encode_json(plan.config))
    # Before there are weights, so that a saved state can be loaded as a model.
    write_file(run / TOKENIZER, plan.data.tokenizer.to_json().encode())
    if plan.data.spelling is not None:
        write_file(run / SPELLING, plan.data.spelling.to_json())
    save_run_data(run / DATA, plan.data)


def _is_free(run: Path) -> bool:
    """True if a directory is empty, except for the first files of a run that was killed early."""
    streamed = (DATA,) if (run / DATA / STREAM).is_file() else ()
    ours = (f".{EXPERIMENT}.", LOCK, *streamed)
    return run.is_dir() and all(path.name.startswith(ours) for path in run.iterdir())


def _measure(plan: Plan, model: VAE) -> Evaluation:
    """The evaluation at the end of training, on a random subset of the test split."""
    config, test = plan.config, plan.data.test_texts
    order = permutation(key(config.seed, "report"), len(test))[: config.evaluate.max_sentences]
    joined = "\n".join(test[i] for i in order.sort().values.tolist())
    subset = distributed.broadcast(joined).split("\n")  # only the first process has the texts
    read = plan.data.facts.test.read
    part = sentences_of(subset, None, source=f"{len(subset):,} of {read.source}")
    array, facts, texts, _ = tokenize_sentences(
        part, plan.data.tokenizer, config.model.max_length, too_long=config.data.too_long
    )
    sentences = HeldOut(
        array,
        facts,
        None if facts.num_shortened else texts,
        embedded=plan.data.facts.source == EMBEDDED,
    )
    origin = Origin(plan.data.tokenizer, config.model.max_length, plan.run, None)
    subject = subject_of(model, origin, sentences, seed=config.seed)
    return evaluate(subject, num_samples=config.evaluate.num_samples)
