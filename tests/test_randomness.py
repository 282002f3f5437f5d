"""Draws depend on their coordinates alone, and have the distributions they claim."""

import math

import pytest
import torch
from scipy import stats

from textvae.randomness import Noise, hash64, hashes, key, normals, permutation, uniforms


def test_the_tensor_hash_equals_the_plain_python_hash() -> None:
    k = key(7, "purpose", 3)
    rows, columns = torch.tensor([[0], [1], [2**40], [-5]]), torch.tensor([0, 3, 11])
    expected = [[hash64(k, int(r), int(c)) for c in columns] for r in rows]
    found = [[value % 2**64 for value in row] for row in hashes(k, rows, columns).tolist()]
    assert found == expected


def test_lanes_are_a_last_index() -> None:
    k, rows = key(1, "lanes"), torch.arange(5)
    assert torch.equal(hashes(k, rows, lanes=7), hashes(k, rows[:, None], torch.arange(7)))


def test_the_key_is_a_function_of_seed_and_purpose() -> None:
    keys = {key(seed, *p) for seed in range(3) for p in [("a",), ("b",), ("a", 1), ("a", "1")]}
    assert len(keys) == 12
    assert key(0, "word") == key(0, "word")
    assert hash64(0, 1) == 6791897765849424158  # golden: changing the hash changes every result


def test_the_hash_needs_an_index() -> None:
    with pytest.raises(ValueError, match="at least one index"):
        hashes(3)


def test_uniforms_pass_kolmogorov_smirnov_and_neighbours_are_uncorrelated() -> None:
    u = uniforms(key(5, "u"), torch.arange(20011))
    assert float(u.min()) >= 0.0
    assert float(u.max()) < 1.0
    assert stats.kstest(u.double().numpy(), "uniform").pvalue > 1e-4
    assert abs(float(torch.corrcoef(torch.stack([u[1:], u[:-1]]))[0, 1])) < 4 / math.sqrt(20010)


def test_normals_are_standard_and_lanes_are_independent() -> None:
    n = normals(key(5, "n"), torch.arange(20011), lanes=3)
    assert n.shape == (20011, 3)
    for lane in range(3):
        assert stats.kstest(n[:, lane].double().numpy(), "norm").pvalue > 1e-4
    correlation = torch.corrcoef(n.T) - torch.eye(3)
    assert float(correlation.abs().max()) < 4 / math.sqrt(20011)


def test_draws_do_not_depend_on_the_batch() -> None:
    k = key(2, "batch")
    together = normals(k, torch.arange(13), lanes=5)
    alone = torch.stack([normals(k, torch.tensor(i), lanes=5) for i in range(13)])
    assert torch.equal(together, alone)


def test_a_permutation_holds_every_index_once() -> None:
    order = permutation(key(3, "p"), 101)
    assert sorted(order.tolist()) == list(range(101))
    assert not torch.equal(order, permutation(key(4, "p"), 101))


def test_dropout_keeps_the_mean_zeroes_the_rate_and_follows_the_example() -> None:
    examples = torch.arange(31)
    noise = Noise(seed=1, step=2, examples=examples)
    ones = torch.ones(31, 17, 13)
    dropped = noise.dropout(ones, 0.3, "test")
    share = float((dropped == 0).float().mean())
    assert abs(share - 0.3) < 4 * math.sqrt(0.3 * 0.7 / dropped.numel())
    assert float(dropped.max()) == pytest.approx(1 / 0.7, rel=1e-4)
    reverse = Noise(1, 2, examples.flip(0)).dropout(ones, 0.3, "test").flip(0)
    assert torch.equal(dropped, reverse)
    assert not torch.equal(dropped, Noise(1, 3, examples).dropout(ones, 0.3, "test"))
    assert noise.dropout(ones, 0.0, "test") is ones


def test_a_locked_mask_is_the_first_of_the_free_ones_at_every_position() -> None:
    noise, ones = Noise(1, 2, torch.arange(31)), torch.ones(31, 17, 13)
    free, locked = noise.dropout(ones, 0.3, "test"), noise.dropout(ones, 0.3, "test", locked=True)
    assert torch.equal(locked, free[:, :1].expand_as(free))
    assert torch.equal(noise.dropout(ones[:, :5], 0.3, "test", locked=True), locked[:, :5])
    deep = noise.dropout(ones[:, :, None].expand(-1, -1, 2, -1), 0.3, "test", locked=True)
    assert torch.equal(deep[:, 3, 1], locked[:, 0])
    share = float((locked[:, 0] == 0).float().mean())
    assert abs(share - 0.3) < 4 * math.sqrt(0.3 * 0.7 / (31 * 13))


def test_a_word_type_is_dropped_by_sentence_and_step_and_keeps_its_mean() -> None:
    noise, rate = Noise(1, 2, torch.arange(31)), 0.3
    tokens = hashes(key(1, "tokens"), torch.arange(31), lanes=17) % 7
    ones = torch.ones(31, 17, 5)
    found = noise.drop_types(ones, tokens, rate, "test")
    assert torch.equal(found, found[:, :, :1].expand_as(found)), "the whole vector"
    by_type = noise.drop_types(ones[:, :7], torch.arange(7).expand(31, -1), rate, "test")[..., 0]
    assert torch.equal(found[..., 0], by_type.gather(1, tokens))
    assert set(by_type.unique().tolist()) == {0.0, float(torch.tensor(1 / (1 - rate)))}
    assert abs(float(by_type.mean()) - 1.0) < 4 * math.sqrt(rate / (1 - rate) / by_type.numel())
    assert not torch.equal(found, noise._replace(step=3).drop_types(ones, tokens, rate, "test"))
    rows = torch.tensor([7, 2])
    some = Noise(1, 2, rows).drop_types(ones[rows], tokens[rows], rate, "test")
    assert torch.equal(some, found[rows])
    assert noise.drop_types(ones, tokens, 0.0, "test") is ones


def test_dropped_weights_follow_the_step_not_the_batch_and_keep_their_mean() -> None:
    rate, weight = 0.3, torch.ones(17, 13)
    found = torch.stack(
        [Noise(1, s, torch.arange(3)).drop_weights(weight, rate, "test") for s in range(101)]
    )
    other = Noise(1, 2, torch.arange(5, 9)).drop_weights(weight, rate, "test")
    assert torch.equal(found[2], other)
    assert not torch.equal(found[2], found[3])
    assert not torch.equal(found[2], Noise(1, 2, torch.arange(3)).drop_weights(weight, rate, "b"))
    assert abs(float(found.mean()) - 1.0) < 4 * math.sqrt(rate / (1 - rate) / found.numel())
    spread = found.mean(0).std(), math.sqrt(rate / (1 - rate) / 101)
    assert float(spread[0]) == pytest.approx(spread[1], rel=0.2), "entries are independent"
    assert Noise(1, 2, torch.arange(3)).drop_weights(weight, 0.0, "test") is weight
