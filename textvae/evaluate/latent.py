"""The evaluator `latent`: what it carries, where, and how far its aggregate is from the prior."""

from collections.abc import Iterator, Mapping
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

from textvae.config import Config
from textvae.evaluate.bounds import NATS
from textvae.evaluate.measurements import Figure, Value, stderr_of
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
from textvae.model.gaussian import aggregate_covariance
from textvae.model.interfaces import Prior


def aggregate_kl(draws: AggregateDraws, prior: Prior) -> tuple[float, float | None]:
    """KL(q(z) || p(z)) of the aggregate posterior, estimated: (1/N) sum_i log q(z_i) - log p(z_i).

    The third term of Hoffman and Johnson 2016: kl = mutual information + this, in expectation. Of
    the same draws as the mutual information.

    Returns:
        Nats, and the standard error over the draws.
    """
    terms = draws.log_aggregate - prior.log_prob(draws.latents)
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
        model = subject.model
        if model.is_language_model:
            return
        rows = subject.subset(self.max_sentences, "latent").to(subject.posterior.mean.device)
        posterior, data, size = subject.posterior[rows], subject.data, len(rows)
        if size < data.num_sentences:
            data = data.select(rows)
        draws = aggregate_draws(posterior, seed=subject.seed)
        information = mutual_information(posterior, seed=subject.seed, draws=draws)
        costs = permutation_costs(
            model, data, posterior.mean, seed=subject.seed, dtype=subject.dtype
        )
        known = not bool(costs.isnan().any())
        values: dict[str, Value] = {
            "mutual_information": information.value,
            "mutual_information_stderr": information.stderr,
            "mutual_information_cap": information.cap,
            "active_units": active_units(posterior.mean),
            "permutation_cost": float(costs.mean()) if known else None,
            "permutation_cost_stderr": standard_error(costs) if known else None,
        }
        yield from latent_figures(values, num_sentences=size, latent_dim=model.prior.latent_dim)
        yield from _moments(subject)
        distance, stderr = aggregate_kl(draws, model.prior)
        settings = f"KL(q(z) || p(z)), from {size:,} sentences, one draw each"
        yield Figure("aggregate_kl", distance, "nats", settings, stderr)


def latent_figures(
    values: Mapping[str, Value], *, num_sentences: int, latent_dim: int
) -> Iterator[Figure]:
    """Figures from their values by name, with units and settings."""
    cap, size = values["mutual_information_cap"], f"from {num_sentences:,} sentences"
    rows = [
        ("mutual_information", NATS, f"at most {cap:.3f} {size}"),
        ("mutual_information_cap", NATS, f"log {num_sentences:,}"),
        ("active_units", "", f"of {latent_dim}: means vary by more than {ACTIVE_VARIANCE}, {size}"),
        ("permutation_cost", NATS, f"at posterior means, {size}"),
    ]
    for name, unit, settings in rows:
        yield Figure(name, values[name], unit, settings, stderr_of(name, values))


def _moments(subject: Subject) -> Iterator[Figure]:
    """The KL of each dimension, and the moments of the aggregate posterior."""
    prior, posterior = subject.model.prior, subject.posterior
    kl = prior.kl(posterior).double().mean(0)
    total, size = float(kl.sum()), f"{len(posterior.mean):,} sentences"
    yield Figure("kl_per_dimension", kl.tolist(), NATS, size)
    largest = float(kl.max()) / total if total > 0.0 else None
    where = f"of the KL, in dimension {int(kl.argmax())} of 0 to {len(kl) - 1}"
    yield Figure("kl_largest_share", largest, "share", where)
    moments = AggregateMoments()
    moments.add(posterior)
    yield Figure("aggregate_mean", moments.mean.tolist(), settings=size)
    yield Figure("aggregate_deviation", moments.deviation.tolist(), settings=size)
    if prior.kl_is_exact:  # how far a Gaussian is from a mixture does not bound aggregate_kl
        distance = moments_kl(moments.mean, aggregate_covariance(posterior).cpu(), prior)
        settings = "of the normal with the moments of q(z) from the prior, exact"
        yield Figure("aggregate_moments_kl", distance, "nats", settings)
