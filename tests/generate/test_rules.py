"""What rules do to logits is what they do in plain Python, in every strategy and in beam search."""

import itertools
import math
import re
from collections.abc import Sequence
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from textvae.errors import ConfigError
from textvae.generate.beam import Beam, TokenMean, beam_search
from textvae.generate.decoding import ROWS, Decoded, decode_latents
from textvae.generate.rules import (
    MinLength,
    NoRepeatedNgrams,
    RepetitionPenalty,
    Rule,
    Written,
    steer,
)
from textvae.generate.strategies import Greedy, Nucleus, Strategy, Temperature, TopK, Typical
from textvae.generate.writing import AnyStrategy, check_strategy
from textvae.model.decoder import GRUDecoderConfig
from textvae.model.encoder import GRUEncoderConfig
from textvae.model.interfaces import END
from textvae.model.vae import VAE, ModelConfig
from textvae.randomness import Draws, hashes, key, normals

Z, E, H, V, N, LIMIT = 3, 5, 7, 11, 13, 17
RULES: list[tuple[Rule, ...]] = [
    (MinLength(tokens=5),),
    (RepetitionPenalty(factor=1.7),),
    (NoRepeatedNgrams(size=1),),
    (NoRepeatedNgrams(size=2),),
    (NoRepeatedNgrams(size=3), RepetitionPenalty(factor=1.3), MinLength(tokens=3)),
]
NOTHING: tuple[Rule, ...] = (
    MinLength(tokens=0),
    RepetitionPenalty(factor=1.0),
    NoRepeatedNgrams(size=LIMIT + 2),
)


def plain(rules: Sequence[Rule], logits: list[float], words: list[int]) -> list[float]:
    """The logits of one row after the rules."""
    result = list(logits)
    for rule in rules:
        if isinstance(rule, MinLength):
            if len(words) < rule.tokens:
                result[END] = -math.inf
        elif isinstance(rule, RepetitionPenalty):
            for word in set(words):
                value = result[word]
                result[word] = value / rule.factor if value > 0 else value * rule.factor
        else:
            for word in range(V):
                ngram = [*words, word][-rule.size :]
                starts = range(len(words) - rule.size + 1)
                if any(words[i : i + rule.size] == ngram for i in starts):
                    result[word] = -math.inf
    return result


def build(words: int = V, end: float = 0.5) -> VAE:
    config = ModelConfig(
        latent_dim=Z,
        encoder=GRUEncoderConfig(embedding_dim=3, hidden_dim=2),
        decoder=GRUDecoderConfig(embedding_dim=E, hidden_dim=H),
    )
    model = config.build(words, seed=2).eval()
    with torch.no_grad():
        for parameter in model.decoder.parameters():  # type: ignore[attr-defined]
            parameter.mul_(4.0)
        model.decoder.output_bias[END] = end
    return model


def latents(model: VAE, count: int = N) -> Tensor:
    return model.prior.sample(count, seed=3)


def write(model: VAE, given: Tensor, strategy: Strategy, *, first: int = 0) -> Decoded:
    return decode_latents(model, given, strategy, seed=4, max_length=LIMIT, first_index=first)


def forced(model: VAE, ids: list[int], latent: Tensor) -> Tensor:
    """Logits `[T, V]` under teacher forcing, one position beyond the last word."""
    with torch.inference_mode():
        start = model.decoder.output_bias.shape[0]
        inputs = torch.tensor([[start, *ids]])
        features = model.decoder(inputs, latent[None], noise=None, dtype=torch.float32)
        return F.linear(features[0], model.decoder.output_weight, model.decoder.output_bias)


def histories(rows: int, longest: int, words: int) -> Written:
    """Sentences of all lengths, the longest among them, of a few words, so that they repeat."""
    drawn = hashes(key(5, "words"), torch.arange(rows), lanes=longest) % (words - 1) + 1
    lengths = torch.arange(rows) % (longest + 1)
    beyond = torch.arange(longest) >= lengths[:, None]
    return Written(drawn.masked_fill(beyond, END), lengths)


# -- the rules themselves --------------------------------------------------------------------------


