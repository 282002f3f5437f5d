"""Measured figures with their provenance, their versioned JSON file, and their table."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
from torch import Tensor

from textvae.errors import DataError
from textvae.metrics.latent_usage import diagnosis, standard_error
from textvae.storage.files import read_bytes, write_file

T = TypeVar("T")
Count = Annotated[int, msgspec.Meta(ge=1)]

VERSION = 1
"""Version of the file: it goes up when a name changes its meaning or is removed."""
FILE = "evaluation.json"
"""Its name in a model directory."""
NO_TRAINING_SET = "the training set is not beside the model"
_LARGEST = 64 * 2**20
_LARGEST_COUNT = 2**63
_SCIENTIFIC = 1e6
"""From this value on a figure has three digits: a word of unspaced text is a sentence."""

Value = int | float | str | list[float] | None
"""The value of a figure. None is unknown: the data or the model do not determine it."""


class Figure(msgspec.Struct, frozen=True, omit_defaults=True):
    """A number, or a list of them, with what it takes to read it."""

    name: str
    """Unique among all figures, such as `perplexity` or `kl_per_dimension`."""
    value: Value
    unit: str = ""
    """Such as `nats per sentence`, `share` (a fraction), `tokens`; older files differ."""
    settings: str = ""
    """The conditions of the number: K, a signature of sacrebleu, how many sentences."""
    stderr: float | msgspec.UnsetType | None = msgspec.UNSET
    """Standard error of the mean; None where unknown, absent where there is none."""


def mean_figure(name: str, values: Tensor, unit: str, settings: str) -> Figure:
    """The mean of `[N]` with its standard error; unknown where N is 0."""
    values = values.double()
    mean = float(values.mean()) if len(values) else None
    return Figure(name, mean, unit, settings, standard_error(values))


def stderr_of(name: str, values: Mapping[str, Value]) -> float | msgspec.UnsetType | None:
    """The value named `NAME_stderr`, as the standard error of a figure."""
    stderr = values.get(f"{name}_stderr", msgspec.UNSET)
    assert stderr is None or isinstance(stderr, float | msgspec.UnsetType)
    return stderr


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one evaluator."""

    evaluator: dict[str, object]
    """Its whole config; `kind` is its name."""
    figures: list[Figure]
    seconds: float

    @property
    def kind(self) -> str:
        """The evaluator's name, such as `likelihood`."""
        return str(self.evaluator["kind"])


class MeasuredModel(msgspec.Struct, frozen=True, kw_only=True):
    """The model that was measured."""

    path: str | None
    sha256: str
    """Checksum of model.safetensors."""
    tokenizer: str
    vocabulary_size: int
    latent_dim: int
    """0 for a language model."""
    num_parameters: int


class MeasuredCorpus(msgspec.Struct, frozen=True, kw_only=True):
    """The sentences measured on, and their counts."""

    source: str
    sha256: str
    num_sentences: Count
    num_tokens: Count
    """Tokens of the model's tokenizer, and one `</s>` per sentence."""
    num_words: Count
    """Words between whitespace, and one end per sentence."""
    num_characters: Count
    """Characters, and one end per sentence."""
    num_unknown: int | None
    """Tokens that are `<unk>`, of `num_tokens`; None: not counted."""
    decoded: bool = False
    """The text was not available, and its decoded tokens took its place."""


