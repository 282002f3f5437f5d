"""The page as a parser sees it: whole, closed to the world, and to hostile sentences."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from msgspec import structs

from textvae.api.text_vae import TextVAE
from textvae.data.tokenizer import WordTokenizerConfig
from textvae.model.decoder import GRUDecoderConfig
from textvae.model.encoder import GRUEncoderConfig, NoEncoderConfig
from textvae.model.labels import M2LabelsConfig
from textvae.model.vae import ModelConfig
from textvae.report.corpus import DataChoice
from textvae.report.material import gather
from textvae.report.page import CONTENTS, render
from textvae.report.sentences import changed

HOSTILE = [
    "</title></script><script>alert(1)</script>",
    "<img src=x onerror=alert(2)> fox",
    '" onmouseover="alert(3)" x=\'',
    "]]> --> <!-- <svg/onload=alert(4)>",
    "line\u2028separator\u2029and \u202eturned",
    "{{7*7}} ${alert(5)} `x` &lt;script&gt; &#60;b&#62;",
    "javascript:alert(6)",
    "=HYPERLINK(0) \\u003cscript\\u003e",
]
ELEMENTS = """
html head meta title link style body script a header nav main footer section p h1 h2 h3 ul ol
li dl dt dd div span b i bdi mark table caption thead tbody tr th td figure figcaption
details summary label select option button svg defs path circle line rect text g use
clippath
"""
VOID = {"meta", "link"}


class Page(HTMLParser):
    """The elements of a page; it must be balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]


def hostile_vae(latent_dim: int = 3) -> TextVAE:
    tokenizer = WordTokenizerConfig().train(HOSTILE)
    small = {"embedding_dim": 5, "hidden_dim": 7}
    encoder = GRUEncoderConfig(**small) if latent_dim else NoEncoderConfig()
    config = ModelConfig(
        latent_dim=latent_dim, encoder=encoder, decoder=GRUDecoderConfig(**small), max_length=13
    )
    return TextVAE(config.build(tokenizer.vocabulary_size, seed=1), tokenizer, config)


