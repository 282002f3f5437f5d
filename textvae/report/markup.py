"""HTML and SVG as strings in which nothing but this file's own functions can put a tag.

Text of users (sentences, labels, paths) is a plain `str` and is escaped; `Markup` is what these
functions made. There is no third way into the page.
"""

import html
import math
import re
from collections.abc import Iterable

# Characters that HTML does not allow, and those that end a line in JavaScript or turn the
# direction of what follows: shown as what they are not, a replacement character.
_REFUSED = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9:-]*")
_VOID = {"meta", "link", "br", "input"}


class Markup(str):
    """Markup that is safe to stand in the page as it is."""

    __slots__ = ()


Content = str | Iterable[str]


def escape(text: str) -> Markup:
    """Text as markup: nothing in it can end an element or an attribute, or reverse its line."""
    if isinstance(text, Markup):
        return text
    return Markup(html.escape(_REFUSED.sub("\ufffd", text), quote=True))


def join(parts: Iterable[str], between: str = "") -> Markup:
    """Pieces one after the other, each escaped unless it is markup."""
    return Markup(escape(between).join(map(escape, parts)))


def tag(name: str, /, *content: str, **attributes: str | float | bool | None) -> Markup:
    """An element: `tag("p", "1 < 2", class_="note")` -> `<p class="note">1 &lt; 2</p>`.

    Args:
        name: of the element.
        *content: escaped unless it is markup.
        **attributes: an underscore stands for a hyphen, a last one for nothing; None and False
            leave one out, True writes its name alone; numbers are written shortly.

    Raises:
        ValueError: a name that is none, which our own code alone can cause.
    """
    written = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        attribute = key.rstrip("_").replace("_", "-")
        if not _NAME.fullmatch(attribute):
            raise ValueError(f"{attribute!r}: no name of an attribute")
        text = value if isinstance(value, str) else number(value)
        written.append(f" {attribute}" if value is True else f' {attribute}="{escape(text)}"')
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r}: no name of an element")
    opening = f"<{name}{''.join(written)}>"
    return Markup(opening if name in _VOID else f"{opening}{join(content)}</{name}>")


def number(value: float) -> str:
    """A coordinate: two decimals at most, none where none are needed, and never `-0`."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text in {"-0", ""} else text


def shown(value: float) -> str:
    """A figure for a reader: some three digits, commas in thousands, a true minus sign."""
    if not math.isfinite(value):
        return "not finite"
    size = abs(value)
    if size >= 1e6:
        text = f"{value:.2e}"
    elif size >= 1000:
        text = f"{value:,.0f}"
    elif size >= 100 or value == round(value):
        text = f"{value:.1f}".removesuffix(".0")
    elif size >= 1:
        text = f"{value:.2f}"
    else:
        text = f"{value:.3f}" if size >= 0.001 else f"{value:.1e}"
    return text.replace("-", "\u2212")


def sentence(text: str, **attributes: str) -> Markup:
    """A sentence of a corpus or a model, whose direction stays its own."""
    return tag("bdi", text, class_="sentence", **attributes)


def table(
    caption: str, header: Iterable[str], rows: Iterable[Iterable[str]], *, numeric: int = 0
) -> Markup:
    """A table that scrolls by itself where it is wider than the page.

    The first cell of each row is its header; the last `numeric` columns hold numbers.
    """
    names = list(header)
    plain = len(names) - numeric

    def kind(place: int) -> str | None:
        return "n" if place >= plain else None

    head = tag(
        "tr",
        *(tag("th", name, scope="col", class_=kind(place)) for place, name in enumerate(names)),
    )
    body = []
    for row in rows:
        first, *rest = row
        cells = [tag("td", cell, class_=kind(place)) for place, cell in enumerate(rest, start=1)]
        body.append(tag("tr", tag("th", first, scope="row", class_=kind(0)), *cells))
    inside = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *body))
    return tag("div", inside, class_="scroll")
