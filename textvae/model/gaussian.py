"""The diagonal Gaussian: pure mathematics, natural logarithms, float32 or better."""

import math
from typing import NamedTuple

from torch import Tensor

LOG_TWO_PI = math.log(2.0 * math.pi)


class DiagonalGaussian(NamedTuple):
    """Independent normals, one for each latent dimension."""

    mean: Tensor
    """`[..., Z]`."""
    log_variance: Tensor
    """`[..., Z]`, natural logarithm."""

    def sample(self, normals: Tensor) -> Tensor:
        """Mean + standard deviation * normals; `normals` `[..., Z]` broadcasts, as `[K, B, Z]`.

        The reparameterization of Kingma and Welling (2014): the draw is differentiable.
        """
        return self.mean + (0.5 * self.log_variance).exp() * normals

    def log_prob(self, latents: Tensor) -> Tensor:
        """Log-density in nats, summed over Z: `[..., Z]` -> `[...]`."""
        squared = (latents - self.mean).square() * (-self.log_variance).exp()
        return -0.5 * (squared + self.log_variance + LOG_TWO_PI).sum(-1)

    def kl_to_standard_normal(self) -> Tensor:
        """KL(self || N(0, 1)) `[..., Z]` in nats (Kingma and Welling 2014, appendix B)."""
        variance = self.log_variance.exp()
        return 0.5 * (self.mean.square() + variance - 1.0 - self.log_variance)

    def select(self, rows: Tensor) -> "DiagonalGaussian":
        """The distributions at int64 indices of the first axis."""
        return DiagonalGaussian(self.mean[rows], self.log_variance[rows])


def standard_normal_log_prob(latents: Tensor) -> Tensor:
    """Log N(z; 0, 1) in nats, summed over Z: `[..., Z]` -> `[...]`."""
    return -0.5 * (latents.square() + LOG_TWO_PI).sum(-1)


def aggregate_covariance(posterior: DiagonalGaussian) -> Tensor:
    """Covariance of the aggregate of N posteriors, float64 `[Z, Z]`, divisor N."""
    mean = posterior.mean.double()
    centred = mean - mean.mean(0)
    inside = posterior.log_variance.double().exp().mean(0)
    return centred.t() @ centred / len(mean) + inside.diag()


def transform_rows(vectors: Tensor, matrix: Tensor) -> Tensor:
    """`vectors @ matrix.t()` `[N, Z]`, each row rounded the same among any number of rows.

    A library's product rounds by the shape of all, and draw i is to be a function of (seed, i).
    """
    total = vectors.new_zeros(vectors.shape)
    for column in range(matrix.shape[1]):
        total += vectors[:, column : column + 1] * matrix[:, column]
    return total
