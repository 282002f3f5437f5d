"""Likelihoods in nats per sentence: the ELBO and the importance-weighted bound.

    log p(x) >= log 1/K sum_k w_k,   w_k = p(x|z_k) p(z_k) / q(z_k|x),   z_k ~ q(z|x)

(Burda et al. 2016; as an estimate of test likelihood, Rezende et al. 2014). It rises with K to the
truth. The encoder runs once per sentence, the samples share the decoder's input projections and are
streamed, so that memory does not grow with K. Several processes share the batches, and all of them
get the whole result, the same bits as one process.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from textvae import distributed
from textvae.data.batching import Batch, TokenArray
from textvae.kernels.linear_cross_entropy import token_log_likelihood
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.vae import VAE, sum_by_sentence, target_mask
from textvae.randomness import key, normals, uniforms

ROWS = 1024
"""Latents decoded at once: more falls out of a CPU's cache (docs/develop/log.md)."""
CUDA_ROWS, CELLS = 16_384, 2**19
"""The same on CUDA, where a launch costs more than memory, and the positions that these rows may
have in all, which bounds memory where sentences are long."""
ENCODER_BATCH = 64
CUDA_ENCODER_BATCH = 512
"""Sentences encoded at once, on a CPU and on CUDA."""


class SentenceLikelihoods(NamedTuple):
    """One number for each of N sentences, in the order of the corpus; nats, float64."""

    nll: Tensor
    """`[N]`: minus the importance-weighted log-likelihood."""
    elbo: Tensor
    """`[N]`: mean of log w over the samples; a bound below the log-likelihood."""
    reconstruction: Tensor
    """`[N]`: mean of -log p(x|z) over the samples."""
    kl: Tensor
    """`[N]`: KL(q(z|x) || p(z)), analytic unless the prior is a mixture."""
    monte_carlo_variance: Tensor
    """`[N]`: variance of the nll estimate over redraws of the samples (delta method)."""


class _Sums(NamedTuple):
    """Running sums over samples for some sentences, float64 `[B]`."""

    weight: Tensor
    """log of the sum of w."""
    squared_weight: Tensor
    """log of the sum of w^2."""
    log_weight: Tensor
    log_likelihood: Tensor


def encoder_batch(model: VAE) -> int:
    """Sentences that the model's device encodes at once."""
    return CUDA_ENCODER_BATCH if model.device.type == "cuda" else ENCODER_BATCH


def encode_corpus(
    model: VAE, data: TokenArray, *, dtype: torch.dtype = torch.float32
) -> DiagonalGaussian:
    """The posteriors of a corpus, `[N, Z]`, in its order."""
    dim = model.prior.latent_dim
    result = DiagonalGaussian(_zeros(model, data, dim), _zeros(model, data, dim))
    with torch.inference_mode():
        for batch in data.shared_batches(encoder_batch(model)):
            posterior = model.posterior(batch.targets, batch.lengths, dtype=dtype)
            result.mean[batch.indices] = posterior.mean.to(result.mean)
            result.log_variance[batch.indices] = posterior.log_variance.to(result.mean)
    return result.apply(distributed.all_reduce_sum)


def _zeros(model: VAE, data: TokenArray, *sizes: int) -> Tensor:
    """For each sentence of a corpus, in the precision of the model."""
    return next(model.parameters()).new_zeros(data.num_sentences, *sizes)


def label_log_posteriors(model: VAE, data: TokenArray) -> Tensor:
    """Log q(y|x) of a corpus in nats, `[N, L]`, in its order."""
    result = _zeros(model, data, model.labels.num_labels)
    with torch.inference_mode():
        for batch in data.shared_batches(encoder_batch(model)):
            result[batch.indices] = model.label_log_posterior(batch.targets, batch.lengths)
    return distributed.all_reduce_sum(result)


def likeliest_labels(model: VAE, data: TokenArray) -> Tensor | None:
    """The label with the largest q(y|x) of each sentence, int64 `[N]`; None without labels."""
    if not model.labels.num_labels:
        return None
    return label_log_posteriors(model, data).argmax(1)


def at_own_labels(model: VAE, data: TokenArray, latents: Tensor) -> Tensor:
    """The conditions `[N, C]` of the decoder for a latent per sentence, `[N, Z]`.

    With M2 a condition is the latent and the likeliest label of the sentence.
    """
    return model.condition(latents, likeliest_labels(model, data))


