"""The options of decoding, declared once: keywords in Python, options and help of the command line.

A new option is a key of `DecodingOptions`, a new strategy a line in STRATEGIES and its struct. The
structs are imported where one is built: neither torch nor msgspec may delay a help text.
"""

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    NamedTuple,
    TypedDict,
    get_args,
    get_type_hints,
)

from textvae.errors import ConfigError

if TYPE_CHECKING:
    from textvae.data.tokenizer import Tokenizer
    from textvae.generate.beam import LengthPenalty
    from textvae.generate.rules import Rule
    from textvae.generate.writing import AnyStrategy, DecodingSettings

StrategyName = Literal["greedy", "temperature", "top-k", "nucleus", "typical", "beam"]
STRATEGIES = {
    "greedy": "strategies.Greedy",
    "temperature": "strategies.Temperature",
    "top-k": "strategies.TopK",
    "nucleus": "strategies.Nucleus",
    "typical": "strategies.Typical",
    "beam": "beam.Beam",
}
"""The struct of each strategy, by the name it has on the command line."""


class Option(NamedTuple):
    """An option: its help, and the field of a strategy or rule that it sets."""

    help: str
    strategy: str | None = None
    """The one it belongs to and implies; None goes with any strategy that has the field."""
    field: str | None = None
    rule: str | None = None
    """The struct of a rule, whose field it is."""
    least: int | None = None
    """Where that is more than the field's own bound."""
    parse: Callable[[Any], object] | None = None
    """From the value of the option to that of the field."""
    metavar: str | None = None


def _parse_length_penalty(value: object) -> "LengthPenalty":
    from textvae.generate.beam import GNMTPenalty, TokenMean  # noqa: PLC0415 -- torch

    if isinstance(value, GNMTPenalty | TokenMean):
        return value
    if value == "mean":
        return TokenMean()
    try:
        alpha = float(str(value))
    except ValueError:
        alpha = -1.0
    if not 0.0 <= alpha <= 10.0:
        raise ConfigError(f"--length-penalty {value}: must be a number from 0 to 10, or 'mean'")
    return GNMTPenalty(alpha=alpha)


class DecodingOptions(TypedDict, total=False):
    """The options of strategies; None is an option that is not given."""

    temperature: Annotated[
        float | None,
        Option("Divides the logits: below 1 sharper, above 1 flatter.", field="temperature"),
    ]
    top_k: Annotated[int | None, Option("Draw from the k likeliest.", "top-k", "k")]
    top_p: Annotated[
        float | None, Option("Draw from the likeliest with this mass.", "nucleus", "p")
    ]
    typical_p: Annotated[
        float | None, Option("Draw from the most typical with this mass.", "typical", "p")
    ]
    beam_size: Annotated[
        int | None,
        Option(
            "Search for the likeliest sentence with so many hypotheses.  [default: 5]",
            "beam",
            "size",
        ),
    ]
    n_best: Annotated[
        int | None,
        Option("Lines for each latent, the best sentences of a beam.  [default: 1]", "beam"),
    ]
    length_penalty: Annotated[
        str | None,
        Option(
            "What a beam compares: log-likelihoods over ((5 + tokens) / 6)^NUMBER, or their mean "
            "over tokens.  [default: 0, the log-likelihood itself]",
            "beam",
            "length_penalty",
            parse=_parse_length_penalty,
            metavar="NUMBER|mean",
        ),
    ]
    min_length: Annotated[
        int | None,
        Option(
            "The fewest tokens of a sentence.  [default: none]",
            field="tokens",
            rule="rules.MinLength",
            least=1,
        ),
    ]
    max_length: Annotated[
        int | None, Option("The most tokens of a sentence.  [default: the model's limit]")
    ]
    repetition_penalty: Annotated[
        float | None,
        Option(
            "Divide the logits of words already written (multiply those below 0).  "
            "[default: 1, no penalty]",
            field="factor",
            rule="rules.RepetitionPenalty",
        ),
    ]
    no_repeat_ngram: Annotated[
        int | None,
        Option(
            "No so many tokens in a row that the sentence has already.  [default: off]",
            field="size",
            rule="rules.NoRepeatedNgrams",
        ),
    ]

    ban: Annotated[
        Sequence[str] | None,
        Option(
            "Never write this word; repeat the option for several, as in --ban good --ban bad. "
            "A whole word as it is written, in every tokenization.",
            metavar="WORD",
        ),
    ]
    prefix: Annotated[
        str | None,
        Option(
            'Begin with this text, as in --prefix "the food": the latent is drawn as without it, '
            "and the words after it by p(words | latent, text). The last word may go on where "
            "tokens are pieces of words; end with a blank to finish it.",
            metavar="TEXT",
        ),
    ]


