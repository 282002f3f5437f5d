"""Strict configuration: TOML or JSON in, frozen structs out, and errors in one sentence.

Configs are msgspec structs that live beside the code they configure. A choice between
alternatives is a tagged union, distinguished by its `kind`. Files hold only what differs from the
defaults; `resolve` merges defaults < file < overrides, then decodes the whole strictly: an
unknown key, a wrong type or a number out of bounds is a `ConfigError` that names the source, the
path of the key, what was found, what is allowed and the nearest name.
"""

import datetime
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, dataclass_transform

import msgspec

from textvae.config_faults import Fault, check_plain, explain, shorten
from textvae.errors import ConfigError

T = TypeVar("T")
_LARGEST = 2**20  # bytes


class _KeywordOnly(msgspec.StructMeta):
    """Makes each subclass of Config keyword-only, an option that msgspec does not inherit."""

    def __new__(mcs, *arguments: Any, **options: Any) -> Any:
        return super().__new__(mcs, *arguments, **{"kw_only": True, **options})


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(msgspec.field,))
class Config(msgspec.Struct, metaclass=_KeywordOnly, frozen=True, forbid_unknown_fields=True):
    """Base of all configuration structs: immutable, keyword-only, strict about unknown keys.

    A member of a tagged union adds `tag_field="kind", tag="its name"`. Bounds belong into the
    types (`Annotated[int, msgspec.Meta(ge=1)]`), rules over several fields into
    `__post_init__`, which raises a ValueError that states the rule.
    """


class _Override(NamedTuple):
    """One `--set key.path=value`, taken apart."""

    text: str
    path: tuple[str, ...]
    value: object


def decode(value: object, type_: type[T], *, source: str) -> T:
    """Convert plain dicts, lists, numbers and strings into a struct.

    Args:
        value: what a TOML or JSON reader returned; a struct is checked by decoding it again,
            since structs composed in Python are not checked against their bounds.
        type_: a `Config` class or a union of them.
        source: the file or option the value came from, the first word of every message.

    Raises:
        ConfigError: at the first unknown key, missing key, wrong type or number out of bounds.
    """
    try:
        return _convert(value, type_)
    except Fault as fault:
        raise ConfigError(fault.sentence(source)) from None


def read_config_file(path: Path) -> dict[str, object]:
    """The plain contents of a .toml or .json file.

    ConfigError where it cannot be read or is malformed (with the line).
    """
    if path.suffix not in {".toml", ".json"}:
        raise ConfigError(f"{path}: a configuration file ends in .toml or .json")
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise ConfigError(f"{path}: over {_LARGEST:,} bytes are no configuration file")
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such configuration file") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}: line {line}: not UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        value = tomllib.loads(text) if path.suffix == ".toml" else parse_json(text)
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply for a configuration file") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: line {error.lineno}: {error.msg}") from None
    except ValueError as error:  # TOMLDecodeError among them
        raise ConfigError(f"{path}: {_line_first(str(error), text)}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: found {shorten(value)}, expected an object of settings")
    return value


def resolve(
    type_: type[T],
    file_values: Mapping[str, object],
    overrides: Sequence[str],
    *,
    source: str,
    defaults: T | None = None,
) -> T:
    """Merge defaults < file < overrides and decode the result strictly.

    Tables merge key by key. Where `kind` changes, the table is replaced, since the old fields
    belong to the old kind; where fields come without a `kind`, the kind stays. The order of
    overrides of different keys does not matter; of two for the same key the last counts.

    Args:
        type_: a `Config` class.
        file_values: from `read_config_file`, or empty.
        overrides: `key.path=value` each. The value is read as TOML; what is no TOML value is a
            string; a bare `null` is None, for which TOML has no word.
        source: the file, for messages; a fault in an override names the override instead.
        defaults: where to start instead of the defaults of `type_`.

    Raises:
        ConfigError: as `decode`, and for an override that has no `=` or contradicts another.
    """
    parsed = [_parse_override(text) for text in overrides]
    tree: dict[str, object] = {}
    for override in parsed:
        _plant(tree, override)
    base = _default_values(type_) if defaults is None else msgspec.to_builtins(defaults)
    try:
        return _convert(_merge(_merge(base, file_values), tree), type_)
    except Fault as fault:
        raise ConfigError(fault.sentence(_blame(fault.path, parsed, source))) from None


def encode_json(config: Config) -> bytes:
    """The complete config as indented JSON in the order of its fields, with a newline at the end.

    ConfigError if the config, composed in Python, breaks its own bounds.
    """
    decode(config, type(config), source=type(config).__name__)
    return msgspec.json.format(msgspec.json.encode(config, order="deterministic"), indent=2) + b"\n"


