"""Files of latents: .npz and .jsonl, written and read a chunk at a time, without pickle.

A .npz is a zip of arrays in numpy's format (NEP 1): here `mean` and `log_variance`, float32
`[N, Z]`, int64 `row` and bool `cut` `[N]`. How many rows there are stands in the header, before the
rows: they are spooled to unnamed files on the same disk first, so that memory does not grow with
N. A .jsonl has one object a line, `row`, `sentence`, `cut`, `mean` and `log_variance`; a line may
also be a plain list of numbers.

A file may come from an untrusted source. Headers are parsed by numpy under its limit on their
length, only arrays of floats are taken, and rows are read as they are needed, whatever a header
promises.
"""

import csv
import io
import struct
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from shutil import copyfileobj
from typing import IO, Any, BinaryIO

import msgspec
import torch
from numpy.lib import format as npy
from torch import Tensor

from textvae.api.latent_space import EncodedPart
from textvae.data.reading import LINE_BYTES
from textvae.data.stream import chunks
from textvae.errors import DataError
from textvae.storage.files import open_to_read, replacing, saying_why

FORMS = (".npz", ".jsonl")
"""The forms that are read again."""
TABLES = (".npy", ".csv", ".parquet")
"""Forms of the means alone: an array `[N, Z]`, or a table of row, text and mean."""
LARGEST = 1e6
"""The largest number of a latent: far beyond any that an encoder makes, with products that stay
finite in float32."""
ROWS = 1024
"""Latents read at once."""
_DTYPES = {"<f2": torch.float16, "<f4": torch.float32, "<f8": torch.float64}

Add = Callable[[EncodedPart], None]
"""Takes the next sentences and their posteriors."""


class Row(msgspec.Struct):
    """A line of a .jsonl file, as far as it is read."""

    mean: list[float]


def json_rows(part: EncodedPart) -> Iterator[bytes]:
    """The lines of a .jsonl file, without their ends; the numbers are those of float32."""
    names = ("row", "sentence", "cut", "mean", "log_variance")
    numbers = (part.posterior.mean.tolist(), part.posterior.log_variance.tolist())
    for values in zip(part.rows, part.texts, part.cut, *numbers, strict=True):
        yield msgspec.json.encode(dict(zip(names, values, strict=True)))


def check_form(path: Path) -> None:
    """Refuse a file name of another format.

    Raises:
        DataError: another suffix than .npz and .jsonl.
    """
    if path.suffix.lower() not in FORMS:
        raise DataError(f"{path}: latents are files named {' or '.join(FORMS)}; name it so")


def check_output_form(path: Path) -> None:
    """Refuse a file name of a format that is not written.

    Raises:
        DataError: another suffix than those of FORMS and TABLES.
    """
    names = (*FORMS, *TABLES)
    if path.suffix.lower() not in names:
        raise DataError(f"{path}: latents are written to files named {', '.join(names)}")


@contextmanager
def write_latents(path: Path) -> Iterator[Add]:
    """A function that takes posteriors; the file appears, whole, when the context ends well.

    Raises:
        DataError: another suffix than those of FORMS and TABLES.
        CheckpointError: the file cannot be written; an old one is untouched.
    """
    check_output_form(path)
    with replacing(path) as file:
        if path.suffix.lower() == ".csv":
            yield _csv_rows(path, file)
        elif path.suffix.lower() == ".parquet":
            with _parquet_rows(path, file) as add:
                yield add
        elif path.suffix.lower() == ".jsonl":

            def add_lines(part: EncodedPart) -> None:
                with saying_why(path):
                    file.writelines(row + b"\n" for row in json_rows(part))

            yield add_lines
        else:
            with _spooled(path, file) as add:
                yield add


