"""Options of the command line describe a strategy, or are refused in words."""

import math
import re
from typing import Any, Unpack, get_args

import pytest

from textvae.data.tokenizer import WordTokenizerConfig
from textvae.errors import ConfigError
from textvae.generate.beam import Beam, GNMTPenalty, TokenMean
from textvae.generate.options import STRATEGIES, Decoding, StrategyName, resolve_decoding
from textvae.generate.rules import MinLength, NoRepeatedNgrams, RepetitionPenalty
from textvae.generate.strategies import Greedy, Nucleus, Temperature, TopK, Typical
from textvae.generate.writing import AnyStrategy, check_strategy

TOKENIZER = WordTokenizerConfig().train(["a b c"])


def described(default: StrategyName = "temperature", **given: Unpack[Decoding]) -> AnyStrategy:
    return resolve_decoding(
        given, tokenizer=TOKENIZER, default=default, limit=19, several=True
    ).strategy


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, Temperature()),
        ({"temperature": 0.5}, Temperature(temperature=0.5)),
        ({"top_k": 7}, TopK(k=7)),
        ({"top_k": 7, "temperature": 0.5}, TopK(k=7, temperature=0.5)),
        ({"top_p": 0.5}, Nucleus(p=0.5)),
        ({"top_p": 1.0, "temperature": 2.0}, Nucleus(p=1.0, temperature=2.0)),
        ({"strategy": "greedy"}, Greedy()),
        ({"strategy": "temperature"}, Temperature()),
        ({"strategy": "temperature", "temperature": 3.0}, Temperature(temperature=3.0)),
        ({"strategy": "top-k"}, TopK()),
        ({"strategy": "top-k", "temperature": 0.5}, TopK(temperature=0.5)),
        ({"strategy": "top-k", "top_k": 1}, TopK(k=1)),
        ({"strategy": "nucleus"}, Nucleus()),
        (
            {"strategy": "nucleus", "top_p": 0.7, "temperature": 0.5},
            Nucleus(p=0.7, temperature=0.5),
        ),
        ({"strategy": "typical", "temperature": 0.5}, Typical(temperature=0.5)),
        ({"typical_p": 0.2}, Typical(p=0.2)),
        ({"strategy": "beam"}, Beam()),
        ({"beam_size": 7}, Beam(size=7)),
        ({"n_best": 3}, Beam()),
        ({"n_best": 7, "beam_size": 7}, Beam(size=7)),
        ({"length_penalty": "0.6"}, Beam(length_penalty=GNMTPenalty(alpha=0.6))),
        ({"length_penalty": "mean", "beam_size": 3}, Beam(size=3, length_penalty=TokenMean())),
    ],
    ids=str,
)
def test_options_describe_a_strategy(given: dict[str, Any], expected: AnyStrategy) -> None:
    assert described(**given) == expected


def test_the_default_counts_only_where_no_strategy_is_given() -> None:
    assert described("greedy") == Greedy()
    assert described("greedy", top_k=3) == TopK(k=3)
    assert described("greedy", strategy="temperature") == Temperature()


def test_rules_go_with_every_strategy_and_with_the_default() -> None:
    given = Decoding(min_length=3, repetition_penalty=1.3, no_repeat_ngram=2)
    rules = (MinLength(tokens=3), RepetitionPenalty(factor=1.3), NoRepeatedNgrams(size=2))
    assert described(**given) == Temperature(rules=rules)
    assert described("greedy", **given) == Greedy(rules=rules)
    assert described(min_length=3, top_k=7) == TopK(k=7, rules=rules[:1])
    for name in get_args(StrategyName):
        assert described(strategy=name, **given).rules == rules


def test_every_name_is_a_strategy() -> None:
    names = get_args(StrategyName)
    assert names == tuple(STRATEGIES)
    strategies = [described(strategy=name) for name in names]
    assert {type(one) for one in strategies} == set(get_args(AnyStrategy))
    for name, one in zip(names, strategies, strict=True):
        assert one.__struct_config__.tag == name.replace("-", "_")
        assert described(strategy=name.replace("-", "_")) == one  # type: ignore[arg-type]


