"""Files to rows: what is read, what is refused, and where the error says it is."""

import bz2
import gzip
import io
import json
import logging
import lzma
import re
from pathlib import Path

import pytest

from textvae.data.corpus import Sentences, read_sentences
from textvae.errors import DataError


def write(folder: Path, name: str, content: str | bytes) -> str:
    data = content.encode() if isinstance(content, str) else content
    path = folder / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return str(path)


def refusal(source: str, **options: object) -> str:
    """The words of the DataError, which is one line."""
    with pytest.raises(DataError) as caught:
        read_sentences(source, **options)  # type: ignore[arg-type]
    words = str(caught.value)
    assert "\n" not in words
    assert len(words) < 500
    return words


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a", "a.TXT", "a.corpus", "a.txt.GZ"])
def test_plain_text(tmp_path: Path, name: str) -> None:
    content = "first line\nsecond, line\n\u05e9\u05dc\u05d5\u05dd"
    data = content.encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.lower().endswith(".gz") else data)
    read = read_sentences(path)
    assert read.texts == content.split("\n")
    assert read.labels is None
    assert read.source == read.report.source == str(path)
    assert (read.report.rows, read.report.kept, read.report.column) == (3, 3, None)


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ("\ufeffa b\nc", ["a b", "c"]),
        ("a\r\nb\r\n", ["a", "b"]),
        ("a\nb", ["a", "b"]),
        (" a  b \t\nc\u3000\n", ["a  b", "c"]),
        ("a\rb\nc\r\r\n", ["a b", "c"]),
        ("a\u2028b\x0bc\x85d\n", ["a\u2028b\x0bc\x85d"]),
        ("NA\n007\nnull\n1e5\n", ["NA", "007", "null", "1e5"]),
        ('"quoted", text\n', ['"quoted", text']),
    ],
    ids=["bom", "crlf", "no last end", "ends", "lone cr", "other breaks", "values", "quotes"],
)
def test_lines(tmp_path: Path, content: str, texts: list[str]) -> None:
    assert read_sentences(write(tmp_path, "a.txt", content)).texts == texts


def test_dropped_rows_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", "one\n\n  \t\n" + "x" * 11 + "\n" + "y" * 10 + "\n")
    report = read_sentences(path, max_characters=10).report
    assert (report.rows, report.kept, report.blank, report.too_long_characters) == (5, 2, 2, 1)


def test_the_checksum_is_of_what_was_kept(tmp_path: Path) -> None:
    def checksum(name: str, content: str) -> str:
        return read_sentences(write(tmp_path, name, content)).report.sha256

    first = checksum("a.txt", "a\nb\n")
    assert first == checksum("b.txt.gz", "\ufeffa\r\n\r\n b ")
    assert len({first, checksum("c.txt", "b\na"), checksum("d.txt", "a b")}) == 3
    assert checksum("a.csv", "text,label\na,x\nb,y\n") != checksum(
        "b.csv", "text,label\na,x\nb,z\n"
    )