def _csv_rows(path: Path, file: BinaryIO) -> Add:
    """Rows of `row`, `text` and a column for each dimension of the mean."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer, begun = csv.writer(text, lineterminator="\n"), list[bool]()

    def add(part: EncodedPart) -> None:
        mean = part.posterior.mean.tolist()
        with saying_why(path):
            if not begun and mean:
                begun.append(True)
                names = [f"mean_{place}" for place in range(len(mean[0]))]
                writer.writerow(["row", "text", *names])
            for row, sentence, numbers in zip(part.rows, part.texts, mean, strict=True):
                writer.writerow([row, sentence, *(f"{number:.9g}" for number in numbers)])

    return add


@contextmanager
def _parquet_rows(path: Path, file: BinaryIO) -> Iterator[Add]:
    """A table of `row`, `text` and `mean`, a list of float32."""
    import pyarrow  # noqa: PLC0415 -- slow, and only needed here
    from pyarrow import parquet  # noqa: PLC0415

    fields = [("row", pyarrow.int64()), ("text", pyarrow.string())]
    schema = pyarrow.schema([*fields, ("mean", pyarrow.list_(pyarrow.float32()))])
    with parquet.ParquetWriter(file, schema) as writer:

        def add(part: EncodedPart) -> None:
            columns = {"row": part.rows, "text": part.texts, "mean": part.posterior.mean.tolist()}
            with saying_why(path):
                writer.write_table(pyarrow.table(columns, schema=schema))

        yield add


@contextmanager
def _spooled(path: Path, file: BinaryIO) -> Iterator[Add]:
    shape, described = [0, 0], {"mean": "<f4", "log_variance": "<f4", "row": "<i8", "cut": "|b1"}
    is_archive = path.suffix.lower() == ".npz"
    if not is_archive:
        described = {"mean": "<f4"}
    with ExitStack() as stack:
        with saying_why(path):
            spools = {
                name: tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115 -- closed by the stack
                for name in described
            }
        for spool in spools.values():
            stack.callback(_close, spool)

        def add(part: EncodedPart) -> None:
            shape[0] += len(part.texts)
            shape[1] = part.posterior.mean.shape[1]
            numbers = (torch.tensor(part.rows), torch.tensor(part.cut))
            gaussian = part.posterior.apply(lambda values: values.float().cpu())
            columns = gaussian.mean, gaussian.log_variance, *numbers
            with saying_why(path):
                for name, values in zip(described, columns, strict=is_archive):
                    data = values.contiguous().numpy().astype(described[name])
                    spools[name].write(data.tobytes())

        yield add
        if not is_archive:
            with saying_why(path):
                header = {"descr": "<f4", "fortran_order": False, "shape": tuple(shape)}
                npy.write_array_header_1_0(file, header)
                spools["mean"].seek(0)
                copyfileobj(spools["mean"], file)
            return
        with saying_why(path), zipfile.ZipFile(file, "w") as archive:
            for name, spool in spools.items():
                spool.seek(0)
                # The date of the file and not of the clock: equal latents are equal bytes.
                member = zipfile.ZipInfo(f"{name}.npy")
                with archive.open(member, "w", force_zip64=True) as out:
                    size = tuple(shape) if name in ("mean", "log_variance") else (shape[0],)
                    header = {"descr": described[name], "fortran_order": False, "shape": size}
                    npy.write_array_header_1_0(out, header)
                    copyfileobj(spool, out)


def _close(spool: IO[bytes]) -> None:
    """Close a spool; on a full disk it fails to flush once more, which was reported before."""
    with suppress(OSError):
        spool.close()


def read_latents(source: str | Path, latent_dim: int) -> Iterator[Tensor]:
    """Latents, float32 `[at most ROWS, Z]` at a time, of a file that `write_latents` wrote.

    Args:
        source: a .npz with an array `mean` (or with one array), a .jsonl, or `-`, which is a
            .jsonl on standard input; lines are objects with `mean`, or lists of numbers.
        latent_dim: Z of the model.

    Raises:
        DataError: no such file, no latents, of another dimension, no numbers, or too large ones.
    """
    where = "standard input" if str(source) == "-" else str(source)
    path = Path(source)
    if where == str(source):
        check_form(path)
    if path.suffix.lower() == ".npz":
        blocks = _array_rows(path, latent_dim)
    else:
        blocks = _line_rows(str(source), where, latent_dim)
    row = 0
    for latents in blocks:
        bad = ~(latents.abs() <= LARGEST).all(1)
        if bool(bad.any()):
            first = int(bad.nonzero()[0, 0])
            place = row + first + 1
            raise DataError(
                f"{where}: row {place} holds a number that is not finite or exceeds {LARGEST:g}"
            )
        row += latents.shape[0]
        yield latents.float()
    if not row:
        raise DataError(f"{where}: holds no latents")


def _line_rows(source: str, where: str, latent_dim: int) -> Iterator[Tensor]:
    decoder = msgspec.json.Decoder(Row | list[float])

    def rows(file: IO[bytes]) -> Iterator[list[float]]:
        number = 0
        while raw := file.readline(LINE_BYTES + 1):
            number += 1
            if not raw.strip():
                continue
            try:
                line = decoder.decode(raw)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise DataError(
                    f"{where}:{number}: {error}; a line is a list of numbers, or an object with "
                    "`mean`"
                ) from None
            latent = line.mean if isinstance(line, Row) else line
            if len(latent) != latent_dim:
                raise DataError(
                    f"{where}:{number}: a latent of {len(latent)} numbers; this model takes "
                    f"{latent_dim}"
                )
            yield latent

    with ExitStack() as stack:
        if source == "-":
            if sys.stdin is None:
                raise DataError("standard input: is closed; give one latent a line")
            file: IO[bytes] = sys.stdin.buffer
        else:
            file = stack.enter_context(open_to_read(Path(source)))
        for chunk in chunks(rows(file), ROWS):
            yield torch.tensor(chunk, dtype=torch.float64)


def _array_rows(path: Path, latent_dim: int) -> Iterator[Tensor]:
    with open_to_read(path) as file:
        try:
            with zipfile.ZipFile(file) as archive, archive.open(_member(archive, path)) as member:
                rows, dtype = _header(member, path, latent_dim)
                for first in range(0, rows, ROWS):
                    count = min(ROWS, rows - first)
                    size = count * latent_dim * dtype.itemsize
                    data = bytearray(member.read(size))
                    if len(data) != size:
                        raise DataError(f"{path}: is cut short; write it again")
                    yield torch.frombuffer(data, dtype=dtype).view(count, latent_dim).double()
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            NotImplementedError,  # a compression that Python does not know
            RuntimeError,  # an encrypted member
            OSError,  # places before the beginning of the file
            ValueError,
            struct.error,
        ) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path}: damaged or no .npz file ({error}); write it again") from None


def _member(archive: zipfile.ZipFile, path: Path) -> str:
    names = archive.namelist()
    if "mean.npy" in names:
        return "mean.npy"
    if len(names) == 1:
        return names[0]
    raise DataError(f"{path}: holds no array `mean`, but {len(names)} others; name one so")


def _header(member: IO[bytes], path: Path, latent_dim: int) -> tuple[int, torch.dtype]:
    """The rows that an array has, and their type, of one that can be taken."""
    readers: dict[tuple[int, int], Callable[[Any], tuple[Any, bool, Any]]] = {
        (1, 0): npy.read_array_header_1_0,
        (2, 0): npy.read_array_header_2_0,
    }
    try:
        shape, by_column, dtype = readers[npy.read_magic(member)](member)
    except (ValueError, KeyError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise DataError(f"{path}: its array has no header that numpy can read") from None
    if dtype.str not in _DTYPES:
        raise DataError(f"{path}: an array of {dtype}; latents are float16, float32 or float64")
    if len(shape) != 2 or shape[1] != latent_dim or shape[0] < 0:
        raise DataError(f"{path}: an array of shape {shape}; this model takes (N, {latent_dim})")
    if by_column and min(shape) > 1:
        raise DataError(f"{path}: its array lies in columns; save numpy.ascontiguousarray of it")
    return int(shape[0]), _DTYPES[dtype.str]
