"""All evaluators of a config in one pass over a corpus: figures, settings and provenance."""

import hashlib
import platform
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import torch

from textvae.api.text_vae import TextVAE
from textvae.evaluate.evaluators import (
    EvaluatorConfig,
    check_evaluators,
    choose_evaluators,
    kind_of,
)
from textvae.evaluate.measurements import Measured, MeasuredCorpus, MeasuredModel, Measurements
from textvae.evaluate.subject import Corpus, Subject, count_unknown
from textvae.metrics.likelihood import ROWS
from textvae.run.experiment import read_experiment
from textvae.run.held_out import HeldOut, held_out, run_split
from textvae.storage.checkpoint import EXPERIMENT
from textvae.storage.tensors import tensors_to_bytes
from textvae.version import installed_version


def configured_evaluators(path: Path | None) -> tuple[EvaluatorConfig, ...] | None:
    """Those of the config that a run was made with; None where there is none, or it names none.

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
    seed: int = 0,
    rows: int = ROWS,
    dtype: torch.dtype = torch.float32,
    text_column: str | None = None,
    report: Callable[[str], object] = lambda line: None,
) -> Measurements:
    """Measure a model on sentences, evaluator by evaluator.

    Args:
        vae: the model.
        data: a file, a directory (its test split), `hf:name`, or a list of sentences; None is the
            test split that the run was made with.
        evaluators: configs, or names such as `"likelihood,samples"` with the run's settings of
            them; None is what the run's config names, else the default.
        seed: of everything drawn.
        rows: latents decoded at once, which bounds the memory; no effect on the result.
        dtype: of the matrix products.
        text_column: of a table.
        report: takes lines of talk.

    Raises:
        DataError: sentences that cannot be read, or one longer than the model's limit.
        ConfigError: an unknown evaluator, or one twice.
    """
    begun = time.perf_counter()
    chosen = evaluators
    if chosen is None or isinstance(chosen, str):
        chosen = choose_evaluators(chosen, configured_evaluators(vae.path))
    chosen = check_evaluators(chosen)
    found = held_out(vae.origin, data, text_column=text_column)
    subject = _subject(vae, found, seed=seed, rows=rows, dtype=dtype, report=report)
    measured = [_run(one, subject) for one in chosen]
    training = subject.training_if_read
    return Measurements(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=time.perf_counter() - begun,
        model=_model(vae),
        data=subject.facts,
        training=None if training is None else training.facts,
        seed=seed,
        precision=str(dtype).removeprefix("torch."),
        device=str(vae.model.device),
        num_threads=torch.get_num_threads(),
        versions=_versions(),
        measured=measured,
    )


def _subject(
    vae: TextVAE,
    found: HeldOut,
    *,
    seed: int,
    rows: int,
    dtype: torch.dtype,
    report: Callable[[str], object],
) -> Subject:
    return Subject(
        vae.model,
        vae.tokenizer,
        _corpus(found),
        max_length=vae.config.max_length,
        texts=found.texts,
        embedded=found.embedded,
        split=lambda name: _optional(run_split(vae.origin, name)),
        seed=seed,
        rows=rows,
        dtype=dtype,
        report=report,
    )


def _run(evaluator: EvaluatorConfig, subject: Subject) -> Measured:
    begun, kind = time.perf_counter(), kind_of(evaluator)
    subject.report(f"measuring {kind}")
    figures = list(evaluator.run(subject))
    seconds = time.perf_counter() - begun
    config: dict[str, object] = msgspec.to_builtins(evaluator)
    return Measured(evaluator=config, figures=figures, seconds=seconds)


def _corpus(found: HeldOut) -> Corpus:
    facts = MeasuredCorpus(
        source=found.facts.read.source,
        sha256=found.facts.read.sha256,
        num_sentences=found.facts.num_sentences,
        num_tokens=found.facts.num_targets,
        num_words=found.facts.num_words,
        num_characters=found.facts.num_characters,
        num_unknown=count_unknown(found.array),
        decoded=found.texts is None,
    )
    return Corpus(found.array, facts)


def _optional(found: HeldOut | None) -> Corpus | None:
    return None if found is None else _corpus(found)


def _model(vae: TextVAE) -> MeasuredModel:
    data = tensors_to_bytes(vae.model.state_dict())
    return MeasuredModel(
        path=None if vae.path is None else str(vae.path),
        sha256=hashlib.sha256(data).hexdigest(),
        tokenizer=vae.tokenizer.kind,
        vocabulary_size=vae.tokenizer.vocabulary_size,
        latent_dim=vae.config.latent_dim,
        num_parameters=sum(p.numel() for p in vae.model.parameters()),
    )


def _versions() -> dict[str, str]:
    found = {
        "textvae": installed_version(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }
    if "sacrebleu" in sys.modules:
        found["sacrebleu"] = str(sys.modules["sacrebleu"].__version__)
    return found
