import math
import re
from collections import Counter
from collections.abc import Mapping
from itertools import combinations, pairwise

import pytest

from textvae.data import lexicon
from textvae.data.grammar import (
    ATTRIBUTES,
    SPLIT_SIZES,
    AutomatonState,
    EmbeddedSplits,
    Grammar,
    embedded_grammar,
    embedded_splits,
    label,
)
from textvae.errors import ConfigError

SENTENCE = "my two cheerful bakers gladly served pies for me behind the church yesterday"


Place = tuple[AutomatonState, tuple[str, ...]]  # a state to come, the words before it


@pytest.fixture(scope="module")
def grammar() -> Grammar:
    return embedded_grammar()


@pytest.fixture(scope="module")
def splits() -> EmbeddedSplits:
    return embedded_splits()


def states_bottom_up(grammar: Grammar) -> list[AutomatonState]:
    """Every reachable state, each after all states that its arcs lead to."""
    order: dict[AutomatonState, None] = {}
    stack: list[tuple[AutomatonState, bool]] = [(grammar.start, False)]
    while stack:
        state, finished = stack.pop()
        if finished:
            order[state] = None
        elif state not in order:
            stack.append((state, True))
            stack += [(arc.target, False) for arc in state.arcs if arc.target not in order]
    return list(order)


def find_ambiguity(grammar: Grammar) -> bool:
    """Decides whether some sentence has two derivations, by the self-product of the automaton.

    Two derivations of one sentence share a prefix of arcs, then take different arcs from one state
    and read the same words to the end. So: take all pairs of different arcs that leave a reachable
    state on the same word, follow them word by word, and see whether a pair can end together.
    """

    def steps(place: Place) -> dict[str, list[Place]]:
        state, rest = place
        if rest:
            return {rest[0]: [(state, rest[1:])]}
        after: dict[str, list[Place]] = {}
        for arc in state.arcs:
            after.setdefault(arc.words[0], []).append((arc.target, arc.words[1:]))
        return after

    todo: list[tuple[Place, Place]] = []
    for state in states_bottom_up(grammar):
        for places in steps((state, ())).values():
            todo += combinations(places, 2)
    seen = set(todo)
    while todo:
        left, right = todo.pop()
        if not left[1] and not right[1] and left[0].stop and right[0].stop:
            return True
        right_steps = steps(right)
        for word, places in steps(left).items():
            for pair in ((a, b) for a in places for b in right_steps.get(word, [])):
                if pair not in seen:
                    seen.add(pair)
                    todo.append(pair)
    return False


def test_probabilities_of_every_choice_sum_to_one(grammar: Grammar) -> None:
    choices: list[Mapping[str, float] | Mapping[tuple[str, ...], float]] = [grammar.plans]
    choices += grammar.prior.values()
    choices += [phrases for slot in grammar.slots.values() for phrases in slot.phrases.values()]
    for choice in choices:
        assert math.fsum(choice.values()) == pytest.approx(1.0, abs=1e-14)
        assert min(choice.values()) > 0.0
    for state in states_bottom_up(grammar):
        total = math.fsum(arc.probability for arc in state.arcs) + state.stop
        assert total == pytest.approx(1.0, abs=1e-13)


