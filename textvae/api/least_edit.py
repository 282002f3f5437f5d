"""Edits that keep the sentence: of several candidates the one that changes least and is accepted.

A logistic regression on posterior means tells sentences with an attribute from those without it. A
sentence moves along the direction C w, where w are the weights of the regression and C is the
covariance of the means within the two sets: of all moves that raise its log-odds by so much, the
one that is shortest in the metric of C (Fisher's discriminant has the same direction). Sentences
are decoded at several log-odds, greedily and by a beam. Candidates are these and all that lie
between them and the sentence: of the places where one differs from the sentence, any subset is
changed back. Each candidate is encoded again, and of those whose log-odds come out beyond a margin
the one with the fewest changed tokens is taken, where nats of log p(x) that the sentence loses
count as changes.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator
from itertools import product
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
MARGIN = 2.5
"""Log-odds that a candidate must have once it is encoded again: a probability of 0.92."""
STRATEGIES: tuple[StrategyName, ...] = ("greedy", "beam")
MOST_PLACES = 5
"""Changes of which all subsets are candidates, at most: 32 subsets."""
NUM_READ = 20
"""Candidates whose log p(x) is computed, at most: the nearest, up to two changes further."""
LOSS = 0.3
"""Changes that a nat of log p(x) counts for."""
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
        # A sentence that has the attribute is its own nearest candidate.
        strengths = [{text: 0.0} for text in texts]
        for target in (None, *TARGETS):
            moves = torch.zeros_like(before) if target is None else (target - before).clamp(min=0)
            latents = mean + (moves[:, None] * attribute.direction).to(mean)
            for strategy in STRATEGIES:
                written = sentences_at_conditions(vae, [(latents, labels)], strategy=strategy)
                for by_text, text, move in zip(strengths, written, moves.tolist(), strict=True):
                    by_text.setdefault(text, move)
        for text, by_text in zip(texts, strengths, strict=True):
            yield _least(vae, attribute, text, by_text, margin)


def _least(
    vae: TextVAE, attribute: Attribute, sentence: str, strengths: dict[str, float], margin: float
) -> Edited:
    """The best accepted candidate; if none is accepted, the most probable one.

    `strengths`: of the sentences decoded, and of the sentence itself.
    """
    kind, candidates = vae.tokenizer.kind, dict[str, float]()
    # Words where there are blanks, else the pieces that texts are made of without any.
    blank = " " if kind == "word" or " " in sentence.strip() else ""
    cut: Callable[[str], list[str]] = vae.tokenizer.token_texts
    if blank or kind == "bpe":
        cut = str.split if blank else list
    for text, strength in strengths.items():
        for units in between(cut(sentence), cut(text), lowercase=vae.tokenizer.lowercase):
            candidates.setdefault(blank.join(units), strength)
    limit = vae.config.max_length
    tokens = {text: _tokens(vae, text) for text in candidates if text.strip()}
    texts = [text for text, pieces in tokens.items() if len(pieces) <= limit]
    odds = attribute.log_odds(vae.encode(texts).mean).tolist()
    reference = _tokens(vae, sentence)
    changed = edit_distances([tokens[text] for text in texts], [reference] * len(texts))
    rows = [
        Edited(
            sentence,
            text,
            float(torch.tensor(logit).sigmoid()),
            logit >= margin,
            distance,
            candidates[text],
        )
        for text, logit, distance in zip(texts, odds, changed, strict=True)
    ]
    rows.sort(key=_rank, reverse=True)
    if not rows[0].accepted:
        return rows[0]
    near = [one for one in rows if one.accepted and one.num_changed <= rows[0].num_changed + 2]
    near = near[:NUM_READ]
    if len(near) == 1:
        return near[0]
    # Of those that change about as little, one that reads as well as the sentence did.
    log_probs = vae.log_prob([sentence, *(one.text for one in near)], num_samples=1)
    costs = (log_probs[0] - log_probs[1:]).clamp(min=0) * LOSS
    changes = [one.num_changed + cost for one, cost in zip(near, costs.tolist(), strict=True)]
    return near[changes.index(min(changes))]


def _rank(edited: Edited) -> tuple[bool, float, float]:
    """Accepted first, then fewer changes; if none is accepted, the more probable."""
    fewest = -float(edited.num_changed) if edited.accepted else 0.0
    return edited.accepted, fewest, edited.probability


def between(
    sentence: list[str], text: list[str], *, lowercase: bool = False
) -> Iterator[list[str]]:
    """Sentences with any subset of the changes that lead from a sentence to a text.

    Beyond `MOST_PLACES` changes: the text alone.

    Args:
        sentence: units, such as words.
        text: likewise.
        lowercase: case is no change.
    """
    old, new = ([unit.lower() if lowercase else unit for unit in one] for one in (sentence, text))
    parts = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    if sum(kind != "equal" for kind, *_ in parts) > MOST_PLACES:
        yield text
        return
    choices = [
        (sentence[a:b],) if kind == "equal" else (sentence[a:b], text[c:d])
        for kind, a, b, c, d in parts
    ]
    for pieces in product(*choices):
        yield [unit for piece in pieces for unit in piece]


def _tokens(vae: TextVAE, text: str) -> list[str]:
    """The tokens of the model, in which changes are counted; not what stands between blanks."""
    if vae.tokenizer.kind == "bpe":
        return [str(index) for index in vae.tokenizer.encode(text)]
    return vae.tokenizer.token_texts(text)
