"""A table of results: methods trained on a corpus under equal compute, measured on its test set.

python scripts/reproduce.py RECIPE DATA [--methods recipe,language_model] [--seeds 0,1,2]

RECIPE is a shipped recipe or `default`, DATA what `textvae train` takes, or `embedded`. Markdown
goes to stdout, messages to stderr; each row is also a JSON file under --output. Finished trainings
and measurements are not repeated, a run that stopped continues, and a method that fails does not
stop the others. The methods are in scripts/reproduce_methods.py.
"""

import hashlib
import json
import shlex
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click
import msgspec
from provenance import commit
from reproduce_methods import METHODS, PUBLISHED
from reproduce_rows import Row, caption, hardware, markdown, papers, read_row, write_row

from textvae.api.evaluate import run_evaluators
from textvae.api.text_vae import TextVAE
from textvae.config import decode, encode_json, read_config_file
from textvae.errors import ConfigError, TextVAEError
from textvae.evaluate.bounds import LikelihoodEvaluator
from textvae.evaluate.latent import LatentEvaluator
from textvae.evaluate.reconstruction import ReconstructionEvaluator
from textvae.randomness import key, permutation
from textvae.run.data import DataOptions, read_splits
from textvae.run.experiment import ExperimentConfig, load_config
from textvae.run.plan import plan_run
from textvae.run.training import execute
from textvae.storage.files import write_file
from textvae.storage.manifest import MANIFEST


class Protocol(NamedTuple):
    """The settings that all rows of a table have in common."""

    recipe: str
    data: str | None
    """None is the embedded corpus."""
    corpus: str
    settings: tuple[str, ...]
    num_samples: int
    limit: int | None
    output: Path


class StopError(Exception):
    """A signal ended a training run; finished rows stay."""


def configure(protocol: Protocol, method: str, seed: int) -> tuple[ExperimentConfig, list[str]]:
    """The settings of a run, and the overrides of its recipe that make them.

    The steps are divided by the cost of the method, so that all have about the same compute.

    Raises:
        ConfigError: unknown settings, or no number of steps for a method that costs more.
    """
    if protocol.data is None and protocol.recipe == "default":
        raise ConfigError("the embedded corpus is trained with a recipe; give it: embedded")
    definition = METHODS[method]
    shared = [text for text in protocol.settings if not text.startswith(definition.without)]
    # The summary at the end of training is not used.
    overrides = ["evaluate.num_samples=1", *shared, *definition.overrides, f"seed={seed}"]
    recipe = None if protocol.recipe == "default" else protocol.recipe
    config = load_config(None, overrides, recipe=recipe)
    if definition.cost != 1.0:
        if config.train.max_steps is None:
            raise ConfigError(f"{method}: costs more a step; give --max-steps for equal compute")
        overrides.append(
            f"train.max_steps={max(1, round(config.train.max_steps / definition.cost))}"
        )
        config = load_config(None, overrides, recipe=recipe)
    return config, overrides


def fingerprint(protocol: Protocol, config: ExperimentConfig) -> str:
    """The sha256 of settings, protocol and data: equal ones give the same row."""
    digest = hashlib.sha256(encode_json(config))
    digest.update(json.dumps([protocol.num_samples, protocol.limit, protocol.data]).encode())
    place = Path(protocol.data or "")
    files = [place] if place.is_file() else sorted(place.glob("*")) if protocol.data else []
    for file in files:
        if file.is_file():
            digest.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def test_sentences(vae: TextVAE, protocol: Protocol, config: ExperimentConfig) -> list[str]:
    """Test sentences that fit into the model; with a limit, always the same ones."""
    texts = read_splits(DataOptions(protocol.data), config).test.texts
    lengths = map(len, vae.tokenizer.encode_batch(texts))
    limit = vae.config.max_length
    texts = [text for text, length in zip(texts, lengths, strict=True) if length <= limit]
    if protocol.limit is not None:
        order = permutation(key(0, "reproduce"), len(texts))[: protocol.limit]
        texts = [texts[i] for i in order.sort().values.tolist()]
    return texts


def train(protocol: Protocol, config: ExperimentConfig, run: Path) -> TextVAE:
    """Train or continue a run; a finished one is loaded."""
    plan = plan_run(DataOptions(protocol.data), config, run)
    outcome = execute(plan, report=log)
    if outcome.result is not None and outcome.result.signal is not None:
        raise StopError
    return TextVAE.from_pretrained(run)


