"""The figures of reconstructions, samples and paths, each with its meaning and a verdict."""

from typing import NamedTuple

from textvae.report.markup import shown
from textvae.report.numbers import Number, Numbers
from textvae.report.verdicts import Judged, Verdict


class Rule(NamedTuple):
    """From where on a figure is good, and fair."""

    good: float
    fair: float
    rising: bool
    """More is better."""
    against: str | None = None
    """The figure it is divided by first."""


class Entry(NamedTuple):
    """The title, meaning and rule of a figure."""

    title: str
    meaning: str
    rule: Rule | None = None


ENTRIES = {
    "reconstruction_bleu": Entry(
        "BLEU of reconstructions",
        "How much of a sentence\u2019s n-grams comes back from its posterior mean; 100 is word for "
        "word. It rises with what the latent carries",
    ),
    "reconstruction_chrf": Entry(
        "chrF of reconstructions",
        "The same by characters, which forgives words that are nearly right",
    ),
    "exact_match": Entry(
        "Exact match",
        "Sentences that come back word for word. A latent of a few nats keeps the gist and not the "
        "words, so that a low share is no fault by itself",
    ),
    "edit_distance": Entry(
        "Edits of a reconstruction",
        "Tokens to insert, delete or replace until it is its sentence",
    ),
    "grammatical": Entry(
        "Grammatical samples",
        "Samples from the prior that the grammar of the corpus accepts",
        Rule(0.95, 0.8, rising=True),
    ),
    "novelty": Entry(
        "Novelty",
        "Samples that are no sentence of the training set; where it is low, the model recites",
        Rule(0.5, 0.1, rising=True),
    ),
    "unique": Entry(
        "Different samples",
        "What is left of the samples without copies; where it is low, the model repeats itself",
        Rule(0.9, 0.5, rising=True),
    ),
    "self_bleu": Entry(
        "Self-BLEU",
        "How alike samples are, from 0 to 100; lower is more varied. Every corpus has its own, so "
        "compare models of one",
    ),
    "corpus_bleu": Entry(
        "Corpus BLEU",
        "How much of the samples\u2019 n-grams the corpus has, from 0 to 100. Read it beside "
        "self-BLEU: one good sentence said a thousand times would do well",
    ),
    "length_mean": Entry(
        "Length of samples",
        "Tokens of a sample, beside those of a sentence of the corpus",
        Rule(0.05, 0.15, rising=False, against="data_length_mean"),
    ),
    "truncated": Entry(
        "Samples that hit the limit",
        "Samples as long as the model allows, which may lack their end",
        Rule(0.01, 0.05, rising=False),
    ),
    "path_change": Entry(
        "Change at a step of a path",
        "Tokens that differ from one step of an interpolation to the next; small steps are smooth",
    ),
    "path_detour": Entry(
        "Detour of a path",
        "Edits of all steps over the edits from end to end; 1 is the straightest there is",
        Rule(1.5, 2.5, rising=False),
    ),
    "path_perplexity": Entry(
        "Perplexity along a path",
        "How likely the model finds the sentences between the ends of an interpolation, beside "
        "that of real ones",
        Rule(1.0, 1.5, rising=False, against="path_ends_perplexity"),
    ),
    "path_grammatical": Entry(
        "Grammatical steps of a path",
        "Sentences between the ends that the grammar of the corpus accepts",
        Rule(0.95, 0.8, rising=True),
    ),
    "forward_perplexity": Entry(
        "Forward perplexity",
        "What a language model of the corpus makes of the samples, beside what it makes of the "
        "corpus: whether samples are fluent",
        Rule(1.1, 1.5, rising=False, against="forward_perplexity_of_data"),
    ),
    "reverse_perplexity": Entry(
        "Reverse perplexity",
        "What a language model of the samples makes of the corpus, beside one of as many training "
        "sentences: whether samples cover the corpus",
        Rule(1.1, 1.5, rising=False, against="reverse_perplexity_of_data"),
    ),
}
"""Rules of thumb, each said beside its figure."""


def judge_writing(numbers: Numbers) -> dict[str, Judged]:
    """The figures of what a model writes, by name; those that were not measured are not there."""
    judged = {}
    for name, entry in ENTRIES.items():
        number = numbers.figures.get(name)
        if number is not None:
            judged[name] = _judged(number, entry, numbers)
    orders = [numbers.figures.get(f"distinct_{order}") for order in range(1, 5)]
    known = [one for one in orders if one is not None]
    if known:
        judged["distinct_1"] = Judged(
            "Distinct n-grams",
            " \u00b7 ".join(_value(one, "share") for one in known),
            known[-1].settings.replace("4-grams", "1- to 4-grams"),
            None,
            "Different words, pairs, triples and quadruples over all that the samples have: higher "
            "is more varied, and fewer the more are drawn.",
        )
    return judged


def _value(number: Number, unit: str) -> str:
    percent = unit == "share"
    scale, end = (100.0, " %") if percent else (1.0, "")
    text = f"{scale * number.value:.1f}" if percent else shown(number.value)
    error = "" if number.stderr is None else f" \u00b1 {shown(scale * number.stderr)}"
    return f"{text}{error}{end}"


def _judged(number: Number, entry: Entry, numbers: Numbers) -> Judged:
    value, meaning, verdict = _value(number, number.unit), entry.meaning, None
    rule = entry.rule
    if rule is not None:
        verdict, said = _by(rule, number, numbers)
        meaning += said
    unit = "" if number.unit in {"share", "0 to 100"} else number.unit
    settings = ", ".join(part for part in (unit, number.settings) if part)
    return Judged(entry.title, value, settings, verdict, f"{meaning}.")


def _by(rule: Rule, number: Number, numbers: Numbers) -> tuple[Verdict | None, str]:
    """The verdict of a rule, and the rule in words; neither where there is nothing to compare."""
    if rule.against is None:
        share = number.unit == "share"
        limits = [f"{100 * x:.0f} %" if share else shown(x) for x in (rule.good, rule.fair)]
        way = "from {} on is good, from {} on fair" if rule.rising else "to {} is good, to {} fair"
        return _graded(rule, number.value), f" ({way.format(*limits)})"
    other = numbers.value(rule.against)
    if not other:
        return None, ""
    if rule.good < 1.0:  # how far the ratio may be from 1
        away = abs(number.value / other - 1.0)
        limits = [f"{100 * x:.0f} %" for x in (rule.good, rule.fair)]
        said = f": {shown(other)} (within {limits[0]} is good, within {limits[1]} fair)"
        return _graded(rule, away), said
    ratio = number.value / other
    limits = [f"{shown(x)} times" for x in (rule.good, rule.fair)]
    return _graded(
        rule, ratio
    ), f": {shown(other)} (to {limits[0]} that is good, to {limits[1]} fair)"


def _graded(rule: Rule, value: float) -> Verdict:
    if rule.rising:
        return "good" if value >= rule.good else "fair" if value >= rule.fair else "poor"
    return "good" if value <= rule.good else "fair" if value <= rule.fair else "poor"
