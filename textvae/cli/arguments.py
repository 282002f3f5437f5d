"""Which argument is the MODEL, and where the sentences come from.

MODEL may be left out before sentences, so the first argument has to be recognized: a directory is
the MODEL, and so is whatever cannot be meant as a sentence (an existing file, a path with a slash
and no blank, the name of a run under runs/), which is then refused as no model. All else is a
sentence for the newest run. After a MODEL everything is a sentence, whatever it looks like. A model
that is not there is a CheckpointError; data or sentences that cannot be read are a DataError.
"""

import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from textvae import distributed
from textvae.cli.terminal import log
from textvae.data.rows import Exclusion, RowCounts
from textvae.errors import CheckpointError, DataError

RUNS = Path("runs")
BAR_DELAY = 3.0
"""Seconds after which long work shows how many rows it has read."""
SHARED_TOGETHER = 8192
_SETS = {"train", "training", "valid", "dev", "validation", "val", "test"}


def find_model(name: str | None) -> Path:
    """The directory that was named, or the newest run."""
    from textvae.storage.checkpoint import newest_run  # noqa: PLC0415 -- imports msgspec, 20 ms

    if name is None:
        return newest_run(RUNS)
    path = Path(name)
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(f"{name}: is a file, expected a run or model directory")
    near = RUNS / name
    hint = f"did you mean {near}?" if near.is_dir() else "name a run or model directory"
    raise CheckpointError(f"{name}: there is no such directory; {hint}")


def split_model(arguments: Sequence[str]) -> tuple[Path, list[str]]:
    """The model and the sentences among the arguments."""
    if not arguments or not _means_a_path(arguments[0]):
        return find_model(None), list(arguments)
    return find_model(arguments[0]), list(arguments[1:])


def _means_a_path(text: str) -> bool:
    if text == "-" or not text.strip():
        return False
    try:
        there = Path(text).exists() or (RUNS / text).is_dir()
    except (OSError, ValueError):  # a sentence too long for a name, or a NUL
        return False
    separators = {"/", os.sep}
    slashed = any(part in text for part in separators) and not any(map(str.isspace, text))
    return there or slashed


def split_model_and_data(arguments: Sequence[str]) -> tuple[Path, str | None]:
    """The model and the DATA of `evaluate`, either of which may be left out.

    One argument alone is the MODEL if it is a directory that does not hold data.
    """
    if len(arguments) == 2:
        return find_model(arguments[0]), arguments[1]
    if not arguments:
        return find_model(None), None
    alone = arguments[0]
    path = Path(alone)
    if path.is_dir() and not _holds_data(path):
        return path, None
    if alone != "-" and not alone.startswith("hf:") and not path.exists():
        near = RUNS / alone
        hint = f"; did you mean {near}?" if near.is_dir() else ""
        raise DataError(f"{alone}: there is no such model directory and no such file{hint}")
    return find_model(None), alone


def _holds_data(path: Path) -> bool:
    names = {child.name for child in path.iterdir() if child.is_file()}
    if names & {"manifest.json", "experiment.json"}:
        return False
    return bool({name.partition(".")[0] for name in names} & _SETS)


def take_sentences(arguments: Sequence[str]) -> list[str]:
    """The sentences among the arguments, or those of standard input, one a line."""
    from textvae.data.rows import clean  # noqa: PLC0415 -- imports msgspec

    if arguments and list(arguments) != ["-"]:
        if "-" in arguments:
            raise DataError("- stands for standard input: give it alone, or give sentences")
        return [clean(_checked(text, number)) for number, text in enumerate(arguments, start=1)]
    return list(take_stream("-").without_blank())