BAD = {
    "invalid byte": (b"good\nalso\nb\xffad\n", r":3: byte 0xff is not UTF-8"),
    "latin-1": ("caf\u00e9\n".encode("latin-1"), r":1: byte 0xe9 is not UTF-8"),
    "cut character": (b"a\n\xe5\xba", r":2: byte 0xe5"),
    "surrogate": (b"\xed\xa0\x80", r":1: byte 0xed"),
    "nul": (b"a\nb\nc\0d\n", r":3: holds a NUL"),
    "nul before an invalid byte": (b"a\0\n\xff", r":1: holds a NUL"),
    "utf-16": ("a\nb".encode("utf-16") + b"c", r"is not utf-16 from line 1 on"),
    "zip": (b"PK\x03\x04 and more", r"is a zip archive"),
    "xz": (b"\xfd7zXZ\0", r"is an xz file; give it a name that ends in \.xz"),
    "bzip2": (bz2.compress(b"a"), r"is a bzip2 file"),
    "pdf": (b"%PDF-1.7", r"is a PDF document"),
    "parquet": (b"PAR1", r"is a parquet file"),
    "gzip without its name": (gzip.compress(b"a"), r"\.gz"),
    "old line ends": (b"a\rb\rc\r", r"carriage return"),
    "empty": (b"", r"is empty"),
    "only a mark": (b"\xef\xbb\xbf", r"is empty"),
    "blank": (b"\n \n\t\r\n", r"all its 3 rows are blank"),
    "too long": (b"x" * 10_001, r"longer than 10,000 characters"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("packed", [False, True])
def test_bad_text(tmp_path: Path, case: str, packed: bool) -> None:
    data, words = BAD[case]
    name = "a.txt.gz" if packed else "a.txt"
    path = write(tmp_path, name, data)
    message = refusal(path)
    assert message.startswith(path)
    assert re.search(words, message), message


@pytest.mark.parametrize("kept", [5, 23, -1])
def test_a_gzip_file_cut_short(tmp_path: Path, kept: int) -> None:
    data = gzip.compress(b"a sentence\n" * 97)
    path = tmp_path / "a.txt.gz"
    path.write_bytes(data[:kept])
    assert "damaged or cut short" in refusal(str(path))


def test_a_damaged_gzip_file(tmp_path: Path) -> None:
    data = bytearray(gzip.compress("".join(f"{n * n}\n" for n in range(997)).encode()))
    refused = 0
    for place in range(0, len(data), 37):
        changed = bytes(data[:place]) + bytes([data[place] ^ 0x55]) + bytes(data[place + 1 :])
        path = tmp_path / "a.txt.gz"
        path.write_bytes(changed)
        try:
            assert len(read_sentences(path).texts) == 997  # a byte of the header that says nothing
        except DataError:
            refused += 1
    assert refused > 50
    path.write_bytes(b"plain text\n")
    assert "damaged" in refusal(str(path))


def test_places_that_are_no_file(tmp_path: Path) -> None:
    write(tmp_path, "train.txt", "a\nb\n")
    message = refusal(str(tmp_path / "trian.txt"))
    assert "there is no such file" in message
    assert "did you mean" in message
    assert "train.txt" in message
    assert "no such file" in refusal(str(tmp_path / "none" / "a.txt"))
    assert "no such file" in refusal(str(tmp_path / "a.parquet"))
    assert "file name" in refusal("a\0b")
    assert "directory" in refusal(str(write_empty_folder(tmp_path)))


def write_empty_folder(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def test_standard_input() -> None:
    read = read_sentences("-", stdin=io.BytesIO(b"\xef\xbb\xbfa\r\n\nb"))
    assert read.texts == ["a", "b"]
    assert read.source == "standard input"
    assert "standard input:2: byte 0xff" in refusal("-", stdin=io.BytesIO(b"a\n\xff"))
    assert "standard input: is empty" in refusal("-", stdin=io.BytesIO(b""))


def texts_and_labels(read: Sentences) -> tuple[list[str], list[str] | None]:
    return read.texts, read.labels


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_csv(tmp_path: Path, name: str, end: str) -> None:
    lines = ["id,Text,label", "1,NA,pos", '2,"He said ""hi"", twice",007', "", "3, 007 ,null"]
    path = write(tmp_path, name, "\ufeff" + end.join(lines) + end)
    read = read_sentences(path)
    assert texts_and_labels(read) == (
        ["NA", 'He said "hi", twice', "007"],
        ["pos", "007", "null"],
    )
    report = read.report
    assert (report.column, report.label_column) == ("Text", "label")
    assert (report.rows, report.kept, report.blank) == (4, 3, 1)


def test_a_line_feed_in_a_cell_becomes_a_blank(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", 'text\n"two\n\nlines"\n"and\r\ntwo"\n')
    assert read_sentences(path).texts == ["two lines", "and two"]


def test_long_cells_are_dropped_not_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text\nshort\n" + "x" * 200_003 + "\n")
    assert read_sentences(path).report.too_long_characters == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("text,label\na,b\nc\n", r":3: 1 cells where the header has 2"),
        ('text,label\n"a\nb",x\nc,d,e\n', r":4: 3 cells where the header has 2"),
        ('text\n"never closed\na\n', r"not CSV: .*quotes"),
        ('text\n"a"b\n', r":2: not CSV"),
        ("text\na\rb\n", r":2: not CSV: new-line character"),
        ("one,two\na,b\n", r"none of its columns \('one', 'two'\).*--text-column"),
        ("text,text\na,b\n", r"two columns named 'text'"),
        ("text,label\n", r"is empty"),
        ("text,label\n,\n", r"rows are blank"),
        ("text\na\0b\n", r":2: holds a NUL"),
    ],
)
def test_bad_csv(tmp_path: Path, content: str, words: str) -> None:
    assert re.search(words, refusal(write(tmp_path, "a.csv", content)))


def test_tsv_knows_no_quotes(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", 'sentence\tn\r\n"open, and 5" wide\tx\r\n\r\na\rb\ty\r\n')
    read = read_sentences(path, label_column="n")
    assert texts_and_labels(read) == (['"open, and 5" wide', "a b"], ["x", "y"])
    path = write(tmp_path, "b.tsv", "text\tn\na\n")
    assert re.search(":2: 1 cells where the header has 2", refusal(path))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.ndjson", "a.json"])
def test_json_lines(tmp_path: Path, name: str) -> None:
    rows = [
        {"text": "NA", "label": 1, "deep": {"x": [1]}},
        {"text": "two\nlines", "label": "b"},
        {"label": True, "text": " \u2028x "},
        {"text": "", "label": None},
    ]
    content = "\n\n".join(json.dumps(row) for row in rows) + "\n"
    read = read_sentences(write(tmp_path, name, content))
    assert texts_and_labels(read) == (["NA", "two lines", "x"], ["1", "b", "true"])
    assert (read.report.rows, read.report.kept, read.report.blank) == (7, 3, 4)


GOOD = '{"text": "a"}\n'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (GOOD + "\n" + '{"text": "a"\n', r":3: .*rows are JSON objects"),
        (GOOD + '{"text": 5}\n', r":2: Expected `str | array | null`, got `int`"),
        (GOOD + '{"text": ["a", 5]}\n', r":2: Expected `str`, got `int` - at `\$.text\[1\]"),
        (GOOD + "[1]\n", r":2: found list, expected a JSON object"),
        ('["a", {"text": "a"}]\n', r": item 2: found dict, expected a JSON string"),
        ('["a", "b"', r"a\.jsonl: .*truncated"),
        ('["a"]\n["b\\u0000"]\n', r"a\.jsonl:2: holds a NUL"),
        (GOOD + '{"text": "\\ud800"}\n', r":2: holds the lone surrogate \\ud800"),
        (GOOD + '{"text": "a \\ud83d b"}\n', r":2: holds the lone surrogate \\ud83d"),
        (GOOD + '{"text": "a \\uDE00 b"}\n', r":2: holds the lone surrogate \\uDE00"),
        ('["a", "\\ud83d\\ude00 \\ud83d"]\n', r"a\.jsonl: holds the lone surrogate"),
        (GOOD + '{"text": "a\\u0000"}\n', r":2: holds a NUL"),
        ('{"one": "a", "two": "b"}\n', r"none of its columns \('one', 'two'\)"),
        (GOOD + '{"x": ' + "[" * 100_000 + "\n", r":2: "),
        ("[" * 100_000 + "\n", r"a\.jsonl: "),
        ("\n\n", r"rows are blank"),
    ],
)
def test_bad_json_lines(tmp_path: Path, content: str, words: str) -> None:
    assert re.search(words, refusal(write(tmp_path, "a.jsonl", content)))


@pytest.mark.parametrize(
    ("header", "options", "columns"),
    [
        ("text,title", {}, ("text", None)),
        ("title,review,n", {}, ("review", None)),
        ("utterance", {}, ("utterance", None)),
        ("whatever", {}, ("whatever", None)),
        ("whatever,LABEL", {}, ("whatever", "LABEL")),
        ("whatever,intent", {"label_column": "intent"}, ("whatever", "intent")),
        ("text,body,label", {"text_column": "body"}, ("body", "label")),
        ("text,n", {"text_column": "TEXT", "label_column": "N"}, ("text", "n")),
        ("label,text", {"text_column": "label"}, ("label", None)),
    ],
)
def test_columns_found(
    tmp_path: Path, header: str, options: dict[str, str], columns: tuple[str, str | None]
) -> None:
    names = header.split(",")
    path = write(tmp_path, "a.csv", f"{header}\n" + ",".join(f"in {name}" for name in names))
    read = read_sentences(path, **options)  # type: ignore[arg-type]
    assert (read.report.column, read.report.label_column) == columns
    assert read.texts == [f"in {columns[0]}"]


def test_columns_not_found(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text,intent\na,b\n")
    assert "did you mean 'intent'" in refusal(path, label_column="intant")
    assert "has no column 'q', but 'text', 'intent'" in refusal(path, text_column="q")
    assert "both the text and the label" in refusal(path, text_column="text", label_column="text")
    plain = write(tmp_path, "a.txt", "a\n")
    assert "plain text has no columns" in refusal(plain, text_column="text")


def test_blank_labels(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text,label\na,x\nb,\n")
    for column in (None, "label"):
        assert read_sentences(path, label_column=column).labels == ["x", ""]
    rows = ['{"text": "a", "label": "x"}', '{"text": "b", "label": null}', '{"text": "c"}']
    path = write(tmp_path, "b.jsonl", "\n".join([*rows, ""]))
    assert read_sentences(path, label_column="label").labels == ["x", "", ""]
    path = write(tmp_path, "c.jsonl", "\n".join([*rows, '{"text": "d", "label": ["x"]}', ""]))
    assert read_sentences(path).labels is None
    assert re.search(":4: no label in column 'label'", refusal(path, label_column="label"))


def parquet(path: Path, columns: dict[str, list[object]]) -> str:
    pyarrow = pytest.importorskip("pyarrow")
    tables = pytest.importorskip("pyarrow.parquet")
    tables.write_table(pyarrow.table(columns), path)
    return str(path)


def test_parquet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    columns = {"n": [1, 2, 3], "sentence": ["NA", None, "007"], "label": ["x", "y", "x"]}
    path = parquet(tmp_path / "a.parquet", columns)  # type: ignore[arg-type]
    read = read_sentences(path)
    assert texts_and_labels(read) == (["NA", "007"], ["x", "x"])
    assert (read.report.rows, read.report.blank, read.report.column) == (3, 1, "sentence")
    assert "row 1 of column 'n' is 1, not text" in refusal(path, text_column="n")
    assert "check that it is a parquet file" in refusal(write(tmp_path, "b.parquet", b"PAR1"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["hf:", "hf:a b", "hf:a@", "hf:a::b"])
def test_hub_names_of_another_form(name: str) -> None:
    assert "hf:name[:config][@revision]" in refusal(name)


def test_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["bad", "good"]),
        }
    )
    split = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    asked: list[tuple[object, ...]] = []

    def load(name: str, config: str | None, revision: str | None, streaming: bool) -> object:
        asked.append((name, config, revision, streaming))
        return datasets.DatasetDict({"train": split, "test": split.select([1])})

    monkeypatch.setattr(datasets, "load_dataset", load)
    read = read_sentences("hf:somebody/some-set:en@v1")
    assert asked == [("somebody/some-set", "en", "v1", False)]
    assert texts_and_labels(read) == (["b"], ["bad"])
    assert read.source == "hf:somebody/some-set:en@v1 test"
    assert read_sentences("hf:x", split="train").labels == ["good", "bad"]
    assert "has train and test but no valid set" in refusal("hf:x", split="valid")
    level = logging.getLogger("datasets").level

    def fail(*arguments: object, **options: object) -> object:
        raise ConnectionError("no\nnetwork " + "x" * 997)

    monkeypatch.setattr(datasets, "load_dataset", fail)
    assert "hf:x: ConnectionError: no network" in refusal("hf:x")
    assert logging.getLogger("datasets").level == level


# -- files as people bring them --------------------------------------------------------------------


def every_row(source: str, **options: object) -> tuple[list[str], list[int]]:
    read = read_sentences(source, **options)  # type: ignore[arg-type]
    assert len(read.rows) + len(read.excluded) == read.report.rows
    return read.texts, read.rows.tolist()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "a b\n\nc\n"),
        ("a.csv", "id,text\n1,a b\n2,\n3,c\n"),
        ("a.tsv", "id\ttext\n1\ta b\n2\t\n3\tc\n"),
        ("a.jsonl", '{"text":"a b"}\n{"text":null}\n{"text":"c"}\n'),
        ("a.jsonl", '{"text":"a b"}\n\n{"text":"c"}\n'),
        ("a.jsonl", '{"id":1,"text":"a b"}\n{"id":2}\n{"id":3,"text":"c"}\n'),
        ("a.json", '[{"text":"a b"},null,{"text":"c"}]'),
        ("a.json", '[\n  "a b",\n  "",\n  "c"\n]\n'),
        ("a.jsonl", '"a b"\nnull\n"c"\n'),
        ("a.jsonl", '["a","b"]\n[]\n["c"]\n'),
        ("a.json", '[{"text":["a","b"]},{"text":[]},{"text":"c"}]'),
    ],
    ids=lambda value: value[:30],
)
def test_missing_text_is_a_blank_row_of_every_format(
    tmp_path: Path, name: str, content: str
) -> None:
    assert every_row(write(tmp_path, name, content)) == (["a b", "c"], [0, 2])


