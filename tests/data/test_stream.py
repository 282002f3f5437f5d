"""A stream of sentences is what the reader of files reads, and memory does not grow with it."""

import gzip
import io
import tracemalloc
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from textvae.data.corpus import read_sentences
from textvae.data.reading import LINE_BYTES
from textvae.data.stream import Lines, chunks, stream_texts
from textvae.errors import DataError

TEXT = "\ufeffa b\r\n\n  c\td \nlast line, no end"


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "noted.md"])
def test_a_stream_is_what_the_reader_reads(tmp_path: Path, name: str) -> None:
    data = TEXT.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    found = stream_texts(str(tmp_path / name))
    assert isinstance(found, Lines)
    read = read_sentences(tmp_path / name)
    for _ in range(2):  # a file may be read again
        assert list(found) == ["a b", "", "c\td", "last line, no end"]
        assert [list(found)[row] for row in read.rows] == read.texts
    assert list(stream_texts("-", stdin=io.BytesIO(data))) == list(found)


def test_tables_are_read_whole(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\n1,a b\n2,\n3,c d\n", encoding="utf-8")
    assert stream_texts(str(tmp_path / "a.csv")) == ["a b", "", "c d"]
    assert stream_texts(str(tmp_path / "a.csv"), text_column="id") == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "holds nothing"),
        (b"\n \n", "holds only 2 blank lines"),
        (b"a\nb \xff\n", ":2: byte 0xff is not UTF-8"),
        (b"\xffa\n", ":1: byte 0xff is not UTF-8"),
        (b"a\n\0\n", ":2: holds a NUL"),
        (b"\0\n", ":1: holds a NUL"),
        ("a\nb\n".encode("utf-16") + b"c", "is not utf-16"),
        (b"\x1f\x8b\x08", "is a gzip file"),
        (b"a\rb\r", "lone carriage return"),
        (b"a\n" + b"b" * (LINE_BYTES + 2), ":2: a line of over 16,777,216 bytes"),
    ],
    ids=lambda value: ascii(value[:20]),
)
def test_what_is_no_text_is_refused(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(DataError) as caught:
        list(stream_texts(str(tmp_path / "a.txt")))
    assert said in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "a.txt"))


def test_a_file_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_bytes(b"a\n")
    with pytest.raises(DataError, match=r"no such file; did you mean .*words\.txt"):
        stream_texts(str(tmp_path / "word.txt"))
    assert list(stream_texts(str(tmp_path))) == list(stream_texts(str(tmp_path / "words.txt")))


def test_a_damaged_gzip_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"a b c\n" * 100)[:-9])
    with pytest.raises(DataError, match="damaged or cut short as a gzip file"):
        list(stream_texts(str(tmp_path / "a.txt.gz")))


class Endless(io.RawIOBase):
    """As many lines as anybody reads."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        buffer[:] = (b"a sentence of some words\n" * (len(buffer) // 25 + 1))[: len(buffer)]
        return len(buffer)


def test_memory_does_not_grow_with_the_stream() -> None:
    lines: Iterator[str] = iter(Lines("-", io.BufferedReader(Endless())))
    tracemalloc.start()
    try:
        assert sum(1 for _ in islice(lines, 50_000)) == 50_000
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_chunks_hold_every_item_once() -> None:
    assert list(chunks(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(chunks([], 3)) == []
