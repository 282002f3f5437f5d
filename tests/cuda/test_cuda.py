"""On CUDA the same code gives the same numbers as on the CPU: pretended in CI, real by `-m gpu`."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from textvae.data.batching import TokenArray
from textvae.generate.decoding import decode_latents
from textvae.generate.strategies import Greedy, Temperature
from textvae.model.decoder import GRUDecoderConfig
from textvae.model.encoder import GRUEncoderConfig
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.interfaces import END
from textvae.model.mixture import GaussianMixture
from textvae.model.prior_mixture import MixturePrior
from textvae.model.vae import VAE, ModelConfig
from textvae.randomness import hash64, key, normals
from textvae.train.config import TrainConfig
from textvae.train.loop import train

# cuDNN copies weights that do not lie in one piece, and says so
pytestmark = pytest.mark.filterwarnings("ignore:RNN module weights:UserWarning")

V, Z = 101, 5


def build(device: str | torch.device) -> VAE:
    config = ModelConfig(
        latent_dim=Z,
        encoder=GRUEncoderConfig(
            embedding_dim=13, hidden_dim=29, bidirectional=True, dropout_rate=0.1
        ),
        decoder=GRUDecoderConfig(embedding_dim=13, hidden_dim=29, num_layers=2, dropout_rate=0.1),
    )
    return config.build(V, seed=1).to(device)


def corpus(size: int = 67) -> TokenArray:
    k = key(1, "cuda")
    rows = [[2 + hash64(k, i, t) % (V - 2) for t in range(hash64(k, i) % 11)] for i in range(size)]
    return TokenArray.from_lists(rows, V)


def trained(device: str | torch.device, steps: int) -> VAE:
    model, data = build(device), corpus()
    config = TrainConfig(
        batch_size=7, max_steps=steps, validate_every=steps, log_every=steps, precision="float32"
    )
    train(model, data, corpus(11), config, seed=0, run=None, report=lambda line: None)
    return model


def test_training_steps_agree_with_the_cpu(cuda: torch.device) -> None:
    cpu, gpu = trained("cpu", 5), trained(cuda, 5)
    for left, right in zip(cpu.parameters(), gpu.parameters(), strict=True):
        torch.testing.assert_close(left, right.cpu(), rtol=1e-4, atol=1e-4)


def test_evaluation_agrees_with_the_cpu(
    cuda: torch.device, evaluate_tokens: Callable[..., Any]
) -> None:
    found = [
        evaluate_tokens(build(d).eval(), corpus(), num_samples=31, seed=0) for d in ("cpu", cuda)
    ]
    for name in ("nll", "elbo", "kl", "mutual_information", "permutation_cost"):
        left, right = (getattr(f, name) for f in found)
        assert left == pytest.approx(right, rel=1e-4, abs=1e-4), name


@pytest.mark.parametrize("strategy", [Greedy(), Temperature()])
def test_samples_agree_with_the_cpu(cuda: torch.device, strategy: Greedy | Temperature) -> None:
    found = []
    for device in ("cpu", cuda):
        model = build(device).eval()
        latents = model.prior.sample(53, seed=2)
        found.append(decode_latents(model, latents, strategy, seed=3, max_length=17).sentences)
    same = sum(left == right for left, right in zip(*found, strict=True))
    assert same >= 52  # a draw may fall on a rounding


def test_a_mixture_as_the_prior_agrees_with_the_cpu(cuda: torch.device) -> None:
    noise = [normals(key(4, name), torch.arange(7), lanes=Z) for name in ("mean", "variance")]
    found = []
    for device in ("cpu", cuda):
        prior = MixturePrior(Z, 3).to(device)
        posterior = DiagonalGaussian(*(part.to(device) for part in noise))
        prior.fit_moments(posterior)
        prior.set_mixture(
            GaussianMixture(
                torch.tensor([0.3, 0.7]).log().double(),
                torch.stack([part[0].double() for part in noise]),
                torch.stack([torch.eye(Z).double(), 0.5 * torch.eye(Z).double()]),
            )
        )
        values = prior.kl(posterior), prior.log_prob(posterior.mean), prior.sample(5, seed=3)
        found.append([value.cpu() for value in values])
    for left, right in zip(*found, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("strategy", [Greedy(), Temperature(temperature=0.7)])
def test_sentences_do_not_depend_on_how_often_the_host_looks(
    cuda: torch.device, monkeypatch: pytest.MonkeyPatch, strategy: Greedy | Temperature
) -> None:
    model = build(cuda).eval()
    with torch.no_grad():
        model.decoder.output_bias[END] = 2.5
    latents = 5.0 * model.prior.sample(53, seed=2)
    decoded = []
    for rows, positions in ((7, 1), (7, 5), (2048, 8), (2048, 100)):
        monkeypatch.setattr("textvae.generate.decoding.CUDA_ROWS", rows)
        monkeypatch.setattr("textvae.generate.decoding.CUDA_POSITIONS", positions)
        decoded.append(decode_latents(model, latents, strategy, seed=3, max_length=17))
    for other in decoded[1:]:
        same = [a == b for a, b in zip(decoded[0].sentences, other.sentences, strict=True)]
        assert sum(same) >= 52
        assert sum(a != b for a, b in zip(decoded[0].finished, other.finished, strict=True)) <= 1
    assert sum(decoded[0].finished) > 0
