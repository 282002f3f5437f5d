"""A run from data to model directory: planned, begun or continued, trained, measured, published."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import torch
from msgspec import structs

from textvae import distributed
from textvae.config import differences, encode_json
from textvae.data.corpus import sentences_of
from textvae.data.tokenizer import Tokenizer
from textvae.errors import CheckpointError, ConfigError
from textvae.evaluate.summary import Evaluation
from textvae.kernels.linear_cross_entropy import CHUNK_ROWS
from textvae.model.encoder_none import NoEncoderConfig
from textvae.model.labels import NoLabelsConfig
from textvae.model.prior_gaussian import GaussianPriorConfig
from textvae.model.prior_mixture import MixturePriorConfig
from textvae.model.vae import VAE
from textvae.randomness import key, permutation
from textvae.run.data import (
    DATA,
    EMBEDDED,
    DataOptions,
    RunData,
    check_labels,
    data_differences,
    describe,
    load_facts,
    open_run_data,
    read_splits,
    save_run_data,
    tokenize,
    tokenize_sentences,
)
from textvae.run.experiment import (
    ExperimentConfig,
    check_device,
    choose_data,
    choose_training,
    read_experiment,
)
from textvae.run.measure import measure
from textvae.run.model_directory import Results, TrainingFacts, load_model, publish, read_results
from textvae.run.stream import STREAM, stream_run_data
from textvae.storage.checkpoint import EXPERIMENT, TOKENIZER
from textvae.storage.files import saying_why, write_file
from textvae.storage.lock import LOCK, only_writer
from textvae.storage.training_state import load_state
from textvae.train.loop import TrainResult, train

TIMED_STEPS = 5
Report = Callable[[str], None]


class Plan(NamedTuple):
    """Everything decided, nothing written."""

    config: ExperimentConfig
    """Resolved: nothing in it is left to choose."""
    choices: list[str]
    """Overrides that say what was chosen for the user, such as `train.max_steps=4000`."""
    data: RunData
    run: Path


class RunOutcome(NamedTuple):
    """What `execute` leaves behind."""

    path: Path
    model: VAE
    result: TrainResult | None
    """None where the run had been finished before."""
    evaluation: Evaluation | None
    """None where a signal stopped the run."""


class DryRun(msgspec.Struct, frozen=True, kw_only=True):
    """What `train --dry-run` says: what would be trained, how large, how long."""

    source: str
    rows: list[str]
    """Rows kept and dropped, and why, a line a split."""
    vocabulary_size: int
    num_parameters: int
    memory_bytes: int
    """Weights, gradients, optimizer moments and the largest activations, estimated."""
    max_steps: int
    seconds_per_step: float
    seconds: float
    """Steps times seconds a step, validations included."""
    choices: list[str]

    def lines(self) -> list[str]:
        """For a reader."""
        return [
            f"data: {self.source}",
            *(f"  {row}" for row in self.rows),
            f"vocabulary: {self.vocabulary_size:,}",
            f"parameters: {self.num_parameters:,}",
            f"memory: about {self.memory_bytes / 2**20:,.0f} MiB",
            f"steps: {self.max_steps:,} at {1000 * self.seconds_per_step:,.0f} ms: "
            f"about {self.seconds / 60:,.1f} minutes",
        ]


def plan_run(
    options: DataOptions,
    config: ExperimentConfig,
    output: Path | None,
    report: Report = lambda line: None,
) -> Plan:
    """Read and tokenize the data and settle every choice.

    Writes nothing, but for `data.stream`: what is streamed goes to the run directory at once, and
    `report` takes lines of talk about it.

    Raises:
        DataError: text that cannot be read as it is.
        ConfigError: settings that do not go with the data or the machine.
    """
    if "\0" in str(output):
        raise ConfigError(f"--output {str(output)!a}: no directory has a NUL in its name")
    config, choices = choose_data(config, embedded=options.data is None)
    run = output if output is not None else Path("runs") / default_name(options.data)
    if config.data.stream:
        with saying_why(run):
            run.mkdir(parents=True, exist_ok=True)
        with only_writer(run):
            data = stream_run_data(options, config, run, report=report)
        config, more = choose_training(config, lengths=data.arrays["train"].lookup())
        return Plan(config, choices + more, data, run)
    splits = read_splits(options, config)
    assert config.data.tokenizer is not None
    tokenizer = config.data.tokenizer.train(splits.train.texts)
    source = EMBEDDED if options.data is None else options.data
    data = tokenize(splits, tokenizer, source, config.model.max_length)
    if not isinstance(config.model.labels, NoLabelsConfig):
        check_labels(splits, data)
    config, more = choose_training(config, lengths=data.arrays["train"].lookup())
    return Plan(config, choices + more, data, run)


def default_name(data: str | None) -> str:
    """The run's name where no output is given: a function of DATA, so that it is found again."""
    if data is None:
        return "embedded"
    if data == "-":
        return "stdin"
    name = data.removeprefix("hf:").rstrip("/").rsplit("/", 1)[-1]
    stem = name.split(".", 1)[0].split("@", 1)[0].replace(":", "-")
    return stem or "run"


