"""Anomaly scores of sentences from their likelihoods and latents. Higher is more anomalous.

`measure_features` computes the features of sentences in one pass, and a score is a pure function
of them: a new one is a line of SCORES.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from textvae.data.batching import TokenArray
from textvae.metrics.likelihood import encode_corpus, importance_weighted
from textvae.model.gaussian import DiagonalGaussian, aggregate_covariance
from textvae.model.interfaces import END
from textvae.model.vae import VAE


class ScoreFeatures(NamedTuple):
    """The quantities that scores are computed from, for N sentences, float64 `[N]`."""

    nll: Tensor
    """Minus the importance-weighted log-likelihood, nats."""
    elbo: Tensor
    """The bound below the log-likelihood, nats."""
    reconstruction: Tensor
    """-log p(x|z) averaged over the samples, nats."""
    kl: Tensor
    """KL of the posterior from the prior, nats."""
    num_tokens: Tensor
    """`</s>` counted."""
    background_nll: Tensor
    """Minus the log-likelihood under the background model, nats; NaN where there is none."""
    distance: Tensor
    """Distance of the posterior mean from the aggregate posterior, in deviations; or NaN."""

    def select(self, rows: Tensor) -> "ScoreFeatures":
        """Those of some sentences, int64 or bool."""
        return ScoreFeatures(*(values[rows] for values in self))


ScoreFunction = Callable[[ScoreFeatures], Tensor]
"""Scores `[N]` of sentences."""


class Aggregate(NamedTuple):
    """Mean and covariance of the aggregate posterior of a corpus, float64, on the CPU."""

    mean: Tensor
    """`[Z]`."""
    factor: Tensor
    """`[Z, Z]`: the Cholesky factor of the covariance, lower."""


SCORES: dict[str, ScoreFunction] = {
    "nll": lambda features: features.nll,
    "elbo": lambda features: -features.elbo,
    "nll_per_token": lambda features: features.nll / features.num_tokens,
    "likelihood_ratio": lambda features: features.nll - features.background_nll,
    "kl": lambda features: features.kl,
    "mahalanobis": lambda features: features.distance,
}
"""The scores that need no fit. The nll per token is the logarithm of the sentence's own perplexity.
The likelihood ratio (Ren et al. 2019, with the sign of an anomaly score) divides out what is
unlikely under any model, such as a long sentence or a rare word. Mahalanobis 1936; for anomalies
Lee et al. 2018."""
COMBINED = "combined"
SCORE_KINDS = (*SCORES, COMBINED)
LATENT_KINDS = {"kl", "mahalanobis"}
"""The scores about the latent, which a language model lacks."""


def fit_score(kind: str, normal: ScoreFeatures) -> ScoreFunction:
    """The score of one of SCORE_KINDS, fitted to normal sentences if it needs a fit.

    `combined` is how much more unlikely a sentence is than normal ones as long, and as long and as
    rare: the sum of two standardized residuals of the nll, of its regression on the number of
    tokens, and of that on the number of tokens and the background nll.
    """
    if kind != COMBINED:
        return SCORES[kind]
    parts = [_residual(normal, rarity=rarity) for rarity in (False, True)]
    # Nothing left at all is no reason to divide by nothing.
    spreads = [part(normal).square().mean().sqrt().clamp(min=1e-6) for part in parts]

    def combined(features: ScoreFeatures) -> Tensor:
        first, second = (p(features) / s for p, s in zip(parts, spreads, strict=True))
        return first + second

    return combined


def _residual(normal: ScoreFeatures, *, rarity: bool) -> ScoreFunction:
    """(nll - a - b num_tokens [- c background_nll]) / sqrt(num_tokens), by weighted least squares.

    Each normal sentence weighs 1 / num_tokens: the variance of a sum grows with its terms.
    """

    def inputs(features: ScoreFeatures) -> Tensor:
        columns = [torch.ones_like(features.nll), features.num_tokens]
        return torch.stack([*columns, features.background_nll] if rarity else columns, dim=1)

    weight = normal.num_tokens.rsqrt()[:, None]
    # By the pseudo-inverse: of sentences that are all as long, the fit is not unique.
    solution = torch.linalg.pinv(inputs(normal) * weight) @ (normal.nll[:, None] * weight)
    return lambda features: (
        (features.nll - (inputs(features) @ solution)[:, 0]) * features.num_tokens.rsqrt()
    )


def unigram_log_probs(data: TokenArray) -> Tensor:
    """Log-probabilities `[V]` of single tokens, `</s>` among them, float64.

    One is added to each count (Laplace), so that nothing is impossible.
    """
    counts = torch.bincount(data.tokens.long(), minlength=data.start).double()
    counts[END] += data.num_sentences
    return ((counts + 1.0) / (counts + 1.0).sum()).log()


def aggregate_of(posterior: DiagonalGaussian) -> Aggregate:
    """Mean and covariance of (1/N) sum_i q(z|x_i), from the posteriors `[N, Z]`.

    The covariance is that of the means plus the mean of the variances (the law of total variance).
    So it can be inverted, and a dimension that carries nothing has a variance of about 1, and not
    the tiny one of its means, which would make noise of the encoder into distance.
    """
    posterior = posterior.apply(lambda part: part.cpu().double())
    covariance = aggregate_covariance(posterior)
    return Aggregate(posterior.mean.mean(0), torch.linalg.cholesky(covariance))


def measure_features(
    model: VAE,
    data: TokenArray,
    *,
    num_samples: int,
    seed: int,
    unigram: Tensor | None = None,
    background: VAE | None = None,
    aggregate: Aggregate | None = None,
    spelling: Tensor | None = None,
) -> ScoreFeatures:
    """The features of N sentences.

    Every sentence has the same draws, so its features do not depend on the others. Of a language
    model the nll is exact, and KL and distance are 0. The background is a language model of the
    same tokens, else the log-probabilities `[V]` of unigrams; the distance is that from an
    aggregate posterior.
    """
    data, same = data.to(model.device), torch.zeros(data.num_sentences, dtype=torch.int64)
    posterior = encode_corpus(model, data)
    likelihoods = importance_weighted(
        model,
        data,
        posterior,
        num_samples=1 if model.is_language_model else num_samples,
        seed=seed,
        numbers=same,
    )
    unknown = torch.full_like(likelihoods.nll, torch.nan)
    distance, other = unknown, unknown
    if aggregate is not None:
        away = (posterior.mean.cpu().double() - aggregate.mean).t()
        distance = torch.linalg.solve_triangular(aggregate.factor, away, upper=False).norm(dim=0)
    if background is not None:
        nothing = encode_corpus(background, data)
        other = importance_weighted(background, data, nothing, num_samples=1, seed=seed).nll
    elif unigram is not None:
        words = torch.cat([unigram.new_zeros(1), unigram[data.tokens.cpu().long()].cumsum(0)])
        offsets = data.offsets
        ends = unigram[END] * (data.lengths - offsets.diff())  # 0 where a sentence is cut
        other = -(words[offsets[1:]] - words[offsets[:-1]] + ends)
    spelled = 0.0 if spelling is None else spelling.to(likelihoods.nll)
    return ScoreFeatures(
        nll=likelihoods.nll + spelled,
        elbo=likelihoods.elbo - spelled,
        reconstruction=likelihoods.reconstruction + spelled,
        kl=likelihoods.kl,
        num_tokens=data.lengths.double(),
        background_nll=other + spelled,
        distance=distance,
    )