class Decoding(DecodingOptions, total=False):
    """How sentences are written: keywords of every function that writes some."""

    strategy: "AnyStrategy | StrategyName | None"
    """A struct such as `Nucleus(p=0.9)`, or a name, with its parameters as options; left out, it
    follows from the options, and is the function's own where there are none."""
    seed: int
    """The seed of everything drawn, 0 to 2^63 - 1."""


def _declared() -> dict[str, tuple[type, Option]]:
    hints = get_type_hints(DecodingOptions, include_extras=True)
    return {
        name: (get_args(get_args(hint)[0])[0], hint.__metadata__[0]) for name, hint in hints.items()
    }


OPTIONS = _declared()
"""The type and the declaration of each option, by its name in Python."""


def resolve_decoding(
    options: Decoding,
    *,
    tokenizer: "Tokenizer",
    limit: int,
    default: StrategyName = "greedy",
    several: bool = False,
) -> "DecodingSettings":
    """Settle how sentences are written.

    Args:
        options: as they were given.
        tokenizer: of the model, for the words that are banned or begin a sentence.
        limit: the most tokens where `max_length` is not given.
        default: the strategy where none is given or implied.
        several: whether a latent may have several sentences.

    Raises:
        ConfigError: options that do not go together, or numbers out of bounds.
        DataError: a prefix with words that the model does not know.
        TypeError: an option that does not exist, or a strategy of another type.
    """
    for name in options:
        if name not in OPTIONS and name not in ("strategy", "seed"):
            near = difflib.get_close_matches(name, OPTIONS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"they are {', '.join(OPTIONS)}"
            raise TypeError(f"there is no decoding option {name!r}; {hint}")
    from textvae.generate.constraints import constraint_of  # noqa: PLC0415 -- torch
    from textvae.generate.writing import DecodingSettings  # noqa: PLC0415 -- torch

    num_best = options.get("n_best")
    if (num_best or 1) > 1 and not several:
        raise ConfigError(
            "--n-best belongs to sample and reconstruct, in Python to sample_iter, reconstructions "
            "and n_best; here each latent has one sentence"
        )
    max_length = options.get("max_length")
    if max_length is not None and max_length < 1:
        raise ConfigError(f"max_length {max_length}: must be at least 1")
    strategy = make_strategy(options, default)
    size = getattr(strategy, "size", 1)
    if num_best is not None and not 1 <= num_best <= size:
        raise ConfigError(f"--n-best {num_best}: must be from 1 to --beam-size {size}")
    length = limit if max_length is None else max_length
    return DecodingSettings(
        strategy=strategy,
        seed=options.get("seed", 0),
        max_length=length,
        num_best=num_best or 1,
        constraint=constraint_of(tokenizer, options.get("ban"), options.get("prefix"), length),
    )


def make_strategy(options: Decoding, default: StrategyName) -> "AnyStrategy":
    """The strategy that options describe; an option implies the strategy it belongs to.

    Raises:
        ConfigError: options that do not go together, or numbers out of bounds.
        TypeError: a strategy that is neither a name nor a struct.
    """
    from msgspec import structs  # noqa: PLC0415 -- 20 ms

    from textvae.generate.writing import AnyStrategy, check_strategy  # noqa: PLC0415 -- torch

    values: dict[str, Any] = {
        name: value
        for name, value in options.items()
        if value is not None and name not in ("strategy", "seed", "max_length", "ban", "prefix")
    }
    strategy = options.get("strategy")
    if isinstance(strategy, get_args(AnyStrategy)):
        for option in values:
            field = OPTIONS[option][1].field
            if field is not None and OPTIONS[option][1].rule is None:
                raise ConfigError(
                    f"{_flag(option)}: goes with a strategy by name; set {field!r} in "
                    f"{type(strategy).__name__} instead"
                )
        made: AnyStrategy = check_strategy(strategy)
    elif strategy is None or isinstance(strategy, str):
        made = _build(_name(strategy, values) or default, values)
    else:
        raise TypeError(
            f"strategy: found {type(strategy).__name__}, expected a struct such as "
            f"textvae.Nucleus(), or a name: {', '.join(STRATEGIES)}"
        )
    rules = _rules(values)
    return structs.replace(made, rules=(*made.rules, *rules)) if rules else made


def _name(strategy: str | None, values: Mapping[str, Any]) -> str | None:
    """The strategy that is named or implied, if any; all options go together with it."""
    name = strategy and strategy.replace("_", "-")
    if name is not None and name not in STRATEGIES:
        raise ConfigError(f"--strategy {name}: must be one of {', '.join(STRATEGIES)}")
    owners = {option: OPTIONS[option][1].strategy for option in OPTIONS if option in values}
    implied = [option for option, owner in owners.items() if owner is not None]
    for option in implied:
        owner = owners[option]
        if name is not None and name != owner:
            raise ConfigError(f"{_flag(option)} belongs to --strategy {owner}, not to {name}")
        if owners[implied[0]] != owner:
            first = _flag(implied[0])
            raise ConfigError(f"{first} and {_flag(option)} are two strategies: give one of them")
    if name is None and implied:
        name = owners[implied[0]]
    if name is None and "temperature" in values:
        name = "temperature"
    return name


def _build(name: str, values: Mapping[str, Any]) -> "AnyStrategy":
    struct = _struct(STRATEGIES[name])
    fields: dict[str, object] = {}
    for option, value in values.items():
        _, declared = OPTIONS[option]
        if declared.rule is not None or declared.field is None:
            continue
        if declared.field not in struct.__struct_fields__:
            raise ConfigError(f"{_flag(option)} has no effect on --strategy {name}: leave one out")
        if declared.parse is not None:
            fields[declared.field] = declared.parse(value)
        else:
            _check_bounds(option, value, struct)
            fields[declared.field] = value
    made: AnyStrategy = struct(**fields)
    return made


def _rules(values: Mapping[str, Any]) -> "tuple[Rule, ...]":
    rules = []
    for option, (_, declared) in OPTIONS.items():
        if declared.rule is not None and option in values:
            struct = _struct(declared.rule)
            _check_bounds(option, values[option], struct)
            rules.append(struct(**{str(declared.field): values[option]}))
    return tuple(rules)


def _struct(path: str) -> Any:
    module, _, name = path.partition(".")
    return getattr(import_module(f"textvae.generate.{module}"), name)


def _check_bounds(option: str, value: object, struct: Any) -> None:
    """Refuse a value that is no finite number within the bounds that the struct's type has."""
    kind, declared = OPTIONS[option]
    hint = get_type_hints(struct, include_extras=True)[str(declared.field)]
    (meta,) = hint.__metadata__
    low = meta.ge if declared.least is None else declared.least
    if meta.gt is not None:
        words = f"greater than {meta.gt:g}"
        words += " and finite" if meta.le is None else f" and at most {meta.le:g}"
    else:
        words = f"at least {low:g}" if meta.le is None else f"from {low:g} to {meta.le:g}"
    if (
        not isinstance(value, int if kind is int else int | float)
        or isinstance(value, bool)
        or not math.isfinite(value)
        or (meta.gt is not None and value <= meta.gt)
        or (low is not None and value < low)
        or (meta.le is not None and value > meta.le)
    ):
        raise ConfigError(f"{_flag(option)} {value}: must be {words}")


def _flag(option: str) -> str:
    return "--" + option.replace("_", "-")
