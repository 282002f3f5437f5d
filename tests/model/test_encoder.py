"""Every encoder keeps the contract, and the GRU reads to the true last token and back."""

from collections.abc import Iterator
from typing import Any, get_args

import msgspec
import pytest
import torch
from torch import nn

from textvae.kernels.gru import gru_reference
from textvae.model.decoder import GRUDecoderConfig
from textvae.model.encoder import EncoderConfig, GRUEncoder, GRUEncoderConfig, NoEncoderConfig
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.initialization import initialize
from textvae.model.posterior import PosteriorConstraintConfig
from textvae.model.recurrent import GRULayer
from textvae.randomness import Noise, hashes, key

B, T, V, E, H, Z = 3, 7, 23, 5, 11, 2
LENGTHS = torch.tensor([7, 1, 4])
SIZES = {"embedding_dim": E, "hidden_dim": H}


def variants() -> Iterator[Any]:
    for kind in get_args(EncoderConfig):
        if kind is NoEncoderConfig:  # reads nothing: test_encoder_none.py
            continue
        known = {name: size for name, size in SIZES.items() if name in kind.__struct_fields__}
        yield kind(**known)
    yield GRUEncoderConfig(hidden_dim=H, bidirectional=True)  # reads by the decoder's vectors
    yield GRUEncoderConfig(**SIZES, bidirectional=True)
    yield GRUEncoderConfig(**SIZES, num_layers=2)
    yield GRUEncoderConfig(**SIZES, num_layers=2, bidirectional=True, dropout_rate=0.4)
    yield GRUEncoderConfig(**SIZES, bidirectional=True, pooling="mean")
    yield GRUEncoderConfig(**SIZES, bidirectional=True, pooling="last_and_mean")
    for constraint in get_args(PosteriorConstraintConfig):
        yield GRUEncoderConfig(**SIZES, posterior=constraint())


every_encoder = pytest.mark.parametrize("config", list(variants()), ids=str)
directions = pytest.mark.parametrize("bidirectional", [False, True])


def decoder(dtype: torch.dtype = torch.float64) -> Any:
    found = GRUDecoderConfig(embedding_dim=E, hidden_dim=H).build(V, Z)
    initialize(found, 2)
    return found.to(dtype)


def build(config: Any, dtype: torch.dtype = torch.float64) -> Any:
    encoder = config.build(V, Z, E)
    initialize(encoder, 1)
    encoder.attach(decoder(dtype))
    with torch.no_grad():  # biases that are not zero, so that forgetting one shows
        for number, parameter in enumerate(encoder.parameters()):
            parameter += 0.01 * (number + 1)
    return encoder.to(dtype)


def tokens(name: str = "tokens", steps: int = T) -> torch.Tensor:
    ids = hashes(key(1, name), torch.arange(B * steps)) % V
    return ids.view(B, steps)


def padded(fill: torch.Tensor) -> torch.Tensor:
    """The same three sentences with other cells beyond their lengths."""
    steps = fill.shape[1]
    mask = torch.arange(steps) < LENGTHS[:, None]
    sentences = torch.zeros(B, steps, dtype=torch.int64)
    sentences[:, :T] = tokens()
    return torch.where(mask, sentences, fill)


def close(a: DiagonalGaussian, b: DiagonalGaussian) -> None:
    torch.testing.assert_close(a.mean, b.mean)
    torch.testing.assert_close(a.log_variance, b.log_variance)


@every_encoder
def test_padding_changes_neither_the_posterior_nor_any_gradient(config: Any) -> None:
    encoder, found = build(config), []
    noise = Noise(1, 2, torch.tensor([5, 3, 8]))
    for fill in (torch.zeros(B, T, dtype=torch.int64), tokens("other"), tokens("wide", T + 4)):
        q = encoder(padded(fill), LENGTHS, noise=noise)
        encoder.zero_grad()
        (q.mean.sin().sum() + q.log_variance.cos().sum()).backward()
        gradients = [p.grad.clone() for p in encoder.parameters()]
        found.append([q.mean.detach(), q.log_variance.detach(), *gradients])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b)


@every_encoder
def test_a_sentence_has_the_same_posterior_alone_and_in_any_order(config: Any) -> None:
    encoder = build(config)
    together = encoder(tokens(), LENGTHS, noise=None)
    assert together.mean.shape == together.log_variance.shape == (B, Z)
    order = torch.tensor([2, 0, 1])
    close(encoder(tokens()[order], LENGTHS[order], noise=None), together[order])
    for b, length in enumerate(LENGTHS.tolist()):
        row = torch.tensor([b])
        alone = encoder(tokens()[row, :length], LENGTHS[row], noise=None)
        close(alone, together[row])