@pytest.mark.parametrize("rules", [*RULES, NOTHING], ids=str)
@pytest.mark.parametrize(("longest", "words"), [(0, V), (1, V), (7, 4), (13, 3), (13, V)])
def test_rules_are_what_they_say(rules: tuple[Rule, ...], longest: int, words: int) -> None:
    written = histories(97, longest, words)
    logits = 3.0 * normals(key(6, "logits"), torch.arange(97), lanes=V)
    found = steer(logits, rules, written)
    expected = [
        plain(rules, row, ids[:length])
        for row, ids, length in zip(
            logits.tolist(), written.words.tolist(), written.lengths.tolist(), strict=True
        )
    ]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_logits_are_not_changed_in_place_and_no_rules_cost_nothing() -> None:
    logits = normals(key(7, "logits"), torch.arange(5), lanes=V)
    before = logits.clone()
    steer(logits, RULES[-1], histories(5, 3, 4))
    assert torch.equal(logits, before)
    assert steer(logits, (), histories(5, 3, 4)) is logits


def test_the_order_of_rules_makes_no_difference() -> None:
    written = histories(53, 7, 4)
    logits = normals(key(8, "logits"), torch.arange(53), lanes=V)
    found = [steer(logits, rules, written) for rules in itertools.permutations(RULES[-1])]
    assert all(torch.equal(one, found[0]) for one in found)


def test_no_rule_makes_a_word_likelier() -> None:
    logits = 5.0 * normals(key(9, "logits"), torch.arange(97), lanes=V)
    for rules in RULES:
        assert bool((steer(logits, rules, histories(97, 7, 4)) <= logits).all())


# -- in every strategy -----------------------------------------------------------------------------

STRATEGIES: list[type[Strategy]] = list(get_args(Strategy))


@pytest.mark.parametrize("rules", RULES, ids=str)
@pytest.mark.parametrize("kind", STRATEGIES)
def test_each_word_is_the_one_chosen_from_the_steered_logits(
    kind: type[Strategy], rules: tuple[Rule, ...]
) -> None:
    model, strategy = build(), kind(rules=rules)
    given = latents(model)
    found = write(model, given, strategy, first=23)
    assert found != write(model, given, kind(), first=23)  # the rules bite
    for number, (ids, finished) in enumerate(zip(*found[:2], strict=True)):
        rows = forced(model, ids, given[number]).tolist()
        steered = [plain(rules, row, ids[:at]) for at, row in enumerate(rows)]
        positions = torch.arange(len(ids) + 1)
        draws = Draws(key(4, "word"), torch.full_like(positions, 23 + number), positions)
        chosen = strategy(torch.tensor(steered), draws).tolist()
        assert chosen[:-1] == ids
        assert (chosen[-1] == END) == finished


@pytest.mark.parametrize("kind", STRATEGIES)
def test_histories_follow_sentences_that_leave_and_begin(kind: type[Strategy]) -> None:
    model, strategy = build(end=2.0), kind(rules=RULES[-1])
    size = 2 * ROWS + 7
    given = latents(model, size)
    found = write(model, given, strategy)
    assert len({len(ids) for ids in found.sentences}) > 3
    for first in (0, ROWS - 3, size - 31):
        part = write(model, given[first : first + 31], strategy, first=first)
        assert found.sentences[first : first + 31] == part.sentences


@pytest.mark.parametrize("kind", STRATEGIES)
def test_rules_that_never_bite_change_no_draw(kind: type[Strategy]) -> None:
    model = build()
    given = latents(model, 101)
    assert write(model, given, kind(rules=NOTHING)) == write(model, given, kind())


@pytest.mark.parametrize("kind", get_args(AnyStrategy))
def test_every_strategy_keeps_to_a_minimum_and_repeats_no_ngram(kind: type[AnyStrategy]) -> None:
    model = build(end=3.0)
    given = latents(model, 31)
    strategy = check_strategy(kind(rules=(MinLength(tokens=5), NoRepeatedNgrams(size=2))))
    if isinstance(strategy, Beam):
        found = beam_search(model, given, strategy, num_best=5, max_length=LIMIT)
        sentences = [one.words for best in found for one in best]
    else:
        sentences = write(model, given, strategy).sentences
    assert min(map(len, sentences)) == 5
    for ids in sentences:
        pairs = list(itertools.pairwise(ids))
        assert len(set(pairs)) == len(pairs)


