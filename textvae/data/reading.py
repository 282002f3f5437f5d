r"""One file, stream or hub data set to rows of text, read strictly.

Forms: `.txt`, `.csv`, `.tsv`, `.jsonl` (and `.ndjson`, `.json`), each also `.gz`, `.bz2`, `.xz`;
`.parquet` and `hf:name[:config][@revision]`; `-` is standard input. A suffix not named here reads
as text.

The rules, the same for every local form:

- UTF-8, with or without a byte order mark; UTF-16 with one; or the encoding that is named. An
  invalid byte or a NUL refuses the file, with the line: guessing would train on mojibake.
- Lines end with `\n` or `\r\n`. A sentence is one line of text: line breaks inside it (a lone
  `\r`, a line feed in a quoted cell or a JSON string) become one blank each run. A file whose
  only line ends are `\r` is refused. Blanks at either end of a sentence are taken off.
- Cells are text: `NA`, `null` and `007` stay what they are. CSV follows RFC 4180 and its first
  row names the columns; TSV knows no quotes; both refuse a row with more or fewer cells. A CSV
  whose cells are separated by `;`, tab or `|` is read as such, with a note.
- JSON is one value a line, or one array: of strings, or of objects whose text is a string or a list
  of tokens, at the top or nested (`data.text`); labels may be strings, numbers or booleans.
- Empty, blank and missing text stays here, as "", so that rows and labels keep step; the caller
  drops and counts.
"""

import csv
import difflib
import io
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from math import inf
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from textvae.data.columns import Columns, find_columns, table_rows
from textvae.data.rows import Rows, clean, refuse_nul
from textvae.data.separators import find_separator
from textvae.data.unpacking import (
    DAMAGED,
    FREE,
    PACKED,
    RATIO,
    name_packed,
    refuse_unpacked,
    unpack,
)
from textvae.errors import DataError, MemoryLimitError
from textvae.storage.files import memory_size

TEXT_FORMS = (".txt", ".csv", ".tsv", ".jsonl", ".ndjson", ".json")
LINE_BYTES = 2**24
"""A longer line is refused: the file is not text."""
ROW_BYTES = 64
"""That a row takes beside its characters."""
WIDE_BYTES = 2**31
"""The most of a text in UTF-16, which is decoded at once."""
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
HEAD = 100
"""Rows of JSON whose fields are the columns."""


def read_rows(
    source: str, columns: Columns, stdin: BinaryIO | None = None, encoding: str | None = None
) -> Rows:
    """All rows of a local file or of standard input; DataError in one sentence."""
    where = "standard input" if source == "-" else source
    form = form_of(source)
    if form == ".txt":
        if columns.text is not None or columns.label is not None:
            raise DataError(
                f"{where}: plain text has no columns; leave out --text-column and --label-column, "
                "or name the file .csv, .tsv or .jsonl"
            )
        return Rows(_lines_that_fit(text_lines(source, stdin, encoding), where))
    text = decode_text(source_bytes(source, stdin), where, encoding)
    if form in (".csv", ".tsv"):
        return _read_table(text, where, columns, is_tsv=form == ".tsv")
    return _read_json(text, where, columns)


def _lines_that_fit(lines: Iterable[str], where: str) -> list[str]:
    """Clean lines; a MemoryLimitError before text that has no end takes all memory."""
    rows, left = list[str](), memory_size() // 2  # tokens and a model need the rest
    for line in lines:
        rows.append(clean(line))
        left -= len(rows[-1]) + ROW_BYTES
        if left < 0:
            raise MemoryLimitError(
                f"{where}:{len(rows)}: more text than fits into memory; give less, or a file with "
                "data.stream=true"
            )
    return rows


