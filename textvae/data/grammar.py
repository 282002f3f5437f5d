"""The embedded corpus: a probabilistic grammar of English whose every likelihood is known exactly.

A sentence such as "my two cheerful bakers gladly served pies for me behind the church yesterday"
is drawn in three steps: six independent attributes (topic, place, tense, number, person,
polarity), a plan (which optional parts it has: time adverbial, evaluative words, a companion, a
relative, coordinate or "while" clause), and a phrase for each slot of the plan, whose
probabilities depend on the attributes (`textvae.data.lexicon`). Each attribute shows in two words
or more on average, so a latent variable has something to carry. The language is finite, so the
grammar compiles to an acyclic weighted automaton; a state is a position in the tree of plans and
the values of the attributes that later slots still depend on. The grammar is unambiguous (the
tests decide it exactly, by the automaton's self-product): a sentence has one derivation, its words
determine its attributes, and the entropy of sentences is that of derivations. `log_probability`
nevertheless sums over derivations. All draws are functions of (seed, index).
"""

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import accumulate, product
from typing import NamedTuple

from textvae.data.lexicon import PRIOR, Tables
from textvae.data.lexicon import tables as make_tables
from textvae.errors import ConfigError
from textvae.randomness import hash64, key

ATTRIBUTES: dict[str, tuple[str, ...]] = {name: tuple(values) for name, values in PRIOR.items()}
SPLIT_SIZES = {"train": 80_000, "valid": 2_000, "test": 2_000}

_Values = tuple[tuple[str, str], ...]  # names of attributes and their values
_UNIT = 2.0**-53  # the upper 53 bits of a hash are a float64 in [0, 1)


class Derivation(NamedTuple):
    """One way to read a sentence; its log-probability is in nats."""

    words: tuple[str, ...]
    attributes: dict[str, str]
    log_probability: float


class DrawnSplit(NamedTuple):
    """Sentences and, in step, their labels ("topic=garden place=coast ...")."""

    texts: list[str]
    labels: list[str]


class EmbeddedSplits(NamedTuple):
    """The embedded corpus: independent draws."""

    train: DrawnSplit
    valid: DrawnSplit
    test: DrawnSplit


class _Node(NamedTuple):
    """A position in the tree of plans: the next slots, each with its probability, or the end."""

    children: dict[str, tuple[float, "_Node"]]
    stop: float
    live: frozenset[str]  # the attributes that the slots below depend on


class Arc(NamedTuple):
    """A phrase read from a state, its probability there, and the state after it."""

    words: tuple[str, ...]
    probability: float
    binds: _Values  # the attributes that are drawn with this phrase
    target: "AutomatonState"


class AutomatonState:
    """A state of the automaton; `stop` is the probability that the sentence ends here.

    Arcs are made when they are first asked for: the full automaton is larger than most uses need.
    """

    __slots__ = ("_arcs", "_automaton", "_cumulative", "_index", "known", "node", "stop")

    def __init__(self, automaton: "_Automaton", node: _Node, known: _Values) -> None:
        self.node = node
        self.known = known
        self.stop = node.stop
        self._automaton = automaton
        self._arcs: list[Arc] | None = None
        self._cumulative: list[float] = []
        self._index: dict[str, list[Arc]] | None = None

    @property
    def arcs(self) -> list[Arc]:
        """All arcs that leave the state; their probabilities and `stop` sum to 1."""
        if self._arcs is None:
            self._arcs = self._automaton.arcs(self)
        return self._arcs

    def arcs_on(self, word: str) -> list[Arc]:
        """The arcs whose phrase begins with a word."""
        if self._index is None:
            self._index = {}
            for arc in self.arcs:
                self._index.setdefault(arc.words[0], []).append(arc)
        return self._index.get(word, [])

    def choose(self, uniform: float) -> Arc | None:
        """The arc that a uniform in [0, 1) picks, None where the sentence ends."""
        if not self._cumulative:
            self._cumulative = list(accumulate(arc.probability for arc in self.arcs))
        position = bisect_right(self._cumulative, uniform)
        if position < len(self._cumulative):
            return self.arcs[position]
        # Rounding may leave the last sum a little under 1.
        return None if self.stop else self.arcs[-1]