class Measurements(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a model on a corpus, and how they were measured."""

    version: int = VERSION
    created: str
    """Date and time in UTC, ISO 8601."""
    seconds: float
    model: MeasuredModel
    data: MeasuredCorpus
    """The sentences measured on."""
    training: MeasuredCorpus | None
    """The training set, where an evaluator needed it and it could be read."""
    seed: int
    precision: str
    """The type of the matrix products."""
    device: str
    num_threads: int
    versions: dict[str, str]
    """Versions of textvae, python and torch, and of sacrebleu where it was used."""
    measured: list[Measured]
    """In the order of the config."""

    def __iter__(self) -> Iterator[Figure]:
        """Every figure."""
        for one in self.measured:
            yield from one.figures

    def __getitem__(self, name: str) -> Figure:
        """A figure by its name; KeyError where it was not measured."""
        for figure in self:
            if figure.name == name:
                return figure
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return any(figure.name == name for figure in self)

    def flat(self) -> dict[str, Value]:
        """Every figure by its name, standard errors as `NAME_stderr`."""
        values: dict[str, Value] = {}
        for figure in self:
            values[figure.name] = figure.value
            if figure.stderr is not msgspec.UNSET:
                values[f"{figure.name}_stderr"] = figure.stderr
        return values

    def table(self) -> str:
        """A line per figure; of a list of numbers, its range."""
        data = self.data
        lines = [
            f"{data.num_sentences:,} sentences of {data.source}, </s> counted ({self.precision}, "
            f"seed {self.seed})"
        ]
        unknown = unknown_line(data)
        if unknown is not None:
            lines.append(unknown)
        if data.decoded:
            lines.append("  the text is not available: its decoded tokens take its place")
        for one in self.measured:
            if one.figures:
                lines += [f"{one.kind} ({one.seconds:.1f} s)", *map(figure_line, one.figures)]
        collapse = self.diagnosis()
        return "\n".join([*lines, *([] if collapse is None else [collapse])])

    def diagnosis(self) -> str | None:
        """A warning that the latent is collapsed, or None."""
        figures = self.flat()
        kl, active = figures.get("kl"), figures.get("active_units")
        if not isinstance(kl, float) or "active_units" not in figures:
            return None
        cost = figures.get("permutation_cost")
        return diagnosis(
            kl,
            active if isinstance(active, int) else None,
            self.model.latent_dim,
            cost if isinstance(cost, float) else None,
        )


def decode_figures(data: bytes, kind: type[T]) -> T:
    """Decode the JSON of a struct of figures, whose numbers are bounded.

    Raises:
        msgspec.DecodeError, UnicodeError, RecursionError: it is none.
    """
    value = msgspec.json.decode(data)
    _check_counts(value)
    return msgspec.convert(value, kind)


def _check_counts(value: object) -> None:
    """Refuse integers of any length, which msgspec takes for an int."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            _check_counts(part)
    elif isinstance(value, int) and abs(value) > _LARGEST_COUNT:
        raise msgspec.ValidationError("it holds a number that no count reaches")


def write_measurements(path: Path, measurements: Measurements) -> None:
    """Write the file; a crash leaves the old file or the new one."""
    write_file(path, msgspec.json.format(msgspec.json.encode(measurements), indent=2) + b"\n")


def read_measurements(path: Path) -> Measurements:
    """Read what `write_measurements` wrote.

    CheckpointError for a file that cannot be read, DataError for one that is no evaluation, or of a
    later version.
    """
    data = read_bytes(path, at_most=_LARGEST)
    try:
        version = msgspec.json.decode(data, type=_Versioned).version
        if version > VERSION:
            raise DataError(
                f"{path}: is of version {version}, this textvae reads {VERSION}; use a newer one"
            )
        return decode_figures(data, Measurements)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        reason = str(error).replace("\n", " ")
        raise DataError(f"{path}: is no evaluation of textvae: {reason}") from None


class _Versioned(msgspec.Struct):
    version: int


def unknown_line(corpus: MeasuredCorpus) -> str | None:
    """The number of unknown tokens, or None where there are none or they were not counted."""
    if not corpus.num_unknown:
        return None
    percent = 100 * corpus.num_unknown / corpus.num_tokens
    return (
        f"  {corpus.num_unknown:,} of {corpus.num_tokens:,} tokens are <unk> ({percent:.2f} %), "
        "which costs less than the words it stands for"
    )


def figure_line(figure: Figure) -> str:
    """A figure with its standard error, unit and settings."""
    value = _brief(figure.value, figure.unit == "share")
    if figure.stderr is None:
        value += " +- unknown"
    elif figure.stderr is not msgspec.UNSET:
        value += f" +- {_brief(figure.stderr, figure.unit == 'share')}"
    unit = "" if figure.unit == "share" else figure.unit
    note = ", ".join(part for part in (unit, figure.settings) if part)
    return f"  {figure.name.replace('_', ' '):<28}{value:<22}{note}".rstrip()


def _brief(value: object, as_percent: bool = False) -> str:
    """A value in at most some twenty characters."""
    if value is None:
        return "unknown"
    if isinstance(value, list):
        if not value:
            return "none"
        return f"{_brief(min(value), as_percent)} to {_brief(max(value), as_percent)}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if as_percent:
            return f"{100 * value:.1f} %"
        return f"{value:.3f}" if abs(value) < _SCIENTIFIC else f"{value:.2e}"
    return str(value)
