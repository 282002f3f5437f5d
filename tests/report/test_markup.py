"""Nothing of a user can become a tag."""

import pytest

from textvae.report.markup import Markup, escape, join, number, sentence, shown, table, tag


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("</script><script>x()</script>", "&lt;/script&gt;&lt;script&gt;x()&lt;/script&gt;"),
        ("\" onload='x'", "&quot; onload=&#x27;x&#x27;"),
        ("a & b &lt; c", "a &amp; b &amp;lt; c"),
        ("line\u2028and\u2029paragraph", "line\ufffdand\ufffdparagraph"),
        ("a\x00b\x1b[31m\x85", "a\ufffdb\ufffd[31m\ufffd"),
        ("turned \u202earound", "turned \ufffdaround"),
        ("half a pair \ud800", "half a pair \ufffd"),
        (
            "plain, \u4e2d\u6587, \u05e2\u05d1, \U0001f600",
            "plain, \u4e2d\u6587, \u05e2\u05d1, \U0001f600",
        ),
    ],
    ids=[
        "tags",
        "quotes",
        "ampersands",
        "line ends",
        "controls",
        "direction",
        "surrogate",
        "plain",
    ],
)
def test_escape(text: str, written: str) -> None:
    assert escape(text) == written
    assert tag("p", text, title=text) == f'<p title="{written}">{written}</p>'
    assert sentence(text) == f'<bdi class="sentence">{written}</bdi>'
    assert written in table(text, [text], [[text]])
    written.encode()  # even half a pair can be written to a file


def test_markup_is_not_escaped_again_and_text_joins_as_text() -> None:
    inner = tag("b", "<")
    assert tag("p", inner, "<") == "<p><b>&lt;</b>&lt;</p>"
    assert join([inner, "<"], " & ") == "<b>&lt;</b> &amp; &lt;"
    assert type(inner + "<i>") is str  # what is glued on by hand is text again


def test_attributes() -> None:
    made = tag("svg", viewBox="0 0 1 1", data_x=1.0, class_="a", hidden=True, role=None, x2=-0.001)
    assert made == '<svg viewBox="0 0 1 1" data-x="1" class="a" hidden x2="0"></svg>'
    assert tag("meta", charset="utf-8") == '<meta charset="utf-8">'
    for name, attribute in (("a b", "x"), ("a", "x y"), ("a>", "x")):
        with pytest.raises(ValueError, match="no name of"):
            tag(name, **{attribute: "1"})


@pytest.mark.parametrize(
    ("value", "short", "figure"),
    [
        (0.0, "0", "0"),
        (1.005, "1", "1.00"),
        (-2.5, "-2.5", "\u22122.50"),
        (123.456, "123.46", "123.5"),
        (98765.4, "98765.4", "98,765"),
        (0.01234, "0.01", "0.012"),
        (0.00001, "0", "1.0e\u221205"),
        (3e9, "3000000000", "3.00e+09"),
    ],
)
def test_numbers(value: float, short: str, figure: str) -> None:
    assert number(value) == short
    assert shown(value) == figure


def test_a_table_has_a_caption_and_headers_for_rows_and_columns() -> None:
    made = table("What", ["Name", "Size"], [["a", "1"], ["b", "2"]], numeric=1)
    assert "<caption>What</caption>" in made
    assert '<th scope="col">Name</th><th scope="col" class="n">Size</th>' in made
    assert '<tr><th scope="row">b</th><td class="n">2</td></tr>' in made
    assert isinstance(made, Markup)
