"""Every decoder keeps the contract: word by word, K conditions at once, with and without one."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import torch

from textvae.model.decoder import DECODERS, GRUDecoder, GRUDecoderConfig
from textvae.model.initialization import initialize
from textvae.randomness import Noise, hashes, key, normals

B, T, V, E, H, C, K = 3, 7, 23, 5, 11, 2, 13
SIZES = {"embedding_dim": E, "hidden_dim": H}
PLAIN = GRUDecoderConfig(
    **SIZES,
    num_layers=1,
    tie_embeddings=False,
    dropout_rate=0.0,
    output_dropout_rate=0.0,
    skip_connection=False,
)
LOCKED = {"locked_dropout": True, "dropout_rate": 0.4, "output_dropout_rate": 0.3}
FLOAT64 = torch.float64
NOISE = Noise(1, 2, torch.tensor([5, 3, 8]))


def changed(**fields: Any) -> GRUDecoderConfig:
    return msgspec.structs.replace(PLAIN, **fields)


def variants() -> Iterator[Any]:
    for kind in DECODERS:
        known = {name: size for name, size in SIZES.items() if name in kind.__struct_fields__}
        yield kind(**known)
    yield PLAIN
    yield changed(num_layers=2)
    yield changed(tie_embeddings=True)  # with a projection from H to E
    yield changed(embedding_dim=H, tie_embeddings=True, num_layers=2)
    yield changed(num_layers=2, tie_embeddings=True, dropout_rate=0.4, output_dropout_rate=0.3)
    yield changed(skip_connection=True)
    yield changed(skip_connection=True, tie_embeddings=True, num_layers=2)
    yield changed(skip_connection=True, tie_embeddings=True, embedding_dim=H)
    yield changed(num_layers=2, **LOCKED)
    yield changed(embedding_dropout_rate=0.3, weight_dropout_rate=0.4)


every_decoder = pytest.mark.parametrize("config", list(variants()), ids=str)
every_size = pytest.mark.parametrize("condition_dim", [C, 0])


def build(config: Any, condition_dim: int = C, dtype: torch.dtype = FLOAT64) -> Any:
    decoder = config.build(V, condition_dim)
    initialize(decoder, 1)
    with torch.no_grad():  # biases that are not zero, so that forgetting one shows
        for number, parameter in enumerate(decoder.parameters()):
            parameter += 0.01 * (number + 1)
    return decoder.to(dtype)


def inputs(name: str = "inputs") -> torch.Tensor:
    words = hashes(key(1, name), torch.arange(B * T)) % V
    words = words.view(B, T)
    words[:, 0] = V
    return words


def conditions(condition_dim: int = C, samples: int = K) -> torch.Tensor:
    rows = torch.arange(samples * B)
    return (
        normals(key(1, "condition"), rows, lanes=C)
        .to(FLOAT64)
        .view(samples, B, C)[:, :, :condition_dim]
    )


def forward(decoder: Any, x: torch.Tensor, c: torch.Tensor | None, noise: Any = None) -> Any:
    return decoder(x, c, noise=noise, dtype=FLOAT64)


@every_decoder
@every_size
@torch.no_grad()
def test_step_by_step_equals_teacher_forcing(config: Any, condition_dim: int) -> None:
    decoder, c = build(config, condition_dim), conditions(condition_dim)[0]
    features = forward(decoder, inputs(), c if condition_dim else None)
    assert features.shape == (B, T, decoder.output_weight.shape[1])
    expected = features @ decoder.output_weight.t() + decoder.output_bias
    for tabulate in (False, True):
        writer = decoder.writer(dtype=FLOAT64, tabulate=tabulate)
        state = writer.start(c)
        for t in range(T):
            logits, state = writer.step(inputs()[:, t], state)
            torch.testing.assert_close(logits, expected[:, t])


@every_decoder
@every_size
@torch.no_grad()
def test_expanded_equals_a_call_for_each_condition(config: Any, condition_dim: int) -> None:
    decoder, c = build(config, condition_dim), conditions(condition_dim)
    found = decoder.expanded(inputs(), c, dtype=FLOAT64)
    assert found.shape == (T, K, B, decoder.output_weight.shape[1])
    assert not found.requires_grad
    for k in range(K):
        expected = forward(decoder, inputs(), c[k] if condition_dim else None)
        torch.testing.assert_close(found[:, k].transpose(0, 1), expected)


@every_decoder
@torch.no_grad()
def test_expanded_takes_one_sample_and_one_sentence(config: Any) -> None:
    decoder, c = build(config), conditions()
    full = decoder.expanded(inputs(), c, dtype=FLOAT64)
    one = decoder.expanded(inputs()[:1], c[:1, :1], dtype=FLOAT64)
    torch.testing.assert_close(one, full[:, :1, :1])


@every_decoder
@torch.no_grad()
def test_a_state_can_be_cut_to_some_rows_and_joined_by_others(config: Any) -> None:
    writer, c = build(config).writer(dtype=FLOAT64), conditions()[0]
    rows = torch.tensor([2, 0, 0])
    _, state = writer.step(inputs()[:, 0], writer.start(c))
    whole, _ = writer.step(inputs()[:, 1], state)
    part, _ = writer.step(inputs()[rows, 1], state.select(rows))
    torch.testing.assert_close(part, whole[rows])
    both, _ = writer.step(
        torch.cat([inputs()[:, 1], inputs()[rows, 1]]), state.join(state.select(rows))
    )
    torch.testing.assert_close(both, torch.cat([whole, part]))


@every_decoder
@torch.no_grad()
def test_a_writer_multiplies_in_the_dtype_asked_for(config: Any) -> None:
    decoder, c = build(config).float(), conditions()[0].float()
    exact = decoder.writer().step(inputs()[:, 0], decoder.start(c))[0]
    low = decoder.writer(dtype=torch.bfloat16, tabulate=True).step(inputs()[:, 0], decoder.start(c))
    assert low[0].dtype == torch.float32
    error = (low[0] - exact).abs().max()
    assert 0.0 < float(error) < 0.05 * float(exact.abs().max())


@every_decoder
@torch.no_grad()
def test_later_words_and_other_sentences_do_not_matter(config: Any) -> None:
    decoder, c = build(config), conditions()[0]
    before = forward(decoder, inputs(), c)
    for t in range(1, T):
        changed = inputs()
        changed[0, t:] = inputs("other")[0, t:]
        after = forward(decoder, changed, c)
        torch.testing.assert_close(after[0, :t], before[0, :t])
        torch.testing.assert_close(after[1:], before[1:])
        assert float((after[0, t:] - before[0, t:]).abs().max()) > 1e-9


@every_decoder
@torch.no_grad()
def test_a_sentence_has_the_same_features_alone_and_in_any_order(config: Any) -> None:
    decoder, c, order = build(config), conditions()[0], torch.tensor([2, 0, 1])
    together = forward(decoder, inputs(), c)
    torch.testing.assert_close(forward(decoder, inputs()[order], c[order]), together[order])
    for b in range(B):
        alone = forward(decoder, inputs()[b : b + 1, : b + 1], c[b : b + 1])
        torch.testing.assert_close(alone[0], together[b, : b + 1])


@every_decoder
@every_size
def test_every_parameter_gets_a_gradient(config: Any, condition_dim: int) -> None:
    decoder, c = build(config, condition_dim), conditions(condition_dim)[0]
    features = forward(decoder, inputs(), c, Noise(1, 2, torch.arange(B)))
    logits = features @ decoder.output_weight.t() + decoder.output_bias
    logits.log_softmax(2)[..., 3].sum().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0.0, name
    assert float(decoder.input_embedding.grad[V].abs().max()) > 0.0, "<s> is read"


@every_decoder
@torch.no_grad()
def test_the_condition_matters_at_the_first_word_and_at_every_other(config: Any) -> None:
    decoder, c = build(config), conditions()
    differ = (forward(decoder, inputs(), c[0]) - forward(decoder, inputs(), c[1])).abs()
    assert float(differ.amax(2).min()) > 1e-6


@every_decoder
@torch.no_grad()
def test_a_condition_of_size_zero_is_no_condition(config: Any) -> None:
    decoder = build(config, 0)
    names = [name for name, _ in decoder.named_parameters()]
    assert not any("condition" in name or "initial" in name for name in names)
    nothing = forward(decoder, inputs(), None)
    assert torch.equal(forward(decoder, inputs(), conditions(0)[0]), nothing)


@every_decoder
@torch.no_grad()
def test_without_noise_writing_is_deterministic(config: Any) -> None:
    decoder, c = build(config), conditions()[0]
    assert torch.equal(forward(decoder, inputs(), c), forward(decoder, inputs(), c))


@every_decoder
@torch.no_grad()
def test_the_contract_has_a_default_precision_and_a_low_one(config: Any) -> None:
    decoder, c = build(config, dtype=torch.float32), conditions()[0].float()
    exact = decoder(inputs(), c, noise=None)
    low = decoder(inputs(), c, noise=None, dtype=torch.bfloat16)
    assert exact.dtype == low.dtype == torch.float32
    torch.testing.assert_close(low, exact, rtol=0.1, atol=0.05)
    expanded = decoder.expanded(inputs(), c[None], dtype=torch.bfloat16)
    torch.testing.assert_close(expanded[:, 0].transpose(0, 1), exact, rtol=0.1, atol=0.05)


def test_tied_words_are_said_with_the_vectors_they_are_read_with() -> None:
    decoder = build(changed(tie_embeddings=True))
    assert decoder.output_weight.shape == (V, E)
    assert decoder.output_weight.data_ptr() == decoder.input_embedding.data_ptr()
    assert decoder.projection.shape == (E, H)
    same = build(changed(embedding_dim=H, tie_embeddings=True))
    assert same.projection is None
    untied = build(PLAIN)
    assert untied.output_weight.shape == (V, H)
    assert untied.projection is None


def test_tied_vectors_get_the_gradient_of_reading_and_of_saying() -> None:
    decoder = build(changed(tie_embeddings=True))
    features = forward(decoder, inputs(), conditions()[0]).detach()
    (features @ decoder.output_weight.t()).sum().backward()
    said = decoder.input_embedding.grad
    torch.testing.assert_close(said[:V], features.sum((0, 1)).expand(V, -1))
    assert float(said[V].abs().max()) == 0.0, "<s> is never said"


@pytest.mark.parametrize("tied", [False, True])
@torch.no_grad()
def test_a_skip_connection_adds_one_term_a_sentence_to_the_logits(tied: bool) -> None:
    decoder, c = build(changed(skip_connection=True, tie_embeddings=tied)), conditions()[0]
    found = forward(decoder, inputs(), c) @ decoder.output_weight.t()
    term = c @ decoder.skip_weight.t() @ decoder.output_weight.t()
    decoder.skip_weight.zero_()
    without = forward(decoder, inputs(), c) @ decoder.output_weight.t()
    torch.testing.assert_close(found - without, term[:, None].expand_as(found))
    plain = changed(tie_embeddings=tied).build(V, C).to(FLOAT64)
    plain.load_state_dict({n: v for n, v in decoder.state_dict().items() if n != "skip_weight"})
    torch.testing.assert_close(forward(plain, inputs(), c), forward(decoder, inputs(), c))


@torch.no_grad()
def test_a_projected_skip_connection_is_one_matrix_on_state_and_condition() -> None:
    """P h + U z = [P, U] [h; z], by hand for the first position."""
    decoder, c = build(changed(skip_connection=True, tie_embeddings=True)), conditions()[0]
    state = decoder.writer(dtype=FLOAT64).step(inputs()[:, 0], decoder.start(c))[1].hidden[0]
    both = torch.cat([decoder.projection, decoder.skip_weight], dim=1)
    expected = torch.cat([state, c], dim=1) @ both.t()
    torch.testing.assert_close(forward(decoder, inputs(), c)[:, 0], expected)


@torch.no_grad()
def test_a_skip_connection_needs_a_condition_and_is_spared_by_dropout() -> None:
    assert build(changed(skip_connection=True), 0).skip_weight is None
    rates = {"skip_connection": True, "output_dropout_rate": 0.999}
    decoder, c = build(changed(**rates)), conditions()[0]
    found = forward(decoder, inputs(), c, Noise(1, 2, torch.arange(B)))
    skipped = (c @ decoder.skip_weight.t())[:, None].expand_as(found)
    assert float((found == skipped).double().mean()) > 0.98


@pytest.mark.parametrize(
    "rates",
    [
        {"dropout_rate": 0.4},
        {"output_dropout_rate": 0.4},
        {"dropout_rate": 0.4, "output_dropout_rate": 0.3},
        LOCKED,
        {"embedding_dropout_rate": 0.4, "output_dropout_rate": 0.3},
        {"weight_dropout_rate": 0.4, "output_dropout_rate": 0.3},
    ],
    ids=str,
)
@torch.no_grad()
def test_dropout_follows_the_seed_the_step_and_the_sentence_not_the_row(
    rates: dict[str, Any],
) -> None:
    decoder = build(changed(num_layers=2, **rates))
    c, order = conditions()[0], torch.tensor([2, 0, 1])
    noise = Noise(1, 2, torch.tensor([5, 3, 8]))
    found = forward(decoder, inputs(), c, noise)
    moved = forward(decoder, inputs()[order], c[order], Noise(1, 2, noise.examples[order]))
    torch.testing.assert_close(moved, found[order])
    shorter = forward(decoder, inputs()[:, :4], c, noise)
    torch.testing.assert_close(shorter, found[:, :4])
    for other in (None, noise._replace(step=3), noise._replace(seed=2)):
        differ = (forward(decoder, inputs(), c, other) - found).abs()
        assert float(differ.amax(2).min()) > 1e-9


@torch.no_grad()
def test_output_dropout_zeroes_its_share_of_the_features() -> None:
    decoder = build(changed(output_dropout_rate=0.25))
    plain = forward(decoder, inputs(), conditions()[0])
    kept = forward(decoder, inputs(), conditions()[0], Noise(1, 2, torch.arange(B)))
    zero = kept == 0.0
    assert abs(float(zero.double().mean()) - 0.25) < 4 * (0.25 * 0.75 / zero.numel()) ** 0.5
    torch.testing.assert_close(kept[~zero], plain[~zero] / 0.75)


@torch.no_grad()
def test_each_layer_and_the_output_have_masks_of_their_own() -> None:
    config = changed(embedding_dim=H, num_layers=2, dropout_rate=0.5, output_dropout_rate=0.5)
    decoder = build(config)
    for parameter in decoder.parameters():
        parameter.zero_()
    decoder.input_embedding.fill_(1.0)
    for layer in decoder.layers:  # states are tanh of the inputs: zero where these were dropped
        layer.bias[H : 2 * H] = -99.0
        layer.input_weight[2 * H :] = torch.eye(H)
    found = forward(decoder, inputs(), conditions()[0], Noise(1, 2, torch.arange(B)))
    share = float((found.abs() > 1e-9).double().mean())
    assert abs(share - 1 / 8) < 4 * (1 / 8 * 7 / 8 / found.numel()) ** 0.5


@every_decoder
@every_size
def test_scaling_the_logits_scales_them_and_nothing_else(config: Any, condition_dim: int) -> None:
    plain, scaled = build(config, condition_dim), build(config, condition_dim)
    scaled.scale_logits(0.7)
    condition = normals(key(1, "condition"), torch.arange(B), lanes=C).to(FLOAT64)
    given = condition if condition_dim else None
    logits = []
    for decoder in (plain, scaled):
        features = decoder(inputs(), given, noise=None, dtype=FLOAT64)
        logits.append(features @ decoder.output_weight.t() + decoder.output_bias)
    torch.testing.assert_close(logits[1], 0.7 * logits[0])
    written = []
    for decoder in (plain, scaled):
        writer = decoder.writer(dtype=FLOAT64, tabulate=False)
        state = writer.start(condition[:, :condition_dim])
        _, state = writer.step(inputs()[:, 0], state)
        written.append(writer.step(inputs()[:, 1], state)[0])
    torch.testing.assert_close(written[1], 0.7 * written[0])


# -- what is held over a sentence, over its words, over a step


def fresh(**fields: Any) -> GRUDecoder:
    decoder = changed(**fields).build(V, C)
    initialize(decoder, 1)
    return decoder.double()


def few_words(words: int = 3) -> torch.Tensor:
    """Few words, so that each is read several times in a sentence."""
    found = (hashes(key(1, "inputs"), torch.arange(B * T)) % words).view(B, T)
    found[:, 0] = V
    return found


def dropped(decoder: GRUDecoder, noise: Noise | None = None) -> torch.Tensor:
    return decoder(few_words(), conditions()[0], noise=noise, dtype=FLOAT64)


@torch.no_grad()
def test_a_locked_mask_of_the_outputs_is_the_same_at_each_position() -> None:
    plain = dropped(fresh())
    found = dropped(fresh(output_dropout_rate=0.4, locked_dropout=True), NOISE)
    zero = found == 0.0
    assert torch.equal(zero, zero[:, :1].expand_as(zero))
    assert not torch.equal(zero[0], zero[1])
    assert 0 < int(zero[:, 0].sum()) < B * H
    torch.testing.assert_close(found[~zero], plain[~zero] / 0.6, rtol=1e-4, atol=0.0)
    free = dropped(fresh(output_dropout_rate=0.4), NOISE) == 0.0
    assert not torch.equal(free, free[:, :1].expand_as(free))


@torch.no_grad()
def test_a_locked_mask_of_the_words_is_a_mask_of_the_rows_that_read_them() -> None:
    """Where the same units of every word's vector are zero, so may be what they are read by."""
    found = dropped(fresh(dropout_rate=0.4, locked_dropout=True), NOISE)
    mask = NOISE.dropout(torch.ones(B, 1, E, dtype=FLOAT64), 0.4, "decoder.0", locked=True)[:, 0]
    for b in range(B):
        decoder = fresh()
        decoder.layers[0].input_weight.mul_(mask[b])  # type: ignore[union-attr, operator]
        torch.testing.assert_close(found[b], dropped(decoder)[b])


