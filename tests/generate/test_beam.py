"""A beam wide enough finds what a search through every sentence finds; a beam of 1 is greedy."""

import itertools
import math
import re
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from textvae.errors import ConfigError
from textvae.generate.beam import (
    Beam,
    GNMTPenalty,
    Hypothesis,
    LengthPenalty,
    TokenMean,
    beam_search,
)
from textvae.generate.decoding import decode_latents
from textvae.generate.strategies import Greedy
from textvae.model.decoder import GRUDecoderConfig
from textvae.model.encoder import GRUEncoderConfig
from textvae.model.interfaces import END
from textvae.model.vae import VAE, ModelConfig

Z, E, H, V, N, LIMIT = 3, 5, 7, 11, 13, 17
PENALTIES = [GNMTPenalty(), GNMTPenalty(alpha=0.7), GNMTPenalty(alpha=2.0), TokenMean()]


def build(words: int = V, *, layers: int = 1, end: float = 0.5) -> VAE:
    """A model with large weights, so that latents matter; `end` is the bias of `</s>`."""
    config = ModelConfig(
        latent_dim=Z,
        encoder=GRUEncoderConfig(embedding_dim=3, hidden_dim=2),
        decoder=GRUDecoderConfig(embedding_dim=E, hidden_dim=H, num_layers=layers),
    )
    model = config.build(words, seed=2).eval()
    with torch.no_grad():
        for parameter in model.decoder.parameters():  # type: ignore[attr-defined]
            parameter.mul_(4.0)
        model.decoder.output_bias[END] = end
    return model


def latents(model: VAE, count: int = N) -> Tensor:
    return model.prior.sample(count, seed=3)


def logits_after(model: VAE, ids: list[int], latent: Tensor) -> Tensor:
    """`[T, V]` in float64 under teacher forcing, one position beyond the last word."""
    with torch.inference_mode():
        inputs = torch.tensor([[model.decoder.output_bias.shape[0], *ids]])
        features = model.decoder(inputs, latent[None], noise=None, dtype=torch.float32)
        return (features[0] @ model.decoder.output_weight.T + model.decoder.output_bias).double()


def log_likelihood(model: VAE, ids: list[int], latent: Tensor) -> float:
    table = logits_after(model, ids, latent).log_softmax(1)
    return sum(float(table[at, word]) for at, word in enumerate([*ids, END]))


def every_sentence(words: int, limit: int) -> list[list[int]]:
    parts = (itertools.product(range(1, words), repeat=length) for length in range(limit + 1))
    return [list(ids) for part in parts for ids in part]


def search(model: VAE, given: Tensor, beam: Beam, *, best: int = 1) -> list[list[Hypothesis]]:
    return beam_search(model, given, beam, num_best=best, max_length=LIMIT)


class Path(NamedTuple):
    log_likelihood: float
    words: list[int]


def plain_search(model: VAE, latent: Tensor, beam: Beam, limit: int) -> list[Path]:
    """The same search in plain Python, a sentence alone and to the very end: every place used."""
    unfinished, found = [Path(0.0, [])], []
    for position in range(limit + 1):
        candidates = []
        for path in unfinished:
            last = logits_after(model, path.words, latent).log_softmax(1)[-1].tolist()
            for word, value in enumerate(last):
                if position < limit or word == END:
                    candidates.append(Path(path.log_likelihood + value, [*path.words, word]))
        candidates.sort(reverse=True)
        taken = candidates[: beam.size - len(found)]
        found += [path for path in taken if path.words[-1] == END]
        unfinished = [path for path in taken if path.words[-1] != END]
    return sorted(
        found, key=lambda path: -path.log_likelihood / beam.length_penalty.divisor(len(path.words))
    )


# -- against every sentence there is -----------------------------------------------------------


@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
@pytest.mark.parametrize(("words", "limit"), [(5, 3), (3, 5)])
def test_a_wide_beam_finds_the_best_of_all_sentences(
    penalty: LengthPenalty, words: int, limit: int
) -> None:
    model = build(words)
    given, sentences = latents(model, 3), every_sentence(words, limit)
    beam = Beam(size=89, length_penalty=penalty)
    assert beam.size > len(sentences)
    found = beam_search(model, given, beam, num_best=19, max_length=limit)
    for latent, best in zip(given, found, strict=True):
        likelihoods = [log_likelihood(model, ids, latent) for ids in sentences]
        scores = [
            value / penalty.divisor(len(ids) + 1)
            for value, ids in zip(likelihoods, sentences, strict=True)
        ]
        order = sorted(range(len(sentences)), key=lambda i: -scores[i])[:19]
        assert [one.words for one in best] == [sentences[i] for i in order]
        for one, i in zip(best, order, strict=True):
            assert math.isclose(one.log_likelihood, likelihoods[i], rel_tol=1e-5, abs_tol=1e-5)
            assert math.isclose(one.score, scores[i], rel_tol=1e-5, abs_tol=1e-5)


def test_all_sentences_together_have_the_mass_that_is_not_longer() -> None:
    model = build(5, end=1.0)
    (found,) = beam_search(model, latents(model, 1), Beam(size=89), num_best=89, max_length=3)
    assert len(found) == len(every_sentence(5, 3))  # fewer than asked for: there are no more
    mass = sum(math.exp(one.log_likelihood) for one in found)
    assert 0.1 < mass < 1.0


# -- against greedy and against the plain search -----------------------------------------------


