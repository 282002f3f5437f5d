"""Each figure of an evaluation in a sentence: what it means, and whether it is good.

A verdict is given only where there is something to measure against: the exact value of the
embedded corpus, token frequencies, or the figure's own scale. The rule is always in the sentence.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

from textvae.metrics.latent_usage import DEAD_COST, DEAD_KL
from textvae.report.markup import shown
from textvae.report.numbers import Number, Numbers

Verdict = Literal["good", "fair", "poor"]


class Judged(NamedTuple):
    """A number and what to make of it."""

    title: str
    value: str
    settings: str
    verdict: Verdict | None
    """None where only a comparison with another model could tell."""
    meaning: str


class _Said(NamedTuple):
    title: str
    meaning: str
    verdict: Verdict | None = None
    value: str | None = None
    """None is the number with its standard error."""
    settings: str | None = None
    """None is the number's own."""


def judge(numbers: Numbers, unigram_perplexity: float) -> dict[str, Judged]:
    """The figures that a reader needs, by name, in the order of reading.

    Args:
        numbers: of an evaluation.
        unigram_perplexity: of the sentences under their own token frequencies.
    """
    said: dict[str, Callable[[Number], _Said]] = {
        "nll": lambda one: _nll(one, numbers),
        "perplexity": lambda one: _perplexity(one, unigram_perplexity),
        "perplexity_per_word": lambda one: _per_word(),
        "bits_per_character": lambda one: _per_character(),
        "elbo": lambda one: _gap(one, numbers),
        "kl": lambda one: _kl(one, numbers),
        "mutual_information": lambda one: _information(one, numbers),
        "aggregate_kl": _aggregate,
        "kl_largest_share": _largest,
        "active_units": lambda one: _units(one, numbers),
        "permutation_cost": lambda one: _permutation(one, numbers),
    }
    figures = dict(numbers.figures)
    if "aggregate_kl" not in figures and {"kl", "mutual_information"} <= figures.keys():
        rest = max(0.0, figures["kl"].value - figures["mutual_information"].value)
        figures["aggregate_kl"] = Number(rest, settings="KL less mutual information")
    passed_over = set() if numbers.latent_dim else {"elbo", "kl", *list(said)[6:]}
    if numbers.tokenizer == "word":  # where words are tokens, they would say the same twice
        passed_over |= {"perplexity_per_word", "bits_per_character"}
    judged = {}
    for name, say in said.items():
        if name in figures and name not in passed_over:
            judged[name] = _judged(figures[name], say(figures[name]))
    return judged


def _judged(number: Number, said: _Said) -> Judged:
    value = said.value
    if value is None:
        error = "" if number.stderr is None else f" \u00b1 {number.stderr:.3f}"
        value = f"{number.value:.3f}{error}".replace("-", "\u2212")
    settings = number.settings if said.settings is None else said.settings
    return Judged(said.title, value, settings, said.verdict, said.meaning)


def _graded(value: float, good: float, fair: float) -> Verdict:
    """At most `good` is good, at most `fair` is fair, more is poor."""
    return "good" if value <= good else "fair" if value <= fair else "poor"


def _nll(one: Number, numbers: Numbers) -> _Said:
    title = "Negative log-likelihood"
    meaning = "Minus log-likelihood of a sentence, in nats; lower is better"
    meaning += (
        ", and the true value is at most this, but for sampling error."
        if numbers.latent_dim
        else "."
    )
    truth = numbers.value("source_nll")
    if not truth:
        meaning += " It depends on the corpus, so compare it only on these sentences."
        return _Said(title, meaning)
    above = 100.0 * (one.value / truth - 1.0)
    meaning += (
        f" The grammar that wrote these sentences scores {truth:.3f}, which no model beats in the "
        f"long run: this one is {above:.2f} % above it (to 2 % is good, to 5 % fair)."
    )
    return _Said(title, meaning, _graded(above, 2.0, 5.0))


def _perplexity(one: Number, unigram: float) -> _Said:
    return _Said(
        "Perplexity",
        f"At each token the model is as unsure as if it chose fairly among {shown(one.value)}. "
        "Knowing nothing but how often each token occurs in these sentences, it would be among "
        f"{shown(unigram)}: below half of that is good, above it poor. It cannot be compared with "
        "that of a model with another tokenizer.",
        _graded(one.value / unigram, 0.5, 1.0),
        shown(one.value),
    )


