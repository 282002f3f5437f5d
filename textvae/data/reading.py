r"""One file, stream or hub data set to rows of text, read strictly.

Forms: `.txt`, `.csv`, `.tsv`, `.jsonl` (and `.ndjson`, `.json`), each also `.gz`; `.parquet` and
`hf:name[:config][@revision]`; `-` is standard input. A suffix not named here reads as text.

The rules, the same for every local form:

- UTF-8, with or without a byte order mark. An invalid byte or a NUL refuses the file, with the
  line: guessing an encoding would train on mojibake.
- Lines end with `\n` or `\r\n`. A sentence is one line of text: line breaks inside it (a lone
  `\r`, a line feed in a quoted cell or a JSON string) become one blank each run. A file whose
  only line ends are `\r` is refused. Blanks at either end of a sentence are taken off.
- Cells are text: `NA`, `null` and `007` stay what they are. CSV follows RFC 4180 and its first
  row names the columns; TSV knows no quotes; both refuse a row with more or fewer cells.
- JSON rows are objects whose text is a string; labels may be strings, numbers or booleans.
- Empty and blank rows stay here, as "", so that labels keep step; the caller drops and counts.
"""

import csv
import difflib
import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from math import inf
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from textvae.data.columns import Columns, find_columns, table_rows
from textvae.data.rows import Rows, clean, refuse_nul
from textvae.data.unpacking import FREE, RATIO, gunzip, refuse_unpacked
from textvae.errors import DataError

TEXT_FORMS = (".txt", ".csv", ".tsv", ".jsonl", ".ndjson", ".json")
LINE_BYTES = 2**24
"""A longer line is refused: the file is not text."""


def read_rows(source: str, columns: Columns, stdin: BinaryIO | None = None) -> Rows:
    """All rows of a local file or of standard input; DataError in one sentence."""
    where = "standard input" if source == "-" else source
    form = form_of(source)
    if form == ".txt":
        if columns != Columns():
            raise DataError(
                f"{where}: plain text has no columns; leave out --text-column and --label-column, "
                "or name the file .csv, .tsv or .jsonl"
            )
        return Rows([clean(line) for line in text_lines(source, stdin)])
    text = decode_text(source_bytes(source, stdin), where)
    if form in (".csv", ".tsv"):
        return _read_table(text, where, columns, quoted=form == ".csv")
    return _read_json_lines(text, where, columns)


def text_lines(source: str, stdin: BinaryIO | None = None) -> Iterator[str]:
    """The lines of a text file or of standard input, one at a time.

    Raises:
        DataError: at the first line that is not text, or over `LINE_BYTES`; a missing file.
    """
    where = "standard input" if source == "-" else source
    limit = inf
    if source != "-" and Path(source).suffix.lower() == ".gz":
        limit = FREE + RATIO * Path(source).stat().st_size if Path(source).is_file() else inf
    with open_text(source, stdin) as file:
        size = number = 0
        try:
            while raw := file.readline(LINE_BYTES + 1):
                number += 1
                size += len(raw)
                if len(raw) > LINE_BYTES:
                    raise DataError(
                        f"{where}:{number}: a line of over {LINE_BYTES:,} bytes; no text?"
                    )
                if size > limit:
                    refuse_unpacked(size, Path(source).stat().st_size, source)
                line = decode_text(raw, where) if number == 1 else _decode(raw, where, number)
                if line:  # nothing is left of a byte order mark alone
                    yield line
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise _damaged(source, error) from error


def open_text(source: str, stdin: BinaryIO | None = None) -> AbstractContextManager[BinaryIO]:
    """The bytes of a text file, unpacked where its name ends in `.gz`, or of standard input."""
    if source == "-":
        if stdin is None and sys.stdin is None:  # what Python makes of a closed descriptor
            raise DataError("standard input: is closed; give one sentence a line")
        return nullcontext(stdin or cast("BinaryIO", sys.stdin.buffer))
    try:
        if Path(source).suffix.lower() == ".gz":
            return cast("BinaryIO", gzip.open(source))  # a stream of bytes too
        return Path(source).open("rb")
    except (OSError, ValueError):
        source_bytes(source)  # raises, and suggests a name
        raise