def dry_run(plan: Plan) -> DryRun:
    """Time a few steps of the plan on its machine; writes nothing."""
    config, facts = plan.config, plan.data.facts
    if isinstance(config.model.prior, MixturePriorConfig):  # a mixture is fitted once, at the end
        plain = structs.replace(config.model, prior=GaussianPriorConfig())
        plan = plan._replace(config=structs.replace(config, model=plain))
    model = _build(plan)
    steps = config.train.max_steps or 1
    short = structs.replace(
        config.train,
        max_steps=TIMED_STEPS,
        validate_every=TIMED_STEPS,
        save_every=None,
        log_every=TIMED_STEPS,
        calibrate=False,
    )
    few = plan.data.arrays["valid"].head(1)
    silent: Report = lambda line: None  # noqa: E731 -- a name for what swallows talk
    train(model, plan.data.arrays["train"], few, short, seed=config.seed, run=None, report=silent)
    begun = time.perf_counter()
    train(model, plan.data.arrays["train"], few, short, seed=config.seed, run=None, report=silent)
    seconds = (time.perf_counter() - begun) / TIMED_STEPS
    parameters = sum(p.numel() for p in model.parameters())
    longest = int(plan.data.arrays["train"].lengths.max())
    width = 24 * config.model.decoder.hidden_dim
    if not isinstance(config.model.encoder, NoEncoderConfig):
        width += 4 * config.model.encoder.hidden_dim
    activations = (
        4 * config.train.batch_size * longest * width + 4 * 3 * CHUNK_ROWS * facts.vocabulary_size
    )
    per_validation = facts.valid.num_targets / max(1, facts.train.num_targets)
    epochs = config.train.batch_size * steps / facts.train.num_sentences
    validations = steps / (config.train.validate_every or steps)
    return DryRun(
        source=facts.source,
        rows=describe(facts),
        vocabulary_size=facts.vocabulary_size,
        num_parameters=parameters,
        memory_bytes=4 * 4 * parameters + activations,
        max_steps=steps,
        seconds_per_step=seconds,
        # a validation is a forward pass, about a third of a step over the same tokens
        seconds=seconds * steps * (1 + validations * per_validation / max(epochs, 1e-9) / 3),
        choices=plan.choices,
    )


def execute(plan: Plan, *, report: Report) -> RunOutcome:
    """Train, or continue, or find finished; then measure and publish the model directory.

    Raises:
        CheckpointError: the directory holds something else, or a run of another config or on
            other data, or another process is at it.
        TrainingError: the run diverged.
    """
    if _is_begun(plan):
        results = read_results(plan.run)
        if results is not None and results.training.finished and results.evaluation is not None:
            report(f"{plan.run}: this run is finished; nothing is left to train")
            _tell(plan.run, finished=True)
            return RunOutcome(plan.run, load_model(plan.run).model, None, results.evaluation)
    with saying_why(plan.run):
        plan.run.mkdir(parents=True, exist_ok=True)
    with only_writer(plan.run):
        if not _is_begun(plan):  # asked again: another process may have begun it meanwhile
            _begin(plan)
        _tell(plan.run, finished=False)
        return _train(plan, report)


