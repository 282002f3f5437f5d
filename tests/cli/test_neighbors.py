"""neighbors on one tiny model."""

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

import textvae
from textvae.api.latent_space import neighbors

FIRST, SECOND = "the dog sees the cat .", "the fox eats the cow ."

Invoke = Callable[..., Result]


def test_neighbors_is_the_python_call(place: Path, invoke: Invoke) -> None:
    vae = textvae.TextVAE.from_pretrained("runs/tiny")
    corpus = (place / "tiny.txt").read_text(encoding="utf-8").splitlines()
    expected = neighbors(vae, [FIRST, SECOND], corpus, size=3)
    arguments = ["neighbors", "runs/tiny", FIRST, SECOND, "--corpus", "tiny.txt", "-n", "3"]
    rows = [json.loads(line) for line in invoke(*arguments, "--json").stdout.splitlines()]
    assert rows == [
        {"row": row, "sentence": sentence, "rank": rank, **one._asdict()}
        for row, (sentence, near) in enumerate(zip([FIRST, SECOND], expected, strict=True))
        for rank, one in enumerate(near, start=1)
    ]
    lines = invoke(*arguments).stdout.splitlines()
    assert lines[0] == FIRST
    assert lines[1] == f"{expected[0][0].distance:8.4f}  {expected[0][0].text}"
    assert lines[4] == SECOND
    alone = invoke("neighbors", FIRST, "--corpus", "tiny.txt", "-n", "3")
    assert alone.stdout.splitlines() == lines[1:4]
    assert alone.stderr == "model: runs/tiny\n"
    stdin = f"{FIRST}\n\n{SECOND}\n".encode()
    piped = invoke("neighbors", "runs/tiny", "--corpus", "tiny.txt", "-n", "3", stdin=stdin)
    assert piped.stdout.splitlines() == [*lines[:4], "", *lines[4:]]
    text = (place / "tiny.txt").read_bytes()
    assert invoke(*arguments[:-3], "-", "-n", "3", stdin=text).stdout.splitlines() == lines
    assert invoke(*arguments, "--metric", "scaled").exit_code == 0