def text_lines(
    source: str, stdin: BinaryIO | None = None, encoding: str | None = None
) -> Iterator[str]:
    """The lines of a text file or of standard input, one at a time.

    Raises:
        DataError: at the first line that is not text, or over `LINE_BYTES`; a missing file.
    """
    where = "standard input" if source == "-" else source
    limit = inf
    if source != "-" and Path(source).suffix.lower() in PACKED:
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
                if number == 1 and (raw[:2] in UTF16_MARKS or is_wide(encoding)):
                    whole = raw + file.read(int(min(limit, WIDE_BYTES)) + 1)
                    yield from split_lines(decode_text(whole, where, encoding))
                    return
                line = (
                    decode_text(raw, where, encoding)
                    if number == 1
                    else _decode(raw, where, number, encoding)
                )
                if line:  # nothing is left of a byte order mark alone
                    yield line
        except (*DAMAGED, OSError) as error:  # a bare OSError is bzip2's word for damage
            if Path(source).suffix.lower() not in PACKED:
                raise
            raise _damaged(source, error) from error


def open_text(source: str, stdin: BinaryIO | None = None) -> AbstractContextManager[BinaryIO]:
    """The bytes of a text file, unpacked where its name says so, or of standard input."""
    if source == "-":
        if stdin is None and sys.stdin is None:  # what Python makes of a closed descriptor
            raise DataError("standard input: is closed; give one sentence a line")
        return nullcontext(stdin or cast("BinaryIO", sys.stdin.buffer))
    refuse_device(source)
    try:
        if (suffix := Path(source).suffix.lower()) in PACKED:
            return cast("BinaryIO", PACKED[suffix](source))  # a stream of bytes too
        return Path(source).open("rb")
    except (OSError, ValueError):
        source_bytes(source)  # raises, and suggests a name
        raise


def form_of(source: str) -> str:
    """The suffix that says how to read a source, unpacked; `.txt` where there is no other."""
    suffixes = [suffix.lower() for suffix in Path(source).suffixes]
    if suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    known = (*TEXT_FORMS, ".parquet")
    return suffixes[-1] if suffixes and suffixes[-1] in known else ".txt"


def source_bytes(source: str, stdin: BinaryIO | None = None) -> bytes:
    """The bytes of a file, unpacked where its name says so, or of standard input for `-`."""
    if source == "-":
        return (stdin or sys.stdin.buffer).read()
    path = Path(source)
    refuse_device(source)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        if path.is_symlink():
            raise DataError(
                f"{source}: is a link to {path.readlink()}, which is not there; mend the link"
            ) from None
        raise DataError(f"{source}: there is no such file{_near(path)}") from None
    except IsADirectoryError:
        raise DataError(f"{source}: is a directory, expected a file") from None
    except OSError as error:
        raise DataError(f"{source}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{source!r}: no possible file name: {error}") from error
    if (suffix := path.suffix.lower()) not in PACKED:
        return data
    try:
        return unpack(data, source, suffix)
    except (*DAMAGED, OSError) as error:
        raise _damaged(source, error) from error


def refuse_device(source: str) -> None:
    """DataError for a device that never ends, such as /dev/zero."""
    endless = ("zero", "full", "random", "urandom")
    if Path(source).is_char_device() and Path(source).resolve().name in endless:
        raise DataError(f"{source}: is a device without an end, expected a file")


def is_pipe(source: str) -> bool:
    """True for a named pipe, which can be read only once."""
    try:
        return source != "-" and Path(source).is_fifo()
    except ValueError:  # a NUL in the name
        return False


def _damaged(source: str, error: Exception) -> DataError:
    kind = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz"}[Path(source).suffix.lower()]
    return DataError(
        f"{source}: damaged or cut short as a {kind} file ({error}); fetch or pack it again"
    )


def _near(path: Path) -> str:
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return "; check the path"
    nearest = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {path.with_name(nearest[0])}?" if nearest else "; check the path"


def is_wide(encoding: str | None) -> bool:
    """True for an encoding whose line ends are not the byte of a line feed."""
    return encoding is not None and "a\n".encode(encoding)[-2:] != b"a\n"


def check_encoding(encoding: str) -> None:
    """DataError for a name that is no encoding of text."""
    try:
        "a".encode(encoding)
    except (LookupError, ValueError):
        raise DataError(
            f"--encoding {encoding}: is not known; names are latin-1, cp1252, utf-16, gbk, ..."
        ) from None