@pytest.mark.parametrize(("words", "values"), [(1, 2), (2, 1), (3, 1)])
def test_enumeration_of_truncated_grammars_agrees_with_every_exact_figure(
    words: int, values: int
) -> None:
    grammar = Grammar(max_words_per_slot=words, max_values=values)
    sentences = list(grammar.enumerate())
    probabilities = dict(sentences)
    assert len(probabilities) == len(sentences) == grammar.num_sentences()
    assert math.fsum(probabilities.values()) == pytest.approx(1.0, abs=1e-12)
    entropy = -math.fsum(p * math.log(p) for p in probabilities.values())
    assert grammar.entropy() == pytest.approx(entropy, abs=1e-11)
    for sentence, probability in sentences[:: 1 + len(sentences) // 3001]:
        assert grammar.log_probability(sentence) == pytest.approx(math.log(probability), abs=1e-12)
        assert len(grammar.derivations(sentence)) == 1
        assert embedded_grammar().accepts(sentence)


def test_dynamic_programming_over_the_automaton_agrees_with_the_formulas(grammar: Grammar) -> None:
    mass: dict[AutomatonState, float] = {}
    count: dict[AutomatonState, int] = {}
    entropy: dict[AutomatonState, float] = {}
    length: dict[AutomatonState, float] = {}
    for state in states_bottom_up(grammar):
        steps = [(arc.probability, arc.target, len(arc.words)) for arc in state.arcs]
        mass[state] = state.stop + math.fsum(p * mass[t] for p, t, _ in steps)
        count[state] = (state.stop > 0) + sum(count[t] for _, t, _ in steps)
        length[state] = math.fsum(p * (n + length[t]) for p, t, n in steps)
        entropy[state] = math.fsum(p * (entropy[t] - math.log(p)) for p, t, _ in steps)
        entropy[state] -= state.stop * math.log(state.stop) if state.stop else 0.0
    assert mass[grammar.start] == pytest.approx(1.0, abs=1e-12)
    assert count[grammar.start] == grammar.num_sentences()
    assert entropy[grammar.start] == pytest.approx(grammar.entropy(), abs=1e-10)
    assert 9.0 < length[grammar.start] < 14.0


def test_mean_of_log_probabilities_of_draws_agrees_with_the_entropy(
    grammar: Grammar, splits: EmbeddedSplits
) -> None:
    nll = [-grammar.log_probability(text) for text in splits.valid.texts + splits.test.texts]
    mean = math.fsum(nll) / len(nll)
    variance = math.fsum((value - mean) ** 2 for value in nll) / (len(nll) - 1)
    assert abs(mean - grammar.entropy()) < 4.0 * math.sqrt(variance / len(nll))


def test_no_sentence_has_two_derivations(grammar: Grammar) -> None:
    assert not find_ambiguity(grammar)


def test_ambiguity_is_found_and_log_probability_sums_over_derivations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # "a b" is x "a b", x "a" + y "b" (either value of n): three derivations; "c" is one.
    monkeypatch.setattr(lexicon, "PRIOR", {"n": {"one": 0.25, "two": 0.75}})
    monkeypatch.setattr(lexicon, "PLANS", {("x",): 0.5, ("x", "y"): 0.5})
    slots = {
        "x": lexicon.Slot(
            ("n",), {("one",): {"a": 1.0, "a b": 4.0}, ("two",): {"a": 1.0, "c": 1.0}}
        ),
        "y": lexicon.Slot((), {(): {"b": 1.0}}),
    }
    monkeypatch.setattr(lexicon, "SLOTS", slots)
    grammar = Grammar()
    assert find_ambiguity(grammar)
    expected = [0.75 * 0.5 * 0.5, 0.25 * 0.5 * 0.8, 0.25 * 0.5 * 0.2]
    found = grammar.derivations("a b")
    assert [round(math.exp(d.log_probability), 12) for d in found] == pytest.approx(expected)
    assert [d.attributes["n"] for d in found] == ["two", "one", "one"]
    assert grammar.log_probability("a b") == pytest.approx(math.log(sum(expected)), abs=1e-12)


def test_derivation_of_a_sentence_is_the_product_of_its_choices(grammar: Grammar) -> None:
    prior, slots = grammar.prior, grammar.slots
    line = "topic=kitchen place=village tense=past number=plural person=first polarity=positive"
    told = dict(pair.split("=") for pair in line.split(" "))
    filled = {"owner": "my two", "quality": "cheerful", "subject": "bakers"}
    filled |= {"manner verb": "gladly served", "object": "pies", "companion": "for me"}
    filled |= {"location": "behind the church", "time": "yesterday"}
    expected = math.log(grammar.plans[tuple(filled)])
    expected += sum(math.log(prior[name][value]) for name, value in told.items())
    for name, phrase in filled.items():
        values = tuple(told[attribute] for attribute in slots[name].attributes)
        expected += math.log(slots[name].phrases[values][phrase])
    (derivation,) = grammar.derivations(SENTENCE)
    assert derivation.words == tuple(SENTENCE.split())
    assert derivation.attributes == told == grammar.attributes(SENTENCE)
    assert derivation.log_probability == pytest.approx(expected, abs=1e-12)
    assert grammar.log_probability(SENTENCE) == pytest.approx(expected, abs=1e-12)


def test_every_draw_is_accepted_and_its_words_tell_its_attributes(
    grammar: Grammar, splits: EmbeddedSplits
) -> None:
    for text, told in zip(*splits.test, strict=True):
        attributes = grammar.attributes(text)
        assert attributes is not None
        assert grammar.accepts(text)
        assert label(attributes) == told


def test_attributes_of_draws_follow_the_prior(grammar: Grammar, splits: EmbeddedSplits) -> None:
    num_draws = len(splits.train.labels)
    counts = Counter(pair for line in splits.train.labels for pair in line.split(" "))
    for name, values in grammar.prior.items():
        for value, p in values.items():
            deviation = counts[f"{name}={value}"] - num_draws * p
            assert abs(deviation) < 4.0 * math.sqrt(num_draws * p * (1.0 - p)), (name, value)


def test_words_of_draws_follow_the_grammar(grammar: Grammar, splits: EmbeddedSplits) -> None:
    # The first word is an owner unless the time comes first: each has an exact probability.
    counts = Counter(text.split(" ")[0] for text in splits.train.texts)
    total = len(splits.train.texts)
    exact: Counter[str] = Counter()
    for arc in grammar.start.arcs:
        exact[arc.words[0]] += arc.probability  # type: ignore[assignment]
    assert set(counts) == set(exact)
    for word, p in exact.items():
        assert abs(counts[word] - total * p) < 4.5 * math.sqrt(total * p * (1.0 - p)), word


def test_draws_depend_on_seed_and_index_alone(grammar: Grammar) -> None:
    other = Grammar()
    backwards = [other.draw(3, index) for index in reversed(range(53))]
    assert [grammar.draw(3, index) for index in range(53)] == backwards[::-1]
    assert [grammar.draw(5, index) for index in range(53)] != backwards[::-1]


def test_golden_draws(grammar: Grammar) -> None:
    assert [grammar.draw(0, index)[0] for index in range(3)] == [
        "my two grumpy singers performed my awful songs opposite the mill last week",
        "my two shepherds reluctantly feed ugly ponies with me by the pier nowadays",
        "her two patient designers will sew splendid shirts with her under the pines tomorrow",
    ]
    line = "topic=music place=village tense=past number=plural person=first polarity=negative"
    assert label(grammar.draw(0, 0)[1]) == line


def test_splits_have_the_documented_sizes_and_come_from_distinct_draws(
    grammar: Grammar, splits: EmbeddedSplits
) -> None:
    assert SPLIT_SIZES == {"train": 80_000, "valid": 2_000, "test": 2_000}
    for name, size in SPLIT_SIZES.items():
        split = getattr(splits, name)
        assert len(split.texts) == len(split.labels) == size
    for split, index in ((splits.valid, 80_000), (splits.test, 82_000)):
        text, attributes = grammar.draw(0, index)
        assert (split.texts[0], split.labels[0]) == (text, label(attributes))
    assert len(set(splits.train.texts)) > 0.99 * len(splits.train.texts)
    assert len(set(splits.test.texts) & set(splits.train.texts)) < 0.01 * 2_000


def test_size_and_entropy_are_as_documented(grammar: Grammar, splits: EmbeddedSplits) -> None:
    assert grammar.num_sentences() > 10**9
    assert 16.0 <= grammar.entropy() <= 24.0
    assert grammar.attribute_entropy() >= 5.0
    vocabulary = grammar.vocabulary()
    assert 200 <= len(vocabulary) <= 400
    assert list(vocabulary) == sorted(set(vocabulary))
    assert {word for text in splits.train.texts for word in text.split(" ")} <= set(vocabulary)
    assert all(word.isascii() and word.isalpha() and word.islower() for word in vocabulary)
    assert {name: tuple(values) for name, values in grammar.prior.items()} == ATTRIBUTES


@pytest.mark.parametrize("name", list(ATTRIBUTES))
def test_each_attribute_shows_in_two_words_on_average(grammar: Grammar, name: str) -> None:
    # A word shows an attribute where another value of it, all else equal, rules the word out of
    # its slot. The mean is exact: over plans, values and phrases.
    shown = 0.0
    slot_uses: Counter[str] = Counter()
    for plan, probability in grammar.plans.items():
        for slot_name in plan:
            slot_uses[slot_name] += probability  # type: ignore[assignment]
    for slot_name, uses in slot_uses.items():
        slot = grammar.slots[slot_name]
        if name not in slot.attributes:
            continue
        axis = slot.attributes.index(name)
        for values, phrases in slot.phrases.items():
            probability = math.prod(
                grammar.prior[n][v] for n, v in zip(slot.attributes, values, strict=True)
            )
            others = [
                {word for phrase in slot.phrases[other] for word in phrase.split(" ")}
                for value in ATTRIBUTES[name]
                if (other := (*values[:axis], value, *values[axis + 1 :])) != values
            ]
            for phrase, share in phrases.items():
                words = phrase.split(" ")
                count = sum(any(word not in other for other in others) for word in words)
                shown += uses * probability * share * count
    assert shown >= 2.0


@pytest.mark.parametrize(
    "sentence",
    [
        "tomorrow her lazy tailor will reluctantly mend shirts for her near the station",
        "my chef who trusts me bakes lovely pies by the sea",
        "my chefs who avoid me bake awful pies by the sea on sundays",
        "her gloomy florist grew roses under the oaks so she blamed him",
        "your three patient vets will wash ponies among the pines and you will praise them",
        "last week my clever joiner built splendid chairs beside the pier while i watched her",
    ],
)
def test_good_sentences_are_accepted(grammar: Grammar, sentence: str) -> None:
    assert grammar.accepts(sentence)
    assert grammar.attributes(sentence) is not None


# Number, topic, tense, polarity, person, place, a word unknown, a word missing, a word too many.
EXCHANGES = """bakers/baker two/one bakers/pianists pies/ballads served/serve yesterday/tomorrow
gladly/grudgingly cheerful/grumpy my/her me/her behind/near church/sea church/moon my/My
yesterday/yesterday. two/two_ yesterday/yesterday_ for/ pies/pies_pies"""
CLAUSES = """my chef who trust me bakes lovely pies by the sea
my chef who avoids me bakes lovely pies by the sea
her gloomy florist grew roses under the oaks so she blames him
her gloomy florist grew roses under the oaks and she blamed him
her gloomy florist grew roses under the oaks so she blamed them
her gloomy florist grew roses under the oaks so i blamed him
her gloomy florist grew roses under the oaks so she blame him"""
CORRUPTIONS = [
    *(SENTENCE.replace(a, b.replace("_", " ")) for a, b in re.findall(r"(\S+)/(\S*)", EXCHANGES)),
    *CLAUSES.splitlines(),
    *("", " ", "my", SENTENCE.removesuffix(" yesterday"), f"yesterday {SENTENCE}"),
]


@pytest.mark.parametrize("sentence", CORRUPTIONS)
def test_corruptions_are_refused(grammar: Grammar, sentence: str) -> None:
    assert not grammar.accepts(sentence)
    assert grammar.log_probability(sentence) == -math.inf
    assert grammar.attributes(sentence) is None
    assert grammar.derivations(sentence) == []


def test_repeated_exchanged_and_missing_words_are_refused(
    grammar: Grammar, splits: EmbeddedSplits
) -> None:
    for text in splits.valid.texts[:211]:
        words = text.split(" ")
        for i, (word, following) in enumerate(pairwise(words)):
            assert not grammar.accepts(" ".join([*words[:i], word, *words[i:]]))
            assert not grammar.accepts(" ".join([*words[:i], following, word, *words[i + 2 :]]))
        article = words.index("the")
        assert not grammar.accepts(" ".join(words[:article] + words[article + 1 :]))
        assert not grammar.accepts(" ".join(words[: article + 1]))


@pytest.mark.parametrize("limits", [{"max_words_per_slot": 0}, {"max_values": -1}])
def test_limits_below_one_are_refused_in_words(limits: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=rf"{next(iter(limits))} is -?\d+; give 1 or more"):
        Grammar(**limits)


def test_a_larger_training_set_begins_as_the_usual_one_and_leaves_the_others() -> None:
    usual, larger, smaller = (embedded_splits(num_train=n) for n in (None, 80_101, 31))
    assert larger.train.texts[:80_000] == usual.train.texts
    assert len(larger.train.texts) == len(larger.train.labels) == 80_101
    held = {*usual.valid.texts, *usual.test.texts}
    assert sum(text in held for text in larger.train.texts[80_000:]) < 5  # short ones recur
    assert smaller.train.texts == usual.train.texts[:31]
    assert (larger.valid, larger.test) == (usual.valid, usual.test)
