"""Packed text whose size is known before the memory for it is taken, and what is packed by name.

Text packs 3 to 20 times smaller, a file of one repeated sentence perhaps 200 times. A gzip of
zeros packs 1,030 times smaller and a dictionary-coded parquet column without any limit.
"""

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from textvae.errors import DataError

FREE = 2**26
"""Bytes that any file may unpack to."""
RATIO = 200
"""Bytes that a byte of a larger file may unpack to."""
PACKED: dict[str, Callable[[Any], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
"""Opens packed files, by the end of their names."""
DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError)
"""Errors of packed files that are damaged; also, of bzip2, a bare OSError."""
_PART = 2**20
_KINDS = {
    rb"\x1f\x8b": "a gzip file; give it a name that ends in .gz",
    rb"BZh[1-9]1AY&SY": "a bzip2 file; give it a name that ends in .bz2",
    rb"\xfd7zXZ\0": "an xz file; give it a name that ends in .xz",
    rb"\x28\xb5\x2f\xfd": "a zstd file; unpack it",
    rb"PK\x03\x04": "a zip archive (so is .xlsx, .docx); unpack it, or save it as text or .csv",
    rb"7z\xbc\xaf": "a 7z archive; unpack it",
    rb"%PDF-": "a PDF document; save its text as a text file",
    rb"PAR1": "a parquet file; give it a name that ends in .parquet",
}


def name_packed(data: bytes, where: str) -> None:
    """DataError for the bytes of a packed file or a document, which says what it is."""
    for beginning, words in _KINDS.items():
        if re.match(beginning, data):
            raise DataError(f"{where}: is {words}")


def unpack(data: bytes, source: str, suffix: str) -> bytes:
    """The contents of a packed file, whose kind is the `suffix`.

    Raises:
        DataError: it unpacks to over 64 MiB and 200 times its size.
        OSError, EOFError, zlib.error, lzma.LZMAError: damaged.
    """
    packed, parts, size = io.BytesIO(data), [], 0
    with PACKED[suffix](packed) as file:
        while part := file.read(_PART):
            parts.append(part)
            size += len(part)
            _check(size, packed.tell(), source)
    return b"".join(parts)


def check_parquet(source: str) -> None:
    """Refuse a parquet file whose rows would fill the memory, from its header and dictionaries.

    Raises:
        DataError: it unpacks to over 64 MiB and 200 times its size.
        Exception: whatever pyarrow raises for what is no parquet file.
    """
    from pyarrow import compute, parquet, types  # noqa: PLC0415 -- as datasets, only when needed

    packed = Path(source).stat().st_size
    with parquet.ParquetFile(source) as file:
        about, schema = file.metadata, file.schema_arrow
        groups = [about.row_group(number) for number in range(about.num_row_groups)]
        pages = sum(group.total_byte_size for group in groups)
        _check(max(pages, 8 * about.num_rows), packed, source)
        names = [
            one.name
            for one in schema
            if types.is_string(getattr(one.type, "value_type", one.type))  # a dictionary's too
            and not types.is_nested(one.type)
        ]
    unpacked = 0
    with parquet.ParquetFile(source, read_dictionary=names) as file:
        # Of a column in dictionary code each row is a number of 4 bytes, whatever it stands for.
        for batch in file.iter_batches(columns=names) if names else ():
            for column in batch.columns:
                unpacked += _text_bytes(column, compute)
                _check(unpacked, packed, source)


def _text_bytes(column: Any, compute: Any) -> int:
    if not hasattr(column, "dictionary"):
        return int(column.nbytes)
    sizes = compute.binary_length(column.dictionary)
    return int(compute.sum(sizes.take(column.indices)).as_py() or 0)


def _check(unpacked: int, packed: int, source: str) -> None:
    if unpacked > FREE + RATIO * packed:
        refuse_unpacked(unpacked, packed, source)


def refuse_unpacked(unpacked: int, packed: int, source: str) -> NoReturn:
    """DataError for a file that unpacks to too much."""
    raise DataError(
        f"{source}: its {packed:,} bytes unpack to over {unpacked:,}; text does not pack so "
        "well, so unpack it yourself if you trust it"
    )
