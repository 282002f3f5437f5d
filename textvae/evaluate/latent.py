"""The evaluator `latent`: what it holds, where, and how far its aggregate is from the prior."""

from collections.abc import Iterator
from typing import Annotated, NamedTuple

import torch
from msgspec import Meta
from torch import Tensor

from textvae.config import Config
from textvae.data.batching import TokenArray
from textvae.evaluate.bounds import NATS
from textvae.evaluate.measurements import Figure
from textvae.evaluate.subject import Subject
from textvae.generate.neighbors import AggregateMoments
from textvae.metrics.latent_usage import (
    ACTIVE_VARIANCE,
    AggregateDraws,
    active_units,
    aggregate_draws,
    mutual_information,
    permutation_costs,
    standard_error,
)
from textvae.model.gaussian import DiagonalGaussian, aggregate_covariance
from textvae.model.interfaces import Prior
from textvae.model.vae import VAE


class LatentUse(NamedTuple):
    """How much of the latent is used; as fields of `report.Evaluation`."""

    mutual_information: float
    mutual_information_stderr: float | None
    mutual_information_cap: float
    active_units: int | None
    latent_dim: int
    permutation_cost: float | None
    permutation_cost_stderr: float | None


def latent_use(
    model: VAE,
    data: TokenArray,
    posterior: DiagonalGaussian,
    *,
    seed: int,
    dtype: torch.dtype = torch.float32,
    draws: AggregateDraws | None = None,
) -> LatentUse:
    """Mutual information, active units and the cost of permuting latents, of N sentences.

    Args:
        model: in evaluation mode.
        data: on the model's device.
        posterior: of the same sentences, `[N, Z]`.
        seed: of the draws and of the permutation.
        dtype: of the matrix products.
        draws: of `aggregate_draws`, where they are at hand.

    Returns:
        What a single sentence cannot say is None.
    """
    information = mutual_information(posterior, seed=seed, draws=draws)
    costs = permutation_costs(model, data, posterior.mean, seed=seed, dtype=dtype)
    known = not bool(costs.isnan().any())
    stderr = standard_error(costs)
    return LatentUse(
        mutual_information=information.value,
        mutual_information_stderr=information.stderr,
        mutual_information_cap=information.cap,
        active_units=active_units(posterior.mean),
        latent_dim=posterior.mean.shape[1],
        permutation_cost=float(costs.mean()) if known else None,
        permutation_cost_stderr=stderr if known else None,
    )


def aggregate_kl(draws: AggregateDraws, prior: Prior) -> tuple[float, float | None]:
    """KL(q(z) || p(z)) of the aggregate posterior, estimated: (1/N) sum_i log q(z_i) - log p(z_i).

    The third term of Hoffman and Johnson 2016: kl = mutual information + this, in expectation. Of
    the same draws as the mutual information.

    Returns:
        Nats, and the standard error over the draws.
    """
    terms = draws.aggregate - prior.log_prob(draws.latents)
    return float(terms.mean()), standard_error(terms)


def moments_kl(mean: Tensor, covariance: Tensor, prior: Prior) -> float:
    """KL of a normal, float64 `[Z]` and `[Z, Z]`, from the prior, in nats.

    1/2 (tr S + m.m - Z - log det S) in units of the prior: of all distributions with these moments
    the least distance.
    """
    units = prior.to_normals(torch.eye(len(mean)).to(mean)) - prior.to_normals(mean.new_zeros(()))
    mean, covariance = prior.to_normals(mean), units.t() @ covariance @ units
    trace, square = covariance.diagonal().sum(), mean.square().sum()
    determinant = torch.linalg.slogdet(covariance).logabsdet
    return 0.5 * float(trace + square - len(mean) - determinant)


class LatentEvaluator(Config, tag_field="kind", tag="latent"):
    """Mutual information, active units, KL by dimension, and the aggregate posterior's distance."""

    max_sentences: Annotated[int, Meta(ge=1)] = 20_000
    """Where there are more, a random subset for what compares each sentence with each other."""

    def run(self, subject: Subject) -> Iterator[Figure]:
        """The figures; none of a language model, which has no latent."""
        if subject.model.is_language_model:
            return
        posterior = subject.posterior
        chosen = subject.subset(self.max_sentences, "latent").to(posterior.mean.device)
        some = posterior.select(chosen)
        draws = aggregate_draws(some, seed=subject.seed)
        data, size = subject.data, len(chosen)
        if size < data.num_sentences:
            data = subject.data.select(chosen)
        found = latent_use(
            subject.model, data, some, seed=subject.seed, dtype=subject.dtype, draws=draws
        )
        pairs = f"from {size:,} sentences"
        yield Figure(
            name="mutual_information",
            value=found.mutual_information,
            stderr=found.mutual_information_stderr,
            unit=NATS,
            settings=f"at most {found.mutual_information_cap:.3f} {pairs}",
        )
        yield Figure(
            name="mutual_information_cap",
            value=found.mutual_information_cap,
            unit=NATS,
            settings=f"log {size:,}",
        )
        yield Figure(
            name="active_units",
            value=found.active_units,
            settings=f"of {found.latent_dim}: means vary by more than {ACTIVE_VARIANCE}, {pairs}",
        )
        yield Figure(
            name="permutation_cost",
            value=found.permutation_cost,
            stderr=found.permutation_cost_stderr,
            unit=NATS,
            settings=f"at posterior means, {pairs}",
        )
        yield from _where(subject, posterior)
        distance, stderr = aggregate_kl(draws, subject.model.prior)
        yield Figure(
            name="aggregate_kl",
            value=distance,
            stderr=stderr,
            unit="nats",
            settings=f"KL(q(z) || p(z)), {pairs}, one draw each",
        )


def _where(subject: Subject, posterior: DiagonalGaussian) -> Iterator[Figure]:
    """In which dimensions the KL lies, and the moments of the aggregate posterior."""
    kl = subject.model.prior.kl(posterior).double().mean(0)
    total, size = float(kl.sum()), f"{len(posterior.mean):,} sentences"
    yield Figure(name="kl_per_dimension", value=kl.tolist(), unit=NATS, settings=size)
    yield Figure(
        name="kl_largest_share",
        value=float(kl.max()) / total if total > 0.0 else None,
        unit="share",
        settings=f"of the KL, in dimension {int(kl.argmax())} of 0 to {len(kl) - 1}",
    )
    moments = AggregateMoments()
    moments.add(posterior)
    yield Figure(name="aggregate_mean", value=moments.mean.tolist(), settings=size)
    yield Figure(name="aggregate_deviation", value=moments.deviation.tolist(), settings=size)
    if not subject.model.prior.kl_is_exact:
        return  # how far a normal is from a mixture is no bound of aggregate_kl
    covariance = aggregate_covariance(posterior).cpu()
    yield Figure(
        name="aggregate_moments_kl",
        value=moments_kl(moments.mean, covariance, subject.model.prior),
        unit="nats",
        settings="of the normal with the moments of q(z) from the prior, exact",
    )