def test_a_null_of_parquet_is_a_blank_row(tmp_path: Path) -> None:
    import datasets  # noqa: PLC0415 -- slow to import

    for rows in (["a b", None, "c"], [["a", "b"], [], ["c"]]):
        datasets.Dataset.from_dict({"text": rows}).to_parquet(tmp_path / "a.parquet")
        assert every_row(str(tmp_path / "a.parquet")) == (["a b", "c"], [0, 2])


def test_nested_fields_are_columns(tmp_path: Path) -> None:
    content = '{"data":{"text":"a","mood":1},"x":0}\n{"data":null}\n{"data":{"text":"b"}}\n'
    file = write(tmp_path, "a.jsonl", content)
    assert every_row(file, text_column="data.text") == (["a", "b"], [0, 2])
    read = read_sentences(file, text_column="data.text", label_column="data.mood")
    assert read.labels == ["1", ""]
    assert "has no column 'data.words'" in refusal(file, text_column="data.words")


@pytest.mark.parametrize("separator", [";", "\t", "|", ","])
@pytest.mark.parametrize("text", ["the food; was good", "plain", "with, a comma", "a|b"])
def test_separators_are_found(tmp_path: Path, separator: str, text: str) -> None:
    cell = f'"{text}"' if separator in text else text
    rows = [["id", "text", "label"], *([str(i), cell, "x"] for i in range(7))]
    file = write(tmp_path, "a.csv", "".join(separator.join(row) + "\n" for row in rows))
    assert texts_and_labels(read_sentences(file)) == ([text] * 7, ["x"] * 7)
    if text == "plain":
        assert every_row(file, separator=separator)[0] == [text] * 7


