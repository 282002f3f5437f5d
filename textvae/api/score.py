"""Anomaly scores of a stream of sentences: memory does not grow with their number.

The formulas of the scores are in `metrics/scores.py`, the sentences they are compared with in
`api/score_reference.py`, and how well they separate anomalies in `metrics/anomaly.py`.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from textvae.api.inputs import TokenizedPart, tokenize_stream
from textvae.api.score_reference import Reference, check_background, spelling_nats
from textvae.api.text_vae import TextVAE
from textvae.data.rows import RowCounts, TooLong
from textvae.errors import ConfigError, DataError
from textvae.metrics.scores import (
    LATENT_KINDS,
    SCORE_KINDS,
    ScoreFunction,
    fit_score,
    measure_features,
)
from textvae.model.interfaces import UNKNOWN
from textvae.run.model_directory import require_latent

TOGETHER = 256
"""Sentences scored in one go, sorted by length among themselves."""
DEFAULT = "nll_per_token"
"""Chosen on the validation sets of five tasks with three seeds each (docs/results/results.md)."""


class Scored(NamedTuple):
    """A sentence and its anomaly score."""

    text: str
    row: int
    """The row of the sentence in its stream, from 0; rows without a score count."""
    cut: bool
    """True for the beginning of a longer text, scored without `</s>`."""
    score: float
    """Higher is more anomalous."""
    nll: float
    """Minus the importance-weighted log-likelihood, nats, `</s>` counted."""
    kl: float
    reconstruction: float
    """-log p(x|z) averaged over the samples, nats."""
    num_tokens: int
    """`</s>` counted, where the sentence has one."""
    num_unknown: int
    """Words that are not in the vocabulary, among the tokens."""
    percentile: float
    """The percentage of training sentences with a lower score, ties counted half."""


def score(
    vae: TextVAE,
    sentences: Iterable[str],
    reference: Reference,
    *,
    by: str = DEFAULT,
    background: TextVAE | None = None,
    source: str = "the sentences given",
    too_long: TooLong = "cut",
    counts: RowCounts | None = None,
    together: int = TOGETHER,
) -> Iterator[Scored]:
    """The anomaly score of each sentence of a stream, in its order.

    A score is a function of the sentence, the model and the reference (whose number of samples and
    seed are used), not of the place in the stream. Several processes, each of which has the whole
    stream, share the work, and all of them get all scores.

    Args:
        vae: the model.
        sentences: any number of rows; a blank one has no score.
        reference: from `reference_of`.
        by: which score, such as "nll".
        background: the language model that the reference was measured with, if it was with one.
        source: where the sentences are from, for errors.
        too_long: what becomes of rows over the model's limit of tokens.
        counts: counts the rows without a result, and those cut or split.
        together: sentences scored at a time; no effect on the result but rounding (1e-5).

    Raises:
        DataError: with `too_long="refuse"`, a sentence over the limit, once it is reached; the
            sentences before it are scored first.
        ConfigError: no such score; another background than that of the reference.
        CheckpointError: a score about the latent, and the model is a language model.
    """
    fitted, facts = _fitted(vae, by, reference), reference.facts
    known = "" if background is None else check_background(vae, background)
    if known != facts.background_sha256:
        raise ConfigError("the reference was measured with another background model than is given")
    normal = fitted(reference.train).sort().values
    parts = tokenize_stream(
        vae.tokenizer,
        sentences,
        limit=vae.config.max_length,
        source=source,
        too_long=too_long,
        counts=counts,
        together=together,
    )
    for part in parts:
        if part.texts:
            yield from _scored(vae, part, reference, fitted, normal, background)
        if part.error is not None:
            raise part.error


def _scored(
    vae: TextVAE,
    part: TokenizedPart,
    reference: Reference,
    fitted: ScoreFunction,
    normal: Tensor,
    background: TextVAE | None,
) -> Iterator[Scored]:
    features = measure_features(
        vae.model,
        part.array(vae.tokenizer),
        num_samples=reference.facts.num_samples,
        seed=reference.facts.seed,
        unigram=reference.unigram,
        background=None if background is None else background.model,
        aggregate=reference.aggregate,
        spelling=spelling_nats(vae, part.texts),
    )
    scores = fitted(features)
    columns = (scores, features.nll, features.kl, features.reconstruction)
    numbers = (column.tolist() for column in columns)
    lengths = features.num_tokens.long().tolist()
    ranks = _percentiles(normal, scores).tolist()
    unknown = [ids.count(UNKNOWN) for ids in part.tokens]
    places = part.texts, part.rows, part.cut
    for one in zip(*places, *numbers, lengths, unknown, ranks, strict=True):
        yield Scored(*one)


def threshold(vae: TextVAE, reference: Reference, rate: float, *, by: str = DEFAULT) -> float:
    """The score above which a sentence is called an anomaly, for a false-alarm rate.

    With n validation scores, the k-th largest, k = floor(rate (n + 1)): a new normal sentence that
    is exchangeable with them exceeds it with a probability of at most `rate` (the conformal
    anomaly detector of Laxhammar and Falkman 2011).

    Args:
        vae: the model.
        reference: whose validation sentences are taken.
        rate: above 0, below 1.
        by: which score, such as "nll".

    Raises:
        ConfigError: a rate out of bounds, or one that so few sentences cannot tell from 0.
        DataError: the reference has no validation sentences.
    """
    if not 0.0 < rate < 1.0:
        raise ConfigError(f"--threshold {rate:g}: a false-alarm rate is above 0 and below 1")
    if reference.valid is None:
        raise DataError("no validation sentences to set a threshold on; name some with --valid")
    scores = _fitted(vae, by, reference)(reference.valid).sort(descending=True).values
    allowed = int(rate * (len(scores) + 1) + 1e-9)
    if allowed < 1:
        raise ConfigError(
            f"--threshold {rate:g}: {len(scores):,} validation sentences tell no rate below "
            f"{1.0 / (len(scores) + 1):.2g}; give more with --valid, or a higher rate"
        )
    return float(scores[allowed - 1])


def _fitted(vae: TextVAE, kind: str, reference: Reference) -> ScoreFunction:
    if kind not in SCORE_KINDS:
        raise ConfigError(f"--score {kind}: must be one of {', '.join(SCORE_KINDS)}")
    if kind in LATENT_KINDS:
        require_latent(vae.model, vae.path)
    return fit_score(kind, reference.unseen)


def _percentiles(normal: Tensor, scores: Tensor) -> Tensor:
    """The percentage of sorted scores `[R]` below each of `scores`, ties counted half."""
    below = torch.searchsorted(normal, scores) + torch.searchsorted(normal, scores, right=True)
    return 50.0 * below / len(normal)
