"""The fully connected VAE of Kingma and Welling (2014) on the 8x8 digits of scikit-learn.

python scripts/digits.py [--output DIR] [--steps N] [--seed N]

64 pixels to 512 to 256 units to a Gaussian latent and back, from the parts of the package. Writes
reconstructions.png (digits, their binary versions, reconstructions), samples.png and
interpolation.png; prints ELBO and importance-weighted nll of held-out digits. Needs scikit-learn.
"""

import json
import math
import struct
import time
import zlib
from itertools import pairwise
from pathlib import Path

import click
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, pad

from textvae.generate.latents import sample_latents
from textvae.generate.paths import interpolation
from textvae.kernels.linear_cross_entropy import CrossEntropy
from textvae.metrics.latent_usage import active_units
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.inferred import ElboTerms
from textvae.model.initialization import initialize
from textvae.model.prior_gaussian import StandardNormalPriorConfig
from textvae.randomness import key, normals, permutation, uniforms
from textvae.train.objective import NoFreeBits, ObjectiveConfig, objective
from textvae.train.optimizer import AdamWConfig, LearningRateConfig, set_learning_rate
from textvae.train.schedules import Clock, LinearSchedule

PIXELS, LATENT, BATCH, HELD_OUT, NUM_SAMPLES = 64, 16, 64, 360, 500
OBJECTIVE = ObjectiveConfig(kl_weight=LinearSchedule(share=0.1), free_bits=NoFreeBits())
OPTIMIZER, RATE = AdamWConfig(learning_rate=1e-3), LearningRateConfig()


def layers(*sizes: int) -> nn.Sequential:
    """Linear maps with ReLU between them."""
    maps = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*maps[:-1])


class DigitVAE(nn.Module):
    """q(z|x) and p(x|z), each with hidden layers of 512 and 256 units."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = layers(PIXELS, 512, 256, 2 * LATENT)
        self.decoder = layers(LATENT, 256, 512, PIXELS)
        self.prior = StandardNormalPriorConfig().build(LATENT)

    def posterior(self, images: Tensor) -> DiagonalGaussian:
        """From images `[B, 64]`."""
        return DiagonalGaussian(*self.encoder(images).chunk(2, dim=-1))

    def log_likelihood(self, images: Tensor, latents: Tensor) -> Tensor:
        """Log p(x|z) in nats, `[..., B, 64]` and `[..., B, Z]` to `[..., B]`."""
        logits = self.decoder(latents)
        rows = binary_cross_entropy_with_logits(logits, images.expand_as(logits), reduction="none")
        return -rows.sum(-1)

    def forward(self, images: Tensor, noise: Tensor) -> ElboTerms:
        """The terms of the one-sample ELBO."""
        posterior = self.posterior(images)
        rows = -self.log_likelihood(images, posterior.sample(noise))
        return ElboTerms(CrossEntropy(rows.sum(), rows), self.prior.kl(posterior), posterior)


def binarized(images: Tensor, indices: Tensor, seed: int, step: int) -> Tensor:
    """A pixel of intensity p is 1 with probability p, drawn anew each step (Salakhutdinov 2008)."""
    return (uniforms(key(seed, "binarize", step), indices, lanes=PIXELS) < images[indices]).float()


def train(model: DigitVAE, images: Tensor, steps: int, seed: int) -> None:
    """Maximise the ELBO."""
    optimizer, per_epoch = OPTIMIZER.build(model), len(images) // BATCH
    for step in range(steps):
        epoch, place = divmod(step, per_epoch)
        indices = permutation(key(seed, "order", epoch), len(images))[place * BATCH :][:BATCH]
        noise = normals(key(seed, "posterior", step), indices, lanes=LATENT)
        terms = model(binarized(images, indices, seed, step), noise)
        loss = objective(OBJECTIVE, terms, Clock(step, step, steps), OBJECTIVE.rate.start())
        set_learning_rate(optimizer, OPTIMIZER.learning_rate * RATE.factor(step, steps))
        optimizer.zero_grad(set_to_none=True)
        loss.value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


@torch.no_grad()
def figures(model: DigitVAE, images: Tensor, num_samples: int, seed: int) -> dict[str, float]:
    """The importance-weighted bound of binary images with K samples, the ELBO and its halves."""
    posterior, index = model.posterior(images), torch.arange(len(images))
    draws = key(seed, "importance"), index, torch.arange(num_samples)[:, None]
    latents = posterior.sample(normals(*draws, lanes=LATENT))
    likelihood = model.log_likelihood(images, latents)
    log_weights = likelihood + model.prior.log_prob(latents) - posterior.log_prob(latents)
    nll = math.log(num_samples) - log_weights.double().logsumexp(0).mean()
    parts = {"nll": nll, "elbo": log_weights.mean(), "reconstruction": -likelihood.mean()}
    parts["kl"] = model.prior.kl(posterior).sum(1).mean()
    return {name: float(value) for name, value in parts.items()}


def write_sheet(path: Path, images: Tensor, columns: int) -> None:
    """Images `[N, 64]` in [0, 1], row by row, as a grey PNG, every pixel 8 wide."""
    tiles = pad(images.view(-1, columns, 8, 8), (1, 1, 1, 1), value=0.25)
    grid = tiles.permute(0, 2, 1, 3).reshape(-1, columns * 10)
    pixels = (grid * 255).round().to(torch.uint8).repeat_interleave(8, 0).repeat_interleave(8, 1)
    rows = b"".join(b"\0" + bytes(row.tolist()) for row in pixels)
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for name, body in ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        check = struct.pack(">I", zlib.crc32(name + body))
        data += struct.pack(">I", len(body)) + name + body + check
    path.write_bytes(data)


@click.command(help=__doc__)
@click.option("--output", type=click.Path(path_type=Path, exists=True), default=Path())
@click.option("--steps", type=click.IntRange(min=1), default=3000)
@click.option("--seed", type=click.IntRange(min=0), default=0)
def main(output: Path, steps: int, seed: int) -> None:
    """Train, measure and draw."""
    images = torch.tensor(load_digits().data).float() / 16  # levels of grey
    images = images[permutation(key(seed, "split"), len(images))]
    held_out, model, begun = images[:HELD_OUT], DigitVAE(), time.process_time()
    initialize(model, seed)
    train(model, images[HELD_OUT:], steps, seed)
    seconds = time.process_time() - begun
    binary = binarized(held_out, torch.arange(HELD_OUT), seed, steps)
    values = figures(model, binary, NUM_SAMPLES, seed)
    with torch.no_grad():
        mean = model.posterior(binary).mean
        latents = torch.cat([mean[:10], sample_latents(model.prior, 80, seed=seed)])
        drawn, read = model.decoder(latents).sigmoid(), torch.cat([held_out[:10], binary[:10]])
        write_sheet(output / "reconstructions.png", torch.cat([read, drawn[:10]]), 10)
        write_sheet(output / "samples.png", drawn[10:], 10)
        ends = zip(mean[:5], mean[5:10], strict=True)
        paths = [interpolation(a, b, steps=10, path="straight") for a, b in ends]
        write_sheet(output / "interpolation.png", model.decoder(torch.cat(paths)).sigmoid(), 10)
    print(json.dumps(values | {"active_units": active_units(mean), "cpu_seconds": seconds}))


if __name__ == "__main__":
    main()
