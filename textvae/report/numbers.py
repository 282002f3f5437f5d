"""The numbers of an evaluation by name, wherever they come from."""

from typing import NamedTuple

import msgspec

from textvae.evaluate.measurements import Measurements
from textvae.evaluate.summary import Evaluation

_BY_TOKEN = ("perplexity", "perplexity_elbo")
_WITH_ERROR = ("nll", "mutual_information", "permutation_cost")
_PLAIN = (
    "elbo",
    "kl",
    "reconstruction",
    "perplexity_per_word",
    "bits_per_character",
    "mutual_information_cap",
    "active_units",
    "source_nll",
)


class Number(NamedTuple):
    """A figure."""

    value: float
    stderr: float | None = None
    unit: str = ""
    settings: str = ""


class Numbers(NamedTuple):
    """Figures by name, and what they are of. What is unknown is not among them."""

    figures: dict[str, Number]
    source: str
    num_sentences: int
    tokenizer: str
    latent_dim: int
    seed: int
    precision: str
    when: str
    """How they came about, for the beginning of a sentence."""

    def value(self, name: str) -> float | None:
        """A figure's value; None where it is not there."""
        found = self.figures.get(name)
        return None if found is None else found.value


def numbers_of(found: Evaluation, when: str) -> Numbers:
    """Those of an evaluation."""
    words, characters = f"{found.num_words:,} words", f"{found.num_characters:,} characters"
    tokens = f"over {found.num_tokens:,} {found.tokenizer or 'model'} tokens, ends counted"
    settings = {
        "nll": f"K = {found.num_samples}, {found.num_sentences:,} sentences, ends counted"
        if found.latent_dim
        else f"{found.num_sentences:,} sentences, ends counted",
        "perplexity": tokens,
        "perplexity_elbo": tokens,
        "perplexity_per_word": f"over {words} between blanks, ends counted",
        "bits_per_character": f"over {characters}, ends counted",
        "permutation_cost": "at posterior means",
    }
    figures = {}
    for name in (*_WITH_ERROR, *_BY_TOKEN, *_PLAIN):
        value = getattr(found, name)
        if value is not None:
            stderr = getattr(found, f"{name}_stderr") if name in _WITH_ERROR else None
            figures[name] = Number(value, stderr, "", settings.get(name, ""))
    return Numbers(
        figures=figures,
        source=found.source,
        num_sentences=found.num_sentences,
        tokenizer=found.tokenizer,
        latent_dim=found.latent_dim,
        seed=found.seed,
        precision=found.precision,
        when=when,
    )


def numbers_of_file(found: Measurements) -> Numbers:
    """Those that `textvae evaluate` kept; lists of numbers are not figures."""
    figures = {}
    for figure in found:
        if isinstance(figure.value, int | float):
            stderr = None if isinstance(figure.stderr, msgspec.UnsetType) else figure.stderr
            figures[figure.name] = Number(figure.value, stderr, figure.unit, figure.settings)
    return Numbers(
        figures=figures,
        source=found.data.source,
        num_sentences=found.data.num_sentences,
        tokenizer=found.model.tokenizer,
        latent_dim=found.model.latent_dim,
        seed=found.seed,
        precision=found.precision,
        when="Measured by `textvae evaluate`",
    )
