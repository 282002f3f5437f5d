"""Verbs of two processes, forked with what torchrun gives them: the first says what one would."""

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="signals and pipes of POSIX"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
WORDS = ["red", "big", "old", "shy", "cat", "dog", "fox", "hen", "eats", "sees", "likes", "today"]
LINES = [" ".join(WORDS[i % n :: n]) for i in range(131) for n in (2, 3, 5, 7)]
FEW = ["--samples", "7"]
JSON = ["--json", "--too-long", "drop"]
REFUSE = ["--score", "kl", "--threshold", "0.3", "--too-long", "refuse"]

Shared = Callable[..., list[Any]]


def listen(file: Path) -> None:
    """Write down each batch that this process decodes; it is forked, so nobody else is heard."""
    from textvae.metrics import likelihood  # noqa: PLC0415 -- imports torch

    decode = likelihood.log_likelihood

    def heard(model: Any, batch: Any, *rest: Any, **options: Any) -> Any:
        with file.open("a", encoding="utf-8") as out:
            out.write(f"{len(batch.lengths)}\n")
        return decode(model, batch, *rest, **options)

    likelihood.log_likelihood = heard


@pytest.fixture
def shared(command: Callable[..., Any]) -> Shared:
    """How the processes of a verb end that so many do together; one is started by itself."""

    def run(*words: str, size: int, stdin: bytes = b"", heard: Path | None = None) -> list[Any]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]

        def told(rank: int) -> Callable[[], None]:
            def before() -> None:
                os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size)}
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
                if heard is not None:
                    listen(heard / f"{rank} of {size}")

            return before

        # Standard input is the first one's alone.
        given = [stdin if rank == 0 else b"not to be read" for rank in range(size)]
        children = [command(*words, stdin=given[rank], before=told(rank)) for rank in range(size)]
        return [child.wait() for child in children]

    return run


def test_score_is_shared(shared: Shared, tiny_run: Path, tmp_path: Path) -> None:
    stdin = "\n".join([*LINES[:300], "", "red " * 9, *LINES[300:]]).encode()
    for extra in (JSON, REFUSE):
        said = []
        for size in (1, 2, 3):
            model = shutil.copytree(tiny_run, tmp_path / f"{extra[0]}{size}" / "run")
            ended = shared("score", str(model), *FEW, *extra, size=size, stdin=stdin)
            code = 0 if "--json" in extra else 2
            assert [one.code for one in ended[:1]] == [code], ended
            assert all(one.stdout == "" for one in ended[1:])
            assert (model / "scoring-7-0" / "manifest.json").is_file()
            said.append((ended[0].stdout, ended[0].stderr.replace(str(model.parent), "")))
        assert said[1:] == said[:1] * 2
        count = len(LINES) if "--json" in extra else 300  # up to the line that is too long
        assert len(said[0][0].splitlines()) == count


def test_each_process_decodes_some(shared: Shared, tiny_run: Path, tmp_path: Path) -> None:
    counts: dict[str, int] = {}
    for size in (1, 2):
        model = shutil.copytree(tiny_run, tmp_path / str(size))
        stdin = "\n".join(LINES).encode()
        ended = shared(
            "score", str(model), "--samples", "20", size=size, stdin=stdin, heard=tmp_path
        )
        assert [one.code for one in ended] == [0] * size, ended
    for file in tmp_path.glob("* of *"):
        counts[file.name] = sum(map(int, file.read_text(encoding="utf-8").split()))
    alone = counts.pop("0 of 1")
    assert alone >= len(LINES)
    assert counts.keys() == {"0 of 2", "1 of 2"}
    assert sum(counts.values()) == alone
    assert min(counts.values()) > alone / 4


def test_an_error_of_the_stream_comes_after_the_lines_before_it(
    shared: Shared, tiny_run: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_run, tmp_path / "run")
    stdin = b"red cat eats\n" * 259 + b"\xff\n" + b"old fox sees\n" * 300
    one, two = (shared("score", str(model), *FEW, size=size, stdin=stdin)[0] for size in (1, 2))
    assert (one.code, two.code) == (2, 2)
    assert len(one.stdout.splitlines()) == 259
    assert two.stdout == one.stdout
    assert two.stderr.splitlines()[-1] == one.stderr.splitlines()[-1]
    assert "standard input:260: byte 0xff is not UTF-8" in two.stderr


@pytest.mark.parametrize("stdin", [b"", b"\n\n"], ids=["nothing", "blank lines"])
def test_nothing_is_shared_too(shared: Shared, tiny_run: Path, stdin: bytes) -> None:
    first, second = shared("score", str(tiny_run), size=2, stdin=stdin)
    assert (first.code, second.code, first.stdout, second.stdout) == (0, 0, stdin.decode(), "")


def test_a_line_is_answered_at_once(shared: Shared, tiny_run: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_run, tmp_path / "run")
    words = ["score", str(model), *FEW, "--json", "--line-buffered"]
    stdin = "\n".join(LINES[:11]).encode()
    one, two = (shared(*words, size=size, stdin=stdin)[0].stdout for size in (1, 2))
    assert len(one.splitlines()) == 11
    assert [json.loads(line) for line in two.splitlines()] == [
        json.loads(line) for line in one.splitlines()
    ]


@pytest.mark.parametrize("verb", ["sample", "encode", "score", "evaluate"])
def test_a_model_is_loaded_to_the_device_of_its_process(
    shared: Shared, tiny_run: Path, verb: str
) -> None:
    """Which it has once they are joined: before, each would take the first one."""
    ended = shared(verb, str(tiny_run), "--device", "cpu:0", size=2, stdin=b"red cat eats")
    assert {one.code for one in ended} in ({2}, {2, 75})  # or the other one has ended before
    refused = [one.stderr for one in ended if one.code == 2]
    assert all("--device cpu:0: several processes take one each" in said for said in refused)


def test_a_model_with_labels_is_trained_together(
    shared: Shared, tiny_data: Path, tiny_overrides: tuple[str, ...], tmp_path: Path
) -> None:
    rows = []
    for split in ("train", "valid", "test"):
        lines = (tiny_data / f"{split}.txt").read_text(encoding="utf-8").splitlines()
        labels = [line.split()[1] if number % 2 else "" for number, line in enumerate(lines)]
        rows = [f"{line},{label}" for line, label in zip(lines, labels, strict=True)]
        (tmp_path / f"{split}.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    changes = (*tiny_overrides, "train.max_steps=11", "model.labels.kind=m2")
    words = [word for change in changes for word in ("--set", change)]
    columns = ["--text-column", "text", "--label-column", "label"]
    elbos = []
    for size in (1, 2):
        run = tmp_path / f"run{size}"
        ended = shared("train", str(tmp_path), "--output", str(run), *columns, *words, size=size)
        assert [one.code for one in ended] == [0] * size, ended
        facts = json.loads((run / "results.json").read_bytes())
        elbos.append(facts["training"]["validation_elbo"])
        assert len(json.loads((run / "manifest.json").read_bytes())["files"]) > 3
    assert elbos[0] < 0
    assert elbos[1] == pytest.approx(elbos[0], rel=1e-5)
