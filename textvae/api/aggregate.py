"""The aggregate posterior of a model, fitted as a mixture of Gaussians: what data latents do."""

from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path

from textvae.api.text_vae import TextVAE
from textvae.data.batching import TokenArray
from textvae.data.corpus import sentences_of
from textvae.errors import CheckpointError, ConfigError, DataError
from textvae.metrics.aggregate import Chosen, choose_mixture
from textvae.metrics.likelihood import encode_corpus
from textvae.randomness import key, permutation
from textvae.run.aggregate_file import Aggregate, AggregateFacts, write_aggregate
from textvae.run.data import tokenize_sentences
from textvae.run.held_out import run_split
from textvae.run.model_directory import require_latent
from textvae.storage.checkpoint import EXPERIMENT
from textvae.storage.lock import only_writer
from textvae.storage.manifest import MANIFEST

SENTENCES = 10_000
"""Of which nine tenths are fitted to: seconds of work."""


def fit_aggregate(
    vae: TextVAE,
    sentences: Iterable[str] | None = None,
    *,
    num_components: int | None = None,
    max_components: int = 64,
    diagonal: bool = False,
    max_sentences: int = SENTENCES,
    seed: int = 0,
    source: str = "the sentences given",
) -> Chosen:
    """Fit a mixture to the aggregate posterior, and keep it as `vae.aggregate`.

    `vae.sample(prior="aggregate")` and `vae.interpolate(path="data")` then use it.

    Args:
        vae: the model.
        sentences: none blank; None is the run's train split. Those over the limit are left out.
        num_components: M; None is the best of 1, 2, 4, ... on a tenth that is held out.
        max_components: the most that is tried.
        diagonal: of the covariances, which are full otherwise.
        max_sentences: a random subset of this size is taken where there are more.
        seed: of the subset, the split and the starts.
        source: where the sentences are from, for errors and `info`.

    Returns:
        The mixture, how it did on the sentences held out, and what else was tried.

    Raises:
        DataError: no sentences, or a blank one.
        ConfigError: a number out of bounds.
        CheckpointError: the model is a language model.
    """
    require_latent(vae.model, vae.path)
    if max_sentences < 2:
        raise ConfigError(f"--sentences {max_sentences}: must be at least 2")
    array, source, sha256 = _corpus(vae, sentences, source)
    some = permutation(key(seed, "aggregate sentences"), array.num_sentences)[:max_sentences]
    chosen = choose_mixture(
        encode_corpus(vae.model, array.select(some).to(vae.model.device)),
        vae.model.prior,
        seed=seed,
        num_components=num_components,
        max_components=max_components,
        diagonal=diagonal,
    )
    facts = AggregateFacts(
        source=source,
        sha256=sha256,
        num_fitted=chosen.num_fitted,
        num_held_out=chosen.num_held_out,
        covariance="diagonal" if diagonal else "full",
        seed=seed,
        iterations=chosen.fit.iterations,
        log_prob=chosen.best.log_prob,
        gain=chosen.best.gain,
        gain_stderr=chosen.best.gain_stderr,
    )
    vae.aggregate = Aggregate(chosen.fit.mixture, facts)
    return chosen


def save_aggregate(vae: TextVAE) -> Path:
    """Write the mixture of a model into its directory; where the model was.

    Raises:
        CheckpointError: no directory, no mixture, a run that is not finished or that another
            process trains, or a directory that cannot be written.
    """
    if vae.path is None or vae.aggregate is None:
        missing = "directory" if vae.path is None else "aggregate posterior"
        raise CheckpointError(f"this model has no {missing}; save it with save_pretrained")
    is_run = (vae.path / EXPERIMENT).exists()
    if is_run and not (vae.path / MANIFEST).exists():
        raise CheckpointError(
            f"{vae.path}: this run has not finished a model yet; continue it with the same train "
            "command"
        )
    with only_writer(vae.path) if is_run else nullcontext():
        write_aggregate(vae.path, vae.aggregate)
    return vae.path


def _corpus(
    vae: TextVAE, sentences: Iterable[str] | None, source: str
) -> tuple[TokenArray, str, str]:
    """What is fitted to: tokens, their source and its sha256."""
    if isinstance(sentences, str):
        raise DataError(f"{source}: is one string; give a list of sentences")
    if sentences is not None:
        texts = list(sentences)
        for number, text in enumerate(texts, start=1):
            if not text.strip():
                raise DataError(f"{source}: sentence {number} is blank; leave it out")
        part = sentences_of(texts, source=source)
    else:
        found = run_split(vae.origin, "train")
        if found is None:
            where = vae.path or "this model"
            raise DataError(
                f"{where}: has no data of a run; give the sentences, with --corpus FILE"
            )
        return found.array, found.facts.read.source, found.facts.read.sha256
    array, facts, _ = tokenize_sentences(part, vae.tokenizer, vae.config.max_length)
    return array, facts.read.source, facts.read.sha256