def decode_text(data: bytes, where: str, encoding: str | None = None) -> str:
    """Strict UTF-8 (or another encoding) without its byte order mark; UTF-16 that has one.

    Raises:
        DataError: with the line of the first bad byte; a packed file, by its kind.
    """
    name_packed(data, where)
    if encoding is None and data[:2] in UTF16_MARKS:
        encoding = "utf-32" if data[2:4] == b"\0\0" else "utf-16"
    text = _decode(data.removeprefix(b"\xef\xbb\xbf"), where, 1, encoding)
    if "\n" not in text and "\r" in text.strip():
        raise DataError(f"{where}: its lines end in a lone carriage return; make them line feeds")
    return text


def _decode(data: bytes, where: str, line: int, encoding: str | None = None) -> str:
    """Strict UTF-8 (or `encoding`) without NUL; `line` is the number of the first line."""
    if encoding is not None:
        try:
            text = data.decode(encoding)
        except UnicodeError as error:
            raise DataError(f"{where}: is not {encoding} from line {line} on: {error}") from None
        if "\0" in text:
            refuse_nul(f"{where}:{line + text.count(chr(10), 0, text.index(chr(0)))}")
        return text
    nul = data.find(b"\0")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        if nul < 0 or error.start < nul:
            line += data.count(b"\n", 0, error.start)
            raise DataError(
                f"{where}:{line}: byte 0x{data[error.start]:02x} is not UTF-8; "
                "give --encoding, such as latin-1, or convert the file (iconv -t UTF-8)"
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


def _read_table(text: str, where: str, requested: Columns, *, is_tsv: bool) -> Rows:
    separator = requested.separator or ("\t" if is_tsv else find_separator(text, where))
    rows = (
        _tabbed_rows(text) if is_tsv and separator == "\t" else _quoted_rows(text, where, separator)
    )
    start = next((index for index, (_, cells) in enumerate(rows) if cells), None)
    if start is None:
        return Rows([""] * len(rows))
    note = None
    if separator != ("\t" if is_tsv else ","):
        note = f"{where}: cells are separated by {separator!r}"
    header = rows[start][1]
    names = [name.strip() for name in header]
    columns = find_columns(names, requested, where)
    lines, cells = [], []
    for line, row in rows[start + 1 :]:
        if row and len(row) != len(names):
            name = {",": "a comma", "\t": "a tab"}.get(separator, repr(separator))
            advice = "remove tabs inside cells" if is_tsv else f"quote cells that hold {name}"
            raise DataError(
                f"{where}:{line}: {len(row)} cells where the header has {len(names)}; {advice}, or "
                "name what separates cells with --separator"
            )
        lines.append(line)
        cells.append(row or [""] * len(names))
    place = names.index(columns.text or "")
    texts = [row[place] for row in cells]
    labels = None
    if columns.label is not None:
        place = names.index(columns.label)
        labels = [row[place] for row in cells]
    read = table_rows(where, columns, requested, texts, labels, lines)
    notes = [one for one in (note, read.note) if one is not None]
    return read._replace(note="; ".join(notes) or None)


def _quoted_rows(text: str, where: str, separator: str) -> list[tuple[int, list[str]]]:
    """Line number and cells of each CSV row; no cells for an empty line."""
    reader = csv.reader(io.StringIO(text, newline="\n"), strict=True, delimiter=separator)
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


def _read_json(text: str, where: str, requested: Columns) -> Rows:
    """Rows of JSON, one value a line or one array."""
    if text.lstrip()[:1] == "[" and not _is_lines(text):
        array = _decode_json(msgspec.json.Decoder(list[msgspec.Raw]), text, where)
        values = [(f"{where}: item {number}", bytes(raw)) for number, raw in enumerate(array, 1)]
    else:
        lines = enumerate(split_lines(text), start=1)
        values = [(f"{where}:{number}", line.encode()) for number, line in lines]
    numbered = [(place, raw) for place, raw in values if raw.strip() not in (b"", b"null")]
    if not numbered:
        return Rows([""] * len(values))
    head = [_decode_json(_ANY, raw, place) for place, raw in numbered[:HEAD]]
    first = type(head[0]) if isinstance(head[0], dict | str | list) else dict
    for (place, _), value in zip(numbered, head, strict=False):
        if not isinstance(value, first):
            name = {dict: "object", str: "string", list: "list of tokens"}[first]
            raise DataError(f"{place}: found {type(value).__name__}, expected a JSON {name}")
    if isinstance(head[0], str | list):
        if requested.text is not None or requested.label is not None:
            raise DataError(f"{where}: its rows are strings, which have no columns; name none")
        decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_TEXT)
        rows = {place: _decode_json(decoder, raw, place) for place, raw in numbered}
        texts = [clean(_as_text(rows.get(place))) for place, _ in values]
        for (place, _), row in zip(values, texts, strict=True):
            if "\0" in row:
                refuse_nul(place)
        return Rows(texts)
    columns = _json_columns(head, requested, where)
    rows = _json_fields(numbered, columns, where)
    texts = [_as_text(rows[place][0]) if place in rows else "" for place, _ in values]
    labels = [rows[place][1] if place in rows else None for place, _ in values]
    places = range(1, len(values) + 1)
    of_labels = None if columns.label is None else labels
    return table_rows(where, columns, requested, texts, of_labels, places)


