"""`textvae train`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import click

from textvae import distributed
from textvae.cli import options
from textvae.cli.terminal import emit, emit_json, flush, log
from textvae.errors import ConfigError

if TYPE_CHECKING:
    from textvae.run.experiment import ExperimentConfig
    from textvae.run.plan import Plan
    from textvae.run.training import RunOutcome

SIGNALLED = 128  # shells add the number of the signal

# Options that are short for an override.
_OVERRIDES = {
    "seed": "seed",
    "max_steps": "train.max_steps",
    "save_every": "train.save_every",
    "device": "train.device",
    "precision": "train.precision",
}


class Given(TypedDict):
    """The arguments and options of `train`, as they were given."""

    data: str | None
    config: str | None
    recipe: str | None
    settings: tuple[str, ...]
    output: str | None
    seed: int | None
    max_steps: int | None
    save_every: int | None
    device: str | None
    precision: str | None
    valid: str | None
    test: str | None
    text_column: str | None
    label_column: str | None
    labels: str | None


@click.command(
    "train",
    help="""DATA is a file (.txt, .csv, .tsv, .jsonl, each also .gz, or .parquet), `-` for standard
    input, a directory with train, valid and test files, or hf:name[:config][@revision]; left out,
    the embedded corpus with its recipe. Where there is no valid or test set, one is carved out.

    The same command on the same data continues a run that stopped, exactly. What is chosen for
    you is said on stderr as the explicit command. At the end: where the model is, samples, an
    interpolation between two held-out sentences, and the figures of `textvae evaluate` on a part
    of the test set.""",
)
@click.argument("data", required=False)
@click.option("--config", metavar="FILE", help="Settings: .toml, or the experiment.json of a run.")
@click.option("--recipe", metavar="NAME", help="Settings that ship; see `textvae recipes`.")
@click.option(
    "--set",
    "settings",
    metavar="KEY.PATH=VALUE",
    multiple=True,
    help="One setting, such as model.latent_dim=64; repeatable.",
)
@click.option(
    "--output", metavar="DIR", help="The run directory.  [default: runs/ and the name of DATA]"
)
@click.option("--seed", type=options.SEED, help="Of everything drawn.  [default: 0]")
@click.option("--max-steps", type=options.COUNT, help="Length of the run.")
@click.option("--save-every", type=options.COUNT, help="Steps between saved states.")
@click.option("--device", help="cpu, cuda, cuda:1, ...  [default: CUDA where there is one]")
@click.option("--precision", type=click.Choice(options.PRECISIONS), help="Of training.")
@click.option("--valid", metavar="DATA", help="The set that selects the parameters.")
@click.option("--test", metavar="DATA", help="The set for the figures.")
@click.option("--text-column", help="The column of a table that holds the text.")
@click.option("--label-column", help="The column of a table that holds labels.")
@click.option("--labels", metavar="FILE", help="One label a line, in step with DATA.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Say what would be trained: rows kept and dropped, sizes, memory, time. Writes nothing.",
)
@options.as_json
@click.pass_context
def command(context: click.Context, dry_run: bool, as_json: bool, **given: Unpack[Given]) -> None:
    """Train a model."""
    if dry_run:
        if distributed.is_first():
            _try_out(given, as_json=as_json)
        return
    from textvae.run.training import follow  # noqa: PLC0415 -- imports torch, 1.5 s

    with distributed.joined():
        plan, outcome = _run(given) if distributed.is_first() else (None, follow())
    if outcome.result is not None and outcome.result.signal is not None:
        log(
            f"{outcome.path}: stopped after step {outcome.result.steps:,}; the same command "
            "continues from there"
        )
        context.exit(SIGNALLED + outcome.result.signal)
    if plan is not None:
        _report(plan, outcome, as_json=as_json)


def _try_out(given: Given, *, as_json: bool) -> None:
    from textvae.run.dry_run import dry_run  # noqa: PLC0415 -- imports torch, 1.5 s

    if _config(given).data.stream:
        raise ConfigError("data.stream: writes into the run directory, so there is no --dry-run")
    plan = _plan(given)
    for line in (*plan.data.notes, explicit_command(given, plan.choices, plan.run)):
        log(line)
    tried = dry_run(plan)
    emit_json(tried) if as_json else emit("\n".join(tried.lines()))


def _run(given: Given) -> "tuple[Plan, RunOutcome]":
    from textvae.run.training import execute  # noqa: PLC0415 -- imports torch, 1.5 s

    plan = _plan(given)
    unsaid = [*plan.data.notes, explicit_command(given, plan.choices, plan.run)]

    def report(*lines: str) -> None:
        for line in (*unsaid, *lines):
            log(line)
        unsaid.clear()

    # Held back where the run directory may yet be refused: the error then stands alone.
    if not plan.run.exists():
        report()
    try:
        outcome = execute(plan, report=report)
    except KeyboardInterrupt as stop:  # between the loops, or the second of two
        raise type(stop)(
            f"{plan.run}: stopped; the same command continues from the last saved state"
        ) from None
    report()
    return plan, outcome


def _plan(given: Given) -> "Plan":
    from textvae.run.data import DataOptions  # noqa: PLC0415 -- imports torch, 1.5 s
    from textvae.run.plan import plan_run  # noqa: PLC0415 -- as above

    data = DataOptions(
        data=given["data"],
        valid=given["valid"],
        test=given["test"],
        text_column=given["text_column"],
        label_column=given["label_column"],
        labels=given["labels"],
    )
    output = None if given["output"] is None else Path(given["output"])
    return plan_run(data, _config(given), output, report=log)


def recipe_of(given: Given) -> str | None:
    """The recipe named, or that of the embedded corpus where nothing at all is said."""
    if given["data"] is None and given["config"] is None and given["recipe"] is None:
        return "embedded"
    return given["recipe"]


def _config(given: Given) -> "ExperimentConfig":
    from textvae.run.experiment import load_config  # noqa: PLC0415 -- imports torch, 1.5 s

    file = None if given["config"] is None else Path(given["config"])
    overrides = [f"{key}={value}" for key, value in _short(given).items()]
    return load_config(file, [*given["settings"], *overrides], recipe=recipe_of(given))


def _short(given: Given) -> dict[str, int | str]:
    """The overrides that options of their own stand for, where these were given."""
    values: dict[str, int | str | None] = {
        "seed": given["seed"],
        "max_steps": given["max_steps"],
        "save_every": given["save_every"],
        "device": given["device"],
        "precision": given["precision"],
    }
    return {_OVERRIDES[name]: value for name, value in values.items() if value is not None}


def explicit_command(given: Given, choices: list[str], run: Path) -> str:
    """The command that would have said all that was left to choose, quoted for a shell."""
    option_of = {key: f"--{name.replace('_', '-')}" for name, key in _OVERRIDES.items()}
    data = [] if given["data"] is None else [given["data"]]
    # A name that begins with a dash would be taken for an option.
    dashed = ["--", *data] if data != ["-"] and "".join(data).startswith("-") else []
    words = ["textvae", "train", *([] if dashed else data)]
    plain: dict[str, object] = {
        "--config": given["config"],
        "--recipe": recipe_of(given),
        "--valid": given["valid"],
        "--test": given["test"],
        "--text-column": given["text_column"],
        "--label-column": given["label_column"],
        "--labels": given["labels"],
        "--output": run,
    }
    for option, value in plain.items():
        if value is not None:
            words += [option, str(value)]
    for setting in given["settings"]:
        words += ["--set", setting]
    for key, value in _short(given).items():
        words += [option_of[key], str(value)]
    for choice in choices:
        key, _, value = choice.partition("=")
        words += [option_of[key], value] if key in option_of else ["--set", choice]
    return shlex.join(words + dashed)


def _report(plan: "Plan", outcome: "RunOutcome", *, as_json: bool) -> None:
    from textvae.cli.showing import show  # noqa: PLC0415 -- imports torch, 1.5 s

    shown = show(plan, outcome)
    if as_json:
        emit_json(shown)
    else:
        emit(shown.text())
    flush()
