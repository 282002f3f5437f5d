"""All evaluators of a config in one pass over a corpus: figures, settings and provenance."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from msgspec import structs

from textvae.api.text_vae import TextVAE
from textvae.data.rows import TooLong
from textvae.evaluate.bounds import LikelihoodEvaluator
from textvae.evaluate.evaluators import (
    EvaluatorConfig,
    check_evaluators,
    choose_evaluators,
    measure,
)
from textvae.evaluate.measurements import Measurements
from textvae.run.experiment import load_config, read_experiment
from textvae.run.held_out import held_out, subject_of
from textvae.storage.checkpoint import EXPERIMENT


def configured_evaluators(path: Path | None) -> tuple[EvaluatorConfig, ...] | None:
    """The evaluators of the config of a run; None without a config, or if it names none.

    Raises:
        ConfigError: the run's experiment.json cannot be read.
    """
    file = None if path is None else path / EXPERIMENT
    if file is None or not file.is_file():
        return None
    return read_experiment(file).evaluate.evaluators


def run_evaluators(
    vae: TextVAE,
    data: str | Path | Sequence[str] | None = None,
    *,
    evaluators: Sequence[EvaluatorConfig] | str | None = None,
    config: str | Path | None = None,
    num_samples: int | None = None,
    seed: int = 0,
    rows: int | None = None,
    dtype: torch.dtype = torch.float32,
    text_column: str | None = None,
    separator: str | None = None,
    encoding: str | None = None,
    too_long: TooLong = "drop",
    note: Callable[[str], object] = lambda line: None,
    report: Callable[[str], object] = lambda line: None,
) -> Measurements:
    """Measure a model on sentences, evaluator by evaluator.

    Args:
        vae: the model.
        data: a file, a directory (its test split), `hf:name`, or a list of sentences; None is the
            test split that the run was made with.
        evaluators: configs, or names such as `"likelihood,samples"` with the run's settings of
            them; None is what the run's config names, else the default.
        config: a file of settings in place of those of the run.
        num_samples: K of the importance-weighted bound, in place of that of the settings.
        seed: of everything drawn.
        rows: latents decoded at once, which bounds the memory; no effect on the result.
        dtype: of the matrix products.
        text_column: of a table.
        separator: of its cells; None finds it.
        encoding: None is UTF-8, or UTF-16 with a byte order mark.
        too_long: what becomes of sentences over the model's limit of tokens.
        note: takes a line for each reason why rows were left out or cut.
        report: takes lines of progress.

    Raises:
        DataError: sentences that cannot be read; one over the limit, to be refused.
        ConfigError: an unknown evaluator, or one twice.
    """
    if evaluators is None or isinstance(evaluators, str):
        if config is None:
            configured = configured_evaluators(vae.path)
        else:
            configured = load_config(Path(config)).evaluate.evaluators
        evaluators = choose_evaluators(evaluators, configured)
    if num_samples is not None:
        evaluators = [
            structs.replace(one, num_samples=num_samples)
            if isinstance(one, LikelihoodEvaluator)
            else one
            for one in evaluators
        ]
    evaluators = check_evaluators(evaluators)
    sentences = held_out(
        vae.origin,
        data,
        text_column=text_column,
        separator=separator,
        encoding=encoding,
        too_long=too_long,
    )
    for line in sentences.notes:
        note(line)
    subject = subject_of(
        vae.model, vae.origin, sentences, seed=seed, rows=rows, dtype=dtype, report=report
    )
    return measure(subject, evaluators, path=vae.path)
