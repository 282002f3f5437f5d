"""report on one tiny model."""

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

import textvae
from textvae.report.corpus import DataChoice
from textvae.report.material import gather
from textvae.report.page import render

Invoke = Callable[..., Result]


def test_the_page_is_that_of_the_python_calls(place: Path, tmp_path: Path, invoke: Invoke) -> None:
    page = tmp_path / "page.html"
    options = ["--seed", "5", "--sentences", "7", "--samples", "3", "--output", str(page)]
    result = invoke("report", "runs/tiny", "tiny.txt", *options)
    assert result.stdout == f"{page}: a page about runs/tiny on 7 of 100 of tiny.txt\n"
    assert result.stderr == ""
    vae = textvae.TextVAE.from_pretrained("runs/tiny")
    found = gather(vae, DataChoice("tiny.txt"), seed=5, num_sentences=7, num_samples=3)
    assert page.read_text(encoding="utf-8") == render(found)
    before = page.read_bytes()
    refused = invoke("report", "runs/tiny", *options)
    assert refused.exit_code == 2
    assert refused.stderr == (
        f"error: --output {page}: is there already; name another file, or add --overwrite\n"
    )
    assert page.read_bytes() == before
    newest = invoke("report", *options, "--overwrite")
    assert newest.exit_code == 0
    assert newest.stderr == "model: runs/tiny\n"
    again = invoke("report", "runs/tiny", "tiny.txt", *options, "--overwrite", "--json")
    assert json.loads(again.stdout) == {
        "output": str(page),
        "source": "7 of 100 of tiny.txt",
        "num_sentences": 7,
    }
    assert page.read_bytes() == before
    invoke("report", *options, "--overwrite")
    assert page.read_bytes() != before


def test_labels_come_from_a_column_or_a_file(place: Path, tmp_path: Path, invoke: Invoke) -> None:
    lines = (place / "tiny.txt").read_text(encoding="utf-8").splitlines()[:11]
    table, labels = tmp_path / "t.csv", tmp_path / "labels"
    kinds = ["odd" if k % 2 else "even" for k in range(len(lines))]
    table.write_text(
        "text,kind\n" + "".join(f"{a},{b}\n" for a, b in zip(lines, kinds, strict=True)),
        encoding="utf-8",
    )
    labels.write_text("\n".join(kinds), encoding="utf-8")
    plain = tmp_path / "t.txt"
    plain.write_text("\n".join(lines), encoding="utf-8")
    first, second = tmp_path / "1.html", tmp_path / "2.html"
    options = ["--samples", "2", "--output"]
    invoke("report", "runs/tiny", str(table), "--label-column", "kind", *options, str(first))
    invoke("report", "runs/tiny", str(plain), "--labels", str(labels), *options, str(second))
    pages = [page.read_text(encoding="utf-8") for page in (first, second)]
    assert pages[0].replace("t.csv", "t.txt") == pages[1]
    assert "label odd" in pages[0]