def differences(a: Config, b: Config) -> list[str]:
    """Each setting that differs, as `model.latent_dim: 32 -> 64`; settings one lacks are absent."""
    first, second = _leaves(msgspec.to_builtins(a)), _leaves(msgspec.to_builtins(b))
    return [
        f"{path}: {first.get(path, 'absent')} -> {second.get(path, 'absent')}"
        for path in dict.fromkeys([*first, *second])
        if first.get(path) != second.get(path)
    ]


def _leaves(value: object, path: str = "") -> dict[str, str]:
    if not isinstance(value, dict) or not value:
        return {path: json.dumps(value)}
    leaves: dict[str, str] = {}
    for name, item in value.items():
        leaves |= _leaves(item, f"{path}.{name}" if path else str(name))
    return leaves


# -- reading -----------------------------------------------------------------------------------


def _line_first(message: str, text: str) -> str:
    """Tomllib's message with its line in front, as in the other messages of the package."""
    match = re.fullmatch(r"(.*) \(at line (\d+), column \d+\)", message, flags=re.DOTALL)
    if match:
        return f"line {match[2]}: {match[1]}"
    if message.endswith(" (at end of document)"):
        line = text.rstrip("\n").count("\n") + 1
        return f"line {line}: {message.removesuffix(' (at end of document)')}"
    return message


def parse_json(text: str) -> object:
    """JSON without two things the stdlib lets pass: keys given twice, and NaN and Infinity.

    Raises:
        ValueError: a key given twice, or such a number; `json.JSONDecodeError` for other text.
        RecursionError: nested too deeply.
    """

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        table = dict(pairs)
        if len(table) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"the key {shorten(twice)} is given twice")
        return table

    def refuse(name: str) -> object:
        raise ValueError(f"{name} is not a number that JSON or textvae knows")

    value: object = json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    return value


def _parse_override(text: str) -> _Override:
    name, equals, raw = text.partition("=")
    path = tuple(part.strip() for part in name.split("."))
    if not equals or not all(path):
        raise ConfigError(f"--set {shorten(text)}: expected key.path=value")
    raw = raw.strip()
    if raw == "null":
        return _Override(text, path, None)
    try:
        table = tomllib.loads(f"value = {raw}")
    except (ValueError, RecursionError) as error:
        if raw.startswith(("[", "{", '"', "'")):  # meant as TOML, so a string would surprise
            raise ConfigError(f"--set {shorten(text)}: the value is not TOML: {error}") from None
        return _Override(text, path, raw)
    value = table["value"]
    # Settings hold no dates, so 2024-01-01 is a name like any other; a second line is no value.
    plain = table.keys() == {"value"} and not isinstance(value, datetime.date | datetime.time)
    return _Override(text, path, value if plain else raw)


# -- merging -----------------------------------------------------------------------------------


def _plant(tree: dict[str, object], override: _Override) -> None:
    for name in override.path[:-1]:
        child = tree.setdefault(name, {})
        if not isinstance(child, dict):
            raise ConfigError(f"--set {shorten(override.text)}: {name} was set to a value before")
        tree = child
    leaf = override.path[-1]
    tree[leaf] = _merge(tree.get(leaf), override.value)


def _merge(base: object, top: object) -> object:
    if not isinstance(base, Mapping) or not isinstance(top, Mapping):
        return top
    if "kind" in top and top["kind"] != base.get("kind", top["kind"]):
        return dict(top)
    merged = dict(base)
    for name, value in top.items():
        merged[name] = _merge(merged[name], value) if name in merged else value
    return merged


def _default_values(type_: Any) -> dict[str, object]:
    """The builtins of every field that has a default; required fields are for the file to give."""
    values: dict[str, object] = {}
    for field in msgspec.structs.fields(type_):
        if field.default is not msgspec.NODEFAULT:
            values[field.encode_name] = msgspec.to_builtins(field.default)
        elif field.default_factory is not msgspec.NODEFAULT:
            values[field.encode_name] = msgspec.to_builtins(field.default_factory())
    return values


def _blame(path: tuple[str, ...], overrides: Sequence[_Override], source: str) -> str:
    """The override that set the faulty key, or the source if none did."""
    for override in reversed(overrides):
        if path[: len(override.path)] == override.path:
            return f"--set {shorten(override.text)}"
    for override in reversed(overrides):  # a rule over several keys, one of them overridden
        if override.path[: len(path)] == path:
            return f"{source} with --set {shorten(override.text)}"
    return source


def _convert(value: object, type_: type[T]) -> T:
    if isinstance(value, msgspec.Struct):
        value = msgspec.to_builtins(value)
    check_plain(value)
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        raise explain(str(error), value, type_) from None
