"""What is written step by step is what teacher forcing says, whoever else is in the batch."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from textvae.generate.decoding import ROWS, Decoded, decode_latents
from textvae.generate.strategies import Greedy, Nucleus, Strategy, Temperature, TopK, Typical
from textvae.model.decoder import GRUDecoderConfig
from textvae.model.encoder import GRUEncoderConfig
from textvae.model.interfaces import END
from textvae.model.vae import VAE, ModelConfig
from textvae.randomness import Draws, key

Z, E, H, V, N, LIMIT = 5, 7, 11, 17, 13, 19
STRATEGIES = [Greedy(), Temperature(), TopK(k=3), Nucleus(p=0.7, temperature=1.3), Typical(p=0.7)]


def build(*, layers: int = 1, tied: bool = False, end: float = -0.5) -> VAE:
    """A model with large weights, so that latents matter; `end` is the bias of `</s>`."""
    config = ModelConfig(
        latent_dim=Z,
        encoder=GRUEncoderConfig(embedding_dim=3, hidden_dim=2),
        decoder=GRUDecoderConfig(
            embedding_dim=E,
            hidden_dim=H,
            num_layers=layers,
            tie_embeddings=tied,
            skip_connection=False,  # times 5 it would leave nothing of the words before
        ),
    )
    model = config.build(V, seed=2).eval()
    with torch.no_grad():
        for parameter in model.decoder.parameters():  # type: ignore[attr-defined]
            parameter.mul_(5.0)
        model.decoder.output_bias[END] = end
    return model


def latents(model: VAE, count: int = N) -> Tensor:
    return model.prior.sample(count, seed=3)


def write(
    model: VAE, given: Tensor, strategy: Strategy, *, max_length: int = LIMIT, first: int = 0
) -> Decoded:
    return decode_latents(model, given, strategy, seed=4, max_length=max_length, first_index=first)


def forced(model: VAE, ids: list[int], latent: Tensor) -> Tensor:
    """Logits `[T, V]` under teacher forcing, one position beyond the last word."""
    with torch.inference_mode():
        features = model.decoder(
            torch.tensor([[V, *ids]]), latent[None], noise=None, dtype=torch.float32
        )
        return F.linear(features[0], model.decoder.output_weight, model.decoder.output_bias)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
@pytest.mark.parametrize(("layers", "tied"), [(1, False), (2, True)])
def test_each_word_is_the_one_chosen_under_teacher_forcing(
    strategy: Strategy, layers: int, tied: bool
) -> None:
    model = build(layers=layers, tied=tied)
    given = latents(model)
    found = write(model, given, strategy, first=23)
    assert len({tuple(ids) for ids in found.sentences}) > 3
    for number, (ids, finished) in enumerate(zip(*found[:2], strict=True)):
        logits = forced(model, ids, given[number])
        positions = torch.arange(len(ids) + 1)
        draws = Draws(key(4, "word"), torch.full_like(positions, 23 + number), positions)
        chosen = strategy(logits, draws).tolist()
        assert chosen[:-1] == ids
        assert (chosen[-1] == END) == finished


def test_greedy_is_the_argmax_under_teacher_forcing() -> None:
    model = build()
    given = latents(model)
    found = write(model, given, Greedy())
    for ids, latent in zip(found.sentences, given, strict=True):
        assert forced(model, ids, latent).argmax(1).tolist()[:-1] == ids


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_a_sentence_does_not_depend_on_the_others(strategy: Strategy) -> None:
    model = build()
    given = latents(model)
    together = write(model, given, strategy)
    alone = [write(model, given[i : i + 1], strategy, first=i) for i in range(N)]
    assert together.sentences == [one.sentences[0] for one in alone]
    assert together.finished == [one.finished[0] for one in alone]
    assert together.sentences[5:] == write(model, given[5:], strategy, first=5).sentences


def test_sentences_of_many_lengths_leave_and_nothing_shifts() -> None:
    model = build()
    found = write(model, latents(model, 101), Temperature())
    assert len({len(ids) for ids in found.sentences}) > 7
    assert all(0 < token < V for ids in found.sentences for token in ids)


def test_the_index_of_a_sentence_and_the_seed_change_its_draws() -> None:
    model = build()
    given = latents(model, 1).expand(N, -1)
    first = write(model, given, Temperature())
    assert len({tuple(ids) for ids in first.sentences}) > N // 2
    other = decode_latents(model, given, Temperature(), seed=5, max_length=LIMIT)
    assert first.sentences != other.sentences
    assert len({tuple(ids) for ids in write(model, given, Greedy()).sentences}) == 1


def test_max_length_cuts_and_finished_says_so() -> None:
    model = build()
    given = latents(model, 101)
    full = write(model, given, Temperature(), max_length=61)
    for limit in (0, 1, 3):
        cut = write(model, given, Temperature(), max_length=limit)
        assert cut.sentences == [ids[:limit] for ids in full.sentences]
        assert cut.finished == [len(ids) <= limit for ids in full.sentences]
        assert not all(cut.finished)
    assert any(len(ids) == 3 for ids in full.sentences)  # ends exactly at the limit


def test_sentences_without_a_word() -> None:
    model = build(end=1e4)
    found = write(model, latents(model), Temperature())
    assert found == Decoded([[]] * N, [True] * N)


def test_sentences_without_an_end() -> None:
    model = build(end=-1e4)
    found = write(model, latents(model), Temperature())
    assert [len(ids) for ids in found.sentences] == [LIMIT] * N
    assert found.finished == [False] * N


def test_no_latents_are_no_sentences() -> None:
    model = build()
    assert write(model, latents(model, 0), Greedy()) == Decoded([], [])


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_sentences_that_begin_in_the_room_of_others_are_the_same(strategy: Strategy) -> None:
    model = build()
    size = 2 * ROWS + 7
    given = latents(model, size)
    found = write(model, given, strategy)
    assert len({len(ids) for ids in found.sentences}) > 4
    parts = [write(model, given[i : i + 101], strategy, first=i) for i in range(0, size, 101)]
    assert found.sentences == [ids for part in parts for ids in part.sentences]
    assert found.finished == [flag for part in parts for flag in part.finished]


def test_more_sentences_than_are_decoded_side_by_side() -> None:
    model = build()
    size = ROWS + 7
    given = latents(model, size)
    found = write(model, given, Temperature(), max_length=5)
    assert len(found.sentences) == len(found.finished) == size
    tail = write(model, given[ROWS - 3 :], Temperature(), max_length=5, first=ROWS - 3)
    assert found.sentences[ROWS - 3 :] == tail.sentences
    assert found.finished[ROWS - 3 :] == tail.finished


def test_bfloat16_products_write_sentences_too() -> None:
    model = build()
    given = latents(model)
    found = decode_latents(model, given, Greedy(), seed=4, max_length=LIMIT, dtype=torch.bfloat16)
    exact = write(model, given, Greedy())
    same = sum(a == b for a, b in zip(found.sentences, exact.sentences, strict=True))
    assert same > N // 2
