"""Classifiers on latents, M1 of Kingma et al. 2014: prototypes, and logistic regression.

Prototypes need nothing but the labelled latents; logistic regression is scikit-learn's.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from textvae.errors import ConfigError
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.labelling import log_prior_of


class Prototypes(NamedTuple):
    """A Gaussian for each label, of one diagonal covariance: linear discriminant analysis.

    The mean of a label's sentences is its prototype (Snell et al. 2017), and a dimension counts by
    its variance within labels. That variance is of draws from the posteriors, so that a dimension
    that carries nothing, whose posteriors are as wide as the prior, has little weight.
    """

    means: Tensor
    """`[L, Z]`."""
    variance: Tensor
    """`[Z]`."""
    log_prior: Tensor
    """`[L]`: the log-frequency of each label, one added to each count."""

    def log_posterior(self, means: Tensor) -> Tensor:
        """Log p(y|z) `[N, L]` in nats at posterior means `[N, Z]`, by Bayes' rule."""
        squared = (means.double()[:, None] - self.means).square() / self.variance
        return (self.log_prior - 0.5 * squared.sum(2)).log_softmax(1)


def fit_prototypes(posterior: DiagonalGaussian, labels: Tensor, num_labels: int) -> Prototypes:
    """Prototypes of labelled posteriors `[N, Z]`, labels int64 `[N]`, each label at least once."""
    means, labels = posterior.mean.double().cpu(), labels.cpu()
    counts = labels.bincount(minlength=num_labels).double()
    sums = torch.zeros(num_labels, means.shape[1], dtype=torch.float64)
    centers = sums.index_add_(0, labels, means) / counts[:, None]
    within = (means - centers[labels]).square().sum(0) / max(1, len(labels) - num_labels)
    inside = posterior.log_variance.double().exp().mean(0).cpu()
    return Prototypes(centers, within + inside, log_prior_of(counts))


class LogisticRegression(NamedTuple):
    """Multinomial logistic regression on posterior means."""

    weight: Tensor
    """`[L, Z]`."""
    bias: Tensor
    """`[L]`."""

    def log_posterior(self, means: Tensor) -> Tensor:
        """Log p(y|z) `[N, L]` in nats at posterior means `[N, Z]`."""
        return (means.double() @ self.weight.t() + self.bias).log_softmax(1)


def fit_logistic_regression(
    posterior: DiagonalGaussian, labels: Tensor, num_labels: int
) -> LogisticRegression:
    """Logistic regression by scikit-learn with its L2 penalty (C = 1), on posterior means.

    Of posteriors `[N, Z]` and labels, int64 `[N]`, each of the L >= 2 labels at least once.
    ConfigError where scikit-learn is not installed.
    """
    try:
        from sklearn import linear_model  # noqa: PLC0415 -- an extra, and 1 s
    except ImportError:
        raise ConfigError(
            "--classifier logistic: needs scikit-learn; pip install 'textvae[eval]', or take "
            "--classifier prototypes"
        ) from None
    regression = linear_model.LogisticRegression(max_iter=10_000)
    regression.fit(posterior.mean.double().cpu().numpy(), labels.cpu().numpy())
    weight, bias = torch.from_numpy(regression.coef_), torch.from_numpy(regression.intercept_)
    if num_labels == 2:  # scikit-learn gives the log-odds of the second
        weight = torch.cat([torch.zeros_like(weight), weight])
        bias = torch.cat([torch.zeros_like(bias), bias])
    return LogisticRegression(weight.double(), bias.double())
