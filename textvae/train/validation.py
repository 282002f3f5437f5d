"""How good a model is on the validation set, by which its parameters are selected."""

import torch

from textvae import distributed
from textvae.data.batching import TokenArray
from textvae.metrics.latent_usage import active_units
from textvae.metrics.likelihood import ENCODER_BATCH
from textvae.model.labelling import Labelling, unknown_labels
from textvae.model.vae import VAE
from textvae.randomness import key, normals, uniforms
from textvae.train.state import Validation


def validate(model: VAE, data: TokenArray, *, seed: int) -> Validation:
    """The ELBO of a corpus, every sentence once, without dropout, from the same noise each time.

    In float32 whatever the precision of training, since it selects the parameters.
    """
    sums = torch.zeros(2, dtype=torch.float64, device=model.device)
    size = (data.num_sentences, model.prior.latent_dim)
    means = torch.zeros(size, dtype=next(model.parameters()).dtype, device=model.device)
    training = model.training
    model.eval()
    with torch.inference_mode():
        for batch in data.shared_batches(ENCODER_BATCH):
            noise = normals(key(seed, "validation"), batch.indices, lanes=model.prior.latent_dim)
            draws = uniforms(key(seed, "validation label"), batch.indices)
            three = batch.inputs, batch.targets, batch.lengths
            terms = model(*three, noise, labelling=Labelling(unknown_labels(draws), draws))
            nats = terms.reconstruction.total, terms.bound_kl.sum()
            sums += torch.stack([part.double() for part in nats])
            means[batch.indices] = terms.posterior.mean.to(means)
    model.train(training)
    reconstruction, kl = distributed.all_reduce_sum(sums).tolist()
    elbo = -(reconstruction + kl) / data.num_sentences
    return Validation(
        elbo, kl / data.num_sentences, active_units(distributed.all_reduce_sum(means))
    )