@every_encoder
def test_every_parameter_gets_a_gradient(config: Any) -> None:
    encoder = build(config)
    q = encoder(tokens(), LENGTHS, noise=Noise(1, 2, torch.arange(B)))
    (q.mean.sum() + q.log_variance.sum()).backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0.0, name


@every_encoder
@torch.no_grad()
def test_every_token_of_a_sentence_and_none_of_another_matters(config: Any) -> None:
    encoder = build(config)
    before = encoder(tokens(), LENGTHS, noise=None).mean
    for b, length in enumerate(LENGTHS.tolist()):
        others = torch.arange(B) != b
        for t in range(length):
            changed = tokens()
            changed[b, t] = (changed[b, t] + 1) % V
            after = encoder(changed, LENGTHS, noise=None).mean
            assert float((after[b] - before[b]).abs().max()) > 1e-9
            torch.testing.assert_close(after[others], before[others])


@every_encoder
def test_without_noise_reading_is_deterministic(config: Any) -> None:
    encoder = build(config)
    first = encoder(tokens(), LENGTHS, noise=None)
    second = encoder(tokens(), LENGTHS, noise=None)
    assert torch.equal(first.mean, second.mean)
    assert torch.equal(first.log_variance, second.log_variance)


@every_encoder
def test_the_posterior_is_float32_whatever_the_products_are(config: Any) -> None:
    encoder = build(config, torch.float32)
    exact = encoder(tokens(), LENGTHS, noise=None)
    low = encoder(tokens(), LENGTHS, noise=None, dtype=torch.bfloat16)
    assert low.mean.dtype == low.log_variance.dtype == torch.float32
    torch.testing.assert_close(low.mean, exact.mean, rtol=0.1, atol=0.05)


def read_by_hand(layers: nn.ModuleList, vectors: torch.Tensor) -> torch.Tensor:
    states = vectors[None]
    for layer in layers:
        assert isinstance(layer, GRULayer)
        states = gru_reference(states, torch.zeros(1, H).double(), layer.weights())
    return states[0, -1]


@directions
@pytest.mark.parametrize("num_layers", [1, 2])
def test_the_posterior_is_a_linear_map_of_the_last_states(
    bidirectional: bool, num_layers: int
) -> None:
    config = GRUEncoderConfig(**SIZES, num_layers=num_layers, bidirectional=bidirectional)
    encoder: GRUEncoder = build(config)
    found = encoder(tokens(), LENGTHS)
    for b, length in enumerate(LENGTHS.tolist()):
        vectors = encoder.embedding[tokens()[b, :length]]
        last = [read_by_hand(encoder.forward_layers, vectors)]
        if bidirectional:
            last.append(read_by_hand(encoder.backward_layers, vectors.flip(0)))
        moments = encoder.posterior_weight @ torch.cat(last) + encoder.posterior_bias
        torch.testing.assert_close(torch.cat([found.mean[b], found.log_variance[b]]), moments)


@directions
def test_without_vectors_of_its_own_it_reads_by_the_decoders(bidirectional: bool) -> None:
    config = GRUEncoderConfig(hidden_dim=H, num_layers=2, bidirectional=bidirectional)
    shared, own = build(config), build(msgspec.structs.replace(config, embedding_dim=E))
    assert shared.embedding is None
    vectors = decoder()
    shared.attach(vectors)
    assert [name for name, _ in shared.named_parameters() if "embedding" in name] == []
    own.load_state_dict({**shared.state_dict(), "embedding": vectors.word_vectors[:V].detach()})
    close(shared(tokens(), LENGTHS), own(tokens(), LENGTHS))
    for encoder in (shared, own):
        encoder(tokens(), LENGTHS).mean.sum().backward()
    torch.testing.assert_close(vectors.input_embedding.grad[:V], own.embedding.grad)
    assert not vectors.input_embedding.grad[V].any()  # `<s>` is never read


@directions
@torch.no_grad()
def test_mean_pooling_reads_the_mean_of_the_states_of_each_sentence(bidirectional: bool) -> None:
    config = GRUEncoderConfig(**SIZES, bidirectional=bidirectional, pooling="mean")
    encoder: GRUEncoder = build(config)
    found = encoder(tokens(), LENGTHS)
    for b, length in enumerate(LENGTHS.tolist()):
        vectors = encoder.embedding[tokens()[b, :length]]
        stacks = [(encoder.forward_layers, vectors)]
        if bidirectional:
            stacks.append((encoder.backward_layers, vectors.flip(0)))
        means = [  # the state at each position is the last one of the words so far
            torch.stack([read_by_hand(layers, read[:end]) for end in range(1, length + 1)]).mean(0)
            for layers, read in stacks
        ]
        moments = encoder.posterior_weight @ torch.cat(means) + encoder.posterior_bias
        torch.testing.assert_close(torch.cat([found.mean[b], found.log_variance[b]]), moments)


