"""What `textvae evaluate` leaves behind: a versioned JSON file of figures with their provenance."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from textvae.errors import DataError
from textvae.storage.files import read_bytes, write_file

VERSION = 1
"""Of the file. It goes up when a name changes its meaning or goes away, not when one is added."""
FILE = "evaluation.json"
"""Its name in a model directory."""
_LARGEST = 64 * 2**20

Value = int | float | str | list[float] | None
"""Of a figure. None is unknown: it was asked for, and the data or the model do not say."""


class Figure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A number, or a list of them, with what it takes to read it."""

    name: str
    """Unique among all figures, such as `perplexity` or `kl_per_dimension`."""
    value: Value
    stderr: float | msgspec.UnsetType | None = msgspec.UNSET
    """Standard error over what was averaged; None where unknown, absent where there is none."""
    unit: str = ""
    """Such as `nats a sentence`, `share`, `%`, `tokens`."""
    settings: str = ""
    """What the number depends on: K, a signature of sacrebleu, how many sentences."""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What one evaluator found."""

    evaluator: dict[str, object]
    """Its whole config; `kind` is its name."""
    figures: list[Figure]
    seconds: float

    @property
    def kind(self) -> str:
        """The evaluator's name, such as `likelihood`."""
        return str(self.evaluator["kind"])


class MeasuredModel(msgspec.Struct, frozen=True, kw_only=True):
    """Which model was measured."""

    path: str | None
    sha256: str
    """Of its weights as `model.safetensors` holds them."""
    tokenizer: str
    vocabulary_size: int
    latent_dim: int
    """0 for a language model."""
    num_parameters: int


class MeasuredCorpus(msgspec.Struct, frozen=True, kw_only=True):
    """Sentences, and what was counted in them."""

    source: str
    sha256: str
    num_sentences: int
    num_tokens: int
    """Of the model's tokenizer, and one `</s>` for each sentence."""
    num_words: int
    """Words between whitespace, and one end for each sentence."""
    num_characters: int
    """Characters, and one end for each sentence."""
    num_unknown: int | None
    """Tokens that are `<unk>`, of `num_tokens`; None where nobody counted."""
    decoded: bool = False
    """Whether the text itself was at hand, or what its tokens decode to stood in for it."""


class Measurements(msgspec.Struct, frozen=True, kw_only=True):
    """All that one call of `textvae evaluate` found, and how."""

    version: int = VERSION
    created: str
    """Date and time in UTC, ISO 8601."""
    seconds: float
    model: MeasuredModel
    data: MeasuredCorpus
    """What was measured on."""
    training: MeasuredCorpus | None
    """What novelty is about, where it was needed and could be found."""
    seed: int
    precision: str
    """Of the matrix products."""
    device: str
    num_threads: int
    versions: dict[str, str]
    """Of textvae, python, torch, and of sacrebleu where it counted."""
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
        found: dict[str, Value] = {}
        for figure in self:
            found[figure.name] = figure.value
            if figure.stderr is not msgspec.UNSET:
                found[f"{figure.name}_stderr"] = figure.stderr
        return found


def write_measurements(path: Path, found: Measurements) -> None:
    """Write the file; a crash leaves the old one or the new one, whole.

    Raises:
        CheckpointError: it cannot be written.
    """
    write_file(path, msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")


def read_measurements(path: Path) -> Measurements:
    """Read what `write_measurements` wrote.

    Raises:
        CheckpointError: no such file, or one that cannot be read.
        DataError: not such a file, or one of a later version.
    """
    data = read_bytes(path, at_most=_LARGEST)
    try:
        version = msgspec.json.decode(data, type=_Versioned).version
        if version > VERSION:
            raise DataError(
                f"{path}: is of version {version}, this textvae reads {VERSION}; use a newer one"
            )
        return msgspec.json.decode(data, type=Measurements)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        reason = str(error).replace("\n", " ")
        raise DataError(f"{path}: is no evaluation of textvae: {reason}") from None


class _Versioned(msgspec.Struct):
    version: int
