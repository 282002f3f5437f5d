"""Bombs are refused before they fill the memory, and text that packs well is not."""

import gzip
import tracemalloc
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from textvae.data.unpacking import check_parquet, unpack
from textvae.errors import DataError


def zeros(mebibytes: int) -> bytes:
    one = gzip.compress(bytes(2**20))
    return one * mebibytes  # members follow one another, as `cat` leaves them


def test_a_gzip_bomb_is_refused_early() -> None:
    bomb = zeros(1013)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"^a.gz: its [\d,]+ bytes unpack to over .*text does not"):
        unpack(bomb, "a.gz", ".gz")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 150 * 2**20


def test_small_files_and_repeated_text_are_not_bombs() -> None:
    assert unpack(zeros(5), "a.gz", ".gz") == bytes(5 * 2**20)
    line = b"the same sentence again and again , as a corpus of commands may have it\n"
    assert unpack(gzip.compress(line * 500_000, 1), "a.gz", ".gz") == line * 500_000


@pytest.mark.parametrize("rows", [["x" * 2**20] * 997, [None] * 20_000_003], ids=["text", "empty"])
def test_a_parquet_bomb_is_refused_by_its_dictionary(tmp_path: Path, rows: list[str]) -> None:
    file = tmp_path / "a.parquet"
    values = pyarrow.array(rows[:1], pyarrow.string())
    indices = pyarrow.array([0] * len(rows), pyarrow.int32())
    if rows[0] is None:
        column = pyarrow.nulls(len(rows), pyarrow.string())
    else:
        column = pyarrow.DictionaryArray.from_arrays(indices, values)
    parquet.write_table(pyarrow.table({"text": column}), file, compression="zstd")
    assert file.stat().st_size < 2**20
    with pytest.raises(DataError, match=r"a.parquet: its [\d,]+ bytes unpack to over"):
        check_parquet(str(file))


def test_an_ordinary_parquet_file_passes(tmp_path: Path) -> None:
    rows = {"text": ["a b", None, "c d"] * 101, "label": [1, 2, 3] * 101}
    parquet.write_table(pyarrow.table(rows), tmp_path / "a.parquet")
    check_parquet(str(tmp_path / "a.parquet"))
