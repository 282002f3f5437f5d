"""The diagonal Gaussian against torch's distributions and against numerical integrals."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from textvae.model.gaussian import DiagonalGaussian, standard_normal_log_prob
from textvae.randomness import key, normals

B, Z, K = 3, 2, 13


def draws(name: str, *shape: int) -> torch.Tensor:
    *rows, lanes = shape
    flat = normals(key(11, name), torch.arange(math.prod(rows)), lanes=lanes)
    return flat.double().view(shape)


def gaussian() -> DiagonalGaussian:
    return DiagonalGaussian(draws("mean", B, Z), draws("log variance", B, Z))


def as_torch(q: DiagonalGaussian) -> Normal:
    return Normal(q.mean, (0.5 * q.log_variance).exp())


def test_the_kl_equals_that_of_torch() -> None:
    q = gaussian()
    standard = Normal(torch.zeros_like(q.mean), torch.ones_like(q.mean))
    torch.testing.assert_close(q.kl_to_standard_normal(), kl_divergence(as_torch(q), standard))


def test_the_kl_equals_its_integral() -> None:
    q = gaussian()
    grid = torch.linspace(-30.0, 30.0, 20011, dtype=torch.float64)
    for b in range(B):
        for d in range(Z):
            one = DiagonalGaussian(q.mean[b, d : d + 1], q.log_variance[b, d : d + 1])
            z = grid[:, None]
            log_q = one.log_prob(z)
            integrand = log_q.exp() * (log_q - standard_normal_log_prob(z))
            expected = torch.trapezoid(integrand, grid)
            torch.testing.assert_close(q.kl_to_standard_normal()[b, d], expected)


def test_the_kl_of_the_standard_normal_is_exactly_zero() -> None:
    q = DiagonalGaussian(torch.zeros(B, Z), torch.zeros(B, Z))
    assert torch.equal(q.kl_to_standard_normal(), torch.zeros(B, Z))


@pytest.mark.parametrize("log_variance", [-60.0, 60.0])
def test_the_kl_and_its_gradient_stay_finite_at_extreme_variances(log_variance: float) -> None:
    leaf = torch.full((B, Z), log_variance, requires_grad=True)
    kl = DiagonalGaussian(torch.zeros(B, Z), leaf).kl_to_standard_normal()
    kl.sum().backward()
    assert bool(kl.isfinite().all())
    assert leaf.grad is not None
    assert bool(leaf.grad.isfinite().all())


def test_log_densities_equal_those_of_torch_and_broadcast_over_samples() -> None:
    q, z = gaussian(), draws("z", K, B, Z)
    expected = Independent(as_torch(q), 1).log_prob(z)
    assert expected.shape == (K, B)
    torch.testing.assert_close(q.log_prob(z), expected)
    standard = Independent(Normal(torch.zeros(Z).double(), torch.ones(Z).double()), 1)
    torch.testing.assert_close(standard_normal_log_prob(z), standard.log_prob(z))


def test_a_draw_is_the_mean_plus_the_deviation_times_the_normals_and_differentiable() -> None:
    mean, log_variance = gaussian().mean, gaussian().log_variance
    mean.requires_grad_()
    log_variance.requires_grad_()
    noise = draws("noise", K, B, Z)
    sample = DiagonalGaussian(mean, log_variance).sample(noise)
    assert sample.shape == (K, B, Z)
    deviation = (0.5 * log_variance).exp()
    torch.testing.assert_close(sample, mean + deviation * noise)
    d_mean, d_log_variance = torch.autograd.grad(sample.sum(), [mean, log_variance])
    torch.testing.assert_close(d_mean, torch.full_like(mean, float(K)))
    torch.testing.assert_close(d_log_variance, 0.5 * deviation * noise.sum(0))


def test_selecting_rows_keeps_mean_and_variance_together() -> None:
    q, rows = gaussian(), torch.tensor([2, 0, 2, 1])
    found = q[rows]
    assert torch.equal(found.mean, q.mean[rows])
    assert torch.equal(found.log_variance, q.log_variance[rows])


def test_many_have_a_length_and_an_index_and_numpy_takes_their_means() -> None:
    q = DiagonalGaussian(torch.arange(6.0).view(3, 2), torch.zeros(3, 2).sub(2.0).requires_grad_())
    assert len(q) == len(list(q)) == 3
    assert torch.equal(q[1].mean, torch.tensor([2.0, 3.0]))
    assert torch.equal(q[1:].log_variance, torch.full((2, 2), -2.0))
    assert torch.equal(q[np.array([2, 0])].mean, q.mean[[2, 0]])
    assert torch.equal(q.stddev, torch.full((3, 2), math.exp(-1.0)))
    assert np.asarray(q).tolist() == q.mean.tolist()
    assert np.asarray(q, dtype=np.float64).dtype == np.float64
    assert np.asarray(DiagonalGaussian(q.log_variance, q.mean)).shape == (3, 2)  # with a gradient
    with pytest.raises(IndexError):
        q[3]
