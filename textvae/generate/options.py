"""From the decoding options of the command line to a strategy, or one sentence of refusal."""

from typing import NamedTuple, TypeVar, get_args

import msgspec

from textvae.config import decode
from textvae.errors import ConfigError
from textvae.generate.beam import Beam, GNMTPenalty, LengthPenalty, TokenMean
from textvae.generate.rules import MinLength, NoRepeatedNgrams, RepetitionPenalty, Rule
from textvae.generate.strategies import Greedy, Nucleus, Strategy, Temperature, TopK, Typical

AnyStrategy = Strategy | Beam
S = TypeVar("S", bound=AnyStrategy)
NAMES = tuple(member.__struct_config__.tag.replace("_", "-") for member in get_args(AnyStrategy))
MEAN = "mean"
"""What stands for `TokenMean` in `--length-penalty`."""


def check_strategy(strategy: S) -> S:
    """The strategy itself, which may have been made in Python, where bounds are not checked.

    Raises:
        ConfigError: a number out of bounds.
    """
    return decode(strategy, type(strategy), source=type(strategy).__name__)


class DecodingOptions(NamedTuple):
    """What was given on the command line; None is what was not."""

    strategy: str | None = None
    """A name of NAMES; left out, it follows from the rest."""
    temperature: float | None = None
    """Of any strategy that draws."""
    top_k: int | None = None
    """Of `top-k`."""
    top_p: float | None = None
    """Of `nucleus`."""
    typical_p: float | None = None
    """Of `typical`."""
    beam_size: int | None = None
    """Of `beam`, and so are the next two."""
    n_best: int | None = None
    """Sentences for each latent; only checked here."""
    length_penalty: str | None = None
    """A number, or `mean`."""
    min_length: int | None = None
    """Of every strategy, and so are the next two."""
    repetition_penalty: float | None = None
    no_repeat_ngram: int | None = None


_BELONGS = {
    "top_k": "top-k",
    "top_p": "nucleus",
    "typical_p": "typical",
    "beam_size": "beam",
    "n_best": "beam",
    "length_penalty": "beam",
}
_NEVER_DRAW = ("greedy", "beam")


def strategy_from_options(
    options: DecodingOptions, default: AnyStrategy | None = None
) -> AnyStrategy:
    """The strategy that options describe; a number implies its strategy.

    Args:
        options: as they were given.
        default: where nothing says which strategy; None is sampling at temperature 1.

    Raises:
        ConfigError: options that do not go together, or numbers out of bounds.
    """
    name, rules = _name(options), _rules(options)
    if name is None:
        strategy = default if default is not None else Temperature()
    else:
        strategy = _named(name, options)
    return msgspec.structs.replace(strategy, rules=rules) if rules else strategy


def _named(name: str, options: DecodingOptions) -> AnyStrategy:
    heat = 1.0 if options.temperature is None else options.temperature
    if not 0.0 < heat < float("inf"):
        raise ConfigError(f"--temperature {heat}: must be greater than 0 and finite")
    if name == "temperature":
        return Temperature(temperature=heat)
    if name == "top-k":
        k = 50 if options.top_k is None else options.top_k
        if k < 1:
            raise ConfigError(f"--top-k {k}: must be at least 1")
        return TopK(k=k, temperature=heat)
    if name == "nucleus":
        return Nucleus(p=_share("--top-p", options.top_p, 0.9), temperature=heat)
    if name == "typical":
        return Typical(p=_share("--typical-p", options.typical_p, 0.95), temperature=heat)
    return _beam(options) if name == "beam" else Greedy()


def _name(options: DecodingOptions) -> str | None:
    """The strategy that is named or implied, if there is one; all else goes together with it."""
    name = options.strategy
    if name is not None and name not in NAMES:
        raise ConfigError(f"--strategy {name}: must be one of {', '.join(NAMES)}")
    first = None
    for field, owner in _BELONGS.items():
        option = "--" + field.replace("_", "-")
        if getattr(options, field) is None:
            continue
        if name is not None and name != owner:
            raise ConfigError(f"{option} belongs to --strategy {owner}, not to {name}")
        if first is not None and _BELONGS[first] != owner:
            other = "--" + first.replace("_", "-")
            raise ConfigError(f"{other} and {option} are two strategies: give one of them")
        first = field if first is None else first
    if name is None and first is not None:
        name = _BELONGS[first]
    if name is None and options.temperature is not None:
        name = "temperature"
    if name in _NEVER_DRAW and options.temperature is not None:
        raise ConfigError(f"--temperature has no effect on --strategy {name}: leave one out")
    return name


def _rules(options: DecodingOptions) -> tuple[Rule, ...]:
    rules: list[Rule] = []
    if (tokens := options.min_length) is not None:
        if tokens < 1:
            raise ConfigError(f"--min-length {tokens}: must be at least 1")
        rules.append(MinLength(tokens=tokens))
    if (factor := options.repetition_penalty) is not None:
        if not 1.0 <= factor <= 1000.0:
            raise ConfigError(f"--repetition-penalty {factor}: must be from 1 to 1000")
        rules.append(RepetitionPenalty(factor=factor))
    if (size := options.no_repeat_ngram) is not None:
        if size < 1:
            raise ConfigError(f"--no-repeat-ngram {size}: must be at least 1")
        rules.append(NoRepeatedNgrams(size=size))
    return tuple(rules)


def _share(option: str, value: float | None, default: float) -> float:
    share = default if value is None else value
    if not 0.0 < share <= 1.0:
        raise ConfigError(f"{option} {share}: must be greater than 0 and at most 1")
    return share


def _beam(options: DecodingOptions) -> Beam:
    beam = Beam(length_penalty=_length_penalty(options.length_penalty))
    if options.beam_size is not None:
        beam = Beam(size=options.beam_size, length_penalty=beam.length_penalty)
    if not 1 <= beam.size <= 1024:
        raise ConfigError(f"--beam-size {beam.size}: must be from 1 to 1024")
    if options.n_best is not None and not 1 <= options.n_best <= beam.size:
        raise ConfigError(f"--n-best {options.n_best}: must be from 1 to --beam-size {beam.size}")
    return beam


def _length_penalty(text: str | None) -> LengthPenalty:
    if text is None or text == MEAN:
        return GNMTPenalty() if text is None else TokenMean()
    try:
        alpha = float(text)
    except ValueError:
        alpha = -1.0
    if not 0.0 <= alpha <= 10.0:
        raise ConfigError(f"--length-penalty {text}: must be a number from 0 to 10, or {MEAN!r}")
    return GNMTPenalty(alpha=alpha)
