"""Noise on what the encoder reads: at its rates, by its coordinates, and never on the targets."""

import math

import pytest
import torch

from textvae.config import decode
from textvae.data.batching import TokenArray
from textvae.errors import ConfigError
from textvae.model.decoder import GRUDecoderConfig
from textvae.model.encoder import GRUEncoderConfig
from textvae.model.vae import VAE, ModelConfig
from textvae.randomness import hashes, key
from textvae.train.config import StepSettings
from textvae.train.denoise import DenoiseConfig, NoisySentences
from textvae.train.objective import ObjectiveConfig
from textvae.train.optimizer import AdamWConfig
from textvae.train.schedules import Clock
from textvae.train.step import train_step

B, T, V = 499, 41, 211


def sentences(size: int = B, steps: int = T) -> tuple[torch.Tensor, torch.Tensor]:
    """Words from 2 on that say their place, and lengths from 1 (`</s>` alone) to T."""
    lengths = 1 + torch.arange(size) % steps
    tokens = (2 + torch.arange(steps)).expand(size, -1).clone()
    positions = torch.arange(steps)
    tokens[positions == lengths[:, None] - 1] = 0
    tokens[positions >= lengths[:, None]] = 7
    return tokens, lengths


def noisy(config: DenoiseConfig, seed: int = 1, step: int = 2) -> NoisySentences:
    tokens, lengths = sentences()
    found = config(tokens, lengths, torch.arange(B), vocabulary_size=V, seed=seed, step=step)
    assert torch.equal(tokens, sentences()[0]), "the targets are not written to"
    return found


def as_lists(found: NoisySentences) -> list[list[int]]:
    """The words of each sentence, after a look at its end."""
    rows = [row[:length].tolist() for row, length in zip(found.tokens, found.lengths, strict=True)]
    assert all(row[-1] == 0 and 0 not in row[:-1] for row in rows)
    return [row[:-1] for row in rows]


CLEAN = as_lists(NoisySentences(*sentences()))
NUM_WORDS = sum(map(len, CLEAN))


def near(count: int, rate: float, size: int = NUM_WORDS) -> bool:
    return abs(count / size - rate) < 4 * math.sqrt(rate * (1 - rate) / size)


def test_without_noise_sentences_are_read_as_they_are() -> None:
    assert DenoiseConfig().is_off
    tokens, lengths = sentences()
    found = DenoiseConfig()(tokens, lengths, torch.arange(B), vocabulary_size=V, seed=1, step=2)
    assert found.tokens is tokens
    assert found.lengths is lengths


def test_dropped_words_are_gone_and_the_others_keep_their_order() -> None:
    rows = as_lists(noisy(DenoiseConfig(drop=0.3)))
    assert all(row == sorted(set(row)) for row in rows)
    assert all(set(row) <= set(clean) for row, clean in zip(rows, CLEAN, strict=True))
    assert near(sum(map(len, rows)), 0.7)


def test_replaced_words_are_drawn_from_the_whole_vocabulary() -> None:
    rows = as_lists(noisy(DenoiseConfig(replace=0.4)))
    pairs = [
        pair
        for row, clean in zip(rows, CLEAN, strict=True)
        for pair in zip(row, clean, strict=True)
    ]
    changed = [word for word, before in pairs if word != before]
    assert near(len(changed), 0.4 * (1 - 1 / (V - 2)))
    assert set(changed) == set(range(2, V))


def test_a_swapped_word_stands_behind_the_next_one() -> None:
    rows = as_lists(noisy(DenoiseConfig(swap=0.2)))
    assert all(sorted(row) == clean for row, clean in zip(rows, CLEAN, strict=True))
    moves = [place - (word - 2) for row in rows for place, word in enumerate(row)]
    assert max(moves) == 1, "by one place to the right"
    assert min(moves) >= -2, "two that are swapped stand around the one after them"
    moved = sum(row != clean for row, clean in zip(rows, CLEAN, strict=True))
    assert moved > B / 2


def test_all_dropped_leaves_the_end_and_all_swapped_leaves_the_order() -> None:
    almost = as_lists(noisy(DenoiseConfig(drop=0.999)))
    assert sum(map(len, almost)) < 0.01 * NUM_WORDS
    assert as_lists(noisy(DenoiseConfig(swap=1.0))) == CLEAN


def test_noise_follows_seed_step_sentence_and_position_alone() -> None:
    config = DenoiseConfig(drop=0.2, replace=0.2, swap=0.2)
    tokens, lengths = sentences()
    base = as_lists(noisy(config))
    order = torch.arange(B).flip(0)[::3]
    some = config(tokens[order], lengths[order], order, vocabulary_size=V, seed=1, step=2)
    assert as_lists(some) == [base[index] for index in order.tolist()]
    short = config(tokens[:5, :7], lengths[:5], torch.arange(5), vocabulary_size=V, seed=1, step=2)
    assert as_lists(short) == base[:5]
    for other in (noisy(config, seed=2), noisy(config, step=3)):
        same = sum(a == b for a, b in zip(as_lists(other), base, strict=True))
        assert same < B / 4


def stepped(objective: ObjectiveConfig, micro_batch_size: int | None = None) -> VAE:
    """A model in float64 after one step, with its gradients."""
    encoder = GRUEncoderConfig(embedding_dim=29, hidden_dim=31, bidirectional=True, pooling="mean")
    decoder = GRUDecoderConfig(embedding_dim=29, hidden_dim=37)
    vae = ModelConfig(latent_dim=3, encoder=encoder, decoder=decoder).build(V, seed=1).double()
    words = hashes(key(1, "words"), torch.arange(53), lanes=11) % (V - 2) + 2
    corpus = TokenArray.from_lists([row[: 11 - row[0] % 7] for row in words.tolist()], V)
    train_step(
        vae,
        AdamWConfig(learning_rate=1e-5).build(vae),
        corpus.batch(torch.arange(53)),
        StepSettings(objective, seed=1, micro_batch_size=micro_batch_size),
        Clock(3, 3, 10),
    )
    return vae


def test_in_training_the_encoder_alone_reads_it_and_parts_change_nothing() -> None:
    config = decode(
        {"denoise": {"drop": 0.3, "replace": 0.1, "swap": 0.1}}, ObjectiveConfig, source="test"
    )
    whole, parts, clean = stepped(config), stepped(config, 17), stepped(ObjectiveConfig())
    for (name, one), two, other in zip(
        whole.named_parameters(), parts.parameters(), clean.parameters(), strict=True
    ):
        assert one.grad is not None
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-9, atol=1e-12)
        if name.startswith("encoder."):
            assert not torch.equal(one.grad, other.grad)


@pytest.mark.parametrize("fault", [{"drop": 1.0}, {"replace": 1.1}, {"swap": -0.1}, {"add": 0.1}])
def test_what_is_no_noise_is_refused(fault: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        decode({"denoise": fault}, ObjectiveConfig, source="test")
