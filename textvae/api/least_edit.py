"""Edits that keep the sentence: of several candidates the one that changes least and is accepted.

A logistic regression on posterior means tells sentences with an attribute from those without it. A
sentence moves along the direction C w, where w are the weights of the regression and C is the
covariance of the means within the two sets: of all moves that raise its log-odds by so much, the
one that is shortest in the metric of C (Fisher's discriminant has the same direction). Candidates
are decoded at several log-odds, greedily and by a beam; each is encoded again, and of those whose
log-odds come out beyond a margin the one with the fewest changed tokens is taken.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from textvae.api.latent_space import posteriors, sentences_at_conditions
from textvae.api.text_vae import TextVAE
from textvae.data.rows import RowCounts, TooLong
from textvae.errors import DataError
from textvae.generate.options import StrategyName
from textvae.metrics.text_quality import edit_distances

TARGETS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 11.0, 15.0)
"""Log-odds that the latents of candidates have."""
MARGIN = 1.0
"""Log-odds that a candidate must have once it is encoded again: a probability of 0.73."""
STRATEGIES: tuple[StrategyName, ...] = ("greedy", "beam")
PENALTY = 5e-4
"""Weight of the squared weights on standardized means in the loss."""
MOST = 20_000
"""Sentences of each set that the regression is fitted to, at most: the first."""


class Attribute(NamedTuple):
    """A classifier of latents, and the direction in which it is satisfied by the least change."""

    weight: Tensor
    """Float32 `[Z]`, on the CPU."""
    bias: float
    direction: Tensor
    """Float32 `[Z]`; a step of 1 raises the log-odds by 1."""
    num_from: int
    """Sentences without the attribute that it was fitted to."""
    num_to: int
    """Sentences with it."""

    def log_odds(self, means: Tensor) -> Tensor:
        """Log-odds of the attribute at latents `[N, Z]`: `[N]`."""
        return means.cpu() @ self.weight + self.bias


class Edited(NamedTuple):
    """A sentence and what became of it."""

    sentence: str
    text: str
    probability: float
    """Probability of the attribute for the text once it is encoded again, by the classifier."""
    accepted: bool
    """The probability is large enough; else the text is the candidate where it is largest."""
    num_changed: int
    """The fewest tokens to insert, delete or replace."""
    strength: float
    """How far the latent moved, in units of log-odds; 0 is the reconstruction."""


def attribute_of(
    vae: TextVAE,
    without: Iterable[str],
    having: Iterable[str],
    *,
    sources: tuple[str, str] = ("the sentences without", "the sentences with"),
    too_long: TooLong = "drop",
    counts: RowCounts | None = None,
) -> Attribute:
    """Fit the classifier of an attribute to sentences without it and sentences with it.

    Args:
        vae: the model.
        without: sentences, as a stream.
        having: sentences, as a stream.
        sources: where the two are from, for errors.
        too_long: as for `posteriors`.
        counts: likewise.

    Raises:
        DataError: as `posteriors`; fewer than two sentences on one side.
    """
    sets = []
    for sentences, source in zip((without, having), sources, strict=True):
        means, size = list[Tensor](), 0
        for part in posteriors(vae, sentences, source=source, too_long=too_long, counts=counts):
            means.append(part.posterior.mean.cpu().double())
            size += len(means[-1])
            if size >= MOST:
                break
        if size < 2:
            raise DataError(f"{source}: holds {size} sentences that the model takes, expected 2")
        sets.append(torch.cat(means)[:MOST])
    weight, bias = fit_logistic(torch.cat(sets), len(sets[0]))
    centred = torch.cat([one - one.mean(0) for one in sets])
    direction = centred.t() @ (centred @ weight) / len(centred)
    # Where the sets have no spread that the classifier sees, its own weights are the direction.
    gain = float(weight @ direction)
    direction = direction / gain if gain > 1e-12 else weight / float(weight @ weight)
    return Attribute(weight.float(), bias, direction.float(), len(sets[0]), len(sets[1]))


def fit_logistic(points: Tensor, num_from: int) -> tuple[Tensor, float]:
    """Logistic regression with a squared penalty, both classes weighing the same.

    Args:
        points: float64 `[N, Z]`, the first `num_from` of class 0.
        num_from: of class 0.

    Returns:
        Weights `[Z]` and the bias, for points as they are.
    """
    mean, scale = points.mean(0), points.std(0).clamp(min=1e-6)
    standard = (points - mean) / scale
    labels = (torch.arange(len(points)) >= num_from).double()
    share = labels.mean()
    balance = torch.where(labels > 0, 0.5 / share, 0.5 / (1 - share))
    parameters = torch.zeros(points.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([parameters], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = standard @ parameters[:-1] + parameters[-1]
        value = F.binary_cross_entropy_with_logits(logits, labels, balance)
        value = value + PENALTY * parameters[:-1].square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    weight = parameters.detach()[:-1] / scale
    return weight, float(parameters.detach()[-1] - weight @ mean)


def edit_least(
    vae: TextVAE,
    sentences: Iterable[str],
    attribute: Attribute,
    *,
    margin: float = MARGIN,
    label: str | None = None,
    source: str = "the sentences given",
) -> Iterator[Edited]:
    """Give sentences an attribute with as little change as the classifier allows.

    Args:
        vae: the model.
        sentences: any number of them.
        attribute: of `attribute_of`, for this model.
        margin: log-odds that an accepted text has; more is surer and changes more.
        label: of the results, of a model with labels; None is the likeliest of each sentence.
        source: where the sentences are from, for errors.

    Raises:
        DataError: as `posteriors`.
    """
    for part in posteriors(vae, sentences, source=source, too_long="refuse", together=256):
        mean, texts = part.posterior.mean, list(part.texts)
        before = attribute.log_odds(mean)
        labels = label or vae.likeliest_labels(texts)
        best: list[Edited | None] = [None] * len(texts)
        # Without a move first: a sentence may have the attribute.
        for target in (None, *TARGETS):
            moves = torch.zeros_like(before) if target is None else (target - before).clamp(min=0)
            latents = mean + (moves[:, None] * attribute.direction).to(mean)
            for strategy in STRATEGIES:
                written = list(sentences_at_conditions(vae, [(latents, labels)], strategy=strategy))
                candidates = _judged(vae, attribute, texts, written, moves, margin)
                best = [_better(a, b) for a, b in zip(best, candidates, strict=True)]
        yield from (one for one in best if one is not None)


def _judged(
    vae: TextVAE,
    attribute: Attribute,
    sentences: list[str],
    written: list[str],
    moves: Tensor,
    margin: float,
) -> list[Edited]:
    """Candidates with the probability that they have the attribute."""
    readable = [
        text if text.strip() else sentence
        for text, sentence in zip(written, sentences, strict=True)
    ]
    odds = attribute.log_odds(vae.encode(readable).mean)
    distances = edit_distances(_tokens(vae, written), _tokens(vae, sentences))
    rows = zip(sentences, written, odds.tolist(), distances, moves.tolist(), strict=True)
    return [
        Edited(
            sentence,
            text,
            float(torch.tensor(logit).sigmoid()),
            logit >= margin and bool(text.strip()),
            int(distance),
            move,
        )
        for sentence, text, logit, distance, move in rows
    ]


def _tokens(vae: TextVAE, texts: list[str]) -> list[list[str]]:
    """The tokens of the model, in which changes are counted; not what stands between blanks."""
    if vae.tokenizer.kind == "bpe":
        return [[str(index) for index in vae.tokenizer.encode(text)] for text in texts]
    return [vae.tokenizer.token_texts(text) for text in texts]


def _better(first: Edited | None, second: Edited) -> Edited:
    """The accepted one with fewer changes; if none is accepted, the more probable one."""
    if first is None:
        return second
    if first.accepted and second.accepted:
        return second if second.num_changed < first.num_changed else first
    if first.accepted or second.accepted:
        return first if first.accepted else second
    return second if second.probability > first.probability else first
