"""The two halves of the ELBO: what is counted, what is not, and where gradients go."""

import math
from typing import Any

import pytest
import torch
from small import small_config

from textvae.config import decode
from textvae.errors import ConfigError
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.inferred import ElboTerms
from textvae.model.prior_mixture import MixturePriorConfig
from textvae.model.vae import VAE, ModelConfig, sum_by_sentence, target_mask
from textvae.randomness import Noise, hashes, key, normals

B, T, V, E, H, Z = 3, 7, 23, 5, 11, 2
LENGTHS = torch.tensor([7, 1, 4])  # the second sentence is empty: its one target is </s>
CONFIG = small_config(
    Z, E, H, encoder={"bidirectional": True, "dropout_rate": 0.2}, decoder={"dropout_rate": 0.3}
)


def build(seed: int | None = 1) -> VAE:
    return CONFIG.build(V, seed=seed).double()


def batch(steps: int = T, fill: str | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets; cells beyond the lengths hold 0 or anything."""
    words = (hashes(key(1, "words"), torch.arange(B * T)) % (V - 1) + 1).view(B, T)
    targets = torch.zeros(B, steps, dtype=torch.int64)
    inputs = torch.zeros(B, steps, dtype=torch.int64)
    if fill is not None:
        targets = (hashes(key(1, fill, "targets"), torch.arange(B * steps)) % V).view(B, steps)
        inputs = (hashes(key(1, fill, "inputs"), torch.arange(B * steps)) % (V + 1)).view(B, steps)
    for b, length in enumerate(LENGTHS.tolist()):
        targets[b, : length - 1] = words[b, : length - 1]
        targets[b, length - 1] = 0
        inputs[b, 0] = V
        inputs[b, 1:length] = words[b, : length - 1]
    return inputs, targets


def noise(name: str = "posterior") -> torch.Tensor:
    return normals(key(1, name), torch.arange(B), lanes=Z).double()


def run(model: VAE, pair: tuple[torch.Tensor, torch.Tensor], **extra: Any) -> ElboTerms:
    return model(*pair, LENGTHS, noise(), **extra)


def test_uniform_logits_cost_one_log_v_a_word_and_one_for_the_end() -> None:
    model = build()
    with torch.no_grad():
        model.decoder.output_weight.zero_()
        model.decoder.output_bias.zero_()
    reconstruction = run(model, batch()).reconstruction
    expected = LENGTHS.double() * math.log(V)
    torch.testing.assert_close(
        sum_by_sentence(reconstruction.rows, LENGTHS), expected, rtol=1e-14, atol=0.0
    )
    assert float(reconstruction.total.detach()) == pytest.approx(float(expected.sum()), rel=1e-14)


@torch.no_grad()
def test_the_reconstruction_is_the_sum_over_words_said_one_after_the_other() -> None:
    model, (inputs, targets) = build(), batch()
    found = sum_by_sentence(model.reconstruct(inputs, targets, LENGTHS, noise("z")).rows, LENGTHS)
    for b, length in enumerate(LENGTHS.tolist()):
        writer = model.decoder.writer(dtype=torch.float64)
        state = writer.start(noise("z")[b : b + 1])
        said, total = V, 0.0
        for target in targets[b, :length].tolist():
            logits, state = writer.step(torch.tensor([said]), state)
            total -= float(logits[0].log_softmax(0)[target])
            said = target
        assert said == 0, "the last word counted is </s>"
        assert float(found[b]) == pytest.approx(total, rel=1e-12)


@torch.no_grad()
def test_the_terms_are_those_of_the_posterior_and_its_one_draw() -> None:
    model, (inputs, targets) = build(), batch()
    terms = run(model, (inputs, targets))
    posterior = model.encoder(targets, LENGTHS, noise=None, dtype=torch.float64)
    assert torch.equal(terms.posterior.mean, posterior.mean)
    assert torch.equal(terms.kl, posterior.kl_to_standard_normal())
    assert terms.kl.shape == (B, Z)
    latents = posterior.sample(noise())
    again = model.reconstruct(inputs, targets, LENGTHS, latents)
    assert torch.equal(terms.reconstruction.rows, again.rows)
    assert terms.reconstruction.rows.shape == (int(LENGTHS.sum()),)


@pytest.mark.parametrize("dropout", [None, Noise(1, 2, torch.tensor([5, 3, 8]))])
def test_padding_changes_no_term_and_no_gradient(dropout: Noise | None) -> None:
    found = []
    for pair in (batch(), batch(fill="garbage"), batch(steps=T + 4, fill="more")):
        model = build()
        terms = run(model, pair, noise=dropout)
        (terms.reconstruction.total + terms.kl.sum()).backward()
        gradients = [parameter.grad for parameter in model.parameters()]
        moments = terms.posterior.mean, terms.posterior.log_variance
        found.append([*moments, terms.kl, *terms.reconstruction, *gradients])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b)


@torch.no_grad()
def test_the_order_of_sentences_and_their_company_change_nothing() -> None:
    model, (inputs, targets) = build(), batch()
    examples = torch.tensor([5, 3, 8])
    together = run(model, (inputs, targets), noise=Noise(1, 2, examples))
    sums = sum_by_sentence(together.reconstruction.rows, LENGTHS)
    for rows in (torch.tensor([2, 0, 1]), torch.tensor([0]), torch.tensor([1]), torch.tensor([2])):
        steps = int(LENGTHS[rows].max())
        part = model(
            inputs[rows, :steps],
            targets[rows, :steps],
            LENGTHS[rows],
            noise()[rows],
            noise=Noise(1, 2, examples[rows]),
        )
        torch.testing.assert_close(part.kl, together.kl[rows])
        found = sum_by_sentence(part.reconstruction.rows, LENGTHS[rows])
        torch.testing.assert_close(found, sums[rows])


def test_every_parameter_gets_a_gradient() -> None:
    model = build()
    terms = run(model, batch(), noise=Noise(1, 2, torch.arange(B)))
    (terms.reconstruction.total + terms.kl.sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0.0, name


def test_the_gradient_of_the_loss_is_that_of_finite_differences() -> None:
    model = build()

    def loss() -> torch.Tensor:
        terms = run(model, batch())
        return terms.reconstruction.total + terms.kl.sum()

    loss().backward()
    for number, (name, parameter) in enumerate(model.named_parameters()):
        direction = normals(key(number, name), torch.arange(parameter.numel()), lanes=1)
        direction = direction.double().view(parameter.shape)
        ends = []
        for side in (1e-5, -2e-5):
            with torch.no_grad():
                parameter += side * direction
                ends.append(float(loss()))
        with torch.no_grad():
            parameter += 1e-5 * direction
        slope = float((parameter.grad * direction).sum())
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(slope, rel=1e-5, abs=1e-6), name


@torch.no_grad()
def test_dropped_words_reach_the_decoder_and_not_the_encoder() -> None:
    model, (inputs, targets) = build(), batch()
    plain = run(model, (inputs, targets))
    dropped = run(model, (inputs, targets), decoder_inputs=inputs.masked_fill(inputs < V, 1))
    assert torch.equal(dropped.kl, plain.kl)
    assert not torch.equal(dropped.reconstruction.rows, plain.reconstruction.rows)


@torch.no_grad()
def test_without_noise_there_is_no_dropout_in_training_mode_either() -> None:
    model = build()
    first = run(model.train(), batch())
    second = run(model.eval(), batch())
    assert torch.equal(first.reconstruction.rows, second.reconstruction.rows)
    dropped = run(model, batch(), noise=Noise(1, 2, torch.arange(B)))
    assert not torch.equal(first.reconstruction.rows, dropped.reconstruction.rows)


def test_low_precision_keeps_kl_and_sums_in_float32() -> None:
    model = CONFIG.build(V)
    exact = model(*batch(), LENGTHS, noise().float())
    low = model(*batch(), LENGTHS, noise().float(), dtype=torch.bfloat16)
    assert low.kl.dtype == low.reconstruction.total.dtype == torch.float32
    torch.testing.assert_close(
        low.reconstruction.total, exact.reconstruction.total, rtol=1e-2, atol=0
    )


def test_the_mask_is_true_at_every_target_and_sums_follow_it() -> None:
    mask = target_mask(LENGTHS, T)
    assert mask.tolist() == [[True] * n + [False] * (T - n) for n in LENGTHS.tolist()]
    cells = torch.arange(float(B * T)).view(B, T)
    torch.testing.assert_close(sum_by_sentence(cells[mask], LENGTHS), (cells * mask).sum(1))


def test_a_model_is_a_function_of_its_config_and_its_seed() -> None:
    before = torch.get_rng_state()
    first, again, other = build(1), build(1), build(2)
    assert torch.equal(torch.get_rng_state(), before)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
        constant = value.dim() < 2 or name.startswith("prior.")
        assert constant or not torch.equal(value, other.state_dict()[name])
    larger = decode({"latent_dim": Z + 1}, ModelConfig, source="test")
    assert larger.latent_dim == Z + 1


def test_a_model_built_to_be_loaded_takes_every_tensor_of_another() -> None:
    model, source = build(None), build(3)
    model.load_state_dict(source.state_dict())
    assert model.device.type == "cpu"
    with torch.no_grad():
        found, expected = run(model, batch()), run(source, batch())
    assert torch.equal(found.reconstruction.rows, expected.reconstruction.rows)


@pytest.mark.parametrize(
    "value",
    [
        {"latent_dim": 0},
        {"latent_dim": 1.5},
        {"encoder": {"kind": "gru", "hidden_dim": 0}},
        {"decoder": {"dropout_rate": 1.0}},
        {"decoder": {"num_layers": -1}},
        {"decoder": {"kind": "abacus"}},
    ],
)
def test_sizes_that_mean_nothing_are_refused(value: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"file\.toml"):
        decode(value, ModelConfig, source="file.toml")


def test_a_model_larger_than_the_machine_is_refused_before_memory_is_taken() -> None:
    """A mixture counts as the parameters do: 1,024 covariances of 4,096 dimensions are 64 GiB."""
    prior = MixturePriorConfig(max_components=1024)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("textvae.model.vae.memory_size", lambda: 8 * 2**30)
        with pytest.raises(ConfigError, match=r"take 6\d GiB, this machine has 8; choose"):
            ModelConfig(latent_dim=4096, prior=prior).build(23)


def test_the_posterior_is_a_gaussian_of_the_latent_dimension() -> None:
    posterior = run(build(), batch()).posterior
    assert isinstance(posterior, DiagonalGaussian)
    assert posterior.mean.shape == posterior.log_variance.shape == (B, Z)
