"""The dropouts of language models: what is held over a sentence, over its words, over a step."""

from typing import Any

import pytest
import torch

from textvae.model.decoder import GRUDecoder, GRUDecoderConfig
from textvae.model.initialization import initialize
from textvae.randomness import Noise, hashes, key, normals

B, T, V, E, H, C = 3, 7, 23, 5, 11, 2
NOISE = Noise(1, 2, torch.tensor([5, 3, 8]))
FLOAT64 = torch.float64


def build(**fields: Any) -> GRUDecoder:
    plain = {"embedding_dim": E, "hidden_dim": H, "tie_embeddings": False}
    plain |= {"output_dropout_rate": 0.0, "skip_connection": False}
    decoder = GRUDecoderConfig(**(plain | fields)).build(V, C)
    initialize(decoder, 1)
    return decoder.double()


def inputs(words: int = 3) -> torch.Tensor:
    """Few words, so that each is read several times in a sentence."""
    found = (hashes(key(1, "inputs"), torch.arange(B * T)) % words).view(B, T)
    found[:, 0] = V
    return found


def condition() -> torch.Tensor:
    return normals(key(1, "condition"), torch.arange(B), lanes=C).to(FLOAT64)


def forward(decoder: GRUDecoder, x: torch.Tensor, noise: Noise | None = None) -> torch.Tensor:
    return decoder(x, condition(), noise=noise, dtype=FLOAT64)


@torch.no_grad()
def test_a_locked_mask_of_the_outputs_is_the_same_at_each_position() -> None:
    plain = forward(build(), inputs())
    found = forward(build(output_dropout_rate=0.4, locked_dropout=True), inputs(), NOISE)
    zero = found == 0.0
    assert torch.equal(zero, zero[:, :1].expand_as(zero))
    assert not torch.equal(zero[0], zero[1])
    assert 0 < int(zero[:, 0].sum()) < B * H
    torch.testing.assert_close(found[~zero], plain[~zero] / 0.6, rtol=1e-4, atol=0.0)
    free = forward(build(output_dropout_rate=0.4), inputs(), NOISE) == 0.0
    assert not torch.equal(free, free[:, :1].expand_as(free))


@torch.no_grad()
def test_a_locked_mask_of_the_words_is_a_mask_of_the_rows_that_read_them() -> None:
    """Where the same units of every word's vector are zero, so may be what they are read by."""
    found = forward(build(dropout_rate=0.4, locked_dropout=True), inputs(), NOISE)
    mask = NOISE.dropout(torch.ones(B, 1, E, dtype=FLOAT64), 0.4, "decoder.0", locked=True)[:, 0]
    for b in range(B):
        decoder = build()
        decoder.layers[0].input_weight.mul_(mask[b])  # type: ignore[union-attr, operator]
        torch.testing.assert_close(found[b], forward(decoder, inputs())[b])


@torch.no_grad()
def test_a_dropped_word_is_dropped_wherever_it_occurs_in_a_sentence() -> None:
    rate = 0.4
    found = forward(build(embedding_dropout_rate=rate), inputs(), NOISE)
    types = torch.arange(V + 1).expand(B, -1)
    mask = NOISE.drop_types(torch.ones(B, V + 1, 1, dtype=FLOAT64), types, rate, "decoder.0")
    assert not torch.equal(mask[0], mask[1])
    dropped = (mask == 0.0).double().mean()
    assert abs(float(dropped) - rate) < 4 * (rate * (1 - rate) / mask.numel()) ** 0.5
    for b in range(B):
        decoder = build()
        decoder.input_embedding.mul_(mask[b])
        torch.testing.assert_close(found[b], forward(decoder, inputs())[b])


@torch.no_grad()
def test_tied_words_are_said_with_their_whole_vectors() -> None:
    decoder = build(tie_embeddings=True, embedding_dropout_rate=0.9)
    before = decoder.output_weight.clone()
    forward(decoder, inputs(), NOISE)
    assert torch.equal(decoder.output_weight, before)


def test_dropped_weights_are_zero_for_the_whole_step_and_get_no_gradient() -> None:
    rate = 0.4
    decoder = build(num_layers=2, weight_dropout_rate=rate)
    found = forward(decoder, inputs(), NOISE)
    found.sin().sum().backward()
    plain, masks = build(num_layers=2), []
    for number, layer in enumerate(plain.layers):
        ones = torch.ones(3 * H, H, dtype=FLOAT64)
        masks.append(NOISE.drop_weights(ones, rate, f"decoder.{number}"))
        with torch.no_grad():
            layer.recurrent_weight.mul_(masks[-1])  # type: ignore[union-attr, operator]
    expected = forward(plain, inputs())
    torch.testing.assert_close(found, expected)
    expected.sin().sum().backward()
    assert not torch.equal(*masks), "each layer has a mask of its own"
    for layer, other, mask in zip(decoder.layers, plain.layers, masks, strict=True):
        gradient, full = layer.recurrent_weight.grad, other.recurrent_weight.grad  # type: ignore[union-attr]
        torch.testing.assert_close(gradient, full * mask)  # type: ignore[operator]
        assert int((mask == 0.0).sum()) > 0


@pytest.mark.parametrize(
    "fields",
    [
        {"dropout_rate": 0.5, "output_dropout_rate": 0.5, "locked_dropout": True},
        {"embedding_dropout_rate": 0.5},
        {"weight_dropout_rate": 0.5},
    ],
    ids=str,
)
@torch.no_grad()
def test_nothing_of_it_is_left_in_evaluation(fields: dict[str, Any]) -> None:
    assert torch.equal(forward(build(**fields), inputs()), forward(build(), inputs()))
    assert not torch.equal(forward(build(**fields), inputs(), NOISE), forward(build(), inputs()))


@torch.no_grad()
def test_the_defaults_draw_nothing() -> None:
    assert torch.equal(forward(build(), inputs(), NOISE), forward(build(), inputs()))
