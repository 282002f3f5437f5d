"""The text and the log-probability of each token of a sentence."""

from collections.abc import Sequence
from typing import NamedTuple

from textvae.api.inputs import as_sentences
from textvae.data.spelling import SpellingModel
from textvae.data.tokenizer import Tokenizer
from textvae.errors import ConfigError
from textvae.metrics.likelihood import encode_corpus, token_likelihoods
from textvae.model.interfaces import UNKNOWN
from textvae.model.vae import VAE
from textvae.run.held_out import Origin, given, tokenize_given

NUM_SAMPLES = 20
"""The default of K."""


class TokenLogProbs(NamedTuple):
    """The tokens of a sentence, `</s>` last, and their log-probabilities in nats.

    An unknown word has its own text and costs its spelling, where the model has one of spelling.
    """

    tokens: list[str]
    """The text of each; a part of a character, of sub-words, is U+FFFD."""
    at_mean: list[float]
    """log p(token | those before, z) at the posterior mean: their sum is log p(x|z)."""
    increments: list[float]
    """The growth of the importance-weighted bound of the text by each token: an estimate of
    log p(token | those before), with z from the posterior of the whole sentence."""
    latent: float
    """The bound before the first token, which with the increments is that of the sentence."""


def measure_token_log_probs(
    model: VAE,
    spelling: SpellingModel | None,
    origin: Origin,
    sentences: Sequence[str],
    *,
    num_samples: int,
    seed: int,
) -> list[TokenLogProbs]:
    """`TextVAE.token_log_probs` of a model."""
    if num_samples < 1:
        raise ConfigError(f"num_samples {num_samples}: must be at least 1")
    sentences, tokenizer = as_sentences(sentences), origin.tokenizer
    array, _ = tokenize_given(origin, given(sentences), sentences)
    array = array.to(model.device)
    if model.is_language_model:
        num_samples = 1
    posterior = encode_corpus(model, array)
    likelihoods = token_likelihoods(model, array, posterior, num_samples=num_samples, seed=seed)
    rows = []
    for sentence, *figures, latent in zip(sentences, *likelihoods, strict=True):
        pieces, costs = _pieces(tokenizer, spelling, sentence)
        at_mean, increments = (
            [value + cost for value, cost in zip(column.tolist(), costs, strict=True)]
            for column in figures
        )
        rows.append(TokenLogProbs(pieces, at_mean, increments, float(latent)))
    return rows


def _pieces(
    tokenizer: Tokenizer, spelling: SpellingModel | None, sentence: str
) -> tuple[list[str], list[float]]:
    """The text of each token, and the log-probability of the spelling of the unknown ones."""
    ids = tokenizer.encode(sentence)
    utf8 = tokenizer.token_bytes()
    if utf8 is None:
        pieces = tokenizer.token_texts(sentence)
    else:
        pieces = [utf8[token].decode(errors="replace") for token in ids]
    costs = [0.0] * len(ids)
    if spelling is not None:
        for place, token in enumerate(ids):
            if token == UNKNOWN:
                costs[place] = spelling.log_prob(pieces[place])
    return [*pieces, "</s>"], [*costs, 0.0]
