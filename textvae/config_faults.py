"""Error messages for configuration values: the translator behind `config`.

msgspec finds the fault and names the path, but neither the value found nor the names allowed.
Here the path is followed through the value and through the type, so that the message has both.
"""

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import inspect

_INT64 = 1 << 63
_DEEPEST = 64  # tables within tables; recursion would give up somewhat later, without a word
_SHOWN = 60  # characters of a found value in a message, so that messages stay one short line


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
