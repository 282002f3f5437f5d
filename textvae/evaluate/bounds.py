"""The evaluator `likelihood`: two bounds on the likelihood of a corpus, and its perplexities."""

import math
from collections.abc import Iterator, Mapping
from typing import Annotated

from msgspec import Meta

from textvae.config import Config
from textvae.evaluate.measurements import Figure, MeasuredCorpus, Value, stderr_of
from textvae.evaluate.subject import Subject, source_truth
from textvae.metrics.latent_usage import standard_error
from textvae.metrics.likelihood import importance_weighted
from textvae.metrics.text_quality import is_unspaced

NATS = "nats per sentence"


class LikelihoodEvaluator(Config, tag_field="kind", tag="likelihood"):
    """ELBO and importance-weighted bound, perplexity per token and word, bits per character."""

    num_samples: Annotated[int, Meta(ge=1)] = 500
    """K of the importance-weighted bound; a language model, which is exact, takes 1."""

    def run(self, subject: Subject) -> Iterator[Figure]:
        """The figures; on the embedded corpus also the exact values of its grammar."""
        model, corpus = subject.model, subject.facts
        size, num_tokens = corpus.num_sentences, corpus.num_tokens
        num_samples = 1 if model.is_language_model else self.num_samples
        likelihoods = importance_weighted(
            model,
            subject.data,
            subject.posterior,
            num_samples=num_samples,
            seed=subject.seed,
            rows=subject.rows,
            dtype=subject.dtype,
        )
        total, elbo = float(likelihoods.nll.sum()), float(likelihoods.elbo.mean())
        values: dict[str, Value] = {
            "nll": total / size,
            "nll_stderr": standard_error(likelihoods.nll),
            "nll_monte_carlo_stderr": float(likelihoods.monte_carlo_variance.sum().sqrt()) / size,
            "elbo": elbo,
            "kl": float(likelihoods.kl.mean()),
            "reconstruction": float(likelihoods.reconstruction.mean()),
            "perplexity": clamped_exp(total / num_tokens),
            "perplexity_elbo": clamped_exp(-elbo * size / num_tokens),
            "perplexity_per_word": clamped_exp(total / corpus.num_words),
            "bits_per_character": total / math.log(2.0) / corpus.num_characters,
            "num_samples": num_samples,
        }
        if num_samples == 1 and not model.is_language_model:  # one sample has no spread
            values["nll_monte_carlo_stderr"] = None
        if is_unspaced(subject.texts):
            values["perplexity_per_word"] = None
        if subject.grammar is not None:
            truth = source_truth(subject.texts)
            values |= {"source_nll": truth.nll, "source_entropy": truth.entropy}
        yield from likelihood_figures(
            values, corpus, exact=model.is_language_model, kl_is_exact=model.prior.kl_is_exact
        )


def likelihood_figures(
    values: Mapping[str, Value], corpus: MeasuredCorpus, *, exact: bool, kl_is_exact: bool | None
) -> Iterator[Figure]:
    """Figures from their values by name, with units and settings.

    A language model is `exact`; `kl_is_exact` says that the KL is analytic, None that it is
    unknown.
    """
    weighted = "exact: there is no latent" if exact else f"K = {values['num_samples']}"
    prior = "to the prior"
    if kl_is_exact is not None:
        prior += ", analytic" if kl_is_exact else ", estimated"
    tokens = f"over {corpus.num_tokens:,} tokens"
    words = f"over {corpus.num_words:,} words"
    if values["perplexity_per_word"] is None:
        words = "the text has no blanks between words"
    rows = [
        ("nll", NATS, weighted),
        ("nll_monte_carlo_stderr", NATS, "over redraws of the samples"),
        ("elbo", NATS, "a bound below the log-likelihood"),
        ("kl", NATS, prior),
        ("reconstruction", NATS, "-log p(x|z), z from the posterior"),
        ("perplexity", "per token", f"{tokens}, {weighted}"),
        ("perplexity_elbo", "per token", tokens),
        ("perplexity_per_word", "per word", words),
        ("bits_per_character", "bits", f"over {corpus.num_characters:,} characters"),
        ("num_samples", "", "K"),
    ]
    nll, source_nll = values["nll"], values.get("source_nll")
    if isinstance(nll, float) and isinstance(source_nll, float):
        above = 100.0 * (nll / source_nll - 1.0)
        rows.append(("source_nll", NATS, f"the model is {above:+.2f} % from it"))
        rows.append(("source_entropy", NATS, "of the grammar, exact"))
    for name, unit, settings in rows:
        yield Figure(name, values[name], unit, settings, stderr_of(name, values))


def clamped_exp(value: float) -> float:
    """At most exp(700) = 1e304, which a diverged model may exceed: JSON has no infinity."""
    return math.exp(min(value, 700.0))