@torch.no_grad()
def test_a_dropped_word_is_dropped_wherever_it_occurs_in_a_sentence() -> None:
    rate = 0.4
    found = dropped(fresh(embedding_dropout_rate=rate), NOISE)
    types = torch.arange(V + 1).expand(B, -1)
    mask = NOISE.drop_types(torch.ones(B, V + 1, 1, dtype=FLOAT64), types, rate, "decoder.0")
    assert not torch.equal(mask[0], mask[1])
    zeros = (mask == 0.0).double().mean()
    assert abs(float(zeros) - rate) < 4 * (rate * (1 - rate) / mask.numel()) ** 0.5
    for b in range(B):
        decoder = fresh()
        decoder.input_embedding.mul_(mask[b])
        torch.testing.assert_close(found[b], dropped(decoder)[b])


@torch.no_grad()
def test_tied_words_are_said_with_their_whole_vectors() -> None:
    decoder = fresh(tie_embeddings=True, embedding_dropout_rate=0.9)
    before = decoder.output_weight.clone()
    dropped(decoder, NOISE)
    assert torch.equal(decoder.output_weight, before)


def test_dropped_weights_are_zero_for_the_whole_step_and_get_no_gradient() -> None:
    rate = 0.4
    decoder = fresh(num_layers=2, weight_dropout_rate=rate)
    found = dropped(decoder, NOISE)
    found.sin().sum().backward()
    plain, masks = fresh(num_layers=2), []
    for number, layer in enumerate(plain.layers):
        ones = torch.ones(3 * H, H, dtype=FLOAT64)
        masks.append(NOISE.drop_weights(ones, rate, f"decoder.{number}"))
        with torch.no_grad():
            layer.recurrent_weight.mul_(masks[-1])  # type: ignore[union-attr, operator]
    expected = dropped(plain)
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
    assert torch.equal(dropped(fresh(**fields)), dropped(fresh()))
    assert not torch.equal(dropped(fresh(**fields), NOISE), dropped(fresh()))


@torch.no_grad()
def test_the_defaults_draw_nothing() -> None:
    assert torch.equal(dropped(fresh(), NOISE), dropped(fresh()))