def follow() -> RunOutcome:
    """What the other processes do while the first one does `execute`: train what it has begun.

    Raises:
        RankError: the first one could not begin, which it says itself.
    """
    run, finished = Path(distributed.broadcast(None)), bool(distributed.all_reduce_max(0))
    if finished:
        return RunOutcome(run, load_model(run).model, None, None)
    config = read_experiment(run / EXPERIMENT)
    tokenizer = Tokenizer.from_json((run / TOKENIZER).read_bytes())
    return _train(Plan(config, [], open_run_data(run / DATA, tokenizer), run), lambda line: None)


def _tell(run: Path, *, finished: bool) -> None:
    """Let those who `follow` know."""
    distributed.broadcast(str(run.resolve()))
    distributed.all_reduce_max(int(finished))


def _train(plan: Plan, report: Report) -> RunOutcome:
    """Train from the newest state on, measure, and publish."""
    model, arrays, config = _build(plan), plan.data.arrays, plan.config
    state = load_state(plan.run)
    where = "begins" if state is None else f"goes on from step {state.step:,}"
    report(f"{plan.run}: {where}")
    result = train(
        model,
        arrays["train"],
        arrays["valid"],
        config.train,
        seed=config.seed,
        run=plan.run,
        report=report,
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
    results = Results(data=plan.data.facts, training=training, evaluation=evaluation)
    if distributed.rank() == 0:
        names = plan.data.facts.label_names
        publish(plan.run, model, config.model, plan.data.tokenizer, results, labels=names)
    return RunOutcome(plan.run, model, result, evaluation)


def _build(plan: Plan) -> VAE:
    config = plan.config
    names, labels = plan.data.facts.label_names, plan.data.arrays["train"].labels
    count = 0 if isinstance(config.model.labels, NoLabelsConfig) else len(names)
    model = config.model.build(plan.data.facts.vocabulary_size, num_labels=count, seed=config.seed)
    if model.labels is not None and labels is not None:
        model.labels.counts.copy_(labels[labels >= 0].bincount(minlength=count))
    return model.to(check_device(str(config.train.device)))


def _is_begun(plan: Plan) -> bool:
    """Whether the directory holds all that this very run begins with; refused if another's."""
    run, wanted = plan.run, plan.run / EXPERIMENT
    if wanted.is_file():
        before = read_experiment(wanted)
        facts = load_facts(run / DATA)
        # Data first: of another size, they also change the settings that follow from the size.
        found = [] if facts is None else data_differences(facts, plan.data.facts)
        _refuse(run, [*found, *differences(before, plan.config)])
        return facts is not None
    if run.exists() and not _is_free(run):
        raise CheckpointError(
            f"{run}: is in use and holds no run of textvae; choose another directory with --output"
        )
    return False


def _begin(plan: Plan) -> None:
    run = plan.run
    write_file(run / EXPERIMENT, encode_json(plan.config))
    # Before there are weights, so that a saved state can be loaded as a model.
    write_file(run / TOKENIZER, plan.data.tokenizer.to_json().encode())
    save_run_data(run / DATA, plan.data)


def _is_free(run: Path) -> bool:
    """Whether a directory is empty, but for the first files of a run killed while writing them."""
    streamed = (DATA,) if (run / DATA / STREAM).is_file() else ()
    ours = (f".{EXPERIMENT}.", LOCK, *streamed)
    return run.is_dir() and all(path.name.startswith(ours) for path in run.iterdir())


def _refuse(run: Path, found: list[str]) -> None:
    if found:
        raise CheckpointError(
            f"{run}: holds another run ({'; '.join(found)}); give --output another directory"
        )


def _measure(plan: Plan, model: VAE) -> Evaluation:
    """The report at the end of training, on a random subset of the test split."""
    config, texts = plan.config, plan.data.test_texts
    order = permutation(key(config.seed, "report"), len(texts))[: config.evaluate.max_sentences]
    chosen = "\n".join(texts[i] for i in order.sort().values.tolist())
    subset = distributed.broadcast(chosen).split("\n")  # only the first process has the texts
    read = plan.data.facts.test.read
    part = sentences_of(subset, None, source=f"{len(subset):,} of {read.source}")
    array, facts, _ = tokenize_sentences(part, plan.data.tokenizer, config.model.max_length)
    return measure(
        model,
        plan.data.tokenizer,
        array,
        facts,
        embedded_texts=subset if plan.data.facts.source == EMBEDDED else None,
        num_samples=config.evaluate.num_samples,
        seed=config.seed,
    )