class Stream(NamedTuple):
    """Rows that need not be in memory."""

    rows: Iterable[str]
    """The sentences, "" for a blank row."""
    where: str
    """Where they are from, for errors."""

    def without_blank(self) -> Iterator[str]:
        """The rows that are not blank; the others are counted on stderr at the end."""
        counts = RowCounts()
        for row, text in enumerate(self.rows):
            if text:
                yield text
            else:
                counts.exclude(row, Exclusion.BLANK)
        for line in counts.notes(self.where):
            log(line)


OTHERS = Stream((), "the first process")
"""The stream of every process but the first, from which it gets its sentences."""


def share_rows(rows: Iterable[str], *, together: int = SHARED_TOGETHER) -> Iterator[str]:
    """The rows of the first process at all of them; memory does not grow with them.

    They come `together` at a time. An error of the stream ends it for the others, and is raised by
    the first process, once those before it have come.
    """
    if distributed.size() == 1:
        yield from rows
        return
    from textvae.data.stream import chunks_until_error  # noqa: PLC0415 -- imports msgspec

    parts, error = chunks_until_error(rows, together), None
    while error is None:
        part, error = next(parts, ([], None))
        if not (text := distributed.broadcast("".join(f"{row}\n" for row in part))):
            break
        yield from text.removesuffix("\n").split("\n")
        if error is not None:
            distributed.broadcast("")
    if error is not None:
        raise error


def share_stdin(source: str | None) -> None:
    """Let all processes read, for `-`, what the first one has as its standard input."""
    if source == "-" and distributed.size() > 1:
        first = distributed.is_first() and sys.stdin is not None
        read = sys.stdin.buffer.read().decode("latin-1") if first else ""
        text = distributed.broadcast(read)
        sys.stdin = io.TextIOWrapper(io.BytesIO(text.encode("latin-1")), "utf-8")


def take_stream(
    source: str | None,
    text_column: str | None = None,
    *,
    separator: str | None = None,
    encoding: str | None = None,
    may_be_empty: bool = False,
    quiet: bool = False,
) -> Stream:
    """The rows of a file or table, or of standard input for `-` and None.

    Text without a sentence is refused when it has been read, unless it `may_be_empty`. On a
    terminal a bar counts the rows of long work, where results do not go to the same terminal: to a
    file or a pipe, or, of `quiet` work, nowhere before the end.
    """
    from textvae.data.stream import stream_texts  # noqa: PLC0415 -- imports msgspec

    source = "-" if source is None else source
    if source == "-":
        _ready_stdin()
    rows = stream_texts(
        source,
        text_column=text_column,
        separator=separator,
        encoding=encoding,
        may_be_empty=may_be_empty,
    )
    shown = sys.stderr is not None and sys.stderr.isatty()
    if shown and (quiet or sys.stdout is None or not sys.stdout.isatty()):
        from tqdm import tqdm  # noqa: PLC0415 -- 30 ms

        # A second pass over the rows has no bar: tqdm closes it after the first.
        rows = tqdm(rows, unit=" rows", delay=BAR_DELAY, leave=False, dynamic_ncols=True)
    return Stream(rows, "standard input" if source == "-" else source)


def take_sentence_stream(arguments: Sequence[str]) -> Stream:
    """The sentences among the arguments, or a stream of those of standard input."""
    if arguments and list(arguments) != ["-"]:
        return Stream(take_sentences(arguments), "the sentences given")
    return take_stream("-")


def _ready_stdin() -> None:
    if sys.stdin is None:  # what Python makes of a closed descriptor
        raise DataError("standard input: is closed; give one sentence a line, or as arguments")
    if sys.stdin.isatty():
        log("reading sentences from standard input, one a line; end with Ctrl-D")


def _checked(text: str, number: int) -> str:
    """A sentence that is UTF-8, not blank and holds no NUL, as the corpus reader wants it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(f"sentence {number}: is not UTF-8; convert it") from None
    if "\0" in text:
        raise DataError(f"sentence {number}: holds a NUL character; remove it")
    if not text.strip():
        raise DataError(f"sentence {number}: is blank; leave it out")
    return text
