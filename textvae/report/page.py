"""The page: one HTML file that needs nothing else and lets nothing else in.

Its Content-Security-Policy allows one script and one style sheet, both by their sha256, and no
connection, frame or form at all: a sentence that were taken for markup still could do nothing.
"""

import base64
import hashlib
from importlib.resources import files

from textvae.report import sections, sentences
from textvae.report.markup import Markup, tag
from textvae.report.material import Material
from textvae.version import installed_version

CONTENTS = (
    ("model", "The model"),
    ("training", "Training"),
    ("numbers", "The numbers"),
    ("dimensions", "KL of each dimension"),
    ("map", "Map"),
    ("samples", "Samples"),
    ("interpolations", "Interpolations"),
    ("neighbours", "Nearest neighbours"),
    ("hardest", "Worst-modelled"),
)


def render(material: Material) -> str:
    """The page, the same text for the same material."""
    style, script = _asset("page.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; style-src {_source(style)}; script-src {_source(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("link", rel="icon", href="data:,"),
        tag("title", f"{material.name} \u00b7 textvae report"),
        tag("style", style),
    )
    made = [
        sections.model_section(material),
        sections.curves_section(material),
        sections.figures_section(material),
        sections.kl_section(material),
        sentences.map_section(material),
        sentences.samples_section(material),
        sentences.paths_section(material),
        sentences.neighbors_section(material),
        sentences.worst_section(material),
    ]
    links = [tag("li", tag("a", title, href=f"#{name}")) for name, title in CONTENTS]
    body = tag(
        "body",
        tag("a", "Skip to the report", class_="skip", href="#content"),
        _header(material),
        tag(
            "div",
            tag("nav", tag("ul", *links), aria_label="Sections"),
            tag("main", *made, id="content"),
            class_="page",
        ),
        _footer(material),
        tag("script", script),
    )
    return "<!doctype html>\n" + tag("html", head, "\n", body, lang="en") + "\n"


def _header(material: Material) -> Markup:
    return tag(
        "header",
        tag("p", "textvae report", class_="eyebrow"),
        tag("h1", tag("bdi", material.name)),
        tag("p", sections.kind_of_model(material), class_="summary"),
        sections.tiles(material),
    )


def _footer(material: Material) -> Markup:
    corpus = material.corpus
    left_out = corpus.facts.too_long_tokens
    dropped = f" {left_out:,} too long for the model are left out." if left_out else ""
    return tag(
        "footer",
        tag(
            "p",
            f"Sentences: {corpus.source}.{dropped} Everything drawn is drawn by seed "
            f"{material.seed}; the same model, data and seed make the same page. Made with textvae "
            f"{installed_version()}. This file needs no network and sends nothing.",
        ),
    )


def _asset(name: str) -> Markup:
    """A file of ours, trusted as it is; nothing of a user is ever put into one."""
    text = files("textvae.report").joinpath(name).read_text(encoding="utf-8")
    return Markup(text)


def _source(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
