"""Batch-normalised means: against torch's layer, the KL they cannot fall below, and evaluation."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from textvae.config import decode
from textvae.errors import ConfigError
from textvae.model.encoder import GRUEncoderConfig
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.posterior import BatchNormConfig, MeanBatchNorm, PosteriorConstraintConfig
from textvae.model.vae import VAE, ModelConfig
from textvae.randomness import Noise, hashes, key, normals
from textvae.storage.tensors import tensors_to_bytes

B, T, V, E, H, Z = 13, 7, 23, 5, 11, 3
LENGTHS = torch.arange(B) % T + 1


def means(name: str = "means", rows: int = B, spread: float = 0.3) -> torch.Tensor:
    draws = normals(key(3, name), torch.arange(rows), lanes=Z).double()
    return spread * draws + torch.tensor([0.0, 2.0, -1.0])


def build(**settings: Any) -> MeanBatchNorm:
    return BatchNormConfig(**settings).build(Z).double()


def model(scale: float = 0.6) -> VAE:
    encoder = GRUEncoderConfig(
        embedding_dim=E, hidden_dim=H, posterior=BatchNormConfig(scale=scale)
    )
    return ModelConfig(latent_dim=Z, encoder=encoder).build(V, seed=1)


def tokens(name: str = "tokens") -> torch.Tensor:
    return (hashes(key(1, name), torch.arange(B * T)) % V).view(B, T)


def posterior(vae: VAE, *, training: bool, name: str = "tokens") -> DiagonalGaussian:
    noise = Noise(1, 2, torch.arange(B)) if training else None
    return vae.encoder(tokens(name), LENGTHS, noise=noise, dtype=torch.float32)


# -- the normalisation -----------------------------------------------------------------------------


def test_in_training_it_is_torchs_batch_normalisation_with_a_fixed_scale() -> None:
    layer = nn.BatchNorm1d(Z, eps=1e-10).double()
    with torch.no_grad():
        layer.weight.fill_(0.7)
    first, second = means().requires_grad_(), means().requires_grad_()
    found, expected = build(scale=0.7)(first, training=True), layer(second)
    torch.testing.assert_close(found, expected)
    found.sin().sum().backward()
    expected.sin().sum().backward()
    torch.testing.assert_close(first.grad, second.grad)


def test_the_running_statistics_are_torchs_but_for_its_first_guess() -> None:
    layer, ours = nn.BatchNorm1d(Z, momentum=0.3).double(), build(momentum=0.3)
    layer.running_mean.zero_()  # type: ignore[union-attr]
    layer.running_var.zero_()  # type: ignore[union-attr]
    for step in range(5):
        layer(means(str(step)))
        ours(means(str(step)), training=True)
    torch.testing.assert_close(ours.running_mean, layer.running_mean)
    torch.testing.assert_close(ours.running_variance, layer.running_var)
    assert float(ours.running_weight) == pytest.approx(1 - 0.7**5)


def test_after_one_batch_evaluation_uses_the_statistics_of_that_batch() -> None:
    norm = build(scale=0.7)
    norm(means(), training=True)
    variance, center = torch.var_mean(means(), dim=0)
    other = means("other", 5)
    torch.testing.assert_close(
        norm(other, training=False), 0.7 * (other - center) / (variance + 1e-10).sqrt()
    )


def test_before_any_batch_evaluation_only_scales() -> None:
    torch.testing.assert_close(build(scale=0.7)(means(), training=False), 0.7 * means())


def test_a_batch_of_one_is_normalised_as_in_evaluation_and_not_seen() -> None:
    norm = build()
    norm(means(), training=True)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    one = means("one", 1)
    torch.testing.assert_close(norm(one, training=True), norm(one, training=False))
    assert all(torch.equal(before[name], value) for name, value in norm.state_dict().items())


# -- the least KL ----------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [1e-3, 0.3, 100.0])
@pytest.mark.parametrize("scale", [0.1, 0.6, 1.0])
def test_the_kl_of_a_batch_is_at_least_half_the_square_of_scale_and_bias_a_dimension(
    scale: float, spread: float
) -> None:
    bias = torch.tensor([0.0, 0.3, -0.5]).double()
    mean = build(scale=scale)(means(spread=spread), training=True) + bias
    least = 0.5 * (scale**2 + bias.square())
    for log_variance in (-1.0, 0.0, 0.4):
        q = DiagonalGaussian(mean, torch.full_like(mean, log_variance))
        found = q.kl_to_standard_normal().mean(0)
        extra = 0.5 * (math.exp(log_variance) - 1 - log_variance)
        torch.testing.assert_close(found, least + extra, rtol=1e-3, atol=0.0)
        assert bool((found >= least * (1 - 1e-3)).all())


@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_an_encoder_in_training_cannot_fall_below_it(scale: float) -> None:
    vae = model(scale)
    optimizer = torch.optim.SGD(vae.encoder.parameters(), lr=0.3)
    found = []
    for _ in range(60):  # nothing but the KL is minimised
        kl = posterior(vae, training=True).kl_to_standard_normal().mean(0).sum()
        optimizer.zero_grad()
        kl.backward()
        optimizer.step()
        found.append(float(kl.detach()))
    least = Z * scale**2 / 2
    assert min(found) >= least * (1 - 1e-3)
    assert found[-1] < least * 1.05, "and it comes close"


# -- in a model ------------------------------------------------------------------------------------


@torch.no_grad()
def test_in_evaluation_nothing_depends_on_the_batch() -> None:
    vae = model()
    for name in ("a", "b"):
        posterior(vae, training=True, name=name)
    for mode in (True, False):  # a module's mode does not matter, as for dropout
        together = posterior(vae.train(mode), training=False)
        before = {name: value.clone() for name, value in vae.state_dict().items()}
        for b, length in enumerate(LENGTHS.tolist()):
            row = tokens()[b : b + 1, :length]
            alone = vae.encoder(row, LENGTHS[b : b + 1], noise=None, dtype=torch.float32)
            torch.testing.assert_close(alone.mean[0], together.mean[b])
            torch.testing.assert_close(alone.log_variance[0], together.log_variance[b])
        assert all(torch.equal(before[name], value) for name, value in vae.state_dict().items())


@torch.no_grad()
def test_the_statistics_are_weights_like_others() -> None:
    vae, again = model(), ModelConfig(latent_dim=Z, encoder=model().encoder.config)  # type: ignore[attr-defined]
    posterior(vae, training=True)
    names = {name.rpartition(".")[2] for name in vae.state_dict()}
    assert {"running_mean", "running_variance", "running_weight"} <= names
    assert tensors_to_bytes(vae.state_dict())
    loaded = again.build(V, seed=None)
    loaded.load_state_dict(vae.state_dict())
    first, second = posterior(vae, training=False), posterior(loaded, training=False)
    assert torch.equal(first.mean, second.mean)
    assert torch.equal(first.log_variance, second.log_variance)


def test_a_model_that_begins_has_seen_nothing() -> None:
    assert all(not bool(buffer.any()) for buffer in model().buffers())


def test_without_a_constraint_a_model_has_no_buffers_but_those_of_its_prior() -> None:
    names = [name for name, _ in ModelConfig(latent_dim=Z).build(V).named_buffers()]
    assert names == ["prior.mean", "prior.factor"]


@pytest.mark.parametrize(
    "value",
    [
        {"kind": "batch_norm", "scale": 0.0},
        {"kind": "batch_norm", "scale": 1.5},
        {"kind": "batch_norm", "momentum": 0.0},
        {"kind": "layer_norm"},
    ],
)
def test_values_that_mean_nothing_are_refused(value: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        decode(value, PosteriorConstraintConfig, source="test")