@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
@pytest.mark.parametrize("layers", [1, 2])
def test_a_beam_of_1_is_greedy(penalty: LengthPenalty, layers: int) -> None:
    model = build(layers=layers)
    given = latents(model, 101)
    greedy = decode_latents(model, given, Greedy(), seed=0, max_length=LIMIT)
    found = search(model, given, Beam(size=1, length_penalty=penalty))
    assert [best[0].words for best in found] == greedy.sentences
    assert [best[0].finished for best in found] == greedy.finished
    assert len({len(ids) for ids in greedy.sentences}) > 5
    assert 0 < sum(greedy.finished) < 101


@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
@pytest.mark.parametrize("size", [2, 3, 7])
def test_stopping_early_loses_nothing(penalty: LengthPenalty, size: int) -> None:
    model, limit = build(), 7
    given, beam = latents(model, 7), Beam(size=size, length_penalty=penalty)
    for best in (1, size):
        found = beam_search(model, given, beam, num_best=best, max_length=limit)
        for latent, hypotheses in zip(given, found, strict=True):
            expected = plain_search(model, latent, beam, limit)[:best]
            assert [one.words for one in hypotheses] == [path.words[:-1] for path in expected]
            for one, path in zip(hypotheses, expected, strict=True):
                assert math.isclose(one.log_likelihood, path.log_likelihood, rel_tol=1e-5)


def test_a_wider_beam_finds_likelier_sentences_than_greedy() -> None:
    model = build()
    given = latents(model, 101)
    means = [
        sum(best[0].log_likelihood for best in search(model, given, Beam(size=size)))
        for size in (1, 3, 31)
    ]
    assert means[0] < means[1] < means[2]


# -- what is returned --------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
def test_log_likelihoods_are_those_of_teacher_forcing(penalty: LengthPenalty) -> None:
    model = build(layers=2)
    given = latents(model)
    for latent, best in zip(
        given, search(model, given, Beam(length_penalty=penalty), best=5), strict=True
    ):
        assert len({tuple(one.words) for one in best}) == 5
        scores = [one.score for one in best]
        assert scores == sorted(scores, reverse=True)
        for one in best:
            expected = log_likelihood(model, one.words, latent)
            assert math.isclose(one.log_likelihood, expected, rel_tol=1e-5, abs_tol=1e-5)
            divisor = penalty.divisor(len(one.words) + 1)
            assert math.isclose(one.score, one.log_likelihood / divisor, rel_tol=1e-12)


def test_length_penalties_are_those_of_the_papers() -> None:
    assert GNMTPenalty().divisor(7) == 1.0
    assert GNMTPenalty(alpha=1.0).divisor(1) == 1.0
    assert math.isclose(GNMTPenalty(alpha=0.6).divisor(7), 12**0.6 / 6**0.6)
    assert TokenMean().divisor(7) == 7.0


def test_a_penalty_on_short_sentences_makes_longer_ones() -> None:
    model = build()
    given = latents(model, 101)
    lengths = [
        sum(len(best[0].words) for best in search(model, given, Beam(length_penalty=penalty)))
        for penalty in (GNMTPenalty(), GNMTPenalty(alpha=2.0), GNMTPenalty(alpha=3.0))
    ]
    assert lengths[0] < lengths[1] < lengths[2]


def test_a_sentence_cut_at_the_limit_is_scored_with_its_end() -> None:
    model = build(end=-30.0)
    given = latents(model, 3)
    for latent, best in zip(given, search(model, given, Beam(size=3), best=3), strict=True):
        assert [len(one.words) for one in best] == [LIMIT] * 3
        assert not any(one.finished for one in best)
        expected = log_likelihood(model, best[0].words, latent)
        assert math.isclose(best[0].log_likelihood, expected, rel_tol=1e-5)


def test_sentences_without_a_word() -> None:
    model = build(end=1e4)
    found = search(model, latents(model), Beam(size=3))
    assert found == [[Hypothesis([], 0.0, 0.0, True)]] * N


# -- whoever is beside it ----------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 5, 300])
def test_what_is_found_for_a_latent_does_not_depend_on_the_others(size: int) -> None:
    model, beam = build(), Beam(size=size, length_penalty=GNMTPenalty(alpha=0.7))
    given = latents(model, 3 if size == 300 else 131)  # more than are searched side by side
    together = search(model, given, beam, best=2)
    for number in (0, 1, 2, given.shape[0] - 1):
        (alone,) = search(model, given[number : number + 1], beam, best=2)
        assert [one.words for one in together[number]] == [one.words for one in alone]
        for one, other in zip(together[number], alone, strict=True):
            assert math.isclose(one.log_likelihood, other.log_likelihood, rel_tol=1e-5)


@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
def test_the_best_is_the_same_however_many_are_asked_for(penalty: LengthPenalty) -> None:
    model = build()
    given, beam = latents(model, 31), Beam(size=5, length_penalty=penalty)
    five = search(model, given, beam, best=5)
    for best in (1, 2, 3):
        fewer = search(model, given, beam, best=best)
        assert [[one.words for one in some] for some in fewer] == [
            [one.words for one in some][:best] for some in five
        ]


def test_no_latents_have_no_sentences() -> None:
    model = build()
    assert search(model, latents(model, 0), Beam()) == []


@pytest.mark.parametrize("best", [0, -1, 6])
def test_more_hypotheses_than_places_are_refused(best: int) -> None:
    model = build()
    with pytest.raises(ConfigError, match=re.escape(f"{best} hypotheses of a beam of 5")):
        search(model, latents(model), Beam(), best=best)