def check_closed(text: str) -> Page:
    """One script and one style of ours, named by their hashes, and nothing from elsewhere."""
    page = Page(text)
    assert {tag for tag, _ in page.elements} <= set(ELEMENTS.split())
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name not in {"style", "src", "srcset", "action", "ping"}, (tag, name)
            if name == "href":
                assert value is not None
                assert value == "data:," or value.startswith("#"), value
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for name in ("script", "style"):
        found = re.findall(f"<{name}>(.*?)</{name}>", text, re.DOTALL)
        assert len(found) == len(page.all(name)) == 1
        digest = base64.b64encode(hashlib.sha256(found[0].encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert "url(" not in text.replace("url(#", "")
    assert "@import" not in text
    identities = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identities) == len(set(identities))
    for _, attributes in page.elements:
        for name in ("href", "aria-labelledby", "clip-path"):
            target = (attributes.get(name) or "").removeprefix("url(").strip("#)")
            assert not target or target in [*identities, "data:,"], target
    return page


@pytest.fixture(scope="module")
def text(tiny_run: Path) -> str:
    return render(gather(TextVAE.from_pretrained(tiny_run, device="cpu")))


def test_the_page_of_a_run_is_whole(text: str) -> None:
    page = check_closed(text)
    assert text.startswith('<!doctype html>\n<html lang="en">')
    for name, _ in CONTENTS:
        assert {"id": name, "aria-labelledby": f"{name}-title"} in page.all("section")
    assert len([a for a in page.all("svg") if a.get("class") == "chart"]) == 4
    assert all("aria-label" in a or "aria-hidden" in a for a in page.all("svg"))
    assert len(page.all("caption")) == len(page.all("table")) > 7
    dots = [a for a in page.all("use") if "x" in a]
    assert len(dots) == 11
    assert "missing" not in [a.get("class") for a in page.all("p")]
    assert len(page.all("h1")) == 1
    assert "\u2212" not in next(a["data-values"] or "" for a in page.all("g"))


def test_the_same_bytes_again_and_others_with_another_seed(text: str, tiny_run: Path) -> None:
    vae = TextVAE.from_pretrained(tiny_run, device="cpu")
    assert render(gather(vae)) == text
    assert render(gather(vae, seed=1)) != text


@pytest.mark.parametrize("latent_dim", [3, 1, 0])
def test_hostile_sentences_stay_text(latent_dim: int) -> None:
    labels = [f"{text} {number % 2}" for number, text in enumerate(HOSTILE)]
    vae = hostile_vae(latent_dim)
    vae.path = Path("<script>alert(7)</script>")
    written = render(gather(vae, DataChoice(HOSTILE, labels=labels), num_samples=2))
    page = check_closed(written)
    assert not {"\u2028", "\u2029", "\u202e"} & set(written)
    inside = {text.strip() for _, text in page.texts}
    sentences = [text.strip() for where, text in page.texts if where in {"title", "bdi", "span"}]
    assert any("<script>alert(1)</script>" in text for text in sentences)
    assert "javascript:alert(6)" in {text.split("\n")[0] for text in inside}
    assert ("bdi", vae.path.name) in page.texts


def test_models_with_labels() -> None:
    plain = hostile_vae()
    config = structs.replace(plain.config, labels=M2LabelsConfig())
    model = config.build(plain.tokenizer.vocabulary_size, num_labels=2, seed=1)
    vae = TextVAE(model, plain.tokenizer, config, labels=("calm", "wild"))
    page = check_closed(render(gather(vae, DataChoice(HOSTILE), num_samples=2)))
    assert len([a for a in page.all("use") if "x" in a]) == len(HOSTILE)


def test_what_is_not_there_is_said() -> None:
    vae = hostile_vae(0)
    written = render(gather(vae, DataChoice(HOSTILE), num_samples=2))
    page = check_closed(written)
    said = [attributes.get("class") for attributes in page.all("p")].count("missing")
    assert said == 6  # results, curves, KL, map, interpolations and neighbours
    assert written.count("it has no latent") == 4
    assert "no metrics.jsonl" in written
    assert "language model" in written
    one = render(gather(hostile_vae(), DataChoice(["fox"]), num_samples=2))
    assert one.count("There is but one sentence") == 2
    check_closed(one)


def test_many_labels_and_several(tiny_run: Path) -> None:
    vae = TextVAE.from_pretrained(tiny_run, device="cpu")
    texts = [f"red {noun} eats" for noun in ("cat", "dog", "fox", "hen", "cow", "bee", "ant")] * 3
    labels = [f"kind={k % 19} half={k % 2}" for k in range(len(texts))]
    page = check_closed(render(gather(vae, DataChoice(texts, labels=labels), num_samples=2)))
    names = [a["aria-label"] for a in page.all("div") if a.get("class") == "legend"]
    assert names == ["Legend: kind", "Legend: half"]
    assert [a.get("id") or a.get("class") for a in page.all("select")] == ["colour-by", "pick"]
    dots = [a for a in page.all("use") if a.get("data-k")]
    assert len(dots) == 21
    assert {a["class"] for a in dots} == {f"c{k}" for k in range(8)}
    assert {(a["data-k"] or "").split(",")[1] for a in dots} == {"0", "1"}


@pytest.mark.parametrize(
    ("before", "after", "written"),
    [
        ("a red fox", "a blue fox", "a <mark>blue</mark> fox"),
        ("a red fox", "a red fox sleeps", "a red fox <mark>sleeps</mark>"),
        ("a <b> fox", "a <i> fox", "a <mark>&lt;i&gt;</mark> fox"),
        ("\u9752\u5c71\u5728", "\u9752\u6c34\u5728", "\u9752<mark>\u6c34</mark>\u5728"),
    ],
)
def test_changed_words_are_marked(before: str, after: str, written: str) -> None:
    assert changed(before, after) == f'<bdi class="sentence">{written}</bdi>'


def test_words_that_went_and_no_change() -> None:
    gone = changed("a big red fox", "a fox")
    assert 'title="gone: big red"' in gone
    assert "<mark>" not in gone
    assert "unchanged" in changed("a fox", "a fox")
    assert changed(None, "a fox") == '<bdi class="sentence">a fox</bdi>'
