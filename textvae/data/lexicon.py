"""The words of the embedded corpus and their probabilities: the data of `textvae.data.grammar`.

A sentence has six attributes, drawn independently (`PRIOR`). A plan (`PLANS`) is the sequence of
slots that the sentence fills. A slot (`SLOTS`) is a choice among phrases that depends on some of
the attributes; every inflected form is stored, none is derived. Within a slot earlier words are
likelier than later ones. Three rules keep every sentence readable in one way only: no verb has a
past form equal to its plain form, each noun, preposition and evaluative word belongs to one value
of its attribute, and a plan names its slots so that the words tell which plan it was.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import islice, product
from typing import NamedTuple

_FALL = 0.5  # keeps the entropy near 19 nats, where flat choices would give 23


class Slot(NamedTuple):
    """A choice among phrases, given the values of some attributes."""

    attributes: tuple[str, ...]
    """Names of the attributes that the choice depends on."""
    phrases: Mapping[tuple[str, ...], Mapping[str, float]]
    """For each combination of their values, each phrase (words separated by single blanks) and its
    positive weight; `tables` normalises the weights."""


class Tables(NamedTuple):
    """A grammar: the probabilities of each choice sum to 1."""

    prior: dict[str, dict[str, float]]
    plans: dict[tuple[str, ...], float]
    slots: dict[str, Slot]


PRIOR: dict[str, dict[str, float]] = {
    "topic": {
        "garden": 0.24,
        "kitchen": 0.20,
        "music": 0.18,
        "animals": 0.15,
        "workshop": 0.13,
        "clothes": 0.10,
    },
    "place": {"village": 0.32, "coast": 0.28, "forest": 0.22, "city": 0.18},
    "tense": {"past": 0.40, "present": 0.42, "future": 0.18},
    "number": {"singular": 0.55, "plural": 0.45},
    "person": {"first": 0.56, "second": 0.18, "third": 0.26},
    "polarity": {"positive": 0.60, "negative": 0.40},
}


def _table(text: str) -> dict[str, tuple[str, ...]]:
    """The phrases of each value of an attribute: `coast: by, beside; forest: under, among`."""
    entries = (" ".join(entry.split()).split(": ") for entry in text.split(";"))
    return {value: tuple(phrases.split(", ")) for value, phrases in entries}


# Nouns are written "singular plural", verbs "plain third-person past".
_SUBJECTS = _table("""
    garden: gardener gardeners, florist florists, neighbor neighbors, botanist botanists;
    kitchen: baker bakers, cook cooks, chef chefs, roommate roommates;
    music: singer singers, pianist pianists, drummer drummers, cousin cousins;
    animals: farmer farmers, shepherd shepherds, rancher ranchers, vet vets;
    workshop: carpenter carpenters, joiner joiners, builder builders, friend friends;
    clothes: tailor tailors, weaver weavers, designer designers, dressmaker dressmakers
""")
_VERBS = _table("""
    garden: plant plants planted, water waters watered, grow grows grew, trim trims trimmed;
    kitchen: bake bakes baked, serve serves served, taste tastes tasted, eat eats ate;
    music: play plays played, perform performs performed, compose composes composed, rehearse
        rehearses rehearsed;
    animals: feed feeds fed, wash washes washed, brush brushes brushed, train trains trained;
    workshop: build builds built, paint paints painted, repair repairs repaired, polish polishes
        polished;
    clothes: sew sews sewed, mend mends mended, fold folds folded, sell sells sold
""")
_OBJECTS = _table("""
    garden: roses, tulips, lilies, ferns, orchids, shrubs, vines;
    kitchen: pies, cakes, cookies, muffins, tarts, pastries, buns;
    music: songs, waltzes, ballads, tunes, marches, lullabies, anthems;
    animals: ponies, lambs, goats, puppies, donkeys, kittens, calves;
    workshop: chairs, tables, benches, shelves, ladders, cabinets, stools;
    clothes: shirts, scarves, coats, dresses, mittens, jackets, gowns
""")
# Each place has its own prepositions, so that it shows in two words of every sentence.
_PREPOSITIONS = _table("""
    village: behind, opposite;
    coast: by, beside;
    forest: under, among;
    city: near, outside
""")
_LANDMARKS = _table("""
    village: church, mill, inn, chapel, smithy;
    coast: sea, lighthouse, pier, beach, harbor;
    forest: oaks, pines, birches, willows, maples;
    city: station, museum, library, theater, stadium
""")
_TIMES = _table("""
    past: yesterday, last week, recently, last night, long ago;
    present: nowadays, every day, these days, on sundays, every morning;
    future: tomorrow, soon, next week, next spring, one day
