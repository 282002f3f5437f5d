"""The diagonal Gaussian: pure mathematics, natural logarithms, float32 or better."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

LOG_TWO_PI = math.log(2.0 * math.pi)


@dataclass(frozen=True, slots=True, eq=False)
class DiagonalGaussian:
    """Independent normals, one for each latent dimension.

    Of N sentences it has a length and an index, and numpy takes it for its means `[N, Z]`.
    """

    mean: Tensor
    """`[..., Z]`."""
    log_variance: Tensor
    """`[..., Z]`, natural logarithm."""

    @property
    def stddev(self) -> Tensor:
        """The standard deviations, `[..., Z]`."""
        return (0.5 * self.log_variance).exp()

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(self, rows: Any) -> "DiagonalGaussian":
        """The distributions at an index of the first axis, as tensors are indexed."""
        return DiagonalGaussian(self.mean[rows], self.log_variance[rows])

    def __iter__(self) -> Iterator["DiagonalGaussian"]:
        return (self[row] for row in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        array = self.mean.detach().cpu().numpy()
        return array.astype(dtype, copy=bool(copy)) if dtype is not None or copy else array

    def sample(self, normals: Tensor) -> Tensor:
        """Mean + standard deviation * normals; `normals` `[..., Z]` broadcasts, as `[K, B, Z]`.

        The reparameterization of Kingma and Welling (2014): the draw is differentiable.
        """
        return self.mean + self.stddev * normals

    def log_prob(self, latents: Tensor) -> Tensor:
        """Log-density in nats, summed over Z: `[..., Z]` -> `[...]`."""
        squared = (latents - self.mean).square() * (-self.log_variance).exp()
        return -0.5 * (squared + self.log_variance + LOG_TWO_PI).sum(-1)

    def kl_to_standard_normal(self) -> Tensor:
        """KL(self || N(0, 1)) `[..., Z]` in nats (Kingma and Welling 2014, appendix B)."""
        variance = self.log_variance.exp()
        return 0.5 * (self.mean.square() + variance - 1.0 - self.log_variance)

    def apply(self, function: Callable[[Tensor], Tensor]) -> "DiagonalGaussian":
        """The distributions with a function applied to means and log-variances."""
        return DiagonalGaussian(function(self.mean), function(self.log_variance))


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
