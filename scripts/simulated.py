"""Text and models for the benchmark, made up: lengths and words like those of newspaper text.

All is a function of a seed, drawn through textvae.randomness, so that every machine measures the
same work.
"""

import math

import torch
from torch import Tensor

from textvae.data.batching import TokenArray
from textvae.model.decoder import GRUDecoder
from textvae.model.interfaces import END
from textvae.model.recurrent import GRULayer
from textvae.model.vae import VAE
from textvae.randomness import key, normals, uniforms

MEAN_LENGTH, LENGTH_DEVIATION = 22.1, 10.3
"""Lengths of the sentences of the Penn Treebank, `</s>` counted."""
MIN_LENGTH, MAX_LENGTH = 2, 83
FIRST_WORD = 2
"""After `</s>` and `<unk>`."""
SHARED_WORDS = 20
"""The most frequent words are as frequent under every topic."""
ATTEMPTS = 8
"""Each is accepted with probability 0.98, so that all eight fail for none of any number drawn."""


def simulated_lengths(size: int, *, seed: int) -> Tensor:
    """Targets of each sentence, `</s>` counted, int64 `[N]`: gamma distributed, clipped.

    By the rejection method of Marsaglia and Tsang (2000).
    """
    shape = (MEAN_LENGTH / LENGTH_DEVIATION) ** 2
    scale = LENGTH_DEVIATION**2 / MEAN_LENGTH
    d = shape - 1 / 3
    sentences = torch.arange(size)
    normal = normals(key(seed, "lengths"), sentences, lanes=ATTEMPTS).double()
    uniform = uniforms(key(seed, "lengths", "accept"), sentences, lanes=ATTEMPTS).double()
    v = (1 + normal / math.sqrt(9 * d)).clamp(min=1e-6) ** 3
    accepted = uniform.log() < 0.5 * normal.square() + d - d * v + d * v.log()
    first = accepted.int().argmax(1)
    drawn = d * v.gather(1, first[:, None])[:, 0] * scale
    return drawn.round().long().clamp(MIN_LENGTH, MAX_LENGTH)


def zipf(num_words: int, exponent: float = 1.0) -> Tensor:
    """Probabilities of words by rank, float64 `[num_words]` (Zipf 1935)."""
    weights = torch.arange(1, num_words + 1, dtype=torch.float64) ** -exponent
    return weights / weights.sum()


def simulated_corpus(
    size: int, vocabulary: int, *, seed: int, num_topics: int = 1, length: int | None = None
) -> TokenArray:
    """Sentences of independent words with Zipf's frequencies.

    Args:
        size: sentences.
        vocabulary: V; the words go from 2 to V - 1.
        seed: of all that is drawn.
        num_topics: each sentence has one, and its rarer words are those of the topic, so that
            with more than one there is something for a latent to encode.
        length: of every sentence, `</s>` counted, in place of drawn lengths.
    """
    lengths = simulated_lengths(size, seed=seed)
    if length is not None:
        lengths = torch.full_like(lengths, length)
    offsets = torch.zeros(size + 1, dtype=torch.int64)
    offsets[1:] = (lengths - 1).cumsum(0)
    positions = torch.arange(int(offsets[-1]))
    cumulative = zipf(vocabulary - FIRST_WORD).cumsum(0)
    draws = uniforms(key(seed, "words"), positions).double()
    ranks = torch.searchsorted(cumulative, draws).clamp_(max=vocabulary - FIRST_WORD - 1)
    topics = (uniforms(key(seed, "topics"), torch.arange(size)) * num_topics).long()
    rarer = max(1, vocabulary - FIRST_WORD - SHARED_WORDS)
    shift = topics.repeat_interleave(lengths - 1) * (rarer // num_topics)
    shifted = SHARED_WORDS + (ranks - SHARED_WORDS + shift) % rarer
    words = FIRST_WORD + torch.where(ranks < SHARED_WORDS, ranks, shifted)
    return TokenArray(words.int(), offsets, vocabulary)


def give_usual_lengths(model: VAE) -> None:
    """Change a model's weights so that it ends its sentences as newspapers do, about 25 words on.

    An untrained model would draw `</s>` once in V words. Unit 0 of the decoder is made to count: it
    is 1 - 0.97^t after t words, whatever they are, and raises the log-odds of `</s>` from -5.27 by
    4.8 times itself. The other words get Zipf's frequencies: an entropy of 5.8 nats at V 10,000,
    that of a model with a perplexity of 330.
    """
    decoder = model.decoder
    assert isinstance(decoder, GRUDecoder)
    assert decoder.output_embedding is not None
    assert decoder.initial_weight is not None
    assert decoder.initial_bias is not None
    layer = decoder.layers[0]
    assert isinstance(layer, GRULayer)
    assert layer.condition_weight is not None
    hidden = decoder.config.hidden_dim
    gates = torch.tensor([0, hidden, 2 * hidden])
    with torch.no_grad():
        for weight in (layer.input_weight, layer.recurrent_weight, layer.condition_weight):
            weight[gates] = 0.0
        # The update gate keeps 0.97 of the unit, and tanh(10) is 1 in float32.
        layer.bias[gates] = torch.tensor([0.0, math.log(0.97 / 0.03), 10.0]).to(layer.bias)
        layer.recurrent_bias[0] = 0.0
        decoder.initial_weight[0] = 0.0
        decoder.initial_bias[0] = 0.0
        decoder.output_embedding[:, 0] = 0.0
        decoder.output_embedding[END] = 0.0
        decoder.output_embedding[END, 0] = 4.8
        others = zipf(decoder.vocabulary_size - 1, 1.1).log()
        decoder.output_bias[END + 1 :] = others.to(decoder.output_bias)
        decoder.output_bias[END] = -5.27