""")
_QUALITIES = _table("""
    positive: cheerful, friendly, clever, patient;
    negative: grumpy, lazy, gloomy, careless
""")
_MANNERS = _table("""
    positive: gladly, proudly, carefully, skillfully;
    negative: reluctantly, grudgingly, clumsily, hastily
""")
_VERDICTS = _table("""
    positive: lovely, splendid, beautiful, wonderful;
    negative: awful, ugly, dreadful, terrible
""")
_CONJUNCTIONS = {"positive": "and", "negative": "so"}
_REACTIONS = _table("""
    positive: thank thanks thanked, praise praises praised;
    negative: scold scolds scolded, blame blames blamed
""")
_ATTITUDES = _table("""
    positive: like likes liked, trust trusts trusted;
    negative: avoid avoids avoided, ignore ignores ignored
""")
_MEANWHILE = ("watch watches watched", "help helps helped")
_PRONOUNS = {  # owner, nominative, accusative
    "first": ("my", "i", "me"),
    "second": ("your", "you", "you"),
    "third": ("her", "she", "her"),
}


def _ranked(phrases: Sequence[str]) -> dict[str, float]:
    """Weights that fall with the rank, each by the same factor."""
    return {phrase: _FALL**rank for rank, phrase in enumerate(phrases)}


def _slot(choose: Callable[..., Mapping[str, float]], *attributes: str) -> Slot:
    """A slot whose choice among phrases is `choose(*values of attributes)`."""
    values = product(*(PRIOR[name] for name in attributes))
    return Slot(attributes, {combination: choose(*combination) for combination in values})


def _form(verb: str, tense: str, *, third_singular: bool) -> str:
    """The stored form of a verb, whose future is "will" and the plain form."""
    plain, third, past = verb.split()
    if tense == "future":
        return f"will {plain}"
    if tense == "past":
        return past
    return third if third_singular else plain


def _subordinate_form(verb: str, tense: str, *, third_singular: bool) -> str:
    """The form in clauses with "while" and "who", where the future looks like the present."""
    return _form(verb, "present" if tense == "future" else tense, third_singular=third_singular)


def _owner(person: str, number: str) -> dict[str, float]:
    owner = _PRONOUNS[person][0]
    if number == "singular":
        return {owner: 1.0}
    return {owner: 0.55, f"{owner} two": 0.3, f"{owner} three": 0.15}


def _subject(topic: str, number: str) -> dict[str, float]:
    return _ranked([noun.split()[number == "plural"] for noun in _SUBJECTS[topic]])


def _verb(topic: str, tense: str, number: str) -> dict[str, float]:
    singular = number == "singular"
    return _ranked([_form(verb, tense, third_singular=singular) for verb in _VERBS[topic]])


def _manner_verb(topic: str, tense: str, number: str, polarity: str) -> dict[str, float]:
    """The verb with its adverb, which follows "will": a slot of its own for their order's sake."""
    verbs, manners = _verb(topic, tense, number), _ranked(_MANNERS[polarity])
    return {
        f"will {manner} {verb[5:]}" if tense == "future" else f"{manner} {verb}": verbs[verb]
        * manners[manner]
        for verb, manner in product(verbs, manners)
    }


def _location(place: str) -> dict[str, float]:
    prepositions, landmarks = _ranked(_PREPOSITIONS[place]), _ranked(_LANDMARKS[place])
    return {
        f"{preposition} the {landmark}": prepositions[preposition] * landmarks[landmark]
        for preposition, landmark in product(prepositions, landmarks)
    }


def _companion(person: str) -> dict[str, float]:
    return _ranked([f"{word} {_PRONOUNS[person][2]}" for word in ("with", "for")])


def _referents(number: str) -> tuple[str, ...]:
    return ("him", "her") if number == "singular" else ("them",)


def _reaction(person: str, tense: str, number: str, polarity: str) -> dict[str, float]:
    conjunction, verbs = _CONJUNCTIONS[polarity], _REACTIONS[polarity]
    third = person == "third"
    forms = [_form(verb, tense, third_singular=third) for verb in verbs]
    clauses = product(forms, _referents(number))
    return _ranked([f"{conjunction} {_PRONOUNS[person][1]} {verb} {who}" for verb, who in clauses])


def _meanwhile(person: str, tense: str, number: str) -> dict[str, float]:
    third = person == "third"
    forms = [_subordinate_form(verb, tense, third_singular=third) for verb in _MEANWHILE]
    clauses = product(forms, _referents(number))
    return _ranked([f"while {_PRONOUNS[person][1]} {verb} {who}" for verb, who in clauses])


