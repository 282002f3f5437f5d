"""The likelihood of a corpus and the use of the latent as one flat object: `Evaluation`."""

import math

import msgspec

from textvae.data.tokenizer import Tokenizer
from textvae.evaluate.bounds import LikelihoodEvaluator, likelihood_figures
from textvae.evaluate.evaluators import EvaluatorConfig, measure, model_facts
from textvae.evaluate.latent import LatentEvaluator, latent_figures
from textvae.evaluate.measurements import (
    Count,
    Figure,
    Measured,
    MeasuredCorpus,
    Measurements,
    Value,
    figure_line,
    unknown_line,
)
from textvae.evaluate.subject import Subject
from textvae.metrics.latent_usage import diagnosis
from textvae.model.vae import VAE

NO_LATENT: dict[str, object] = {
    "mutual_information": 0.0,
    "mutual_information_stderr": 0.0,
    "active_units": 0,
    "permutation_cost": 0.0,
    "permutation_cost_stderr": 0.0,
}
"""The latent of a language model."""


class Evaluation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The figures of likelihood and latent as attributes; results.json holds them so.

    Nats per sentence, `</s>` counted, unless the attribute says otherwise. None is unknown: a
    single sentence has no standard error, no active unit and no permutation, a single sample no
    Monte Carlo error.
    """

    nll: float
    """Minus the importance-weighted log-likelihood: a bound above the true one."""
    nll_stderr: float | None
    """Standard error of `nll` over sentences."""
    nll_monte_carlo_stderr: float | None
    """Standard error of `nll` over redraws of the samples, sentences fixed."""
    elbo: float
    """A bound below the log-likelihood."""
    kl: float
    reconstruction: float
    """-log p(x|z), averaged over the samples: elbo = -(reconstruction + kl) but for noise."""
    perplexity: float
    """exp(sum of nll / num_tokens): from the importance-weighted bound, so at most this."""
    perplexity_elbo: float
    """The same from the ELBO."""
    num_tokens: Count
    """The denominator: tokens of the model's tokenizer, and one `</s>` per sentence."""
    num_sentences: Count
    num_samples: Count
    """K; 1 for a language model, whose figures are exact."""
    mutual_information: float
    mutual_information_stderr: float | None
    mutual_information_cap: float
    """log of the number of sentences, which no estimate can exceed."""
    active_units: int | None
    latent_dim: int
    permutation_cost: float | None
    """How much -log p(x|z) rises when latents are permuted among sentences, at posterior means."""
    permutation_cost_stderr: float | None
    perplexity_per_word: float | None
    """exp(sum of nll / (words between whitespace + sentences)): compares across tokenizers. None:
    the text has no blanks between words."""
    bits_per_character: float
    num_words: Count
    num_characters: Count
    seed: int
    precision: str
    device: str
    torch_version: str
    seconds: float
    tokenizer: str = ""
    source: str = ""
    """Where the sentences came from."""
    sha256: str = ""
    """Checksum of the sentences."""
    num_unknown: int | None = None
    """Tokens that are `<unk>`: a word that the vocabulary lacks costs less than the
    word itself, so figures per word and per character are flattered by them. None: not counted."""
    source_nll: float | None = None
    """The exact nll of the same sentences under the grammar they were drawn from."""
    source_entropy: float | None = None
    """The exact entropy of that grammar: what source_nll is on average."""

    @classmethod
    def of(cls, measurements: Measurements) -> "Evaluation":
        """The view of measurements of likelihood and latent."""
        corpus, model = measurements.data, measurements.model
        values = NO_LATENT if model.latent_dim == 0 else {}
        values = {"mutual_information_cap": math.log(corpus.num_sentences)} | values
        values |= msgspec.to_builtins(corpus) | measurements.flat()
        values |= {"latent_dim": model.latent_dim, "tokenizer": model.tokenizer}
        values |= {"torch_version": measurements.versions["torch"]}
        for name in ("seed", "precision", "device", "seconds"):
            values[name] = getattr(measurements, name)
        return msgspec.convert(values, cls)

    def figures(self, *, kl_is_exact: bool | None = None) -> tuple[list[Figure], list[Figure]]:
        """The figures of likelihood and latent with their units and settings."""
        values: dict[str, Value] = msgspec.structs.asdict(self)
        size, latent_dim = self.num_sentences, self.latent_dim
        likelihood = likelihood_figures(
            values, self.corpus(), exact=latent_dim == 0, kl_is_exact=kl_is_exact
        )
        latent = latent_figures(values, num_sentences=size, latent_dim=latent_dim)
        return list(likelihood), list(latent) if latent_dim else []

    def corpus(self) -> MeasuredCorpus:
        """The sentences measured on."""
        return msgspec.convert(msgspec.structs.asdict(self), MeasuredCorpus)

    def measurements(self, model: VAE, tokenizer: Tokenizer) -> Measurements:
        """The measurements that this is a view of, of the model that they belong to."""
        likelihood, latent = self.figures(kl_is_exact=model.prior.kl_is_exact)
        parts: list[tuple[EvaluatorConfig, list[Figure]]] = [
            (LikelihoodEvaluator(num_samples=self.num_samples), likelihood),
            (LatentEvaluator(), latent),
        ]
        return Measurements(
            created="",
            seconds=self.seconds,
            model=model_facts(model, tokenizer),
            data=self.corpus(),
            training=None,
            seed=self.seed,
            precision=self.precision,
            device=self.device,
            num_threads=0,
            versions={"torch": self.torch_version},
            measured=[
                Measured(evaluator=msgspec.to_builtins(config), figures=figures, seconds=0.0)
                for config, figures in parts
            ],
        )

    def table(self) -> str:
        """A line per figure."""
        left_out = {"nll_monte_carlo_stderr", "num_samples", "source_entropy"}
        left_out.add("mutual_information_cap")  # the settings of mutual_information have it
        if not self.latent_dim:
            left_out |= {"elbo", "kl", "reconstruction", "perplexity_elbo"}
        if self.tokenizer == "word":  # where words are tokens, they would repeat the perplexity
            left_out |= {"perplexity_per_word", "bits_per_character"}
        likelihood, latent = self.figures()
        lines = [f"{self.num_sentences:,} sentences, </s> counted ({self.precision})"]
        lines += [
            figure_line(figure) for figure in likelihood + latent if figure.name not in left_out
        ]
        lines += [line for line in (unknown_line(self.corpus()), self.diagnosis()) if line]
        return "\n".join(lines)

    def diagnosis(self) -> str | None:
        """A warning that the latent is collapsed, with the next thing to try, or None."""
        return diagnosis(self.kl, self.active_units, self.latent_dim, self.permutation_cost)


def evaluate(subject: Subject, *, num_samples: int) -> Evaluation:
    """Measure likelihood, with K = `num_samples`, and latent of a subject, on all sentences."""
    latent = LatentEvaluator(max_sentences=subject.data.num_sentences)
    return Evaluation.of(measure(subject, [LikelihoodEvaluator(num_samples=num_samples), latent]))
