"""Every figure of a model on a corpus in one pass, each with the settings that made it."""

import math
import time
from typing import NamedTuple

import msgspec
import torch

from textvae.data.batching import TokenArray
from textvae.evaluate.latent_usage import (
    active_units,
    diagnosis,
    mutual_information,
    permutation_costs,
)
from textvae.evaluate.likelihood import ROWS, encode_corpus, importance_weighted
from textvae.model.vae import VAE


class TextCounts(NamedTuple):
    """What a corpus counts besides its tokens, for figures that compare across tokenizers."""

    num_words: int
    """Words between whitespace, and one end for each sentence."""
    num_characters: int
    """Characters, and one end for each sentence."""


class Evaluation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Figures of a model on a corpus. Nats a sentence, `</s>` counted, unless it says otherwise."""

    nll: float
    """Minus the importance-weighted log-likelihood: a bound above the true one."""
    nll_stderr: float
    """Standard error of `nll` over sentences."""
    nll_monte_carlo_stderr: float
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
    num_tokens: int
    """The denominator: tokens of the model's tokenizer, and one `</s>` for each sentence."""
    num_sentences: int
    num_samples: int
    """K; 1 for a language model, whose figures are exact."""
    mutual_information: float
    mutual_information_stderr: float
    mutual_information_cap: float
    """log of the number of sentences, which no estimate can exceed."""
    active_units: int
    latent_dim: int
    permutation_cost: float
    """How much -log p(x|z) rises when latents are permuted among sentences, at posterior means."""
    permutation_cost_stderr: float
    perplexity_per_word: float
    """exp(sum of nll / (words between whitespace + sentences)): compares across tokenizers."""
    bits_per_character: float
    num_words: int
    num_characters: int
    seed: int
    precision: str
    device: str
    torch_version: str
    seconds: float
    tokenizer: str = ""
    source: str = ""
    """Where the sentences came from."""
    sha256: str = ""
    """Of the sentences."""
    source_nll: float | None = None
    """The exact nll of the same sentences under the grammar they were drawn from."""
    source_entropy: float | None = None
    """The exact entropy of that grammar: what source_nll is on average."""

    def table(self) -> str:
        """The figures for a reader."""
        kind = f"K = {self.num_samples}" if self.latent_dim else "exact: there is no latent"
        rows = [
            ("nll", f"{self.nll:.3f} +- {self.nll_stderr:.3f}", kind),
            ("perplexity", f"{self.perplexity:.3f}", f"over {self.num_tokens:,} tokens"),
        ]
        rows += self._latent_rows() if self.latent_dim else []
        if self.tokenizer != "word":
            rows.append(
                (
                    "a word",
                    f"perplexity {_brief(self.perplexity_per_word)}",
                    f"{self.num_words:,} words",
                )
            )
            rows.append(
                ("a character", f"{self.bits_per_character:.4f} bits", f"{self.num_characters:,}")
            )
        if self.source_nll is not None and self.source_entropy is not None:
            above = 100.0 * (self.nll / self.source_nll - 1.0)
            rows.append(
                ("exact nll", f"{self.source_nll:.3f}", f"the model is {above:+.2f} % from it")
            )
        lines = [f"  {name:<19} {value:<21} {note}".rstrip() for name, value, note in rows]
        head = f"{self.num_sentences:,} sentences, nats a sentence, </s> counted ({self.precision})"
        collapsed = self.diagnosis()
        return "\n".join([head, *lines, *([] if collapsed is None else [collapsed])])

    def diagnosis(self) -> str | None:
        """A collapsed latent in words, with the next thing to try."""
        return diagnosis(self.kl, self.active_units, self.latent_dim, self.permutation_cost)

    def _latent_rows(self) -> list[tuple[str, str, str]]:
        """What only a model with a latent has."""
        return [
            ("elbo", f"{self.elbo:.3f}", f"perplexity {self.perplexity_elbo:.3f}"),
            ("kl", f"{self.kl:.3f}", f"reconstruction {self.reconstruction:.3f}"),
            (
                "mutual information",
                f"{self.mutual_information:.3f} +- {self.mutual_information_stderr:.3f}",
                f"at most {self.mutual_information_cap:.3f} from {self.num_sentences:,} sentences",
            ),
            ("active units", f"{self.active_units} of {self.latent_dim}", ""),
            (
                "permuted latents",
                f"{self.permutation_cost:+.3f} +- {self.permutation_cost_stderr:.3f}",
                "nats, at posterior means",
            ),
        ]


def evaluate(
    model: VAE,
    data: TokenArray,
    counts: TextCounts,
    *,
    num_samples: int,
    seed: int,
    rows: int = ROWS,
    dtype: torch.dtype = torch.float32,
) -> Evaluation:
    """All figures of a model on a corpus.

    Args:
        model: in evaluation mode.
        data: N sentences, tokenized; each counts once.
        counts: of the same sentences.
        num_samples: K of the importance-weighted bound; of a language model one is exact.
        seed: of the samples.
        rows: latents decoded at once, which bounds the memory.
        dtype: of the matrix products.
    """
    begun, data = time.perf_counter(), data.to(model.device)
    size, num_tokens = data.num_sentences, data.num_targets
    num_samples = 1 if model.is_language_model else num_samples
    posterior = encode_corpus(model, data, dtype=dtype)
    likelihoods = importance_weighted(
        model, data, posterior, num_samples=num_samples, seed=seed, rows=rows, dtype=dtype
    )
    information = mutual_information(posterior, seed=seed)
    costs = permutation_costs(model, data, posterior.mean, seed=seed, dtype=dtype)
    total, elbo = float(likelihoods.nll.sum()), float(likelihoods.elbo.mean())
    return Evaluation(
        nll=total / size,
        nll_stderr=_stderr(likelihoods.nll),
        nll_monte_carlo_stderr=float(likelihoods.monte_carlo_variance.sum().sqrt()) / size,
        elbo=elbo,
        kl=float(likelihoods.kl.mean()),
        reconstruction=float(likelihoods.reconstruction.mean()),
        perplexity=_exp(total / num_tokens),
        perplexity_elbo=_exp(-elbo * size / num_tokens),
        num_tokens=num_tokens,
        num_sentences=size,
        num_samples=num_samples,
        mutual_information=information.value,
        mutual_information_stderr=information.stderr,
        mutual_information_cap=information.cap,
        active_units=active_units(posterior.mean),
        latent_dim=posterior.mean.shape[1],
        permutation_cost=float(costs.mean()),
        permutation_cost_stderr=_stderr(costs),
        perplexity_per_word=_exp(total / counts.num_words),
        bits_per_character=total / math.log(2.0) / counts.num_characters,
        num_words=counts.num_words,
        num_characters=counts.num_characters,
        seed=seed,
        precision=str(dtype).removeprefix("torch."),
        device=str(model.device),
        torch_version=str(torch.__version__),
        seconds=time.perf_counter() - begun,
    )


def _brief(value: float) -> str:
    """Three decimals, or three digits of what is huge: a word of unspaced text is a sentence."""
    return f"{value:.3f}" if value < 1e6 else f"{value:.2e}"


def _stderr(values: torch.Tensor) -> float:
    """Standard error of the mean; 0 for a single value, of which nothing is known."""
    return float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def _exp(value: float) -> float:
    """At most exp(700) = 1e304, which a diverged model may exceed: JSON has no infinity."""
    return math.exp(min(value, 700.0))