def _relative(person: str, tense: str, number: str, polarity: str) -> dict[str, float]:
    singular = number == "singular"
    verbs = _ATTITUDES[polarity]
    forms = [_subordinate_form(verb, tense, third_singular=singular) for verb in verbs]
    return _ranked([f"who {form} {_PRONOUNS[person][2]}" for form in forms])


SLOTS: dict[str, Slot] = {
    "time": _slot(lambda tense: _ranked(_TIMES[tense]), "tense"),
    "owner": _slot(_owner, "person", "number"),
    "quality": _slot(lambda polarity: _ranked(_QUALITIES[polarity]), "polarity"),
    "subject": _slot(_subject, "topic", "number"),
    "relative": _slot(_relative, "person", "tense", "number", "polarity"),
    "verb": _slot(_verb, "topic", "tense", "number"),
    "manner verb": _slot(_manner_verb, "topic", "tense", "number", "polarity"),
    "possessive": _slot(lambda person: {_PRONOUNS[person][0]: 1.0}, "person"),
    "verdict": _slot(lambda polarity: _ranked(_VERDICTS[polarity]), "polarity"),
    "object": _slot(lambda topic: _ranked(_OBJECTS[topic]), "topic"),
    "companion": _slot(_companion, "person"),
    "location": _slot(_location, "place"),
    "reaction": _slot(_reaction, "person", "tense", "number", "polarity"),
    "meanwhile": _slot(_meanwhile, "person", "tense", "number"),
}

# What shows the person a second time, how likely it is, and the evaluative words and time
# adverbials that go with it: a clause that shows the tense or the polarity needs fewer of them.
_TWO_EVALUATIONS = {
    ("quality", "manner verb"): 0.40,
    ("quality", "verb", "verdict"): 0.34,
    ("manner verb", "verdict"): 0.14,
    ("quality", "verb"): 0.12,
}
_ONE_EVALUATION = {("quality", "verb"): 0.60, ("manner verb",): 0.40}
_NO_MANNER: dict[tuple[str, ...], float] = {  # "who likes me gladly sews" would mislead
    ("quality", "verb"): 0.50,
    ("verb", "verdict"): 0.50,
}
_ALWAYS_TIME = {"first": 0.25, "last": 0.75}
_MAYBE_TIME = {"first": 0.15, "last": 0.20, "never": 0.65}
_CARRIERS: dict[str, tuple[float, dict[tuple[str, ...], float], dict[str, float]]] = {
    "possessive": (0.34, _TWO_EVALUATIONS, _ALWAYS_TIME),
    "companion": (0.18, _TWO_EVALUATIONS, _ALWAYS_TIME),
    "reaction": (0.20, _ONE_EVALUATION, _MAYBE_TIME),
    "meanwhile": (0.18, _TWO_EVALUATIONS, _MAYBE_TIME),
    "relative": (0.10, _NO_MANNER, _MAYBE_TIME),
}


def _plans() -> dict[tuple[str, ...], float]:
    plans: dict[tuple[str, ...], float] = {}
    for carrier, (probability, evaluations, times) in _CARRIERS.items():
        for (evaluation, fraction), (time, part) in product(evaluations.items(), times.items()):
            members = {"owner", "subject", "object", "location", carrier, *evaluation}
            clause = tuple(slot for slot in SLOTS if slot in members - {"reaction", "meanwhile"})
            plan = ("time",) * (time == "first") + clause + ("time",) * (time == "last")
            plan += tuple(slot for slot in ("reaction", "meanwhile") if slot == carrier)
            plans[plan] = probability * fraction * part
    return plans


PLANS: dict[tuple[str, ...], float] = _plans()  # sequences of slots and their probabilities


def _normalised(weights: Mapping[str, float], limit: int | None) -> dict[str, float]:
    first = dict(islice(weights.items(), limit))
    total = math.fsum(first.values())
    return {name: weight / total for name, weight in first.items()}


def tables(max_words_per_slot: int | None, max_values: int | None) -> Tables:
    """The tables, with only so many phrases of each choice and values of each attribute."""
    prior = {name: _normalised(values, max_values) for name, values in PRIOR.items()}
    slots = {
        name: Slot(
            slot.attributes,
            {
                values: _normalised(slot.phrases[values], max_words_per_slot)
                for values in product(*(prior[attribute] for attribute in slot.attributes))
            },
        )
        for name, slot in SLOTS.items()
    }
    return Tables(prior, dict(PLANS), slots)