def form_of(source: str) -> str:
    """The suffix that says how to read a source, without `.gz`; `.txt` where there is no other."""
    suffixes = [suffix.lower() for suffix in Path(source).suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    known = (*TEXT_FORMS, ".parquet")
    return suffixes[-1] if suffixes and suffixes[-1] in known else ".txt"


def source_bytes(source: str, stdin: BinaryIO | None = None) -> bytes:
    """The bytes of a file, unpacked where its name ends in `.gz`, or of standard input for `-`."""
    if source == "-":
        return (stdin or sys.stdin.buffer).read()
    path = Path(source)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{source}: there is no such file{_near(path)}") from None
    except IsADirectoryError:
        raise DataError(f"{source}: is a directory, expected a file") from None
    except OSError as error:
        raise DataError(f"{source}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{source!r}: no possible file name: {error}") from error
    if path.suffix.lower() != ".gz":
        return data
    try:
        return gunzip(data, source)
    except (EOFError, zlib.error, OSError) as error:
        raise _damaged(source, error) from error


def _damaged(source: str, error: Exception) -> DataError:
    return DataError(
        f"{source}: damaged or cut short as a gzip file ({error}); fetch or pack it again"
    )


def _near(path: Path) -> str:
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return "; check the path"
    nearest = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {path.with_name(nearest[0])}?" if nearest else "; check the path"


def decode_text(data: bytes, where: str) -> str:
    """Strict UTF-8 without its byte order mark; DataError with the line of the first bad byte."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{where}: is UTF-16, not UTF-8; save it as UTF-8")
    if data[:2] == b"\x1f\x8b":
        raise DataError(f"{where}: is a gzip file; give it a name that ends in .gz")
    text = _decode(data.removeprefix(b"\xef\xbb\xbf"), where, 1)
    if "\n" not in text and "\r" in text.strip():
        raise DataError(f"{where}: its lines end in a lone carriage return; make them line feeds")
    return text


def _decode(data: bytes, where: str, line: int) -> str:
    """Strict UTF-8 without NUL; `line` is the number of the first line, for errors."""
    nul = data.find(b"\0")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        if nul < 0 or error.start < nul:
            line += data.count(b"\n", 0, error.start)
            raise DataError(
                f"{where}:{line}: byte 0x{data[error.start]:02x} is not UTF-8; "
                "convert the file to UTF-8 or repair the line"
            ) from None
    if nul >= 0:
        line += data.count(b"\n", 0, nul)
        refuse_nul(f"{where}:{line}")
    return text


def split_lines(text: str) -> list[str]:
    r"""The lines between `\n`; no other character ends a line, and the last `\n` opens none."""
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return lines


def _read_table(text: str, where: str, requested: Columns, *, quoted: bool) -> Rows:
    rows = _quoted_rows(text, where) if quoted else _tabbed_rows(text)
    start = next((index for index, (_, cells) in enumerate(rows) if cells), None)
    if start is None:
        return Rows([""] * len(rows))
    header = rows[start][1]
    names = [name.strip() for name in header]
    columns = find_columns(names, requested, where)
    lines, cells = [], []
    for line, row in rows[:start] + rows[start + 1 :]:
        if row and len(row) != len(names):
            advice = "quote cells that hold a comma" if quoted else "remove tabs inside cells"
            raise DataError(
                f"{where}:{line}: {len(row)} cells where the header has {len(names)}; {advice}"
            )
        lines.append(line)
        cells.append(row or [""] * len(names))
    place = names.index(columns.text or "")
    texts = [row[place] for row in cells]
    if columns.label is None:
        return table_rows(where, columns, requested, texts, None, lines)
    place = names.index(columns.label)
    return table_rows(where, columns, requested, texts, [row[place] for row in cells], lines)


def _quoted_rows(text: str, where: str) -> list[tuple[int, list[str]]]:
    """Line number and cells of each CSV row; no cells for an empty line."""
    reader = csv.reader(io.StringIO(text, newline="\n"), strict=True)
    # The limit of 131,072 characters would refuse the file; long cells are dropped and counted.
    limit = csv.field_size_limit(2**31 - 1)
    try:
        return [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        reason = str(error).partition(" - ")[0]
        raise DataError(
            f"{where}:{reader.line_num}: not CSV: {reason}; check the quotes up to this line"
        ) from None
    finally:
        csv.field_size_limit(limit)


def _tabbed_rows(text: str) -> list[tuple[int, list[str]]]:
    lines = enumerate(split_lines(text), start=1)
    return [(number, line.split("\t") if line.strip() else []) for number, line in lines]


def _read_json_lines(text: str, where: str, requested: Columns) -> Rows:
    numbered = [(number, line) for number, line in enumerate(split_lines(text), start=1)]
    rows = [(number, line) for number, line in numbered if line.strip()]
    if not rows:
        return Rows([""] * len(numbered))
    first = _decode_json(msgspec.json.Decoder(dict[str, Any]), rows[0][1], f"{where}:{rows[0][0]}")
    columns = find_columns(list(first), requested, where)
    assert columns.text is not None
    # Only the two fields are built, whatever else a row holds, and their types are checked.
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = [("text", str)]
    renamed = {"text": columns.text}
    if columns.label is not None:
        fields.append(("label", Any, None))
        renamed["label"] = columns.label
    for name in renamed.values():
        if any(letter in '\\"' or letter < " " for letter in name):  # no field of msgspec's
            raise DataError(
                f"{where}: the column {ascii(name)[:60]} has a quote, backslash or control "
                "character in its name; rename it"
            )
    decoder = msgspec.json.Decoder(msgspec.defstruct("Row", fields, rename=renamed))
    structs: list[Any] = []
    for number, line in rows:
        structs.append(_decode_json(decoder, line, f"{where}:{number}"))
    labels = None if columns.label is None else [row.label for row in structs]
    lines = [number for number, _ in rows]
    read = table_rows(where, columns, requested, [row.text for row in structs], labels, lines)
    return _with_blanks(read, len(numbered) - len(rows))


def _decode_json(decoder: msgspec.json.Decoder[Any], line: str, where: str) -> Any:
    try:
        return decoder.decode(line)
    except (msgspec.DecodeError, RecursionError) as error:
        raise DataError(
            f"{where}: {error}; every line must be one JSON object with a string for its text"
        ) from None


def _with_blanks(rows: Rows, number: int) -> Rows:
    """The same rows and so many blank ones, which are only counted."""
    labels = None if rows.labels is None else rows.labels + [""] * number
    return rows._replace(texts=rows.texts + [""] * number, labels=labels)