def measure(
    vae: TextVAE, protocol: Protocol, config: ExperimentConfig, named: dict[str, str]
) -> Row:
    """A row of a trained model; `named` holds its key, method, paper, command, hardware."""
    measurements = run_evaluators(
        vae,
        test_sentences(vae, protocol, config),
        evaluators=[
            LikelihoodEvaluator(num_samples=protocol.num_samples),
            LatentEvaluator(),
            ReconstructionEvaluator(),
        ],
        report=log,
    )
    figures, results = measurements.flat(), vae.results
    assert results is not None
    bleu = "reconstruction_bleu"
    names = [name for name in Row.__struct_fields__ if name in figures]
    values = {name: figures[name] for name in names} | named
    facts: dict[str, object] = {
        "corpus": protocol.corpus,
        "recipe": protocol.recipe,
        "seed": config.seed,
        "num_sentences": measurements.data.num_sentences,
        "num_tokens": measurements.data.num_tokens,
        "tokenizer": measurements.model.tokenizer,
        "latent_dim": measurements.model.latent_dim,
        "bleu_signature": measurements[bleu].settings if bleu in measurements else "",
        "num_parameters": measurements.model.num_parameters,
        "steps": results.training.steps,
        "seconds": results.training.seconds,
        "evaluation_seconds": measurements.seconds,
        "precision": results.training.precision,
        "commit": commit() or "unknown",
        "test_sha256": measurements.data.sha256,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    # Checked by msgspec, so that a figure that an evaluator no longer yields is an error.
    absent = {name: None for name in Row.__struct_fields__ if name not in values | facts}
    return msgspec.convert(absent | values | facts, Row)


def row_of(protocol: Protocol, method: str, seed: int) -> Row:
    """The row of a method and a seed, measured unless it was before."""
    config, overrides = configure(protocol, method, seed)
    name = f"{method}-seed{seed}"
    size = "all" if protocol.limit is None else str(protocol.limit)
    file = protocol.output / "rows" / f"{name}-K{protocol.num_samples}-{size}.json"
    mark = fingerprint(protocol, config)
    row = read_row(file, mark)
    if row is not None:
        log(f"{file}: measured before")
        return row
    log(f"{protocol.corpus}: {name}")
    vae = train(protocol, config, protocol.output / name)
    words = ["textvae", "train", *([] if protocol.data is None else [protocol.data])]
    words += [] if protocol.recipe == "default" else ["--recipe", protocol.recipe]
    words += [word for text in overrides for word in ("--set", text)]
    named = {
        "key": mark,
        "method": method,
        "paper": METHODS[method].paper,
        "command": shlex.join(words),
    }
    training = vae.results.training if vae.results else None
    assert training is not None
    named["hardware"] = hardware(training.device, training.num_threads)
    row = measure(vae, protocol, config, named)
    write_row(file, row)
    return row


def row_of_run(protocol: Protocol, argument: str) -> Row:
    """The row of a run that `textvae train` has finished; the argument is METHOD=DIR."""
    method, _, folder = argument.partition("=")
    run = Path(folder)
    if not method or not folder:
        raise ConfigError(f"--run {argument}: must be METHOD=DIR")
    config = decode(read_config_file(run / "experiment.json"), ExperimentConfig, source=str(run))
    vae = TextVAE.from_pretrained(run)
    if vae.results is None or not vae.results.training.finished:
        raise ConfigError(f"--run {argument}: this run is not finished; continue it first")
    paper = METHODS[method].paper if method in METHODS else ""
    words = [] if protocol.data is None else [protocol.data]
    command = shlex.join(["textvae", "train", *words, "--config", str(run / "experiment.json")])
    size = "all" if protocol.limit is None else str(protocol.limit)
    weights = (run / MANIFEST).read_bytes()  # it holds their checksum
    mark = hashlib.sha256(fingerprint(protocol, config).encode() + weights).hexdigest()
    name = f"{method}-seed{config.seed}-given-K{protocol.num_samples}-{size}.json"
    file = protocol.output / "rows" / name
    row = read_row(file, mark)
    if row is None:
        training = vae.results.training
        where = f"{training.device}, {training.num_threads} threads, trained elsewhere"
        named = {"key": mark, "method": method, "paper": paper, "command": command}
        named["hardware"] = where
        row = measure(vae, protocol, config, named)
        write_row(file, row)
    return row


def log(line: str) -> None:
    """Print a message on stderr."""
    print(line, file=sys.stderr, flush=True)


def _listed(text: str, what: str, known: list[str]) -> list[str]:
    names = known if text == "all" else [name.strip() for name in text.split(",") if name.strip()]
    wrong = [name for name in names if name not in known]
    if wrong or not names:
        name = wrong[0] if wrong else "nothing"
        raise click.BadParameter(f"{name}: they are {', '.join(known)}, or all", param_hint=what)
    return list(dict.fromkeys(names))


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        seeds = [-1]
    if min(seeds) < 0:
        raise click.BadParameter(f"{text}: must be numbers such as 0,1,2", param_hint="--seeds")
    return list(dict.fromkeys(seeds))


@click.command(help=__doc__)
@click.argument("recipe")
@click.argument("data")
@click.option("--methods", default="recipe", show_default=True, help="Names with commas, or all.")
@click.option("--seeds", default="0", show_default=True, help="Numbers with commas.")
@click.option("--samples", type=click.IntRange(min=1), default=500, show_default=True, help="K.")
@click.option(
    "--limit", type=click.IntRange(min=2), help="Number of test sentences, always the same."
)
@click.option("--max-steps", type=click.IntRange(min=1), help="Of a method of cost 1.")
@click.option("--set", "settings", multiple=True, metavar="KEY.PATH=VALUE", help="For all methods.")
@click.option("--run", "runs", multiple=True, metavar="METHOD=DIR", help="A run that is finished.")
@click.option("--output", metavar="DIR", help="[default: runs/reproduce/CORPUS]")
@click.option("--json", "as_json", metavar="FILE", help="All rows in one file too.")
def main(
    recipe: str,
    data: str,
    methods: str,
    seeds: str,
    samples: int,
    limit: int | None,
    max_steps: int | None,
    settings: tuple[str, ...],
    runs: tuple[str, ...],
    output: str | None,
    as_json: str | None,
) -> None:
    """Make the table."""
    corpus = data.rstrip("/").rsplit("/", 1)[-1].partition(".")[0]
    steps = () if max_steps is None else (f"train.max_steps={max_steps}",)
    protocol = Protocol(
        recipe=recipe,
        data=None if data == "embedded" else data,
        corpus=corpus,
        settings=(*settings, *steps),
        num_samples=samples,
        limit=limit,
        output=Path(output or f"runs/reproduce/{corpus}"),
    )
    names = [] if methods == "none" else _listed(methods, "--methods", list(METHODS))
    jobs: dict[str, Callable[[], Row]] = {
        argument: partial(row_of_run, protocol, argument) for argument in runs
    }
    for seed in _seeds(seeds):
        jobs |= {f"{name} {seed}": partial(row_of, protocol, name, seed) for name in names}
    rows: list[Row] = []
    failures: list[str] = []
    stopped = False
    for label, make in jobs.items():
        try:
            rows.append(make())
        except (StopError, KeyboardInterrupt):
            stopped = True
            break
        except (
            Exception
        ) as error:  # the other methods still run; this one is listed below the table
            if not isinstance(error, TextVAEError):
                traceback.print_exc()
            failures.append(f"{label}: {' '.join(str(error).split())}")
            log(f"failed: {failures[-1]}")
    _print(rows, failures, as_json, protocol)
    sys.exit(130 if stopped else 1 if failures else 0)


def _print(rows: list[Row], failures: list[str], file: str | None, protocol: Protocol) -> None:
    order = [*METHODS, *(row.method for row in rows)]  # a finished run may have any name
    rows = sorted(rows, key=lambda row: (order.index(row.method), row.seed))
    if rows:
        published = [one for one in PUBLISHED if one.corpus == protocol.corpus]
        print(caption(rows), markdown(rows, published), papers(rows), sep="\n\n")
    for line in failures:
        print(f"\nfailed: {line}")
    if file is not None:
        write_file(Path(file), msgspec.json.format(msgspec.json.encode(rows), indent=2) + b"\n")


if __name__ == "__main__":
    main()
