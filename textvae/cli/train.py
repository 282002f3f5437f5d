"""`textvae train`."""

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from textvae import distributed
from textvae.cli import options
from textvae.cli.process import SIGNALLED
from textvae.cli.terminal import emit_json, emit_lines, flush, log
from textvae.data.rows import TOO_LONG
from textvae.errors import ConfigError

if TYPE_CHECKING:
    from textvae.data.corpus import Splits
    from textvae.run.experiment import ExperimentConfig
    from textvae.run.plan import Plan

Values = dict[str, Any]
"""The values of OPTIONS, by their names; None is an option that was not given."""


MINUTES = "minutes"
MEANT = {
    "lr": "--learning-rate",
    "bs": "--batch-size",
    "steps": "--max-steps",
    "num-steps": "--max-steps",
    "num-epochs": "--epochs",
    "max-epochs": "--epochs",
    "max-minutes": "--minutes",
    "latent-size": "--latent-dim",
    "z-dim": "--latent-dim",
    "hidden-size": "--hidden-dim",
    "output-dir": "--output",
    "random-seed": "--seed",
    "gpu": "--device cuda",
    "cuda": "--device cuda",
    "embedding-dim": "--set model.decoder.embedding_dim=N",
    "embedding-size": "--set model.decoder.embedding_dim=N",
    "num-layers": "--set model.encoder.num_layers=N --set model.decoder.num_layers=N",
    "max-length": "--set model.max_length=N",
    "vocab-size": "--set data.tokenizer.vocabulary_size=N",
    "vocabulary-size": "--set data.tokenizer.vocabulary_size=N",
    "patience": "--set train.patience=N",
    "beta": "--set train.objective.rate.kind=... (see the reference of settings)",
    "word-dropout": "--set train.objective.word_dropout.share=0.3",
}
"""Options of other programs, with what is meant."""


