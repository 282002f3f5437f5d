"""The table of all settings: docs/reference/configuration.md and what `textvae settings` reads.

python scripts/settings_reference.py          writes both from the config classes

A test compares them with the classes, so that neither can be out of date.
"""

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect as kinds

from textvae.run.experiment import ExperimentConfig

ROOT = Path(__file__).parents[1]
DATA = ROOT / "textvae" / "cli" / "settings.json"
PAGE = ROOT / "docs" / "reference" / "configuration.md"
FAR = 2**31 - 1
"""A bound that nobody will meet is left out."""
HEAD = """# Configuration

Every setting of a run, as `--set KEY=VALUE` takes it or a TOML file for `--config` holds it.
`textvae settings PATTERN` searches this table. A table that is a choice has a `kind`; the settings
that only one kind has name it. `null` is chosen for the corpus and the machine, or means without,
as the sentence says. Made by `scripts/settings_reference.py` from the classes that read them.

| setting | type | default | meaning |
|---|---|---|---|
"""


def about_fields(config: type) -> dict[str, str]:
    """The docstring below each field of a class, those of its bases included."""
    texts: dict[str, str] = {}
    for base in reversed(config.__mro__):
        if base.__module__.partition(".")[0] != "textvae":
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(tree, ast.ClassDef)
        for field, text in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                assert isinstance(field.target, ast.Name)
                value = ast.literal_eval(text.value)
                texts[field.target.id] = re.sub(r"\bNone\b", "null", " ".join(value.split()))
    return texts


def first_sentence(config: type) -> str:
    """The first sentence of the docstring of a class."""
    return " ".join((config.__doc__ or "").partition("\n\n")[0].split())


def type_name(kind: Any) -> str:
    """A type in words: `integer at least 1`."""
    match kind:
        case kinds.UnionType():
            return ", or ".join(type_name(one) for one in kind.types)
        case kinds.LiteralType():
            return ", ".join(map(str, kind.values))
        case kinds.VarTupleType() | kinds.ListType():
            return f"list of {type_name(kind.item_type)}"
        case kinds.StructType():
            return "table"
        case kinds.TupleType():
            return "list"
    names = {"Int": "integer", "Float": "number", "Str": "text", "Bool": "true or false"}
    name = type(kind).__name__.removesuffix("Type")
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    bounds = [
        f"{word} {value:,g}"
        for field, word in words.items()
        if (value := getattr(kind, field, None)) is not None and value < FAR
    ]
    return " ".join(
        [names.get(name, name.lower().replace("none", "null")), ", ".join(bounds)]
    ).strip()


def rows_of(config: type, prefix: str = "", only: str = "") -> Iterator[dict[str, str]]:
    """The settings of a class, depth first; `only` names the kind that they belong to."""
    info = kinds.type_info(config)
    assert isinstance(info, kinds.StructType)
    texts = about_fields(config)
    for field in info.fields:
        name, about = prefix + field.name, texts.get(field.name, "")
        union = field.type.types if isinstance(field.type, kinds.UnionType) else (field.type,)
        structs = [one for one in union if isinstance(one, kinds.StructType)]
        default = field.default
        if default is msgspec.NODEFAULT:
            factory = field.default_factory
            default = None if factory is msgspec.NODEFAULT else factory()
        if not structs:
            value = json.dumps(msgspec.to_builtins(default)) if not field.required else ""
            yield row(name, type_name(field.type), value, about, only)
            continue
        if structs[0].tag is None:
            yield from rows_of(structs[0].cls, f"{name}.", only)
            continue
        tags = ", ".join(str(one.tag) for one in structs)
        default_kind = (
            json.dumps(getattr(type(default).__struct_config__, "tag", None)) if default else "null"
        )
        kinds_about = "; ".join(
            f"{one.tag}: {first_sentence(one.cls)}".rstrip(".") for one in structs
        )
        yield row(f"{name}.kind", tags, default_kind, f"{about} {kinds_about}.".strip(), only)
        for one in structs:
            yield from rows_of(one.cls, f"{name}.", f"{name}.kind={one.tag}")


def row(key: str, kind: str, default: str, about: str, only: str) -> dict[str, str]:
    """A row of the table."""
    return {"key": key, "type": kind, "default": default, "about": about, "only_with": only}


def table(rows: list[dict[str, str]]) -> str:
    """The page."""
    lines = []
    for one in rows:
        about = one["about"] + (f" With `{one['only_with']}`." if one["only_with"] else "")
        cells = f"`{one['key']}`", one["type"], f"`{one['default']}`", about
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return HEAD + "".join(lines)


def main() -> None:
    """Write both files."""
    rows = list(rows_of(ExperimentConfig))
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(table(rows), encoding="utf-8")
    DATA.write_text(json.dumps(rows, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