def test_a_struct_takes_rules_and_nothing_else() -> None:
    assert described(strategy=TopK(k=3)) == TopK(k=3)
    assert described(strategy=Beam(size=3), n_best=3, max_length=2) == Beam(size=3)
    rules = (MinLength(tokens=3), NoRepeatedNgrams(size=2))
    assert described(strategy=Greedy(rules=rules[:1]), no_repeat_ngram=2) == Greedy(rules=rules)
    with pytest.raises(ConfigError, match="--top-p: goes with a strategy by name; set 'p' in Nuc"):
        described(strategy=Nucleus(), top_p=0.5)
    with pytest.raises(ConfigError, match="--n-best 2: must be from 1 to --beam-size 1"):
        described(strategy=Greedy(), n_best=2)


def test_what_is_no_option_or_strategy_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="no decoding option 'topp'; did you mean 'top_p'"):
        described(topp=0.5)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"strategy: found int, expected .* greedy, temperature"):
        described(strategy=3)  # type: ignore[arg-type]
    for value in ("much", True, [0.5]):
        with pytest.raises(ConfigError, match=re.escape(f"--top-p {value}: must be greater")):
            described(top_p=value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"top_k": 3, "top_p": 0.5}, "--top-k and --top-p are two strategies"),
        ({"top_k": 3, "beam_size": 5}, "--top-k and --beam-size are two strategies"),
        ({"strategy": "greedy", "top_k": 3}, "--top-k belongs to --strategy top-k, not to greedy"),
        ({"strategy": "nucleus", "top_k": 3}, "--top-k belongs to --strategy top-k, not to nucl"),
        ({"strategy": "temperature", "top_p": 0.5}, "--top-p belongs to --strategy nucleus"),
        ({"strategy": "top-k", "top_p": 0.5}, "--top-p belongs to --strategy nucleus, not to to"),
        ({"strategy": "greedy", "n_best": 2}, "--n-best belongs to --strategy beam, not to gre"),
        ({"strategy": "top-k", "length_penalty": "1"}, "--length-penalty belongs to --strategy b"),
        ({"strategy": "greedy", "temperature": 0.5}, "--temperature has no effect on --strategy g"),
        ({"n_best": 2, "temperature": 0.5}, "--temperature has no effect on --strategy beam"),
        ({"temperature": 0.0}, "--temperature 0.0: must be greater than 0"),
        ({"temperature": -1.0, "top_k": 3}, "--temperature -1.0"),
        ({"temperature": math.nan}, "--temperature nan"),
        ({"temperature": math.inf}, "--temperature inf"),
        ({"top_k": 0}, "--top-k 0: must be at least 1"),
        ({"top_p": 0.0}, "--top-p 0.0: must be greater than 0 and at most 1"),
        ({"top_p": 1.1}, "--top-p 1.1"),
        ({"top_p": math.nan}, "--top-p nan"),
        ({"typical_p": 0.5, "top_p": 0.5}, "--top-p and --typical-p are two strategies"),
        ({"strategy": "nucleus", "typical_p": 0.5}, "--typical-p belongs to --strategy typical"),
        ({"typical_p": 1.5}, "--typical-p 1.5: must be greater than 0 and at most 1"),
        ({"beam_size": 0}, "--beam-size 0: must be from 1 to 1024"),
        ({"n_best": 6}, "--n-best 6: must be from 1 to --beam-size 5"),
        ({"n_best": 3, "beam_size": 2}, "--n-best 3: must be from 1 to --beam-size 2"),
        ({"length_penalty": "-1"}, "--length-penalty -1: must be a number from 0 to 10, or 'mean'"),
        ({"length_penalty": "nan"}, "--length-penalty nan"),
        ({"length_penalty": "long"}, "--length-penalty long"),
        ({"min_length": 0}, "--min-length 0: must be at least 1"),
        ({"repetition_penalty": 0.9}, "--repetition-penalty 0.9: must be from 1 to 1000"),
        ({"repetition_penalty": math.nan}, "--repetition-penalty nan"),
        ({"no_repeat_ngram": 0}, "--no-repeat-ngram 0: must be at least 1"),
        ({"strategy": "bean"}, f"--strategy bean: must be one of {', '.join(STRATEGIES)}"),
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused_in_words(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        described(**given)


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        (Typical(p=0.0), "Typical: p: found 0.0"),
        (Typical(temperature=0.0), "Typical: temperature: found 0.0"),
        (Beam(size=0), "Beam: size: found 0"),
        (Beam(length_penalty=GNMTPenalty(alpha=-0.5)), "Beam: length_penalty.alpha: found -0.5"),
    ],
    ids=str,
)
def test_a_strategy_made_in_python_is_checked(strategy: AnyStrategy, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        check_strategy(strategy)