class TrainCommand(click.Command):
    """A command that answers options of other programs with its own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; an unknown option is a UsageError that names the one meant."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            meant = MEANT.get(error.option_name.lstrip("-").replace("_", "-"))
            if meant is None:
                raise
            raise click.UsageError(
                f"No such option {error.option_name}; use {meant}.", ctx
            ) from None


class TrainOption(NamedTuple):
    """An option of `train`."""

    name: str
    help: str
    metavar: str | None = None
    type: "click.ParamType[Any] | None" = None
    setting: str | None = None
    """The setting of the config that it overrides."""
    other_setting: str | None = None
    """A second one, which gets the same value."""
    describes_data: bool = False
    """A field of `DataOptions` has its name."""

    @property
    def flag(self) -> str:
        """As it is written on the command line."""
        return f"--{self.name.replace('_', '-')}"


OPTIONS = (
    TrainOption("config", "Settings: .toml, or the experiment.json of a run.", "FILE"),
    TrainOption("recipe", "Settings that ship; see `textvae recipes`.", "NAME"),
    TrainOption(
        "keep",
        "How much of a sentence the latent keeps: little for samples and likelihoods (default), "
        "most to edit and interpolate your own sentences, or half: `--keep most`.",
        type=click.Choice(("little", "half", "most")),
        setting="keep",
    ),
    TrainOption(
        "start_from",
        "Weights, tokenizer and settings of a model, in a new run: `textvae train new.txt "
        "--start-from runs/old`.",
        "MODEL",
    ),
    TrainOption("valid", "The set that selects the parameters.", "DATA", describes_data=True),
    TrainOption("test", "The set for the figures.", "DATA", describes_data=True),
    TrainOption("text_column", "The column of a table that holds the text.", describes_data=True),
    TrainOption("label_column", "The column of a table that holds labels.", describes_data=True),
    TrainOption(
        "separator",
        "What separates the cells of a .csv: ';', '|', tab.  [default: found]",
        "CHARACTER",
        describes_data=True,
    ),
    TrainOption(
        "encoding",
        "Of the text, such as latin-1 or cp1252.  [default: UTF-8]",
        "NAME",
        describes_data=True,
    ),
    TrainOption("labels", "One label a line, in step with DATA.", "FILE", describes_data=True),
    TrainOption(
        "too_long",
        "Sentences over model.max_length tokens: leave them out (drop), keep their beginning (cut) "
        "or all parts (split), or stop.  [default: drop]",
        type=click.Choice(TOO_LONG),
        setting="data.too_long",
    ),
    TrainOption("output", "The run directory.  [default: runs/ and the name of DATA]", "DIR"),
    TrainOption("seed", "Of everything drawn.  [default: 0]", type=options.SEED, setting="seed"),
    TrainOption("max_steps", "Length of the run.", type=options.COUNT, setting="train.max_steps"),
    TrainOption(
        "epochs",
        "Length in passes over the corpus, such as 10 or 0.5.",
        type=click.FloatRange(min=0, min_open=True),
        setting="train.max_epochs",
    ),
    TrainOption(
        MINUTES,
        "Length in time on this machine, by timing steps: `--minutes 5`.",
        type=click.FloatRange(min=0, min_open=True),
    ),
    TrainOption(
        "batch_size", "Sentences per step.", type=options.COUNT, setting="train.batch_size"
    ),
    TrainOption(
        "learning_rate",
        "Its highest value.",
        type=click.FLOAT,
        setting="train.optimizer.learning_rate",
    ),
    TrainOption(
        "latent_dim",
        "Dimensions of the latent.",
        type=click.IntRange(0, 65_536),
        setting="model.latent_dim",
    ),
    TrainOption(
        "hidden_dim",
        "Width of the GRUs of encoder and decoder.",
        type=options.COUNT,
        setting="model.encoder.hidden_dim",
        other_setting="model.decoder.hidden_dim",
    ),
    TrainOption(
        "tokenizer",
        "word, bpe, char, smiles; or a file: a tokenizer.json, a vocabulary of one word "
        "a line, or the directory of a run.  [default: bpe]",
        "KIND|PATH",
    ),
    TrainOption(
        "save_every",
        "Steps between saved states.",
        type=options.COUNT,
        setting="train.save_every",
    ),
    TrainOption(
        "device",
        "cpu, cuda, cuda:1, ...  [default: CUDA where there is one]",
        setting="train.device",
    ),
    TrainOption(
        "precision",
        "Of training.",
        type=click.Choice(options.PRECISIONS),
        setting="train.precision",
    ),
)


def _add_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(OPTIONS):
        add = click.option(option.flag, type=option.type, metavar=option.metavar, help=option.help)
        command = add(command)
    return command


@click.command(
    "train",
    cls=TrainCommand,
    help="""DATA is a file (.txt, .csv, .tsv, .jsonl, .json, each also .gz, .bz2, .xz; .parquet),
    `-` for standard input, a directory with train, valid and test files (also as in ptb.train.txt)
    or else of text files, or hf:name[:config][@revision]; several files, or a quoted pattern such
    as 'news/*.txt', are one corpus; left out, the embedded corpus with its recipe. Where there is
    no valid or test set, one is carved out.

    The same command on the same data continues a run that stopped, exactly. Settings that are
    chosen for you are written to stderr, as the explicit command. At the end: the path of the
    model, samples, an interpolation between two held-out sentences, and the figures of `textvae
    evaluate` on a part of the test set.""",
)
@click.argument("data", metavar="[DATA]...", nargs=-1)
@click.option(
    "--set",
    "settings",
    metavar="KEY.PATH=VALUE",
    multiple=True,
    help="One setting, such as model.latent_dim=64; repeatable.",
)
@_add_options
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show what would be trained: rows kept and dropped, sizes, memory, time. Writes nothing.",
)
@options.as_json
@click.pass_context
def command(
    context: click.Context,
    /,
    data: tuple[str, ...],
    settings: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Train a model."""
    starts = ("config", "recipe", "start_from", "keep")
    if not data and all(values[name] is None for name in starts):
        values["recipe"] = "embedded"
    if dry_run:
        if distributed.is_first():
            _dry_run(data, settings, values, as_json=as_json)
        return
    from textvae.api.train import train_run  # noqa: PLC0415 -- imports torch, 1.5 s

    lines: list[str] = []
    plans: list[Plan] = []

    def report(line: str) -> None:
        for text in (*lines, line):
            log(text)
        lines.clear()

    def make_plan() -> "Plan":
        plan = _plan(data, settings, values)
        plans.append(plan)
        lines.extend([*plan.data.notes, explicit_command(data, settings, values, plan)])
        # Held back where the run directory may yet be refused: the error then stands alone.
        if not plan.run.exists():
            report(lines.pop())
        return plan

    try:
        outcome = train_run(make_plan, report=report)
    except KeyboardInterrupt as stop:  # between the loops, or the second of two
        if not plans:
            raise
        raise type(stop)(
            f"{plans[0].run}: stopped; the same command continues from the last saved state"
        ) from None
    if lines:
        report(lines.pop())
    if outcome.result is not None and outcome.result.signal is not None:
        log(
            f"{outcome.path}: stopped after step {outcome.result.steps:,}; the same command "
            "continues from there"
        )
        context.exit(SIGNALLED + outcome.result.signal)
    if not plans:  # another process than the first
        return
    from textvae.cli.train_summary import summarize  # noqa: PLC0415 -- imports torch, 1.5 s

    summary = summarize(plans[0], outcome)
    emit_json(summary) if as_json else emit_lines(summary.text())
    flush()