def test_separators_that_do_not_fit_are_named(tmp_path: Path) -> None:
    file = write(tmp_path, "a.csv", "id;text\n1;a\n2;b;c\n")
    assert "separated by ';', but rows have other numbers of cells" in refusal(file)
    assert ":3: 3 cells where the header has 2; quote cells that hold ';'" in refusal(
        file, separator=";"
    )
    assert "--separator 'ab': is one character" in refusal(file, separator="ab")
    one = write(tmp_path, "b.csv", "text\na; b\nc\n")
    assert every_row(one)[0] == ["a; b", "c"]
    assert every_row(write(tmp_path, "c.tsv", "id;text\n1;a\n"), separator=";")[0] == ["a"]


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
def test_encodings(tmp_path: Path, name: str) -> None:
    lines = ["caf\u00e9 cr\u00e8me", "", "na\u00efve"]
    rows = {"a.txt": lines, "a.csv": ["text,id", *(f"{line},1" for line in lines)]}.get(name)
    rows = rows or [json.dumps({"text": line}, ensure_ascii=False) for line in lines]
    content = "\n".join(rows)
    for encoding in ("latin-1", "cp1252", "utf-16-le", "utf-8"):
        file = write(tmp_path, name, content.encode(encoding))
        assert every_row(file, encoding=encoding) == ([lines[0], lines[2]], [0, 2])
    assert every_row(write(tmp_path, name, content.encode("utf-16")))[1] == [0, 2]
    file = write(tmp_path, name, content.encode("latin-1"))
    assert "byte 0xe9 is not UTF-8; give --encoding, such as latin-1" in refusal(file)
    for encoding in ("latin-7000", "hex", "rot13"):
        assert f"--encoding {encoding}: is not known" in refusal(file, encoding=encoding)


@pytest.mark.parametrize("suffix", [".bz2", ".xz"])
def test_packed_files(tmp_path: Path, suffix: str) -> None:
    pack = {".bz2": bz2.compress, ".xz": lzma.compress}[suffix]
    assert every_row(write(tmp_path, f"a.txt{suffix}", pack(b"a\n\nb\n"))) == (["a", "b"], [0, 2])
    assert every_row(write(tmp_path, f"a.csv{suffix}", pack(b"text\na\n")))[0] == ["a"]
    for name in ("b.txt", "b.csv"):
        cut = write(tmp_path, f"{name}{suffix}", pack(b"text\n" * 99)[:-9])
        assert "damaged or cut short" in refusal(cut)
    bomb = write(tmp_path, f"c.csv{suffix}", pack(bytes(2**27)))
    assert "text does not pack so well" in refusal(bomb)


def test_links_devices_and_pipes(tmp_path: Path) -> None:
    (tmp_path / "a.txt").symlink_to(tmp_path / "gone.txt")
    assert "gone.txt, which is not there; mend the link" in refusal(str(tmp_path / "a.txt"))
    for name in ("/dev/zero", "/dev/urandom"):
        assert refusal(name) == f"{name}: is a device without an end, expected a file"
