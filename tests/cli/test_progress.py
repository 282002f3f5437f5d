"""Long work shows on a terminal that it goes on, and nowhere else."""

import io
import sys
from pathlib import Path

import pytest

from textvae.cli import arguments
from textvae.cli.terminal import Busy


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """True."""
        return True


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(arguments, "BAR_DELAY", 0.0)
    path = tmp_path / "a.txt"
    path.write_text("".join(f"line {i}\n" for i in range(31)))
    return path


@pytest.mark.parametrize(
    ("errors", "results", "quiet", "shown"),
    [
        (Terminal(), io.StringIO(), False, True),
        (Terminal(), Terminal(), False, False),
        (Terminal(), Terminal(), True, True),
        (io.StringIO(), io.StringIO(), True, False),
    ],
)
def test_rows_are_counted_where_results_do_not_go_to_the_same_terminal(
    file: Path,
    errors: io.StringIO,
    results: io.StringIO,
    quiet: bool,
    shown: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stderr", errors)
    monkeypatch.setattr(sys, "stdout", results)
    stream = arguments.take_stream(str(file), quiet=quiet)
    for _ in range(2):  # a corpus may be read twice
        assert list(stream.rows) == [f"line {i}" for i in range(31)]
    assert ("rows" in errors.getvalue()) is shown
    assert not results.getvalue()


def test_work_that_is_soon_done_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    busy = Busy("reading a corpus")
    with busy.after(60.0):
        busy.report("measuring it")
    assert capsys.readouterr().err == ""


def test_work_that_lasts_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    busy = Busy("reading a corpus")
    busy.report("measuring it")
    busy._start()
    busy.report("drawing it")
    assert capsys.readouterr().err == "reading a corpus: measuring it\ndrawing it\n"
