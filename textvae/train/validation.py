"""The ELBO of a model on the validation set, by which its parameters are selected."""

from typing import NamedTuple

import torch

from textvae import distributed
from textvae.data.batching import TokenArray
from textvae.metrics.latent_usage import active_units
from textvae.metrics.likelihood import encoder_batch
from textvae.model.labelling import Labelling, unknown_labels
from textvae.model.vae import VAE
from textvae.randomness import key, normals, uniforms


class Validation(NamedTuple):
    """The ELBO at KL weight 1, with one sample per sentence, in nats per sentence."""

    elbo: float
    kl: float
    active_units: int | None
    """None for a validation set of one sentence."""


def validate(model: VAE, data: TokenArray, *, seed: int) -> Validation:
    """Compute the ELBO of a corpus: every sentence once, without dropout, with the same noise.

    It is computed in float32 whatever the precision of training.
    """
    sums = torch.zeros(2, dtype=torch.float64, device=model.device)
    size = (data.num_sentences, model.prior.latent_dim)
    means = torch.zeros(size, dtype=next(model.parameters()).dtype, device=model.device)
    training = model.training
    model.eval()
    with torch.inference_mode():
        for batch in data.shared_batches(encoder_batch(model)):
            noise = normals(key(seed, "validation"), batch.indices, lanes=model.prior.latent_dim)
            draws = uniforms(key(seed, "validation label"), batch.indices)
            labelling = Labelling(unknown_labels(draws), draws)
            terms = model(batch.inputs, batch.targets, batch.lengths, noise, labelling=labelling)
            nats = terms.reconstruction.total.double(), terms.bound_kl.sum().double()
            sums += torch.stack(nats)
            means[batch.indices] = terms.posterior.mean.to(means)
    model.train(training)
    reconstruction, kl = distributed.all_reduce_sum(sums).tolist()
    elbo = -(reconstruction + kl) / data.num_sentences
    return Validation(
        elbo, kl / data.num_sentences, active_units(distributed.all_reduce_sum(means))
    )
