"""Malformed corpora, latents and options, written out: refused in one line, nothing changed."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

Refuse = Callable[..., str]
FEW = ": 1 different sentences are too few for trai"
LINES = b"".join(b"word%d and another\n" % number for number in range(40))
PACKED = gzip.compress(LINES, mtime=0)
CORPORA: dict[str, tuple[bytes, str]] = {
    "csv more cells.csv": (b"text,label\na,b\na,b,c\n", ":3: 3 cells where the header has 2"),
    "csv fewer cells.csv": (b"text,label\na,b\na\n", ":3: 1 cells where the header has 2"),
    "csv open quote.csv": (b'text\n"abc\nd\n', ":3: not CSV"),
    "csv text after quote.csv": (b'text,label\n"a"b,c\n', ":2: not CSV"),
    "csv unknown columns.csv": (b"x,y\na,b\n", ": none of its columns ('x', 'y') is known to"),
    "csv no names.csv": (b",\na,b\n", ": none of its columns ('', '') is known to h"),
    "csv twice text.csv": (b"text,text\na,b\n", ": has two columns named 'text'"),
    "csv twice label.csv": (b"text,label,label\na,b,c\n", ": has two columns named 'label'"),
    "csv header alone.csv": (b"text,label\n", ": is empty"),
    "csv blank cells.csv": (b"text,label\n ,x\n\t,y\n", ": all its 2 rows are blank"),
    "csv nul.csv": (b"text\na\n\0\n", ":3: holds a NUL character"),
    "csv latin-1.csv": (b"text\ncaf\xe9\n", ":2: byte 0xe9 is not UTF-8"),
    "csv utf-16.csv": (
        "text\na\n".encode("utf-16"),
        FEW,
    ),
    "csv packed.csv": (PACKED, ": is a gzip file"),
    "csv lone returns.csv": (b"text\ra\rb\r", ": its lines end in a lone carriage return"),
    "csv mark alone.csv": (b"\xef\xbb\xbf", ": is empty"),
    "csv open header.csv": (b'"text\n', ":1: not CSV"),
    "tsv more cells.tsv": (b"text\tlabel\na\tb\tc\n", ":2: 3 cells where the header has 2"),
    "tsv fewer cells.tsv": (b"text\tlabel\na\n", ":2: 1 cells where the header has 2"),
    "tsv unknown columns.tsv": (b"x\ty\na\tb\n", ": none of its columns ('x', 'y') is known to"),
    "tsv header alone.tsv": (b"text\tlabel\n", ": is empty"),
    "tsv is csv.tsv": (b"text,label\na,b\n", FEW),
    "tsv nul.tsv": (b"text\ta\nb\0\tc\n", ":2: holds a NUL character"),
    "jsonl list.jsonl": (b'["a"]\n', FEW),
    "jsonl number.jsonl": (b"3\n", ":1: "),
    "jsonl string.jsonl": (b'"a b"\n', FEW),
    "jsonl null.jsonl": (b"null\n", ": all its 1 rows are blank"),
    "jsonl plain text.jsonl": (b"a sentence\n", ":1: "),
    "jsonl whole list.jsonl": (
        b'[\n{"text": "a"}\n]\n',
        FEW,
    ),
    "jsonl cut.jsonl": (b'{"text": "a"}\n{"text": "b', ":2: "),
    "jsonl comma.jsonl": (b'{"text": "a"},\n', ":1: "),
    "jsonl two a line.jsonl": (b'{"text": "a"} {"text": "b"}\n', ":1: "),
    "jsonl single quotes.jsonl": (b"{'text': 'a'}\n", ":1: "),
    "jsonl empty object.jsonl": (b"{}\n", ": none of its columns () is known to hold th"),
    "jsonl text number.jsonl": (b'{"text": 3}\n', ":1: "),
    "jsonl text null.jsonl": (b'{"text": null}\n', ": all its 1 rows are blank"),
    "jsonl text list.jsonl": (b'{"text": ["a"]}\n', FEW),
    "jsonl text missing.jsonl": (
        b'{"text": "a"}\n{"txt": "b"}\n',
        FEW,
    ),
    "jsonl row list.jsonl": (b'{"text": "a"}\n[]\n', ":2: "),
    "jsonl nul.jsonl": (b'{"text": "a\\u0000b"}\n', ":1: holds a NUL character"),
    "jsonl nul in a name.jsonl": (b'{"te\\u0000t": "a"}\n', r": the column 'te\x00t' has a quote"),
    "jsonl quote in a name.jsonl": (b'{"te\\"t": "a"}\n', ": the column 'te\"t' has a quote"),
    "jsonl surrogate.jsonl": (b'{"text": "a \\ud800"}\n', ":1: "),
    "jsonl deep.jsonl": (b'{"text": ' + b"[" * 5000 + b"\n", ":1: "),
    "jsonl no utf-8.jsonl": (b'{"text": "\xff"}\n', ":1: byte 0xff is not UTF-8"),
    "jsonl bad escape.jsonl": (b'{"text": "\\x"}\n', ":1: "),
    "jsonl control.jsonl": (b'{"text": "a\x01"}\n', ":1: "),
    "ndjson unknown.ndjson": (
        b'{"a": "x", "b": "y"}\n',
        ": none of its columns ('a', 'b') is known to",
    ),
    "json pretty.json": (b'{\n  "text": "a"\n}\n', ":1: "),
    "txt lone returns.txt": (b"a b\rc d\re f\r", ": its lines end in a lone carriage return"),
    "txt nul.txt": (b"a b\n\0\nc\n", ":2: holds a NUL character"),
    "txt utf-16 le.txt": ("a b\nc d\n".encode("utf-16-le"), ":1: holds a NUL character"),
    "txt utf-16 mark.txt": (b"\xff\xfea\0", FEW),
    "txt utf-16 be mark.txt": (b"\xfe\xff\0a", FEW),
    "txt utf-32.txt": ("a b\n".encode("utf-32"), FEW),
    "txt latin-1.txt": (LINES + b"na\xefve\n", ":41: byte 0xef is not UTF-8"),
    "txt surrogates.txt": (LINES + b"\xed\xa0\x80\n", ":41: byte 0xed is not UTF-8"),
    "txt overlong.txt": (LINES + b"\xc0\x80\n", ":41: byte 0xc0 is not UTF-8"),
    "txt beyond Unicode.txt": (LINES + b"\xf5\x80\x80\x80\n", ":41: byte 0xf5 is not UTF-8"),
    "txt cut.txt": (LINES + b"caf\xc3", ":41: byte 0xc3 is not UTF-8"),
    "txt packed.txt": (PACKED, ": is a gzip file"),
    "txt mark alone.txt": (b"\xef\xbb\xbf", ": is empty"),
    "txt returns and blanks.txt": (b"\r\n \r\n\r\n", ": all its 3 rows are blank"),
    "txt wide blanks.txt": ("\u3000\n\u00a0\n\u2003\n".encode(), ": all its 3 rows are blank"),
    "txt one line.txt": (b"only one sentence", FEW),
    "txt all the same.txt": (
        b"one and the same\n" * 100,
        FEW,
    ),
    "txt parquet.txt": (
        b"PAR1\x15\x00\x00\x00PAR1",
        ": is a parquet file",
    ),
    "txt too long.txt": (
        b"%s\n" % (b"x" * 10_001) * 5,
        ": every sentence is longer than 10,000 chara",
    ),
    "gz nothing.txt.gz": (b"", ": is empty"),
    "gz text.txt.gz": (LINES, ": damaged or cut short as a gzip file"),
    "gz cut.txt.gz": (PACKED[:-9], ": damaged or cut short as a gzip file"),
    "gz head alone.txt.gz": (PACKED[:10], ": damaged or cut short as a gzip file"),
    "gz checksum.txt.gz": (
        PACKED[:-8] + bytes(4) + PACKED[-4:],
        ": damaged or cut short as a gzip file",
    ),
    "gz size.txt.gz": (PACKED[:-4] + b"\xff" * 4, ": damaged or cut short as a gzip file"),
    "gz changed.txt.gz": (
        PACKED[:20] + bytes(20) + PACKED[40:],
        ": damaged or cut short as a gzip file",
    ),
    "gz more behind.txt.gz": (PACKED + b"garbage", ": damaged or cut short as a gzip file"),
    "gz twice.txt.gz": (gzip.compress(PACKED), ": is a gzip file"),
    "gz no utf-8.txt.gz": (gzip.compress(LINES + b"\xff\n"), ":41: byte 0xff is not UTF-8"),
    "gz blank.txt.gz": (gzip.compress(b"\n \n"), ": all its 2 rows are blank"),
    "gz csv.csv.gz": (gzip.compress(b"text,label\na\n"), ":2: 1 cells where the header has 2"),
    "gz jsonl.jsonl.gz": (gzip.compress(b"[]\n"), ": is empty"),
    "parquet nothing.parquet": (b"", "check that it is a parquet file"),
    "parquet ends.parquet": (b"PAR1PAR1", "check that it is a parquet file"),
    "parquet footer.parquet": (b"PAR1" + b"\xff" * 4 + b"PAR1", "check that it is a parquet file"),
    "parquet text.parquet": (LINES, "check that it is a parquet file"),
}


@pytest.mark.parametrize("name", CORPORA)
def test_corpora(
    refused: Refuse, tiny_overrides: tuple[str, ...], tmp_path: Path, name: str
) -> None:
    content, said = CORPORA[name]
    (tmp_path / name).write_bytes(content)
    settings = [word for setting in tiny_overrides for word in ("--set", setting)]
    assert said in refused("train", name, *settings)


LATENTS: dict[str, tuple[bytes, str]] = {
    "nothing.jsonl": (b"", ": holds no latents"),
    "blank.jsonl": (b"\n \n", ": holds no latents"),
    "words.jsonl": (b"a b c\n", ":1: "),
    "null.jsonl": (b"null\n", ":1: "),
    "a number.jsonl": (b"3\n", ":1: "),
    "an empty list.jsonl": (b"[]\n", ":1: a latent of 0 numbers"),
    "too few.jsonl": (b"[1, 2, 3, 4]\n", ":1: a latent of 4 numbers"),
    "too many.jsonl": (b"[1, 2, 3, 4, 5, 6]\n", ":1: a latent of 6 numbers"),
    "nested.jsonl": (b"[[1, 2, 3, 4, 5]]\n", ":1: "),
    "strings.jsonl": (b'["1", "2", "3", "4", "5"]\n', ":1: "),
    "nulls.jsonl": (b"[null, 0, 0, 0, 0]\n", ":1: "),
    "truths.jsonl": (b"[true, 0, 0, 0, 0]\n", ":1: "),
    "NaN.jsonl": (b"[NaN, 0, 0, 0, 0]\n", ":1: "),
    "infinite.jsonl": (b"[Infinity, 0, 0, 0, 0]\n", ":1: "),
    "huge.jsonl": (b"[1e400, 0, 0, 0, 0]\n", ":1: "),
    "large.jsonl": (b"[1000001, 0, 0, 0, 0]\n", ": row 1 holds a number that is not finite or"),
    "no mean.jsonl": (b'{"sentence": "a"}\n', ":1: "),
    "mean of words.jsonl": (b'{"mean": "a"}\n', ":1: "),
    "mean null.jsonl": (b'{"mean": null}\n', ":1: "),
    "cut.jsonl": (b"[0, 0, 0, 0, 0]\n[0, 0,", ":2: "),
    "no utf-8.jsonl": (b'{"mean": "\xff"}\n', ":1: "),
    "deep.jsonl": (b"[" * 9000 + b"\n", ":1: "),
    "nul.jsonl": (b"\0\0\n", ":1: "),
    "text.npz": (b"0 0 0 0 0\n", ": damaged or no .npz file"),
    "zip of nothing.npz": (b"PK\x05\x06" + bytes(18), ": holds no array `mean`, but 0 others"),
    "array.npy": (b"\x93NUMPY", ": latents are files named .npz or .jsonl"),
    "a table.csv": (b"0,0,0,0,0\n", ": latents are files named .npz or .jsonl"),
}


@pytest.mark.parametrize("name", LATENTS)
def test_latents(refused: Refuse, tiny_run: Path, tmp_path: Path, name: str) -> None:
    content, said = LATENTS[name]
    (tmp_path / name).write_bytes(content)
    assert said in refused("decode", str(tiny_run), name)


OPTIONS: list[tuple[str, str]] = [
    ("sample MODEL -n 0", "Invalid value for '-n"),
    ("sample MODEL -n -1", "Invalid value for '-n"),
    ("sample MODEL -n ten", "Invalid value for '-n"),
    ("sample MODEL -n 1.5", "Invalid value for '-n"),
    ("sample MODEL -n", "Option '-n"),
    ("sample MODEL MODEL", "unexpected extra argument"),
    ("sample MODEL --sed 3", "No such option '--sed"),
    ("sample MODEL --seed x", "Invalid value for '--seed"),
    ("sample MODEL --seed -1", "Invalid value for '--seed"),
    ("sample MODEL --strategy best", "Invalid value for '--strategy"),
    ("sample MODEL --temperature -1", "--temperature -1.0: must be greater than 0"),
    ("sample MODEL --temperature inf", "--temperature inf: must be greater than 0 and finite"),
    ("sample MODEL --top-k 0", "Invalid value for '--top-k"),
    ("sample MODEL --top-p 0", "--top-p 0.0: must be greater than 0 and at most 1"),
    ("sample MODEL --top-p 1.5", "--top-p 1.5: must be greater than 0 and at most 1"),
    ("sample MODEL --typical-p 0", "--typical-p 0.0: must be greater than 0 and at mos"),
    ("sample MODEL --beam-size 0", "Invalid value for '--beam-size"),
    ("sample MODEL --beam-size 1025", "--beam-size 1025: must be from 1 to 1024"),
    ("sample MODEL --min-length 0", "Invalid value for '--min-length"),
    ("sample MODEL --max-length 0", "Invalid value for '--max-length"),
    ("sample MODEL --no-repeat-ngram 0", "Invalid value for '--no-repeat-ngram"),
    ("sample MODEL --repetition-penalty nan", "--repetition-penalty nan: must be from 1 to 1000"),
    ("sample MODEL --label x", "was trained without labels"),
    ("sample MODEL --device", "Option '--device"),
    ("sample MODEL --device tpu", "--device tpu: this machine has cpu"),
    ("interpolate MODEL red", "an interpolation passes through at least 2 sentenc"),
    ("interpolate MODEL red cat --steps 1", "Invalid value for '--steps"),
    ("interpolate MODEL red cat --path round", "Invalid value for '--path"),
    (
        "interpolate MODEL red cat --path data",
        "--path data: the prior of this model is not a mixture",
    ),
    ("encode MODEL nowhere.txt", "nowhere.txt: there is no such file"),
    ("encode MODEL - --output out.txt", "out.txt: latents are written to files named .npz, .jsonl"),
    ("encode MODEL - --output no/out.npz", "no/out.npz: cannot be written: No such file or dir"),
    ("decode MODEL nowhere.npz", "nowhere.npz: there is no such file"),
    ("neighbors MODEL red", "Missing option '--corpus"),
    ("neighbors MODEL red --corpus nowhere.txt", "nowhere.txt: there is no such file"),
    ("neighbors MODEL red --metric manhattan", "Invalid value for '--metric"),
    ("analogy MODEL red cat", "an analogy takes 3 sentences, found 2 besides the"),
    ("analogy MODEL red cat fox cow", "an analogy takes 3 sentences, found 4 besides the"),
    ("attribute MODEL red", "a vector needs --from and --to, or --vector with o"),
    (
        "attribute MODEL red --from nowhere.txt --to nowhere.txt",
        "nowhere.txt: there is no such file",
    ),
    ("attribute MODEL red --vector nowhere.json", "nowhere.json: there is no such file"),
    ("score MODEL nowhere.txt", "nowhere.txt: there is no such file"),
    ("score MODEL - --score odd", "Invalid value for '--score"),
    ("score MODEL - --threshold 2", "Invalid value for '--threshold"),
    ("score MODEL - --threshold nan", "--threshold nan: a false-alarm rate is above 0"),
    ("score MODEL - --score combined --background nowhere", "nowhere: there is no such directory"),
    ("score MODEL - --background nowhere", "--background belongs to likelihood_ratio and combined"),
    ("score MODEL - --samples 0", "Invalid value for '--samples"),
    ("classify MODEL red", "red: there is no such file"),
    ("classify MODEL red --labelled nowhere.csv", "nowhere.csv: there is no such file"),
    ("classify MODEL red --classifier forest", "Invalid value for '--classifier"),
    ("evaluate MODEL --samples 0", "Invalid value for '--samples"),
    ("evaluate MODEL --rows 0", "Invalid value for '--rows"),
    ("evaluate MODEL --precision float8", "Invalid value for '--precision"),
    ("evaluate MODEL --evaluators odd", "--evaluators odd: they are likelihood, latent, rec"),
    ("evaluate MODEL --config nowhere.toml", "nowhere.toml: there is no such configuration file"),
    ("evaluate MODEL nowhere.csv --text-column text", "nowhere.csv: there is no such file"),
    ("report nowhere", "nowhere: there is no such model directory and no s"),
    ("report MODEL MODEL MODEL", "MODEL and DATA are 2 arguments at most, found 3. S"),
    ("info nowhere", "nowhere: there is no such directory"),
    ("info MODEL --jsn", "No such option '--jsn"),
    ("recipes all", "give list, show NAME"),
    ("trian", "No such verb 'trian'"),
    ("--versoin", "No such option '--versoin"),
    ("train --max-steps 0", "Invalid value for '--max-steps"),
    ("train --max-steps many", "Invalid value for '--max-steps"),
    ("train --save-every 0", "Invalid value for '--save-every"),
    ("train --precision half", "Invalid value for '--precision"),
    ("train --set", "Option '--set"),
    ("train --set =3", "--set '=3': expected key.path=value"),
    ("train --set seed=", "--set 'seed=': seed: found '', expected an integer"),
    ("train --set ..=3", "--set '..=3': expected key.path=value"),
    ("train --set seed=1 --set seed.x=2", "--set 'seed.x=2': seed was set to a value before"),
    ("train --set model=3", "--set 'model=3': model: found 3, expected a table"),
    ("train --config nowhere.toml", "nowhere.toml: there is no such configuration file"),
    ("train --recipe nowhere", "--recipe nowhere: the recipes are embedded"),
    ("train hf:", "hf:: a hub data set is written hf:name[:config][@r"),
    ("train hf:a b", "hf:a: does not go with other files"),
    ("train a.txt b.txt", "a.txt: there is no such file"),
]


@pytest.mark.parametrize(("words", "said"), OPTIONS)
def test_options(refused: Refuse, tiny_run: Path, words: str, said: str) -> None:
    assert said in refused(*[str(tiny_run) if word == "MODEL" else word for word in words.split()])
