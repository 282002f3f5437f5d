"""The evaluator `likelihood`: two bounds on the likelihood of a corpus, and its perplexities."""

import math
from collections.abc import Iterator
from typing import Annotated, NamedTuple

import torch
from msgspec import UNSET, Meta, UnsetType

from textvae.config import Config
from textvae.data.batching import TokenArray
from textvae.evaluate.measurements import Figure, Value
from textvae.evaluate.subject import Subject, source_truth
from textvae.metrics.latent_usage import standard_error
from textvae.metrics.likelihood import ROWS, importance_weighted
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.vae import VAE

NATS = "nats a sentence"


class TextCounts(NamedTuple):
    """What a corpus counts besides its tokens, for figures that compare across tokenizers."""

    num_words: int
    """Words between whitespace, and one end for each sentence."""
    num_characters: int
    """Characters, and one end for each sentence."""


class Bounds(NamedTuple):
    """The likelihood of a corpus, in nats a sentence; as fields of `report.Evaluation`."""

    nll: float
    nll_stderr: float | None
    nll_monte_carlo_stderr: float | None
    elbo: float
    kl: float
    reconstruction: float
    perplexity: float
    perplexity_elbo: float
    perplexity_per_word: float
    bits_per_character: float
    num_samples: int
    """K; 1 for a language model, whose likelihood is exact."""


def bounds(
    model: VAE,
    data: TokenArray,
    counts: TextCounts,
    posterior: DiagonalGaussian,
    *,
    num_samples: int,
    seed: int,
    rows: int = ROWS,
    dtype: torch.dtype = torch.float32,
) -> Bounds:
    """The importance-weighted likelihood and the ELBO of N sentences, each counted once.

    Args:
        model: in evaluation mode.
        data: on the model's device.
        counts: of the same sentences.
        posterior: of the same, `[N, Z]`.
        num_samples: K of the bound; of a language model one is exact.
        seed: of the samples.
        rows: latents decoded at once, which bounds the memory.
        dtype: of the matrix products.
    """
    size, num_tokens = data.num_sentences, data.num_targets
    samples = 1 if model.is_language_model else num_samples
    found = importance_weighted(
        model, data, posterior, num_samples=samples, seed=seed, rows=rows, dtype=dtype
    )
    total, elbo = float(found.nll.sum()), float(found.elbo.mean())
    # One sample has no spread, but of a language model every sample is the same.
    known = samples > 1 or model.is_language_model
    redrawn = float(found.monte_carlo_variance.sum().sqrt()) / size
    return Bounds(
        nll=total / size,
        nll_stderr=standard_error(found.nll),
        nll_monte_carlo_stderr=redrawn if known else None,
        elbo=elbo,
        kl=float(found.kl.mean()),
        reconstruction=float(found.reconstruction.mean()),
        perplexity=clamped_exp(total / num_tokens),
        perplexity_elbo=clamped_exp(-elbo * size / num_tokens),
        perplexity_per_word=clamped_exp(total / counts.num_words),
        bits_per_character=total / math.log(2.0) / counts.num_characters,
        num_samples=samples,
    )


class LikelihoodEvaluator(Config, tag_field="kind", tag="likelihood"):
    """ELBO and importance-weighted bound, perplexity a token and a word, bits a character."""

    num_samples: Annotated[int, Meta(ge=1)] = 500
    """K of the importance-weighted bound."""

    def run(self, subject: Subject) -> Iterator[Figure]:
        """The figures, named like the fields of `Bounds`, and on the embedded corpus the truth."""
        facts = subject.facts
        found = bounds(
            subject.model,
            subject.data,
            TextCounts(facts.num_words, facts.num_characters),
            subject.posterior,
            num_samples=self.num_samples,
            seed=subject.seed,
            rows=subject.rows,
            dtype=subject.dtype,
        )
        exact = subject.model.is_language_model
        analytic = "analytic" if subject.model.prior.kl_is_exact else "estimated: it is a mixture"
        weighted = "exact: there is no latent" if exact else f"K = {found.num_samples}"
        kept = {
            "nll": (found.nll_stderr, NATS, weighted),
            "nll_monte_carlo_stderr": (UNSET, NATS, "over redraws of the samples"),
            "elbo": (UNSET, NATS, "a bound below the log-likelihood"),
            "kl": (UNSET, NATS, f"to the prior, {analytic}"),
            "reconstruction": (UNSET, NATS, "-log p(x|z), z from the posterior"),
            "perplexity": (UNSET, "a token", f"over {facts.num_tokens:,} tokens, {weighted}"),
            "perplexity_elbo": (UNSET, "a token", f"over {facts.num_tokens:,} tokens"),
            "perplexity_per_word": (UNSET, "a word", f"over {facts.num_words:,} words"),
            "bits_per_character": (UNSET, "bits", f"over {facts.num_characters:,} characters"),
            "num_samples": (UNSET, "", "K"),
        }
        for name, (stderr, unit, settings) in kept.items():
            yield _figure(name, getattr(found, name), stderr, unit, settings)
        if subject.grammar is not None:
            truth = source_truth(subject.texts)
            above = 100.0 * (found.nll / truth.nll - 1.0)
            settings = f"the model is {above:+.2f} % from it"
            yield _figure("source_nll", truth.nll, UNSET, NATS, settings)
            yield _figure("source_entropy", truth.entropy, UNSET, NATS, "of the grammar, exact")


def _figure(
    name: str, value: Value, stderr: float | UnsetType | None, unit: str, settings: str
) -> Figure:
    return Figure(name=name, value=value, stderr=stderr, unit=unit, settings=settings)


def clamped_exp(value: float) -> float:
    """At most exp(700) = 1e304, which a diverged model may exceed: JSON has no infinity."""
    return math.exp(min(value, 700.0))