_TEXT: Any = str | list[str] | None
_ANY: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


def _as_text(value: str | list[str] | None) -> str:
    return " ".join(value) if isinstance(value, list) else value or ""


def _is_lines(text: str) -> bool:
    """True if the first line is a JSON value by itself and others follow, as lists of tokens do."""
    first, _, rest = text.lstrip().partition("\n")
    try:
        _ANY.decode(first)
    except (msgspec.DecodeError, RecursionError):
        return False
    return bool(rest.strip())


def _json_columns(head: list[Any], requested: Columns, where: str) -> Columns:
    """The columns among the fields of the first rows, or inside them: `data.text`."""
    names = list(dict.fromkeys(name for row in head for name in row))
    for name in (requested.text, requested.label):
        if name is not None and name not in names and any(_inside(r, name)[0] for r in head):
            names.append(name)
    return find_columns(names, requested, where)


def _inside(row: Any, name: str) -> tuple[bool, Any]:
    """True and the value of a nested field, such as `data.text`; False where there is none."""
    if isinstance(row, dict) and name in row:
        return True, row[name]
    for part in name.split("."):
        if not isinstance(row, dict) or part not in row:
            return False, None
        row = row[part]
    return True, row


def _json_fields(
    numbered: list[tuple[str, bytes]], columns: Columns, where: str
) -> dict[str, tuple[Any, Any]]:
    """The text and the label of each row, by its place."""
    assert columns.text is not None
    names = [columns.text] if columns.label is None else [columns.text, columns.label]
    for name in names:
        if any(letter in '\\"' or letter < " " for letter in name):  # no field of msgspec's
            raise DataError(
                f"{where}: the column {ascii(name)[:60]} has a quote, backslash or control "
                "character in its name; rename it"
            )
    # Only the two fields are built, whatever else a row holds, and their types are checked.
    fields: list[tuple[str, Any, Any]] = [("text", _TEXT, None), ("label", Any, None)]
    renamed = {"text": columns.text, "label": columns.label or "no label"}
    decoder = msgspec.json.Decoder(msgspec.defstruct("Row", fields, rename=renamed))
    nested = [name for name in names if "." in name]
    result: dict[str, tuple[Any, Any]] = {}
    for place, raw in numbered:
        if nested:
            row = _decode_json(msgspec.json.Decoder(dict[str, Any]), raw, place)
            text = _inside(row, columns.text)[1]
            try:
                text = msgspec.convert(text, _TEXT)
            except msgspec.ValidationError as error:
                raise DataError(f"{place}: {columns.text}: {error}") from None
            result[place] = (text, _inside(row, columns.label or "")[1])
        else:
            one = _decode_json(decoder, raw, place)
            result[place] = (one.text, one.label)
    return result


_LONE_SURROGATE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    r"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)


def _decode_json(decoder: msgspec.json.Decoder[Any], data: str | bytes, where: str) -> Any:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        text = data if isinstance(data, str) else bytes(data).decode(errors="replace")
        if lone := _LONE_SURROGATE.search(text):
            raise DataError(
                f"{where}: holds the lone surrogate {lone.group()}, which is no Unicode character; "
                "remove it"
            ) from None
        raise DataError(
            f"{where}: {error}; rows are JSON objects with a string for their text, one a line or "
            "in one array"
        ) from None
