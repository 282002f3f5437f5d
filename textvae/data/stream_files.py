"""The files that a streamed corpus is appended to, segment by segment, and what is known of them.

After each segment its sizes and checksums are a line in progress.jsonl, flushed after the data are:
a run that was interrupted checks the segments it has, cuts off what came after them, and goes on.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import msgspec
import torch

from textvae.config import Config
from textvae.data.rows import rows_of
from textvae.data.segments import Cut, Segment, encode_all
from textvae.data.stream import chunks
from textvae.data.tokenizer import Tokenizer
from textvae.storage.files import saying_why, write_file

PROGRESS, TEXTS = "progress.jsonl", "test.txt"
SEGMENT = 20_000
"""Rows of a segment."""

Report = Callable[[str], None]


class Counts(Config):
    """Sums over all segments so far."""

    sentences: int = 0
    num_words: int = 0
    num_characters: int = 0
    too_long_tokens: int = 0
    num_tokens: int = 0


class Line(Config):
    """A segment in progress.jsonl, and the sums up to it."""

    rows: int
    blank: int
    too_long_characters: int
    counts: dict[str, Counts]
    sizes: dict[str, int]
    """Of each file, in bytes, with this segment."""
    sha256: dict[str, str]
    """Of what this segment added to each file."""


def append(
    folder: Path,
    place: str,
    text_column: str | None,
    tokenizer: Tokenizer,
    cut: Cut,
    workers: int,
    report: Report,
) -> Line:
    """Tokenize what is not there yet; the last line of the progress."""
    names = ["train", *(name for name, _ in cut.edges)]
    files = [f"{name}.{kind}" for name in names for kind in ("tokens", "offsets")] + [TEXTS]
    last = _resumed(folder, files, names)
    rows = islice(rows_of(place, text_column), last.rows, None)
    if last.rows:
        report(f"{place}: tokenized up to row {last.rows:,}, goes on from there")
    with saying_why(folder):
        for file in files:
            (folder / file).touch()
            os.truncate(folder / file, last.sizes[file])
        for segment in encode_all(chunks(rows, SEGMENT), tokenizer, cut, workers):
            last = _write(folder, files, segment, last)
            if last.rows % (50 * SEGMENT) == 0:
                report(f"{place}: {last.rows:,} rows tokenized")
    return last


def _write(folder: Path, files: list[str], segment: Segment, last: Line) -> Line:
    """Append a segment, flushed to the disk before the line that says so."""
    counts, content = dict(last.counts), dict.fromkeys(files, b"")
    for name, part in segment.parts.items():
        before = counts[name]
        lengths = torch.tensor(part.lengths, dtype=torch.int64)
        offsets = lengths.cumsum(0) + before.num_tokens
        if not last.rows:
            offsets = torch.cat([offsets.new_zeros(1), offsets])
        content[f"{name}.tokens"] = part.tokens.tobytes()
        content[f"{name}.offsets"] = offsets.numpy().tobytes()
        if name == "test":
            content[TEXTS] = "".join(f"{text}\n" for text in part.texts).encode()
        counts[name] = Counts(
            sentences=before.sentences + len(part.lengths),
            num_words=before.num_words + part.num_words,
            num_characters=before.num_characters + part.num_characters,
            too_long_tokens=before.too_long_tokens + part.too_long_tokens,
            num_tokens=before.num_tokens + len(part.tokens),
        )
    for file, data in content.items():
        with (folder / file).open("ab") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
    line = Line(
        rows=last.rows + segment.rows,
        blank=last.blank + segment.blank,
        too_long_characters=last.too_long_characters + segment.too_long_characters,
        counts=counts,
        sizes={file: last.sizes[file] + len(data) for file, data in content.items()},
        sha256={file: hashlib.sha256(data).hexdigest() for file, data in content.items()},
    )
    with (folder / PROGRESS).open("ab") as out:
        out.write(msgspec.json.encode(line) + b"\n")
        out.flush()
        os.fsync(out.fileno())
    return line


def _resumed(folder: Path, files: list[str], names: list[str]) -> Line:
    """The last segment of which all is there and as it was written; later lines are taken off."""
    nothing = Line(
        rows=0,
        blank=0,
        too_long_characters=0,
        counts={n: Counts() for n in names},
        sizes=dict.fromkeys(files, 0),
        sha256={},
    )
    good, last = b"", nothing
    for raw, line in read_lines(folder / PROGRESS):
        if not all(
            _is_whole(folder / file, last.sizes[file], line.sizes[file], line.sha256[file])
            for file in files
        ):
            break
        good, last = good + raw, line
    write_file(folder / PROGRESS, good)
    return last


def read_lines(file: Path) -> Iterator[tuple[bytes, Line]]:
    """The lines of a progress.jsonl, and what they say; up to the first that cannot be read."""
    if file.is_file():
        with file.open("rb") as lines:
            for raw in lines:
                try:
                    yield raw, msgspec.json.decode(raw if raw.endswith(b"\n") else b"", type=Line)
                except msgspec.DecodeError:  # cut short by a crash
                    return


def _is_whole(file: Path, start: int, stop: int, sha256: str) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as data:
        data.seek(start)
        return hashlib.sha256(data.read(stop - start)).hexdigest() == sha256
