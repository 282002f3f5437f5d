"""Strict configuration: TOML or JSON in, frozen structs out, and errors in one sentence.

Configs are msgspec structs that live beside the code they configure. A choice between
alternatives is a tagged union, distinguished by its `kind`. Files hold only what differs from the
defaults; `resolve` merges defaults < file < overrides, then decodes the whole strictly: an
unknown key, a wrong type or a number out of bounds is a `ConfigError` that names the source, the
path of the key, what was found, what is allowed and the nearest name.
"""

import datetime
import difflib
import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, dataclass_transform

import msgspec
from msgspec import inspect

from textvae.errors import ConfigError

T = TypeVar("T")
_LARGEST = 2**20  # bytes
_INT64 = 1 << 63
_DEEPEST = 64  # tables within tables; recursion would give up somewhat later, without a word
_SHOWN = 60  # characters of a found value in a message, so that messages stay one short line


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


def recipes() -> dict[str, Path]:
    """The recipes by name: the files of `configs/`, in the wheel or beside the source."""
    package = Path(__file__).parent
    for folder in (package / "configs", package.parent / "configs"):
        if folder.is_dir():
            return {file.stem: file for file in sorted(folder.glob("*.toml"))}
    return {}


def recipe_file(name: str, *, source: str = "--recipe") -> Path:
    """The file of a recipe; a ConfigError names the nearest where there is none of the name.

    `source` is the option or the command that names it, for the message.
    """
    known = recipes()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"{source} {name}: {hint}the recipes are {', '.join(known)}")
    return known[name]


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


# -- faults: msgspec gives the path; the messages here also what was found and what is allowed ---


class Fault(Exception):  # noqa: N818 -- a finding on its way to becoming a ConfigError
    """One thing wrong with a value: where (a path of keys) and what, still without its source."""

    def __init__(self, path: tuple[str, ...], problem: str) -> None:
        super().__init__(problem)
        self.path = path
        self.problem = problem

    def sentence(self, source: str) -> str:
        """`SOURCE: path.of.key: problem`, as far as each is known."""
        where = "".join(p if p.startswith("[") else f".{p}" for p in self.path).lstrip(".")
        return ": ".join(part for part in (source, where, self.problem) if part)


def check_plain(value: object, path: tuple[str, ...] = ()) -> None:
    """Refuse values that msgspec accepts and that would fail later, far from the file."""
    if len(path) > _DEEPEST:
        raise Fault(path[:3], "nested too deeply")
    if isinstance(value, Mapping):
        for name, item in value.items():
            check_plain(name, (*path, ascii(name)))
            check_plain(item, (*path, str(name)))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            check_plain(item, (*path, f"[{index}]"))
    elif isinstance(value, float) and not math.isfinite(value):
        raise Fault(path, f"found {value}, expected a finite number")
    elif isinstance(value, int) and not -_INT64 <= value < _INT64:
        raise Fault(path, f"found {shorten(value)}, expected an integer of 64 bits")
    elif isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise Fault(path, f"found {ascii(value)[:_SHOWN]}, which is not Unicode text")


def explain(message: str, value: object, type_: Any) -> Fault:
    """Msgspec's message, made one that names what was found and what is allowed."""
    problem, _, location = message.rpartition(" - at `$")
    problem, location = (problem, location[:-1]) if problem else (location, "")
    path = tuple(re.findall(r"\[[^\]]*\]|[^.\[\]]+", location))
    info, item = _descend(inspect.type_info(type_), value, path)
    if name := re.fullmatch(r"Object contains unknown field `(.*)`", problem, flags=re.DOTALL):
        names = [f.encode_name for f in info.fields] if isinstance(info, inspect.StructType) else []
        hint = _hint(name[1], names) or f"; the keys here are {', '.join(names) or 'none'}"
        return Fault((*path, _plain(name[1])), f"unknown key{hint}")
    if name := re.fullmatch(r"Object missing required field `(.*)`", problem):
        kinds = _kinds(info)
        allowed = f"; the kinds are {', '.join(kinds)}" if kinds and name[1] == "kind" else ""
        return Fault((*path, name[1]), f"missing, and it has no default{allowed}")
    kinds = _kinds(_descend(inspect.type_info(type_), value, path[:-1])[0])
    if kinds and path[-1:] == ("kind",):
        hint = _hint(str(item), kinds).replace("?", "? The kinds are ") or "; the kinds are "
        return Fault(path, f"unknown kind {shorten(item)}{hint}{', '.join(kinds)}")
    if problem.startswith(("Expected `", "Invalid enum value", "Invalid value")):
        allowed = _describe(info)
        return Fault(path, f"found {shorten(item)}, expected {allowed}")
    return Fault(path, _plain(problem))


def _descend(info: Any, value: Any, path: tuple[str, ...]) -> tuple[Any, Any]:
    """The type and the value at a path; the type is None beyond a key msgspec does not name."""
    for part in path:
        member = _choose(info, value)
        index = int(part[1:-1]) if part[1:-1].isdecimal() else -1
        if isinstance(member, inspect.StructType) and isinstance(value, Mapping):
            info = next((f.type for f in member.fields if f.encode_name == part), None)
        elif isinstance(member, inspect.ListType | inspect.VarTupleType):
            info = member.item_type
        elif isinstance(member, inspect.TupleType):
            info = member.item_types[index]
        else:
            info = None
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list | tuple) and 0 <= index < len(value):
            value = value[index]
    return _choose(info, value), value


def _choose(info: Any, value: object) -> Any:
    """Without annotations' wrapping; and of a union of structs the one the value's kind names."""
    while isinstance(info, inspect.Metadata):
        info = info.type
    if isinstance(info, inspect.UnionType) and isinstance(value, Mapping):
        for member in info.types:
            if isinstance(member, inspect.StructType) and member.tag in (None, value.get("kind")):
                return member
    return info


def _kinds(info: Any) -> list[str]:
    members = info.types if isinstance(info, inspect.UnionType) else [info]
    return [str(m.tag) for m in members if isinstance(m, inspect.StructType) and m.tag is not None]


def _hint(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


_WORDS = {
    inspect.BoolType: "true or false",
    inspect.NoneType: "nothing",
    inspect.StructType: "a table",
    inspect.DictType: "a table",
}


def _describe(info: Any) -> str:
    """The values that a type allows, such as 'an integer >= 1 and <= 4096'."""
    if isinstance(info, inspect.Metadata):
        return _describe(info.type)
    if isinstance(info, inspect.UnionType):
        return " or ".join(dict.fromkeys(_describe(member) for member in info.types))
    if isinstance(info, inspect.LiteralType):
        return f"one of {', '.join(repr(value) for value in info.values)}"
    if isinstance(info, inspect.IntType | inspect.FloatType):
        signs = {">": info.gt, ">=": info.ge, "<": info.lt, "<=": info.le}
        bounds = [f"{sign} {bound}" for sign, bound in signs.items() if bound is not None]
        noun = "an integer" if isinstance(info, inspect.IntType) else "a number"
        return " ".join([noun, *([" and ".join(bounds)] if bounds else [])])
    if isinstance(info, inspect.StrType):
        return "a string" + (f" matching {info.pattern}" if info.pattern else "")
    if isinstance(info, inspect.ListType | inspect.VarTupleType | inspect.TupleType):
        return "a list"
    return _WORDS.get(type(info), "a value of another type")


def _plain(text: str) -> str:
    """The text if it can stand in a one-line message, else its repr, shortened."""
    return text if text.isprintable() and len(text) <= 4 * _SHOWN else shorten(text)


def shorten(value: object) -> str:
    """The repr of a value, on one line and cut where it is long."""
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