def importance_weighted(
    model: VAE,
    data: TokenArray,
    posterior: DiagonalGaussian,
    *,
    num_samples: int,
    seed: int,
    rows: int | None = None,
    dtype: torch.dtype = torch.float32,
    numbers: Tensor | None = None,
) -> SentenceLikelihoods:
    """Importance-weighted likelihoods of a corpus.

    Sample k of sentence i is a function of (seed, i, k), so the result does not depend on `rows`
    but for rounding.

    Args:
        model: in evaluation there is no dropout, no word dropout and no KL weight.
        data: N sentences, each of which counts once, `</s>` included.
        posterior: from `encode_corpus`, `[N, Z]`.
        num_samples: K.
        seed: of the samples.
        rows: latents decoded at once, None for a number that suits the device; memory grows with
            it, not with K.
        dtype: of the matrix products.
        numbers: int64 `[N]`, i of each sentence where that is not its place in `data`. Equal ones
            have the same draws, for a result that does not depend on what stands before it.
    """
    columns = torch.zeros(5, data.num_sentences, dtype=torch.float64, device=model.device)
    rows = rows or (CUDA_ROWS if model.device.type == "cuda" else ROWS)
    group = max(1, rows // num_samples)
    with torch.inference_mode():
        kl = _kl(model, data, posterior).double()
        for batch in data.shared_batches(group):
            local = posterior[batch.indices]
            at_once = min(rows, max(ROWS, CELLS // batch.inputs.shape[1]))
            chunk = max(1, at_once // group)
            sentences = batch.indices
            if numbers is not None:
                sentences = numbers.to(model.device)[sentences]
            sums = _stream(model, batch, sentences, local, num_samples, seed, chunk, dtype)
            log_k = math.log(num_samples)
            excess = (sums.squared_weight - 2 * sums.weight + log_k).exp() - 1
            likelihoods = SentenceLikelihoods(
                nll=log_k - sums.weight,
                elbo=sums.log_weight / num_samples,
                reconstruction=-sums.log_likelihood / num_samples,
                kl=kl[batch.indices],
                monte_carlo_variance=excess.clamp(min=0.0) / max(1, num_samples - 1),
            )
            columns[:, batch.indices] = torch.stack(likelihoods)
    return SentenceLikelihoods(*map(distributed.all_reduce_sum, columns.cpu()))


def _stream(
    model: VAE,
    batch: Batch,
    sentences: Tensor,
    posterior: DiagonalGaussian,
    num_samples: int,
    seed: int,
    chunk: int,
    dtype: torch.dtype,
) -> _Sums:
    """Sums of the weights of one group of sentences, `chunk` samples at a time."""
    zeros = torch.zeros(batch.lengths.shape[0], dtype=torch.float64, device=batch.lengths.device)
    sums = _Sums(zeros - math.inf, zeros - math.inf, zeros, zeros)
    for first in range(0, num_samples, chunk):
        numbers = torch.arange(first, min(first + chunk, num_samples), device=zeros.device)
        conditions, density = _proposals(model, batch, sentences, posterior, numbers, seed)
        likelihood = log_likelihood(model, batch, conditions, dtype=dtype).double()
        log_weights = likelihood + density
        sums = _Sums(
            torch.logaddexp(sums.weight, log_weights.logsumexp(0)),
            torch.logaddexp(sums.squared_weight, (2 * log_weights).logsumexp(0)),
            sums.log_weight + log_weights.sum(0),
            sums.log_likelihood + likelihood.sum(0),
        )
    return sums


def _proposals(
    model: VAE,
    batch: Batch,
    sentences: Tensor,
    posterior: DiagonalGaussian,
    numbers: Tensor,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Draws from the posteriors: conditions `[K, B, C]`, and log p(z) - log q(z|x), `[K, B]`."""
    draws_key = key(seed, "importance")
    noise = normals(draws_key, sentences, numbers[:, None], lanes=posterior.mean.shape[1])
    local, labels, extra = posterior, None, torch.zeros(())
    if model.labels.num_labels:
        draws = uniforms(key(seed, "importance label"), sentences, numbers[:, None])
        local, labels, extra = _labelled(model, batch, draws)
    latents = local.sample(noise)
    density = model.prior.log_prob(latents) - local.log_prob(latents) + extra
    return model.condition(latents, labels), density.double()


class TokenLikelihoods(NamedTuple):
    """Log-probabilities of the tokens of N sentences, `</s>` counted, nats, float64."""

    at_mean: list[Tensor]
    """log p(token | those before, z) at the posterior mean of each sentence."""
    increments: list[Tensor]
    """The growth of the importance-weighted bound of the text by each token, with the same
    samples of z throughout: an estimate of log p(token | those before)."""
    latent: Tensor
    """`[N]`: the bound before the first token, log of the mean of p(z) / q(z|x). With the
    increments it adds up to the bound of the sentence."""


def token_likelihoods(
    model: VAE, data: TokenArray, posterior: DiagonalGaussian, *, num_samples: int, seed: int
) -> TokenLikelihoods:
    """The log-probability of each token, of sentences that all have the same draws.

    Args:
        model: in evaluation mode.
        data: N sentences.
        posterior: from `encode_corpus`, `[N, Z]`.
        num_samples: K.
        seed: of the samples.
    """
    first = data.lengths.cumsum(0) - data.lengths
    flat = torch.zeros(2, data.num_targets, dtype=torch.float64, device=model.device)
    latent = torch.zeros(data.num_sentences, dtype=torch.float64, device=model.device)
    means = at_own_labels(model, data, posterior.mean)
    numbers = torch.arange(num_samples, device=model.device)
    with torch.inference_mode():
        for batch in data.shared_batches(max(1, ROWS // num_samples)):
            same, local = torch.zeros_like(batch.indices), posterior[batch.indices]
            conditions, density = _proposals(model, batch, same, local, numbers, seed)
            tokens = token_log_likelihoods(model, batch, conditions).double()
            sums = torch.cat([density[None], density + tokens.cumsum(0)])
            bound = sums.logsumexp(1) - math.log(num_samples)
            at_mean = token_log_likelihoods(model, batch, means[batch.indices][None])[:, 0]
            mask = target_mask(batch.lengths, batch.targets.shape[1])
            places = first.to(mask.device)[batch.indices][:, None] + torch.arange(
                mask.shape[1], device=mask.device
            )
            flat[0, places[mask]] = at_mean.t().double()[mask]
            flat[1, places[mask]] = bound.diff(dim=0).t()[mask]
            latent[batch.indices] = bound[0]
    lengths = data.lengths.tolist()
    at_mean, increments = distributed.all_reduce_sum(flat.cpu())
    return TokenLikelihoods(
        list(at_mean.split(lengths)),
        list(increments.split(lengths)),
        distributed.all_reduce_sum(latent.cpu()),
    )


def _labelled(model: VAE, batch: Batch, draws: Tensor) -> tuple[DiagonalGaussian, Tensor, Tensor]:
    """M2, draws `[K, B]` in [0, 1): q(z|x, y) at labels y drawn from q(y|x), and log p(y) / q(y|x).

    The sample of the importance weights is the pair (y, z): w = p(x|z,y) p(y) p(z) / q(y,z|x).
    """
    base, log_q = model.base_posterior(_readings(model, batch))
    cumulative = log_q.double().exp().cumsum(1)
    labels = (draws[:, :, None] >= cumulative).sum(2).clamp_(max=log_q.shape[1] - 1)
    log_q = log_q.expand(draws.shape[0], -1, -1).gather(2, labels[:, :, None])[:, :, 0]
    return (
        model.labels.posterior(base, labels),
        labels,
        model.labels.log_prior()[labels] - log_q,
    )


def _readings(model: VAE, batch: Batch) -> Tensor:
    return model.read(batch.targets, batch.lengths, noise=None, dtype=torch.float32)


def _kl(model: VAE, data: TokenArray, posterior: DiagonalGaussian) -> Tensor:
    """The KL of each sentence in nats `[N]`; of M2 that of the pair (y, z), summed over labels."""
    if not model.labels.num_labels:
        return model.prior.kl(posterior).sum(1)
    result = _zeros(model, data)
    for batch in data.shared_batches(encoder_batch(model)):
        result[batch.indices] = model.labels.kl(
            *model.base_posterior(_readings(model, batch)), model.prior
        )
    return distributed.all_reduce_sum(result)


@torch.no_grad()
def log_likelihood(
    model: VAE, batch: Batch, conditions: Tensor, *, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Log p(x|z) in nats for conditions `[K, B, C]` of a batch: `[K, B]`, summed over targets."""
    return token_log_likelihoods(model, batch, conditions, dtype=dtype).sum(0)


@torch.no_grad()
def token_log_likelihoods(
    model: VAE, batch: Batch, conditions: Tensor, *, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Log p of each target given those before, `[T, K, B]`, for conditions `[K, B, C]`; else 0."""
    features = model.decoder.expanded(batch.inputs, conditions, dtype=dtype)
    targets = batch.targets.t()[:, None, :].expand(features.shape[:3])
    tokens = token_log_likelihood(
        features.reshape(-1, features.shape[3]),
        model.decoder.output_weight,
        model.decoder.output_bias,
        targets.reshape(-1),
        dtype=dtype,
    ).view(features.shape[:3])
    mask = target_mask(batch.lengths, batch.targets.shape[1]).t()[:, None, :]
    return tokens * mask


def reconstruction_at(
    model: VAE, data: TokenArray, conditions: Tensor, *, dtype: torch.dtype = torch.float32
) -> Tensor:
    """-log p(x|z) in nats for one condition per sentence, `[N, C]` -> float64 `[N]`."""
    result = torch.zeros(data.num_sentences, dtype=torch.float64, device=model.device)
    with torch.inference_mode():
        for batch in data.shared_batches(encoder_batch(model)):
            rows = model.reconstruct(
                batch.inputs, batch.targets, batch.lengths, conditions[batch.indices], dtype=dtype
            ).rows
            result[batch.indices] = sum_by_sentence(rows, batch.lengths).double()
    return distributed.all_reduce_sum(result.cpu())
