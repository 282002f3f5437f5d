"""How the latent is used, against closed forms and brute force."""

import math

import pytest
import torch
from small import small_config

from textvae.data.batching import TokenArray
from textvae.metrics.latent_usage import (
    active_units,
    diagnosis,
    mutual_information,
    permutation_costs,
)
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.vae import VAE
from textvae.randomness import key, normals


def test_a_unit_is_active_if_its_mean_varies_by_more_than_a_hundredth() -> None:
    spread = torch.tensor([0.0, 0.09, 0.11, 2.0])
    mean = normals(key(0, "m"), torch.arange(50021), lanes=4) * spread
    assert active_units(mean) == 2
    assert active_units(mean[:1]) is None
    assert active_units(mean[:, :0]) == 0


def test_equal_posteriors_carry_no_information() -> None:
    same = DiagonalGaussian(torch.ones(53, 3), torch.zeros(53, 3))
    found = mutual_information(same, seed=0)
    assert found.value == pytest.approx(0.0, abs=1e-9)


def test_posteriors_that_never_meet_carry_the_log_of_their_number() -> None:
    mean = torch.arange(53.0)[:, None] * 1000
    found = mutual_information(DiagonalGaussian(mean, torch.zeros(53, 1)), seed=0)
    assert found.cap == pytest.approx(math.log(53))
    assert found.value == pytest.approx(math.log(53), abs=1e-6)


def test_the_estimate_agrees_with_the_gaussian_channel() -> None:
    # z = m + noise with m ~ N(0, s^2) has I = log(1 + s^2) / 2 a dimension
    size, signal = 4001, 0.9
    mean = normals(key(1, "m"), torch.arange(size), lanes=2) * signal
    found = mutual_information(DiagonalGaussian(mean, torch.zeros(size, 2)), seed=3)
    assert abs(found.value - math.log(1 + signal**2)) < 4 * found.stderr + 0.01


def test_the_estimate_equals_the_sum_written_out() -> None:
    size = 17
    posterior = DiagonalGaussian(
        normals(key(1, "a"), torch.arange(size), lanes=3).double(),
        normals(key(1, "b"), torch.arange(size), lanes=3).double() * 0.3,
    )
    noise = normals(key(5, "mutual information"), torch.arange(size), lanes=3).double()
    terms = []
    for i in range(size):
        z = posterior.mean[i] + (0.5 * posterior.log_variance[i]).exp() * noise[i]
        densities = [
            float(
                torch.distributions.Normal(
                    posterior.mean[j], (0.5 * posterior.log_variance[j]).exp()
                )
                .log_prob(z)
                .sum()
            )
            for j in range(size)
        ]
        mixture = torch.tensor(densities, dtype=torch.float64).logsumexp(0) - math.log(size)
        terms.append(densities[i] - float(mixture))
    assert mutual_information(posterior, seed=5).value == pytest.approx(sum(terms) / size, abs=1e-9)


def test_information_is_at_most_the_kl() -> None:
    size = 1009
    mean = normals(key(2, "m"), torch.arange(size), lanes=3)
    posterior = DiagonalGaussian(mean, torch.full_like(mean, -1.0))
    found = mutual_information(posterior, seed=1)
    kl = float(posterior.kl_to_standard_normal().sum(1).mean())
    assert found.value <= kl + 3 * found.stderr


def model_and_data() -> tuple[VAE, TokenArray]:
    config = small_config(2, 5, 11)
    data = TokenArray.from_lists([[2 + i % 7] * (i % 5) for i in range(29)], 23)
    return config.build(23, seed=1).eval(), data


def test_a_decoder_that_ignores_the_latent_loses_nothing_by_permuting_it() -> None:
    model, data = model_and_data()
    with torch.no_grad():
        for name, parameter in model.decoder.named_parameters():  # type: ignore[attr-defined]
            if any(part in name for part in ("condition", "initial", "skip")):
                parameter.zero_()
    mean = normals(key(1, "z"), torch.arange(29), lanes=2) * 10
    torch.testing.assert_close(
        permutation_costs(model, data, mean, seed=0), torch.zeros(29).double(), atol=1e-5, rtol=0
    )


def test_permuting_gives_every_sentence_the_latent_of_another() -> None:
    model, data = model_and_data()
    # each latent is a number of its own, so a sentence that kept its latent would show cost 0
    mean = torch.linspace(-2.0, 2.0, 29)[:, None].expand(-1, 2).contiguous()
    costs = permutation_costs(model, data, mean, seed=0)
    assert (costs != 0).all()
    one = data.head(1)
    assert permutation_costs(model, one, mean[:1], seed=0).isnan().tolist() == [True]


def test_collapse_is_said_in_words_with_the_next_thing_to_try() -> None:
    assert diagnosis(6.0, 20, 32, 3.0) is None
    assert diagnosis(6.0, 20, 32) is None
    collapsed = diagnosis(0.02, 0, 32)
    assert collapsed is not None
    assert "ignores the latent: KL 0.02, 0 of 32 units active" in collapsed
    assert "free_bits.nats=0.25 " in collapsed  # 8 nats over all dimensions
    assert "word_dropout" in collapsed
    assert "free_bits.nats=1 " in str(diagnosis(0.02, 0, 8))
    filled = diagnosis(6.0, 20, 32, 0.1)
    assert filled is not None
    assert "costs only 0.10 nats" in filled
