"""How much of the latent is used: mutual information, active units, and what losing it costs."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from textvae.data.batching import TokenArray
from textvae.metrics.likelihood import at_own_labels, reconstruction_at
from textvae.model.gaussian import LOG_TWO_PI, DiagonalGaussian
from textvae.model.vae import VAE
from textvae.randomness import key, normals, permutation

ACTIVE_VARIANCE = 0.01
"""A unit is active if the variance of its posterior mean over the corpus exceeds this
(Burda et al. 2016); the field uses the same threshold."""
MIXTURE_ROWS = 512
DEAD_KL, DEAD_COST = 0.5, 0.2
"""Nats per sentence below which a latent is unused: collapsed runs of the embedded corpus and the
Penn Treebank showed at most 0.1, runs that used it at least 4."""

REMEDY_NATS = 8.0
"""The floor that is advised to a collapsed run, over all dimensions, as in Li et al. 2019."""


class MutualInformation(NamedTuple):
    """An estimate of I(x; z) under the aggregate posterior of N sentences, in nats."""

    value: float
    stderr: float | None
    """Standard error over sentences; None for a single one."""
    cap: float
    """log N: no estimate from N sentences can exceed it."""


class AggregateDraws(NamedTuple):
    """One latent from each of N posteriors, and its densities; float64."""

    latents: Tensor
    """`[N, Z]`, z_i from q(z|x_i)."""
    log_q: Tensor
    """`[N]`: log q(z_i|x_i)."""
    log_aggregate: Tensor
    """`[N]`: log q(z_i), with q(z) = (1/N) sum_j q(z|x_j)."""


def active_units(mean: Tensor) -> int | None:
    """Units whose posterior mean, `[N, Z]`, varies over the corpus (Burda et al. 2016).

    None for a single sentence, over which nothing can vary; 0 without a latent.
    """
    if mean.shape[1] == 0:
        return 0
    if mean.shape[0] < 2:
        return None
    return int((mean.double().var(0) > ACTIVE_VARIANCE).sum())


def aggregate_draws(posterior: DiagonalGaussian, *, seed: int) -> AggregateDraws:
    """Draw once from each of N posteriors `[N, Z]`, and weigh the draws under their aggregate.

    The mixture density is a matrix product of (z^2, z) with (-1/2 precision, precision * mean), in
    float64.
    """
    mean, log_variance = posterior.mean.double(), posterior.log_variance.double()
    exact = DiagonalGaussian(mean, log_variance)
    size, dim = mean.shape
    index = torch.arange(size, device=mean.device)
    latents = exact.sample(normals(key(seed, "mutual information"), index, lanes=dim).double())
    precision = (-log_variance).exp()
    weights = torch.cat([-0.5 * precision, precision * mean], dim=1).t()
    constant = -0.5 * (precision * mean.square() + log_variance + LOG_TWO_PI).sum(1)
    marginal = torch.empty(size, dtype=torch.float64, device=mean.device)
    for rows in index.split(MIXTURE_ROWS):  # type: ignore[no-untyped-call]
        z = latents[rows]
        log_densities = torch.cat([z.square(), z], dim=1) @ weights + constant
        marginal[rows] = log_densities.logsumexp(1) - math.log(size)
    return AggregateDraws(latents, exact.log_prob(latents), marginal)


def mutual_information(
    posterior: DiagonalGaussian, *, seed: int, draws: AggregateDraws | None = None
) -> MutualInformation:
    """I(x; z) = E log q(z|x) - E log q(z), with q(z) the mean of all N posteriors.

    Hoffman and Johnson 2016; one draw per sentence, or those of `aggregate_draws` with this seed.
    """
    if draws is None:
        draws = aggregate_draws(posterior, seed=seed)
    terms = draws.log_q - draws.log_aggregate
    return MutualInformation(float(terms.mean()), standard_error(terms), math.log(len(terms)))


def standard_error(values: Tensor) -> float | None:
    """The standard error s / sqrt(N) of the mean of `[N]`; None for a single value."""
    return float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else None


def permutation_costs(
    model: VAE,
    data: TokenArray,
    mean: Tensor,
    *,
    seed: int,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """How many nats -log p(x|z) rises when each sentence gets another one's latent.

    At the posterior means `[N, Z]`; the permutation is one cycle through all sentences in a random
    order, so nobody keeps its own. A decoder that ignores the latent shows 0, however large the KL.

    Returns:
        float64 `[N]`; zeros without a latent. A single sentence has no other's latent to take:
        NaN, which is unknown.
    """
    if model.is_language_model:  # every sentence has the same nothing: three forward passes saved
        return torch.zeros(data.num_sentences, dtype=torch.float64)
    if data.num_sentences < 2:
        return torch.full((data.num_sentences,), math.nan, dtype=torch.float64)
    order = permutation(key(seed, "permute latents"), data.num_sentences).to(mean.device)
    other = torch.empty_like(order)
    other[order] = order.roll(1)
    reconstruction = reconstruction_at(model, data, at_own_labels(model, data, mean), dtype=dtype)
    permuted = at_own_labels(model, data, mean[other])  # of M2 the labels stay where they are
    return reconstruction_at(model, data, permuted, dtype=dtype) - reconstruction


def diagnosis(
    kl: float, active: int | None, latent_dim: int, cost: float | None = None
) -> str | None:
    """A warning that the latent is collapsed, with a remedy; None where it is used or absent.

    From nats per sentence: the KL, and what permuting the latents costs. None is unknown.
    """
    if latent_dim == 0:
        return None
    usage = f"KL {kl:.2f}, {'unknown' if active is None else active} of {latent_dim} units active"
    if kl < DEAD_KL or active == 0:
        return (
            f"the decoder ignores the latent: {usage}; raise free_bits or word_dropout: "
            "--set train.objective.free_bits.kind=per_dimension "
            f"--set train.objective.free_bits.nats={REMEDY_NATS / latent_dim:.2g} "
            "--set train.objective.word_dropout.kind=constant "
            "--set train.objective.word_dropout.value=0.3"
        )
    if cost is not None and cost < DEAD_COST:
        return (
            f"the latent is filled but not read: {usage}, yet permuting the latents costs only "
            f"{cost:.2f} nats; raise word_dropout or lower free_bits"
        )
    return None