class _Automaton:
    """The states of a grammar, each made once."""

    def __init__(self, tables: Tables) -> None:
        self._prior, plans, self._slots = tables
        self._phrases = {
            name: {
                values: [(tuple(phrase.split(" ")), p) for phrase, p in phrases.items()]
                for values, phrases in slot.phrases.items()
            }
            for name, slot in self._slots.items()
        }
        self._states: dict[tuple[int, _Values], AutomatonState] = {}
        self.start = self._state(self._node(plans), ())

    def _node(self, plans: Mapping[tuple[str, ...], float]) -> _Node:
        total = math.fsum(plans.values())
        tails: dict[str, dict[tuple[str, ...], float]] = {}
        for plan, probability in plans.items():
            if plan:
                tails.setdefault(plan[0], {})[plan[1:]] = probability
        children = {
            slot: (math.fsum(tail.values()) / total, self._node(tail))
            for slot, tail in tails.items()
        }
        live = {n for slot in children for n in self._slots[slot].attributes}
        live.update(*(child.live for _, child in children.values()))
        return _Node(children, plans.get((), 0.0) / total, frozenset(live))

    def _state(self, node: _Node, known: _Values) -> AutomatonState:
        identity = (id(node), known)  # the nodes live as long as the start state
        if identity not in self._states:
            self._states[identity] = AutomatonState(self, node, known)
        return self._states[identity]

    def arcs(self, state: AutomatonState) -> list[Arc]:
        known = dict(state.known)
        arcs = []
        for name, (fraction, child) in state.node.children.items():
            slot = self._slots[name]
            free = [n for n in slot.attributes if n not in known]
            for values in product(*(self._prior[n] for n in free)):
                binds = tuple(zip(free, values, strict=True))
                after = known | dict(binds)
                weight = fraction * math.prod(self._prior[n][value] for n, value in binds)
                live = tuple((n, after[n]) for n in self._prior if n in after and n in child.live)
                target = self._state(child, live)
                phrases = self._phrases[name][tuple(after[n] for n in slot.attributes)]
                arcs += [Arc(words, weight * p, binds, target) for words, p in phrases]
        return arcs


def _entropy(probabilities: Mapping[str, float] | Mapping[tuple[str, ...], float]) -> float:
    return -math.fsum(p * math.log(p) for p in probabilities.values())


@cache
def _stream(seed: int) -> int:
    return key(seed, "grammar")


