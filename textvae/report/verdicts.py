"""Each figure of an evaluation with its meaning, and a verdict where there is a yardstick.

Yardsticks are the exact likelihood of the embedded corpus, token frequencies, another figure, or
the figure's own scale. The text of a verdict states its rule.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import msgspec

from textvae.evaluate.measurements import Measurements
from textvae.metrics.latent_usage import DEAD_COST, DEAD_KL
from textvae.report.markup import shown

Verdict = Literal["good", "fair", "poor"]


class Number(NamedTuple):
    """A figure."""

    value: float
    stderr: float | None = None
    unit: str = ""
    settings: str = ""


class Numbers(NamedTuple):
    """Figures that are known and finite, by name, and the facts that sentences need."""

    figures: dict[str, Number]
    source: str
    tokenizer: str
    latent_dim: int
    seed: int
    precision: str
    origin: str
    """Such as "Measured when training ended"."""
    diagnosis: str | None
    """A warning that the latent is collapsed."""

    def value(self, name: str) -> float | None:
        """The value of a figure; None where it is unknown."""
        number = self.figures.get(name)
        return None if number is None else number.value


def numbers_of(measurements: Measurements, origin: str) -> Numbers:
    """The numbers of measurements; lists and texts are left out."""
    figures = {}
    for figure in measurements:
        if isinstance(figure.value, int | float) and math.isfinite(figure.value):
            stderr = None if isinstance(figure.stderr, msgspec.UnsetType) else figure.stderr
            figures[figure.name] = Number(figure.value, stderr, figure.unit, figure.settings)
    return Numbers(
        figures=figures,
        source=measurements.data.source,
        tokenizer=measurements.model.tokenizer,
        latent_dim=measurements.model.latent_dim,
        seed=measurements.seed,
        precision=measurements.precision,
        origin=origin,
        diagnosis=measurements.diagnosis(),
    )


class ExplainedFigure(NamedTuple):
    """A figure as the report shows it."""

    title: str
    value: str
    settings: str
    verdict: Verdict | None
    """None where only a comparison with another model could tell."""
    meaning: str


class Rule(NamedTuple):
    """The limits of good and fair."""

    good: float
    fair: float
    rising: bool = False
    """More is better."""
    against: str | None = None
    """The figure that the value is divided by first."""

    def grade(self, value: float) -> Verdict:
        """The verdict on a value."""
        sign = -1.0 if self.rising else 1.0
        if sign * value <= sign * self.good:
            return "good"
        return "fair" if sign * value <= sign * self.fair else "poor"


class Entry(NamedTuple):
    """The title, meaning and rule of a figure."""

    title: str
    meaning: str
    rule: Rule | None = None


LATENT_ENTRIES = {
    "aggregate_kl": Entry(
        "Aggregate posterior from the prior",
        "KL of all posteriors together from the prior that samples are drawn from. Where it is "
        "large, samples begin where the decoder was never trained",
        Rule(1.0, 2.0),
    ),
    "kl_largest_share": Entry(
        "KL in one dimension",
        "The fraction of the KL that the most active dimension has. Where it is large, few "
        "dimensions are in use",
        Rule(0.5, 0.8),
    ),
}
GENERATION_ENTRIES = {
    "reconstruction_bleu": Entry(
        "BLEU of reconstructions",
        "The n-grams of a sentence that come back from its posterior mean; 100 is word for word. "
        "It rises with the information in the latent",
    ),
    "reconstruction_chrf": Entry(
        "chrF of reconstructions",
        "The same by characters, which counts words that are nearly right",
    ),
    "exact_match": Entry(
        "Exact match",
        "Sentences that come back word for word. A latent of a few nats keeps the topic and not "
        "the words, so a low fraction is no fault by itself",
    ),
    "edit_distance": Entry(
        "Edits of a reconstruction",
        "Tokens to insert, delete or replace to restore the sentence",
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
        "The fraction of different samples; where it is low, the model repeats itself",
        Rule(0.9, 0.5, rising=True),
    ),
    "self_bleu": Entry(
        "Self-BLEU",
        "The similarity of samples to each other, from 0 to 100; lower is more varied. It depends "
        "on the corpus, so compare models of one corpus",
    ),
    "corpus_bleu": Entry(
        "Corpus BLEU",
        "The n-grams of the samples that the corpus has, from 0 to 100. Read it with self-BLEU: "
        "one good sentence repeated a thousand times would score high",
    ),
    "length_mean": Entry(
        "Length of samples",
        "Tokens per sample, against those per sentence of the corpus",
        Rule(0.05, 0.15, against="data_length_mean"),
    ),
    "truncated": Entry(
        "Samples that reach the limit",
        "Samples as long as the model allows, which may lack their end",
        Rule(0.01, 0.05),
    ),
    "path_change": Entry(
        "Change per step of a path",
        "Tokens that differ from one step of an interpolation to the next; small steps are smooth",
    ),
    "path_detour": Entry(
        "Detour of a path",
        "Edits of all steps over the edits from end to end; 1 is the least",
        Rule(1.5, 2.5),
    ),
    "path_perplexity": Entry(
        "Perplexity along a path",
        "The perplexity under the model of the sentences between the ends of an interpolation, "
        "against that of real ones",
        Rule(1.0, 1.5, against="path_ends_perplexity"),
    ),
    "path_grammatical": Entry(
        "Grammatical steps of a path",
        "Sentences between the ends that the grammar of the corpus accepts",
        Rule(0.95, 0.8, rising=True),
    ),
    "forward_perplexity": Entry(
        "Forward perplexity",
        "The perplexity of the samples under a language model of the corpus, against that of the "
        "corpus: whether samples are fluent",
        Rule(1.1, 1.5, against="forward_perplexity_of_data"),
    ),
    "reverse_perplexity": Entry(
        "Reverse perplexity",
        "The perplexity of the corpus under a language model of the samples, against one of as "
        "many training sentences: whether samples cover the corpus",
        Rule(1.1, 1.5, against="reverse_perplexity_of_data"),
    ),
}


def explain_figures(numbers: Numbers, unigram_perplexity: float) -> dict[str, ExplainedFigure]:
    """The figures of likelihood and latent, by name, in the order of reading."""
    figures = dict(numbers.figures)
    if "aggregate_kl" not in figures and {"kl", "mutual_information"} <= figures.keys():
        rest = max(0.0, figures["kl"].value - figures["mutual_information"].value)
        figures["aggregate_kl"] = Number(rest, settings="KL less mutual information")
    texts: dict[str, Callable[[Number, Numbers], ExplainedFigure] | None] = {
        "nll": _nll,
        "perplexity": lambda one, numbers: _perplexity(one, unigram_perplexity),
        "perplexity_per_word": lambda one, numbers: _explained(one, *PER_WORD),
        "bits_per_character": lambda one, numbers: _explained(one, *PER_CHARACTER),
    }
    if numbers.tokenizer == "word":  # where words are tokens, they would repeat the perplexity
        del texts["perplexity_per_word"], texts["bits_per_character"]
    if numbers.latent_dim:
        texts |= {"elbo": _gap, "kl": _kl, "mutual_information": _information}
        texts |= dict.fromkeys(LATENT_ENTRIES)  # None: by its entry
        texts |= {"active_units": _units, "permutation_cost": _permutation}
    explained = {}
    for name, describe in texts.items():
        if name not in figures:
            continue
        number = figures[name]
        if describe is None:
            explained[name] = _by_entry(number, LATENT_ENTRIES[name], numbers)
        else:
            explained[name] = describe(number, numbers)
    return explained


def explain_generation(numbers: Numbers) -> dict[str, ExplainedFigure]:
    """The figures of reconstructions, samples and paths, by name, as far as they were measured."""
    explained = {}
    for name, entry in GENERATION_ENTRIES.items():
        number = numbers.figures.get(name)
        if number is not None:
            explained[name] = _by_entry(number, entry, numbers)
    orders = [numbers.figures.get(f"distinct_{order}") for order in range(1, 5)]
    known = [one for one in orders if one is not None]
    if known:
        explained["distinct_1"] = ExplainedFigure(
            "Distinct n-grams",
            " \u00b7 ".join(value_text(one._replace(unit="share")) for one in known),
            known[-1].settings.replace("4-grams", "1- to 4-grams"),
            None,
            "Different words, pairs, triples and quadruples over all of the samples: higher is "
            "more varied. It falls with the number of samples.",
        )
    return explained


def value_text(number: Number) -> str:
    """A number with its standard error, in percent where it is a fraction."""
    percent = number.unit == "share"
    scale, end = (100.0, " %") if percent else (1.0, "")
    text = f"{scale * number.value:.1f}" if percent else shown(number.value)
    error = "" if number.stderr is None else f" \u00b1 {shown(scale * number.stderr)}"
    return f"{text}{error}{end}"


def _explained(
    number: Number,
    title: str,
    meaning: str,
    verdict: Verdict | None = None,
    value: str | None = None,
    settings: str | None = None,
) -> ExplainedFigure:
    """A figure with its own value and settings, unless others are given."""
    if value is None:
        error = "" if number.stderr is None else f" \u00b1 {number.stderr:.3f}"
        value = f"{number.value:.3f}{error}".replace("-", "\u2212")
    settings = number.settings if settings is None else settings
    return ExplainedFigure(title, value, settings, verdict, meaning)


def _by_entry(number: Number, entry: Entry, numbers: Numbers) -> ExplainedFigure:
    verdict, limits = (None, "") if entry.rule is None else _by_rule(entry.rule, number, numbers)
    unit = "" if number.unit in {"share", "0 to 100"} else number.unit
    settings = ", ".join(part for part in (unit, number.settings) if part)
    meaning = f"{entry.meaning}{limits}."
    return ExplainedFigure(entry.title, value_text(number), settings, verdict, meaning)


def _by_rule(rule: Rule, number: Number, numbers: Numbers) -> tuple[Verdict | None, str]:
    """The verdict, and its rule in words; neither where the other figure is unknown."""
    if rule.against is None:
        share = number.unit == "share"
        good, fair = (f"{100 * x:.0f} %" if share else shown(x) for x in (rule.good, rule.fair))
        way = f"from {good} is good, from {fair} fair" if rule.rising else _up_to(good, fair)
        return rule.grade(number.value), f" ({way})"
    other = numbers.value(rule.against)
    if not other:
        return None, ""
    ratio = number.value / other
    if rule.good < 1.0:  # how far the ratio may be from 1
        good, fair = (f"{100 * x:.0f} %" for x in (rule.good, rule.fair))
        limits = f": {shown(other)} (within {good} is good, within {fair} fair)"
        return rule.grade(abs(ratio - 1.0)), limits
    good, fair = (f"{shown(x)} times" for x in (rule.good, rule.fair))
    return rule.grade(ratio), f": {shown(other)} ({_up_to(good, fair)})"


def _up_to(good: str, fair: str) -> str:
    return f"up to {good} is good, up to {fair} fair"


def _nll(one: Number, numbers: Numbers) -> ExplainedFigure:
    title = "Negative log-likelihood"
    meaning = "Minus log-likelihood of a sentence, in nats; lower is better"
    bound = ", and the true value is at most this, but for sampling error."
    meaning += bound if numbers.latent_dim else "."
    truth = numbers.value("source_nll")
    if not truth:
        meaning += " It depends on the corpus, so compare it only on these sentences."
        return _explained(one, title, meaning)
    above = 100.0 * (one.value / truth - 1.0)
    meaning += (
        f" The grammar that wrote these sentences scores {truth:.3f}, which no model beats in the "
        f"long run: this one is {above:.2f} % above it ({_up_to('2 %', '5 %')})."
    )
    return _explained(one, title, meaning, Rule(2.0, 5.0).grade(above))


def _perplexity(one: Number, unigram: float) -> ExplainedFigure:
    return _explained(
        one,
        "Perplexity",
        f"At each token the model is as uncertain as a fair choice among {shown(one.value)}. The "
        f"frequencies of the tokens alone would give {shown(unigram)}: up to half of that is good, "
        "above it poor. It cannot be compared with that of a model with another tokenizer.",
        Rule(0.5, 1.0).grade(one.value / unigram),
        shown(one.value),
    )


PER_WORD = (
    "Perplexity per word",
    "The same likelihood divided among words: it compares with models that have another "
    "tokenizer, on the same sentences.",
)
PER_CHARACTER = (
    "Bits per character",
    "The size of these sentences when compressed with this model; it compares across tokenizers, "
    "and with compressors.",
)


def _gap(one: Number, numbers: Numbers) -> ExplainedFigure:
    nll = numbers.value("nll")
    if nll is None:
        return _explained(one, "ELBO", "A bound below the log-likelihood, in nats.")
    gap = -one.value - nll
    percent = 100.0 * gap / nll if nll > 0.0 else 0.0
    return _explained(
        one,
        "Gap of the ELBO",
        "The nats by which the bound that training raises is below the tighter one: "
        f"{percent:.1f} % of it. It is due to the approximate posterior "
        f"({_up_to('5 %', '10 %')}).",
        Rule(5.0, 10.0).grade(percent),
        f"{gap:.3f}",
        f"ELBO {one.value:.3f}".replace("-", "\u2212"),
    )


def _kl(one: Number, numbers: Numbers) -> ExplainedFigure:
    collapsed = one.value < DEAD_KL
    state = "this posterior has collapsed" if collapsed else "this one has not"
    rest = numbers.value("reconstruction")
    return _explained(
        one,
        "KL from the prior",
        "The most nats that a latent can carry about its sentence. Below "
        f"{DEAD_KL} a posterior has collapsed to the prior and the decoder ignores it: {state}.",
        "poor" if collapsed else "good",
        settings="" if rest is None else f"the other half, reconstruction, costs {rest:.3f}",
    )


def _information(one: Number, numbers: Numbers) -> ExplainedFigure:
    cap = numbers.value("mutual_information_cap")
    near_cap = cap is not None and one.value > 0.9 * cap
    among = shown(math.exp(min(max(one.value, 0.0), 50.0)))
    meaning = (
        "The nats that a latent carries about its sentence: enough to find it among "
        f"{among} equally likely ones."
    )
    if cap is not None:
        meaning += f" No estimate from so many sentences can exceed {cap:.2f}"
        meaning += ", and this one is close to it: measure on more." if near_cap else "."
    verdict: Verdict | None = None if near_cap else "good"
    return _explained(
        one, "Mutual information", meaning, "poor" if one.value < DEAD_KL else verdict
    )


def _units(one: Number, numbers: Numbers) -> ExplainedFigure:
    return _explained(
        one,
        "Active units",
        "Dimensions in which sentences differ: half of them or more is good. With fewer, a smaller "
        "latent would do; with none, the latent is unused.",
        "good" if one.value >= 0.5 * numbers.latent_dim else "fair" if one.value else "poor",
        f"{one.value:.0f} of {numbers.latent_dim}",
        "variance of the posterior mean above 0.01",
    )


def _permutation(one: Number, numbers: Numbers) -> ExplainedFigure:
    rest = numbers.value("reconstruction")
    ratio, dead = one.value / rest if rest else 0.0, one.value < DEAD_COST
    state = f"It is {100.0 * ratio:.0f} % of the reconstruction; 10 % or more is good."
    return _explained(
        one,
        "Cost of permuted latents",
        "The nats that a sentence loses when it is decoded from the latent of another one: no "
        "decoder that ignores the latent passes this test. "
        + (f"Below {DEAD_COST} the latent is ignored." if dead else state),
        "poor" if dead else "good" if ratio >= 0.1 else "fair",
    )
