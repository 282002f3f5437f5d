"""The model of spelling is a distribution, and knows its words from others."""

import math

import msgspec
import pytest

from textvae.data.spelling import CODE_POINTS, SpellingModel, fit_spelling
from textvae.data.tokenizer import BPETokenizerConfig, CharTokenizerConfig, WordTokenizerConfig
from textvae.errors import DataError

TEXT = ["the food was good", "the service was slow", "<unk> food was <unk>", "a good sandwich"] * 3
RARE = ["delicious", "atrocious", "waitress"]
TOKENIZER = WordTokenizerConfig(min_count=2).train([*TEXT, " ".join(RARE)])
MODEL = SpellingModel.fit([*TEXT, " ".join(RARE)], TOKENIZER)


def test_the_next_character_has_a_distribution() -> None:
    seen = sorted({character for text in [*TEXT, *RARE] for character in text if character != " "})
    for context in ("\n\n", "\nt", "th", "ou", "zz", "\nq", "e\u5b57"):
        total = math.fsum(MODEL.conditional(context, one) for one in [*seen, ""])
        others = MODEL.conditional(context, "\u5b57")
        assert total + (CODE_POINTS - len(seen) - 1) * others == pytest.approx(1.0)
        assert 0 < others < 1e-6


def test_the_words_of_a_vocabulary_are_no_unknown_words() -> None:
    """Given `<unk>`, the literal one and all words outside the vocabulary have probability 1."""
    file = msgspec.json.decode(MODEL.to_json())
    known = math.fsum(math.exp(MODEL._log_spelling(word)) for word in TOKENIZER.words())
    assert file["log_unknown"] == pytest.approx(math.log1p(-known))
    assert (file["num_unknown"], file["num_literal"]) == (9, 6)
    literal = 6.5 / 10
    assert MODEL.log_prob("<unk>") == pytest.approx(math.log(literal))
    spelled = MODEL.log_prob("delicious") - MODEL._log_spelling("delicious")
    assert spelled == pytest.approx(math.log(1 - literal) - math.log1p(-known))


def test_words_like_those_of_training_cost_less_than_others() -> None:
    nats = MODEL.nats(
        [
            "the food was good",
            "delightful",
            "qxzvbjwkpt",
            "\u304a\u3044\u3057\u3044\u3067\u3059\u3088\u306d!!",
        ],
        TOKENIZER,
    )
    assert nats[0] == 0
    assert nats[0] < nats[1] < nats[2] < nats[3]
    two = MODEL.nats(["delightful food qxzvbjwkpt"], TOKENIZER)[0]
    assert two == pytest.approx(nats[1] + nats[2])


def test_sub_words_need_no_spelling_and_characters_are_spelled_alone() -> None:
    assert fit_spelling(TEXT, BPETokenizerConfig().train(TEXT)) is None
    characters = CharTokenizerConfig().train(TEXT)
    model = fit_spelling(TEXT, characters)
    assert model is not None
    assert model.nats(["the food"], characters) == [0.0]
    assert model.nats(["the \u5b57"], characters)[0] > math.log(CODE_POINTS) - 3


def test_a_file_is_read_as_it_was_written_and_no_other() -> None:
    data = MODEL.to_json()
    again = SpellingModel.from_json(data)
    assert again.to_json() == data
    assert again.log_prob("delicious") == MODEL.log_prob("delicious")
    file = msgspec.json.decode(data)
    for change in (
        {"counts": {}},
        {"counts": {"abc": {"a": 1}}},
        {"counts": {"ab": {"ab": 1}}},
        {"counts": {"ab": {"a": 0}}},
        {"log_unknown": 0.5},
        {"num_literal": 99},
        {"num_literal": -1},
        {"extra": 1},
    ):
        with pytest.raises(DataError, match="not a model of spelling"):
            SpellingModel.from_json(msgspec.json.encode(file | change))
