"""metrics.jsonl as a run writes it, and as a crash may leave it."""

from pathlib import Path

from textvae.report.curves import Point, read_curves

LINES = """
{"step":7,"kl_weight":0.25,"reconstruction":31.5,"kl":2.5,"active_units":3,"loss":9.0}
{"step":11,"validation":{"elbo":-29.5,"kl":1.5,"active_units":2},"selected":true}
{"step":14,"kl_weight":1.0,"reconstruction":21.0,"kl":4.0,"active_units":5,"loss":9.0}
{"step":22,"validation":{"elbo":-24.5,"kl":3.5,"active_units":null},"selected":true}
{"step":23,"something":"of a later version"}
{"step":33,"validation":{"elbo":-26.5,"kl":3.75,"active_units":5},"selected":false}
[1, 2]
\xff
{"step":35,"kl_wei"""


def test_every_curve_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(LINES.encode("latin-1"))
    found = read_curves(tmp_path)
    assert found is not None
    assert found.train_nll == [Point(7, 34.0), Point(14, 25.0)]
    assert found.valid_nll == [Point(11, 29.5), Point(22, 24.5), Point(33, 26.5)]
    assert found.train_kl == [Point(7, 2.5), Point(14, 4.0)]
    assert found.valid_kl == [Point(11, 1.5), Point(22, 3.5), Point(33, 3.75)]
    assert found.kl_weight == [Point(7, 0.25), Point(14, 1.0)]
    assert found.active_units == [Point(7, 3.0), Point(14, 5.0)]
    assert found.selected == 22


def test_none_where_there_is_nothing(tmp_path: Path) -> None:
    assert read_curves(None) is None
    assert read_curves(tmp_path) is None
    (tmp_path / "metrics.jsonl").write_text("\n{]\n", encoding="utf-8")
    assert read_curves(tmp_path) is None


def test_the_curves_of_a_real_run(tiny_run: Path) -> None:
    found = read_curves(tiny_run)
    assert found is not None
    assert found.selected == found.valid_nll[-1].step == 127
    assert found.train_nll[0].value > found.train_nll[-1].value
    assert len(found.kl_weight) == len(found.active_units) == len(found.train_kl) > 0
