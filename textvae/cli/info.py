"""`textvae info`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from textvae.cli import options
from textvae.cli.arguments import find_model
from textvae.cli.terminal import emit, emit_json, emit_lines, flush
from textvae.errors import CheckpointError

if TYPE_CHECKING:
    from textvae.api.text_vae import TextVAE
    from textvae.storage.checkpoint import FileCheck


@click.command(
    "info",
    help="""MODEL is a run or model directory; left out, the newest run under runs/.

    --verify compares every file, those of the saved states too, with its checksum, and ends with
    exit code 2 where one is wrong. With --json: one object with `model`, `config`, `tokenizer`,
    `vocabulary_size`, `num_parameters`, `results` (data, training and figures)
    and, with --verify, `files`.""",
)
@click.argument("model", required=False)
@click.option("--verify", is_flag=True, help="Check every checksum.")
@options.as_json
def command(model: str | None, verify: bool, as_json: bool) -> None:
    """Say what a model is."""
    where = find_model(model)
    checks = _verified(where, as_json=as_json) if verify else []
    vae = options.load(where, "cpu")  # says itself which model it is
    if as_json:
        emit_json(_facts(where, vae) | ({"files": _files(checks)} if verify else {}))
    else:
        emit_lines("\n".join(_lines(where, vae)))
        if verify:
            emit(f"checksums   all {len(checks)} files are right")


def _verified(where: Path, *, as_json: bool) -> "list[FileCheck]":
    """The checks of a directory that passes them; else they are the result, and an error."""
    from textvae.storage.checkpoint import verify_directory  # noqa: PLC0415 -- imports msgspec, 20 ms

    checks = verify_directory(where)
    wrong = [check for check in checks if check.problem is not None]
    if not wrong:
        return checks
    if as_json:
        emit_json({"model": str(where), "files": _files(checks)})
    else:
        for check in checks:
            emit(f"{'ok' if check.problem is None else 'WRONG':<7}{check.name}")
    flush()
    problems = "; ".join(str(check.problem) for check in wrong)
    raise CheckpointError(f"{len(wrong)} of {len(checks)} files are wrong: {problems}")


def _files(checks: "list[FileCheck]") -> list[dict[str, Any]]:
    return [check._asdict() for check in checks]


def _facts(where: Path, vae: "TextVAE") -> dict[str, Any]:
    return {
        "model": str(where),
        "config": vae.config,
        "tokenizer": vae.tokenizer.kind,
        "vocabulary_size": vae.tokenizer.vocabulary_size,
        "num_parameters": sum(p.numel() for p in vae.model.parameters()),
        "results": vae.results,
    }


def _lines(where: Path, vae: "TextVAE") -> list[str]:
    config, results = vae.config, vae.results
    parameters = sum(p.numel() for p in vae.model.parameters())
    lines = [
        f"model       {where}",
        *_latent_lines(vae),
        f"decoder     {vae.model.decoder.description}",
        f"parameters  {parameters:,}",
        f"tokenizer   {vae.tokenizer.kind}, {vae.tokenizer.vocabulary_size:,} in the vocabulary",
        f"sentences   at most {config.max_length:,} tokens",
    ]
    if results is None:
        return [*lines, "results     none: this run is not finished"]

    from textvae.run.data import describe  # noqa: PLC0415 -- imports torch, 1.5 s

    training = results.training
    lines += [f"data        {results.data.source}", *(f"  {row}" for row in describe(results.data))]
    stopped = "" if training.finished else "; stopped before its end"
    temperature = training.temperature
    calibrated = "" if temperature == 1.0 else f"; logits divided by {temperature:.3f} since"
    lines.append(
        f"training    {training.steps:,} steps in {training.seconds:,.0f} s on {training.device} "
        f"({training.num_threads} threads, {training.precision}); weights of step "
        f"{training.best_step:,}{stopped}{calibrated}"
    )
    if results.evaluation is not None:
        lines += [f"figures     on {results.evaluation.source}", results.evaluation.table()]
    return lines


def _latent_lines(vae: "TextVAE") -> list[str]:
    model = vae.model
    if model.is_language_model:
        return ["latent      none: a language model"]
    return [
        f"latent      {model.prior.latent_dim} dimensions, {model.prior.description}",
        f"encoder     {model.encoder.description}",
    ]