def _per_word() -> _Said:
    return _Said(
        "Perplexity of a word",
        "The same likelihood shared among words: this one may be compared with models that have "
        "another tokenizer, on the same sentences.",
    )


def _per_character() -> _Said:
    return _Said(
        "Bits a character",
        "What it would take to send these sentences with this model; it compares across "
        "tokenizers, and with compressors.",
    )


def _gap(one: Number, numbers: Numbers) -> _Said:
    title, nll = "Gap of the ELBO", numbers.value("nll")
    value = f"ELBO {one.value:.3f}".replace("-", "\u2212")
    if nll is None:
        return _Said("ELBO", "A bound below the log-likelihood, in nats.")
    gap = -one.value - nll
    share = 100.0 * gap / nll if nll > 0.0 else 0.0
    return _Said(
        title,
        "How many nats the bound that training raises lies below the tighter one: "
        f"{share:.1f} % of it. It is the price of an approximate posterior (to 5 % is good, to "
        "10 % fair).",
        _graded(share, 5.0, 10.0),
        f"{gap:.3f}",
        value,
    )


def _kl(one: Number, numbers: Numbers) -> _Said:
    collapsed = one.value < DEAD_KL
    state = (
        f"below {DEAD_KL} the decoder ignores the latent: this posterior has collapsed"
        if collapsed
        else f"below {DEAD_KL} the posterior would have collapsed to the prior; this one has not"
    )
    rest = numbers.value("reconstruction")
    return _Said(
        "KL from the prior",
        f"How many nats a latent can tell about its sentence at most: {state}.",
        "poor" if collapsed else "good",
        settings="" if rest is None else f"the other half, reconstruction, costs {rest:.3f}",
    )


def _near_cap(numbers: Numbers) -> bool:
    value, cap = numbers.value("mutual_information"), numbers.value("mutual_information_cap")
    return value is not None and cap is not None and value > 0.9 * cap


def _information(one: Number, numbers: Numbers) -> _Said:
    cap = numbers.value("mutual_information_cap")
    among = shown(math.exp(min(max(one.value, 0.0), 50.0)))
    meaning = (
        f"How many nats a latent does tell about its sentence: enough to find it among {among} "
        "equally likely ones."
    )
    if cap is not None:
        meaning += f" No estimate from so many sentences can exceed {cap:.2f}"
        meaning += ", and this one is close to it: measure on more." if _near_cap(numbers) else "."
    verdict: Verdict | None = "good"
    if one.value < DEAD_KL:
        verdict = "poor"
    elif _near_cap(numbers):
        verdict = None
    return _Said("Mutual information", meaning, verdict)


def _aggregate(one: Number) -> _Said:
    return _Said(
        "Aggregate posterior from the prior",
        "How many nats all posteriors together are from the prior that samples are drawn from. "
        "Where it is large, samples begin where the decoder was never trained (to 1 is good, to 2 "
        "fair).",
        _graded(one.value, 1.0, 2.0),
    )


def _largest(one: Number) -> _Said:
    return _Said(
        "KL in one dimension",
        "The share of the KL that the most active dimension has. Where it is large, the latent is "
        "smaller than it seems (to 50 % is good, to 80 % fair).",
        _graded(one.value, 0.5, 0.8),
        f"{100 * one.value:.1f} %",
    )


def _units(one: Number, numbers: Numbers) -> _Said:
    share = one.value / numbers.latent_dim
    return _Said(
        "Active units",
        "Dimensions in which sentences differ. From half of them on it is good; fewer mean that a "
        "smaller latent would do, and none that it is dead.",
        "good" if share >= 0.5 else "fair" if one.value else "poor",
        f"{one.value:.0f} of {numbers.latent_dim}",
        "variance of the posterior mean above 0.01",
    )


def _permutation(one: Number, numbers: Numbers) -> _Said:
    rest = numbers.value("reconstruction")
    share = one.value / rest if rest else 0.0
    dead = one.value < DEAD_COST
    return _Said(
        "Cost of a stranger\u2019s latent",
        "How many nats worse sentences are written from each other\u2019s latents: the one test "
        "that a decoder cannot pass while it ignores them. "
        + (
            f"Below {DEAD_COST} it does ignore them."
            if dead
            else f"It is {100.0 * share:.0f} % of the reconstruction; from 10 % on we call it good."
        ),
        "poor" if dead else "good" if share >= 0.1 else "fair",
    )