# -- in beam search --------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_a_beam_of_1_is_greedy_under_rules(rules: tuple[Rule, ...]) -> None:
    model = build()
    given = latents(model, 101)
    greedy = write(model, given, Greedy(rules=rules))
    found = beam_search(model, given, Beam(size=1, rules=rules), max_length=LIMIT)
    assert [best[0].words for best in found] == greedy.sentences
    assert [best[0].finished for best in found] == greedy.finished


@pytest.mark.parametrize(
    "rules",
    [
        (MinLength(tokens=2),),
        (NoRepeatedNgrams(size=2), MinLength(tokens=1)),
        (RepetitionPenalty(factor=2.3),),
        (RepetitionPenalty(factor=1.4), NoRepeatedNgrams(size=3)),
    ],
    ids=str,
)
def test_a_wide_beam_finds_the_best_that_rules_allow(rules: tuple[Rule, ...]) -> None:
    words, limit, penalty = 5, 3, TokenMean()
    model = build(words)
    given, beam = latents(model, 3), Beam(size=89, rules=rules, length_penalty=penalty)
    found = beam_search(model, given, beam, num_best=11, max_length=limit)
    parts = (itertools.product(range(1, words), repeat=length) for length in range(limit + 1))
    sentences = [list(ids) for part in parts for ids in part]
    for latent, best in zip(given, found, strict=True):
        scored = []
        for ids in sentences:
            logits = forced(model, ids, latent).double()
            normalizer = logits.logsumexp(1).tolist()
            rows = list(enumerate(zip(logits.tolist(), [*ids, END], normalizer, strict=True)))
            log_likelihood = sum(row[word] - own for _, (row, word, own) in rows)
            padded = [row + [0.0] * (V - words) for _, (row, _, _) in rows]
            total = sum(
                plain(rules, padded[at], ids[:at])[word] - own for at, (_, word, own) in rows
            )
            scored.append((total / penalty.divisor(len(ids) + 1), log_likelihood, ids))
        scored.sort(reverse=True)
        assert [one.words for one in best] == [ids for _, _, ids in scored[:11]]
        for one, (score, log_likelihood, _) in zip(best, scored, strict=False):
            assert math.isclose(one.score, score, rel_tol=1e-5, abs_tol=1e-5)
            assert math.isclose(one.log_likelihood, log_likelihood, rel_tol=1e-5, abs_tol=1e-5)


# -- what cannot be met ----------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [Temperature(), TopK(), Nucleus(), Typical(), Greedy()])
def test_a_sentence_that_can_neither_go_on_nor_end_is_refused(strategy: Strategy) -> None:
    model, rules = build(5), (NoRepeatedNgrams(size=1), MinLength(tokens=7))
    with pytest.raises(ConfigError, match="the rules leave a sentence no word to go on with"):
        write(model, latents(model), type(strategy)(rules=rules))
    with pytest.raises(ConfigError, match="the rules leave a sentence no word to go on with"):
        beam_search(model, latents(model), Beam(size=3, rules=rules), max_length=LIMIT)
    # Of four words at most four can be said; at the last the sentence may end.
    enough = (NoRepeatedNgrams(size=1), MinLength(tokens=4))
    found = write(model, latents(model), type(strategy)(rules=enough))
    assert all(sorted(ids) == [1, 2, 3, 4] for ids in found.sentences)


def test_a_minimum_above_the_maximum_is_refused() -> None:
    model, rules = build(), (MinLength(tokens=LIMIT + 1),)
    words = f"a sentence of at least {LIMIT + 1} and at most {LIMIT} tokens: there is none"
    with pytest.raises(ConfigError, match=re.escape(words)):
        write(model, latents(model), Greedy(rules=rules))
    with pytest.raises(ConfigError, match=re.escape(words)):
        beam_search(model, latents(model), Beam(rules=rules), max_length=LIMIT)
    equal = write(model, latents(model), Greedy(rules=(MinLength(tokens=LIMIT),)))
    assert {len(ids) for ids in equal.sentences} == {LIMIT}


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        (Greedy(rules=(MinLength(tokens=-1),)), "Greedy: rules[0].tokens: found -1"),
        (TopK(rules=(RepetitionPenalty(factor=0.5),)), "TopK: rules[0].factor: found 0.5"),
        (Beam(rules=(NoRepeatedNgrams(size=0),)), "Beam: rules[0].size: found 0"),
    ],
    ids=str,
)
def test_rules_out_of_bounds_are_refused(strategy: AnyStrategy, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        check_strategy(strategy)
