"""The page: one HTML file that needs nothing else and lets nothing else in.

Its Content-Security-Policy allows one script and one style sheet, both by their sha256, and no
connection, frame or form at all: a sentence that were taken for markup still could do nothing.
"""

import base64
import hashlib
from importlib.resources import files
from pathlib import Path

from textvae.api.text_vae import TextVAE
from textvae.errors import CheckpointError
from textvae.report import sections, sentences
from textvae.report.corpus import DataChoice
from textvae.report.markup import Markup, tag
from textvae.report.material import Material, gather
from textvae.storage.files import write_file
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


def write_report(
    vae: TextVAE,
    output: str | Path,
    choice: DataChoice = DataChoice(),  # noqa: B008 -- an immutable tuple
    *,
    seed: int = 0,
    num_sentences: int = 1000,
    num_samples: int = 100,
    overwrite: bool = False,
) -> Material:
    """Write one HTML page about a model that needs nothing but a browser.

    The same model, data and seed give the same bytes.

    Args:
        vae: the model.
        output: the HTML file.
        choice: the sentences; none is the test set of the run.
        seed: of every draw.
        num_sentences: a random subset of this size where there are more.
        num_samples: K of the importance-weighted bound, where figures have to be measured.
        overwrite: replace what is there.

    Raises:
        CheckpointError, StorageError: the output exists, or cannot be written.
        ConfigError: a number below 1.
        DataError: sentences that cannot be read, or no test set.
    """
    path = Path(output)
    if path.is_dir():
        raise CheckpointError(f"--output {path}: is a directory; name a file in it")
    if not path.parent.is_dir():
        raise CheckpointError(f"--output {path}: there is no directory {path.parent}")
    if path.exists() and not overwrite:
        raise CheckpointError(
            f"--output {path}: is there already; name another file, or add --overwrite"
        )
    material = gather(vae, choice, seed=seed, num_sentences=num_sentences, num_samples=num_samples)
    write_file(path, render(material).encode())
    return material


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