@directions
@torch.no_grad()
def test_two_poolings_side_by_side_are_the_sum_of_each(bidirectional: bool) -> None:
    sizes = {**SIZES, "bidirectional": bidirectional}
    both = build(GRUEncoderConfig(**sizes, pooling="last_and_mean"))
    parts = [build(GRUEncoderConfig(**sizes, pooling=pooling)) for pooling in ("last", "mean")]
    for part, weight in zip(parts, both.posterior_weight.chunk(2, dim=1), strict=True):
        part.load_state_dict(both.state_dict() | {"posterior_weight": weight})
    found = [encoder(tokens(), LENGTHS) for encoder in (both, *parts)]
    bias = both.posterior_bias
    whole, *halves = (torch.cat([one.mean, one.log_variance], dim=1) for one in found)
    torch.testing.assert_close(whole, halves[0] + halves[1] - bias)


@directions
@torch.no_grad()
def test_dropout_follows_the_seed_the_step_and_the_sentence_not_the_row(
    bidirectional: bool,
) -> None:
    encoder = build(GRUEncoderConfig(**SIZES, bidirectional=bidirectional, dropout_rate=0.4))
    noise, order = Noise(1, 2, torch.tensor([5, 3, 8])), torch.tensor([2, 0, 1])
    found = encoder(tokens(), LENGTHS, noise=noise)
    moved = noise._replace(examples=noise.examples[order])
    close(encoder(tokens()[order], LENGTHS[order], noise=moved), found[order])
    plain = encoder(tokens(), LENGTHS, noise=None)
    others = [noise._replace(step=3), noise._replace(seed=2), Noise(1, 2, torch.tensor([6, 4, 9]))]
    for other in [plain, *(encoder(tokens(), LENGTHS, noise=n) for n in others)]:
        assert float((other.mean - found.mean).abs().min()) > 1e-9


@torch.no_grad()
def test_dropout_has_a_mask_of_its_own_in_each_direction() -> None:
    encoder = build(GRUEncoderConfig(**SIZES, bidirectional=True, dropout_rate=0.4))
    encoder.backward_layers.load_state_dict(encoder.forward_layers.state_dict())
    encoder.posterior_weight.zero_()
    encoder.posterior_weight[:Z, :Z] = torch.eye(Z)  # the mean sees one direction
    encoder.posterior_weight[Z:, H : H + Z] = torch.eye(Z)  # the log-variance the other
    encoder.posterior_bias.zero_()
    same = torch.full((B, T), 5)  # a sentence that reads the same both ways
    plain = encoder(same, LENGTHS, noise=None)
    torch.testing.assert_close(plain.mean, plain.log_variance)
    dropped = encoder(same, LENGTHS, noise=Noise(1, 2, torch.arange(B)))
    assert float((dropped.mean - dropped.log_variance).abs().max()) > 1e-6


@pytest.mark.parametrize("rate", [0.5, 0.999999])
def test_every_rate_that_the_config_allows_works(rate: float) -> None:
    encoder = build(GRUEncoderConfig(**SIZES, dropout_rate=rate))
    found = encoder(tokens(), LENGTHS, noise=Noise(1, 2, torch.arange(B)))
    assert bool(found.mean.isfinite().all())


@torch.no_grad()
def test_each_layer_has_a_mask_of_its_own() -> None:
    rows, latent = 97, 5
    config = GRUEncoderConfig(
        embedding_dim=H, hidden_dim=H, num_layers=2, bidirectional=False, dropout_rate=0.5
    )
    encoder = config.build(V, latent, E)
    for parameter in encoder.parameters():
        parameter.zero_()
    encoder.embedding.fill_(1.0)
    for layer in encoder.forward_layers:  # states are tanh of the inputs: zero where dropped
        layer.bias[H : 2 * H] = -99.0
        layer.input_weight[2 * H :] = torch.eye(H)
    encoder.posterior_weight[:, : 2 * latent] = torch.eye(2 * latent)
    words, ones = torch.full((rows, 1), 5), torch.ones(rows, dtype=torch.int64)
    found = encoder(words, ones, noise=Noise(1, 2, torch.arange(rows)))
    share = float((torch.cat([found.mean, found.log_variance], dim=1).abs() > 1e-9).double().mean())
    assert abs(share - 1 / 4) < 4 * (1 / 4 * 3 / 4 / (rows * 2 * latent)) ** 0.5
