"""The page in a real Chromium: silent, never wider than the window, usable without a mouse."""

from pathlib import Path
from typing import Any

import pytest

from textvae.api.text_vae import TextVAE
from textvae.report.corpus import DataChoice
from textvae.report.page import write_report

pytestmark = pytest.mark.slow

WORST = [
    "</title></script><script>window.broken = 1; alert(1)</script>",
    "<img src=x onerror=window.broken=2> fox",
    "a" * 300,
    "\u2028line \u202e turned \u4e2d\u6587\u4e2d\u6587\u4e2d\u6587\u4e2d\u6587\u4e2d\u6587",
]
TEXTS = [f"{a} {b} eats" for a in ("red", "big", "old") for b in ("cat", "dog", "fox", "hen")]
LABELS = [f"kind={k % 11} half=a_long_name_of_a_label_{k % 2}" for k in range(16)]


@pytest.fixture(scope="module")
def page(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("page") / "report.html"
    choice = DataChoice([*WORST, *TEXTS], labels=LABELS)
    write_report(TextVAE.from_pretrained(tiny_run, device="cpu"), output, choice, num_samples=2)
    return output


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_it_is_silent_and_fits_the_window(
    browser: Any, page: Path, width: int, *, dark: bool
) -> None:
    browser.problems.clear()
    browser.requests.clear()
    browser.open(page, width, dark=dark)
    assert browser.value("document.documentElement.scrollWidth") <= width
    browser.value("document.querySelectorAll('details').forEach(one => { one.open = true })")
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value("window.broken") is None
    assert browser.value("document.images.length + document.scripts.length") == 1
    background = browser.value("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background[4:-1].split(","))) < 200) == dark
    assert browser.requests == [page.as_uri()]
    assert browser.problems == []


# Of all text, its contrast with the nearest opaque ground, as WCAG 2 computes it.
CONTRAST = """
(() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, k) => sum + c * [0.2126, 0.7152, 0.0722][k], 0);
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const unseen = element.closest("script, title, .unseen, .skip, defs");
    if (unseen || !walker.currentNode.data.trim()) continue;
    const style = getComputedStyle(element);
    let ground = element;
    const behind = () => parts(getComputedStyle(ground).backgroundColor);
    while (ground !== document.body && behind()[3] === 0) ground = ground.parentElement;
    const ink = light(parts(element.closest("svg") ? style.fill : style.color));
    const paper = light(behind());
    const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    if (ratio < 4.5) found.push([ratio, element.outerHTML.slice(0, 90)]);
  }
  return found;
})()
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_stands_out_from_its_ground(browser: Any, page: Path, *, dark: bool) -> None:
    browser.open(page, 1400, dark=dark)
    browser.value("document.querySelectorAll('details').forEach(one => { one.open = true })")
    assert browser.value(CONTRAST) == []


def test_the_map_by_pointer_touch_and_keys(browser: Any, page: Path) -> None:
    browser.open(page, 1400)
    browser.value("document.querySelector('.map').scrollIntoView({behavior: 'instant'})")
    where = browser.value(
        "(() => { const box = document.querySelectorAll('.points use')[6].getBoundingClientRect();"
        "return [box.x + box.width / 2, box.y + box.height / 2] })()"
    )
    said = "document.querySelector('.tip').hidden ? '' : document.querySelector('.tip').textContent"
    assert browser.value(said) == ""
    browser.point(*where)
    assert TEXTS[2] in browser.value(said)
    assert "kind 6 \u00b7 half a_long" in browser.value(said)
    browser.point(5, 5)
    assert browser.value(said) == ""
    browser.value("document.querySelector('.map').focus({focusVisible: true})")
    seen = set()
    for key in ("ArrowUp", "ArrowLeft", "ArrowDown", "ArrowRight", "ArrowRight", "ArrowUp"):
        browser.press(key)
        seen.add(browser.value(said))
    assert "" not in seen
    assert len(seen) > 2
    browser.press("Escape")
    assert browser.value(said) == ""
    assert browser.value("document.documentElement.scrollWidth") <= 1400


# The point farthest from all others: its number and its place in the window.
ALONE = """
(() => {
  document.querySelector(".map").scrollIntoView({behavior: "instant"});
  const spots = [...document.querySelectorAll(".points use")].map((use) => {
    const box = use.getBoundingClientRect();
    return {x: box.x + box.width / 2, y: box.y + box.height / 2};
  });
  const room = spots.map((a) => Math.min(...spots.filter((b) => b !== a)
    .map((b) => Math.hypot(a.x - b.x, a.y - b.y))));
  const place = room.indexOf(Math.max(...room));
  return {place, ...spots[place]};
})()
"""


def test_the_map_by_touch(browser: Any, page: Path) -> None:
    browser.open(page, 400)
    where = browser.value(ALONE)
    place = where.pop("place")
    browser.call("Emulation.setTouchEmulationEnabled", enabled=True)
    browser.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[where])
    browser.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    browser.value("new Promise((done) => setTimeout(done, 300))")
    browser.call("Emulation.setTouchEmulationEnabled", enabled=False)
    said = browser.value("document.querySelector('.tip bdi').textContent")
    assert said == [*WORST, *TEXTS][place].translate({0x2028: 0xFFFD, 0x202E: 0xFFFD})
    assert browser.value("document.documentElement.scrollWidth") <= 400


def test_colours_and_legends(browser: Any, page: Path) -> None:
    browser.problems.clear()
    browser.open(page, 1400)
    classes = "[...document.querySelectorAll('.points use')].map(one => one.getAttribute('class'))"
    before = browser.value(classes)
    assert len(set(before)) == 8
    choose = "document.getElementById('colour-by')"
    browser.value(f"{choose}.value = '1'; {choose}.dispatchEvent(new Event('change'))")
    after = browser.value(classes)
    assert set(after) == {"c0", "c1"}
    assert browser.value("document.querySelectorAll('.legend:not([hidden])').length") == 1
    browser.value("document.querySelector('.legend:not([hidden]) button').click()")
    assert sum("off" in one for one in browser.value(classes)) == 8
    browser.value("document.querySelector('.legend:not([hidden]) button').click()")
    assert browser.value(classes) == after
    assert browser.problems == []


def test_the_curves_are_read_by_pointer_and_keys(browser: Any, page: Path) -> None:
    browser.open(page, 1400)
    browser.value("document.querySelector('.curves [tabindex]').focus()")
    browser.press("End")
    said = browser.value("document.querySelector('.readout').textContent")
    assert said.startswith("Step 1")
    assert "KL weight: 0.010" in said
    assert (
        browser.value("getComputedStyle(document.querySelector('.cross')).visibility") == "visible"
    )