class Grammar:
    """The source of the embedded corpus: draws, parses, and exact probabilities in nats.

    Args:
        max_words_per_slot: keeps only that many phrases of each choice, renormalised; with
            `max_values` it makes a language small enough to enumerate. None keeps all.
        max_values: keeps only the first values of each attribute, renormalised. None keeps all.

    Raises:
        ConfigError: where a limit is less than 1.
    """

    def __init__(
        self, *, max_words_per_slot: int | None = None, max_values: int | None = None
    ) -> None:
        for name, limit in (("max_words_per_slot", max_words_per_slot), ("max_values", max_values)):
            if limit is not None and limit < 1:
                raise ConfigError(f"Grammar: {name} is {limit}; give 1 or more, or None for all.")
        self.prior, self.plans, self.slots = tables = make_tables(max_words_per_slot, max_values)
        """Probabilities: of the values of each attribute, of the sequences of slots, and of the
        phrases of each slot given its attributes. Attributes are independent."""
        self.start = _Automaton(tables).start

    def draw(self, seed: int, index: int) -> tuple[str, dict[str, str]]:
        """The sentence numbered `index` under a seed, and its attributes; draws are independent."""
        stream = hash64(_stream(seed), index)
        state = self.start
        words: list[str] = []
        attributes: dict[str, str] = {}
        while (arc := state.choose((hash64(stream, len(words)) >> 11) * _UNIT)) is not None:
            words += arc.words
            attributes.update(arc.binds)
            state = arc.target
        return " ".join(words), {name: attributes[name] for name in self.prior}

    def log_probability(self, sentence: str) -> float:
        """The exact log-probability of a sentence in nats, summed over its derivations.

        Words are separated by single blanks; minus infinity where it is not in the language.
        """
        words = tuple(sentence.split(" "))
        forward: list[dict[AutomatonState, float]] = [{} for _ in range(len(words) + 1)]
        forward[0][self.start] = 1.0
        for position, word in enumerate(words):
            for state, probability in forward[position].items():
                for arc in state.arcs_on(word):
                    end = position + len(arc.words)
                    if arc.words == words[position:end]:
                        sums = forward[end]
                        sums[arc.target] = sums.get(arc.target, 0.0) + probability * arc.probability
        total = math.fsum(p * state.stop for state, p in forward[-1].items())
        return math.log(total) if total > 0.0 else -math.inf

    def derivations(self, sentence: str) -> list[Derivation]:
        """Every derivation of a sentence, the most probable first; empty where there is none."""
        words = tuple(sentence.split(" "))
        derivations: list[Derivation] = []

        def visit(
            state: AutomatonState, position: int, bound: dict[str, str], log_prob: float
        ) -> None:
            if position == len(words):
                if state.stop:
                    attributes = {name: bound[name] for name in self.prior}
                    log_prob += math.log(state.stop)
                    derivations.append(Derivation(words, attributes, log_prob))
                return
            for arc in state.arcs_on(words[position]):
                end = position + len(arc.words)
                if arc.words == words[position:end]:
                    step = math.log(arc.probability)
                    visit(arc.target, end, bound | dict(arc.binds), log_prob + step)

        visit(self.start, 0, {}, 0.0)
        return sorted(derivations, key=lambda derivation: -derivation.log_probability)

    def accepts(self, sentence: str) -> bool:
        """True if a sentence, words separated by single blanks, belongs to the language."""
        return self.log_probability(sentence) > -math.inf

    def attributes(self, sentence: str) -> dict[str, str] | None:
        """The attributes that the words of a sentence show, None where it is not grammatical."""
        derivations = self.derivations(sentence)
        return derivations[0].attributes if derivations else None

    def attribute_entropy(self) -> float:
        """The exact entropy of a sentence's attributes, in nats."""
        return math.fsum(_entropy(values) for values in self.prior.values())

    def entropy(self) -> float:
        """The exact entropy of a sentence, in nats.

        By the chain rule over attributes, plan and phrases: the entropy of a derivation, which is
        that of the sentence because no sentence has two.
        """
        slot_entropy = {
            name: math.fsum(
                math.prod(self.prior[n][v] for n, v in zip(slot.attributes, values, strict=True))
                * _entropy(phrases)
                for values, phrases in slot.phrases.items()
            )
            for name, slot in self.slots.items()
        }
        phrases = math.fsum(
            probability * slot_entropy[name]
            for plan, probability in self.plans.items()
            for name in plan
        )
        return self.attribute_entropy() + _entropy(self.plans) + phrases

    def enumerate(self) -> Iterator[tuple[str, float]]:
        """Every derivation's sentence with its probability (not its logarithm), one at a time.

        Meant for truncated grammars: the full one has `num_sentences()` of them.
        """
        stack: list[tuple[AutomatonState, tuple[str, ...], float]] = [(self.start, (), 1.0)]
        while stack:
            state, words, probability = stack.pop()
            if state.stop:
                yield " ".join(words), probability * state.stop
            stack += [
                (arc.target, words + arc.words, probability * arc.probability) for arc in state.arcs
            ]

    def num_sentences(self) -> int:
        """The exact number of distinct sentences: of derivations, since no sentence has two."""
        total = 0
        for combination in product(*self.prior.values()):
            values = dict(zip(self.prior, combination, strict=True))
            sizes = {
                name: len(slot.phrases[tuple(values[n] for n in slot.attributes)])
                for name, slot in self.slots.items()
            }
            total += sum(math.prod(sizes[name] for name in plan) for plan in self.plans)
        return total

    def vocabulary(self) -> tuple[str, ...]:
        """Every word of the language, sorted."""
        choices = (phrases for slot in self.slots.values() for phrases in slot.phrases.values())
        return tuple(
            sorted({word for phrases in choices for p in phrases for word in p.split(" ")})
        )


@cache
def embedded_grammar() -> Grammar:
    """The full grammar, compiled once per process."""
    return Grammar()


def label(attributes: Mapping[str, str]) -> str:
    """Attributes as one line, such as "topic=garden place=coast tense=past ..."."""
    return " ".join(f"{name}={attributes[name]}" for name in ATTRIBUTES)


def embedded_splits(seed: int = 0, *, num_train: int | None = None) -> EmbeddedSplits:
    """Independent draws under a seed, of `SPLIT_SIZES` or `num_train` sentences, and their labels.

    The splits take consecutive ranges of indices, a larger training set those after them; a short
    sentence may be drawn twice, as in any corpus.
    """
    grammar = embedded_grammar()
    splits: dict[str, DrawnSplit] = {}
    first, end = 0, sum(SPLIT_SIZES.values())
    for name, size in SPLIT_SIZES.items():
        count = num_train if name == "train" and num_train else size
        indices = [*range(first, first + min(count, size)), *range(end, end + count - size)]
        draws = [grammar.draw(seed, index) for index in indices]
        splits[name] = DrawnSplit(
            [text for text, _ in draws], [label(attributes) for _, attributes in draws]
        )
        first += size
    return EmbeddedSplits(**splits)
