"""Every figure of a model on a corpus in one pass, each with the settings that made it."""

import time

import msgspec
import torch

from textvae.data.batching import TokenArray
from textvae.evaluate.bounds import TextCounts, bounds
from textvae.evaluate.latent import latent_use
from textvae.evaluate.subject import count_unknown
from textvae.metrics.latent_usage import diagnosis
from textvae.metrics.likelihood import ROWS, encode_corpus
from textvae.model.vae import VAE


class Evaluation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Figures of a model on a corpus. Nats a sentence, `</s>` counted, unless it says otherwise.

    None is unknown: of a single sentence no standard error, no active unit and no permutation, of
    a single sample no Monte Carlo error.
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
    num_tokens: int
    """The denominator: tokens of the model's tokenizer, and one `</s>` for each sentence."""
    num_sentences: int
    num_samples: int
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
    num_unknown: int | None = None
    """Of `num_tokens`, those that are `<unk>`: a word that the vocabulary lacks costs less than the
    word itself, so every figure a word or a character is flattered by them. None: not counted."""
    source_nll: float | None = None
    """The exact nll of the same sentences under the grammar they were drawn from."""
    source_entropy: float | None = None
    """The exact entropy of that grammar: what source_nll is on average."""

    def table(self) -> str:
        """The figures for a reader."""
        kind = f"K = {self.num_samples}" if self.latent_dim else "exact: there is no latent"
        rows = [
            ("nll", plus_minus(self.nll, self.nll_stderr), kind),
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
        if self.num_unknown:
            share = f"{100 * self.num_unknown / self.num_tokens:.2f} % of the tokens"
            rows.append(("unknown words", f"{self.num_unknown:,}", f"{share} are <unk>"))
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
                plus_minus(self.mutual_information, self.mutual_information_stderr),
                f"at most {self.mutual_information_cap:.3f} from {self.num_sentences:,} sentences",
            ),
            ("active units", _of(self.active_units, self.latent_dim), ""),
            (
                "permuted latents",
                plus_minus(self.permutation_cost, self.permutation_cost_stderr, "+.3f"),
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
    posterior = encode_corpus(model, data, dtype=dtype)
    likelihood = bounds(
        model, data, counts, posterior, num_samples=num_samples, seed=seed, rows=rows, dtype=dtype
    )
    use = latent_use(model, data, posterior, seed=seed, dtype=dtype)
    return Evaluation(
        **likelihood._asdict(),
        **use._asdict(),
        num_tokens=data.num_targets,
        num_sentences=data.num_sentences,
        num_words=counts.num_words,
        num_characters=counts.num_characters,
        num_unknown=count_unknown(data),
        seed=seed,
        precision=str(dtype).removeprefix("torch."),
        device=str(model.device),
        torch_version=str(torch.__version__),
        seconds=time.perf_counter() - begun,
    )


def _brief(value: float) -> str:
    """Three decimals, or three digits of what is huge: a word of unspaced text is a sentence."""
    return f"{value:.3f}" if value < 1e6 else f"{value:.2e}"


def _of(value: int | None, total: int) -> str:
    return "unknown" if value is None else f"{value} of {total}"


def plus_minus(value: float | None, stderr: float | None, form: str = ".3f") -> str:
    """A number with its standard error, or the word unknown."""
    if value is None:
        return "unknown"
    return f"{value:{form}} +- {'unknown' if stderr is None else format(stderr, '.3f')}"
