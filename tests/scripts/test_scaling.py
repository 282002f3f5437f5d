"""The corpus that is drawn to be streamed: no sentence of it twice."""

import json
from itertools import islice
from pathlib import Path

import scaling
from click.testing import CliRunner

from textvae.data.grammar import embedded_grammar

SIZE = 7_001  # the first sentence that is drawn twice is draw 6,882


def test_the_sentences_drawn_are_different(tmp_path: Path) -> None:
    file = tmp_path / "drawn.txt"
    result = CliRunner().invoke(scaling.main, ["draw", str(SIZE), str(file)])
    assert result.exit_code == 0, result.output
    draws = json.loads(result.stdout)["draws"]
    every = (embedded_grammar().draw(0, index)[0] for index in range(draws))
    assert draws > SIZE
    assert file.read_text(encoding="utf-8").splitlines() == list(islice(dict.fromkeys(every), SIZE))