def _dry_run(
    data: tuple[str, ...], settings: tuple[str, ...], values: Values, *, as_json: bool
) -> None:
    from msgspec import structs  # noqa: PLC0415 -- 20 ms

    from textvae.run.data import describe_splits  # noqa: PLC0415 -- imports torch, 1.5 s
    from textvae.run.dry_run import dry_run  # noqa: PLC0415 -- as above

    if _config(settings, values).data.stream:
        raise ConfigError("data.stream: writes into the run directory, so there is no --dry-run")
    lines: list[str] = []

    def read(splits: "Splits") -> None:
        lines.extend(describe_splits(splits))
        if not as_json:  # at once: tokenizing and timing take longer
            emit_lines("\n".join(["read", *(f"  {line}" for line in lines)]))
            flush()

    plan = _plan(data, settings, values, read)
    for line in plan.data.notes:
        if line not in lines:
            log(line)
    log(explicit_command(data, settings, values, plan))
    result = structs.replace(dry_run(plan), read=lines)
    emit_json(result) if as_json else emit_lines("\n".join(result.lines()))


def _plan(
    data: tuple[str, ...],
    settings: tuple[str, ...],
    values: Values,
    read: "Callable[[Splits], None]" = lambda splits: None,
) -> "Plan":
    from textvae.run.data import DataOptions  # noqa: PLC0415 -- imports torch, 1.5 s
    from textvae.run.plan import plan_run  # noqa: PLC0415 -- as above

    fields = {option.name: values[option.name] for option in OPTIONS if option.describes_data}
    output = None if values["output"] is None else Path(values["output"])
    plan = plan_run(
        DataOptions(data[0] if data else None, more=data[1:], **fields),
        _config(settings, values),
        output,
        report=log,
        read=read,
    )
    if values[MINUTES] is None:
        return plan
    from textvae.run.dry_run import fit_minutes  # noqa: PLC0415 -- as above

    return fit_minutes(plan, values[MINUTES])


def _tokenizer_settings(name: str) -> list[str]:
    """The settings of a kind of tokenizer, or of a file, which holds a slash or ends in .json."""
    if "/" in name or os.sep in name or name.endswith(".json"):
        return ["data.tokenizer.kind=file", f"data.tokenizer.path={name}"]
    return [f"data.tokenizer.kind={name}"]


def _config(settings: tuple[str, ...], values: Values) -> "ExperimentConfig":
    from textvae.run.experiment import load_config  # noqa: PLC0415 -- imports torch, 1.5 s

    file = None if values["config"] is None else Path(values["config"])
    overrides = [
        f"{setting}={values[option.name]}"
        for option in OPTIONS
        for setting in (option.setting, option.other_setting)
        if setting is not None and values[option.name] is not None
    ]
    if (tokenizer := values["tokenizer"]) is not None:
        overrides += _tokenizer_settings(tokenizer)
    if values[MINUTES] is not None and (values["max_steps"] or values["epochs"]):
        raise ConfigError("--minutes, --epochs and --max-steps are three lengths: give one of them")
    origin = values["start_from"]
    if values["keep"] is not None and (origin or values["recipe"]):
        other = "--start-from" if origin else "--recipe"
        raise ConfigError(f"--keep and {other} both choose the size of the latent: give one")
    if origin is None:
        return load_config(file, [*settings, *overrides], recipe=values["recipe"])
    from textvae.run.start import start_settings  # noqa: PLC0415 -- as above

    return load_config(
        file, [*settings, *overrides], recipe=values["recipe"], defaults=start_settings(origin)
    )


def explicit_command(
    data: tuple[str, ...], settings: tuple[str, ...], values: Values, plan: "Plan"
) -> str:
    """The command that leaves nothing to choose, quoted for a shell."""
    values = values | {"output": plan.run}
    words = ["textvae", "train"]
    # A name that begins with a dash would be taken for an option.
    dashed = any(name != "-" and name.startswith("-") for name in data)
    words += () if dashed else data
    set_options = [option for option in OPTIONS if values[option.name] is not None]
    for option in set_options:
        if option.setting is None and option.name != MINUTES:  # which has chosen the steps
            words += [option.flag, str(values[option.name])]
    for setting in settings:
        words += ["--set", setting]
    for option in set_options:
        if option.setting is not None:
            words += [option.flag, str(values[option.name])]
    flags = {option.setting: option.flag for option in OPTIONS}
    for choice in plan.choices:
        key, _, value = choice.partition("=")
        words += [flags[key], value] if key in flags else ["--set", choice]
    return shlex.join([*words, "--", *data] if dashed else words)
