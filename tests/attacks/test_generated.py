"""Valid input with random changes, for every parser: read, or refused by an error of ours."""

import bz2
import gzip
import lzma
import string
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from textvae.api.latent_file import read_latents, write_latents
from textvae.api.latent_space import EncodedPart
from textvae.config import encode_json
from textvae.data.columns import Columns
from textvae.data.corpus import read_sentences
from textvae.data.reading import read_rows
from textvae.data.rows import clean
from textvae.data.stream import stream_texts
from textvae.data.tokenizer import BPETokenizerConfig, CharTokenizerConfig, Tokenizer
from textvae.errors import TextVAEError
from textvae.model.gaussian import DiagonalGaussian
from textvae.randomness import hash64, key
from textvae.run.experiment import ExperimentConfig, load_config
from textvae.storage.manifest import make_manifest, read_manifest
from textvae.storage.tensors import tensor_shapes, tensors_from_bytes, tensors_to_bytes

COUNTS = [500, pytest.param(10_000, marks=pytest.mark.full)]


class Draws:
    """Numbers that are a function of the seed and of how many came before."""

    def __init__(self, seed: int) -> None:
        self.seed, self.count = seed, 0

    def below(self, limit: int) -> int:
        self.count += 1
        return hash64(key(self.seed, "generated", self.count)) % limit


SPLICES = [b"\0", b"\xff", b"\r", b"\n", b'"', b"{", b"[", b"]", b"}", b",", b"=", b"null", b"-1"]
SPLICES += [b"9" * 30, b"1e999", b"\xed\xa0\x80", b"\xe2\x80\xae", b"NaN", b"[" * 2000, b"\\u0000"]


def changed(data: bytes, draws: Draws) -> bytes:
    """One to four changes: a bit, a cut, a splice, a piece doubled or taken away."""
    for _ in range(1 + draws.below(4)):
        place = draws.below(len(data) + 1)
        end = min(len(data), place + draws.below(20))
        kind = draws.below(5)
        if kind == 0 and place < len(data):
            data = data[:place] + bytes([data[place] ^ 1 << draws.below(8)]) + data[place + 1 :]
        elif kind == 1:
            data = data[:place] + SPLICES[draws.below(len(SPLICES))] + data[place:]
        elif kind == 2:
            data = data[:place] + data[end:]
        elif kind == 3:
            data = data[:end] + data[place:]
        else:
            data = data[:place] if draws.below(3) == 0 else data + data[place:end]
    return data


def shapes_and_tensors(file: Path) -> None:
    tensor_shapes(file, file.stat().st_size)
    tensors_from_bytes(file.read_bytes(), file)


def rows(file: Path) -> None:
    read_rows(str(file), Columns())


def config(file: Path) -> None:
    load_config(file, [])


def manifest(file: Path) -> None:
    read_manifest(file.parent)


def latents(file: Path) -> None:
    for _ in read_latents(file, 3):
        pass


def tokenizer(file: Path) -> None:
    Tokenizer.from_json(file.read_bytes()).encode("the cat \u00e9")


SENTENCES = ["the cat sat .", "a dog, ran", 'she said "no"', "d\u00e9j\u00e0 vu"] * 5
TEXT = "\n".join(SENTENCES).encode()
QUOTED = [sentence.replace('"', '""') for sentence in SENTENCES]
TABLE = "text,label\n" + "".join(f'"{line}",x\n' for line in QUOTED)
OBJECTS = "".join(f'{{"text": "a b {number}", "label": {number}}}\n' for number in range(9))
PARSERS: dict[str, tuple[str, bytes, Callable[[Path], None]]] = {
    "text": ("a.txt", TEXT, rows),
    "csv": ("a.csv", TABLE.encode(), rows),
    "tsv": ("a.tsv", b"text\tlabel\na b\tx\nc d\ty\n", rows),
    "jsonl": ("a.jsonl", OBJECTS.encode(), rows),
    "toml": ("a.toml", b"seed = 3\n[model]\nlatent_dim = 5\n[train]\nbatch_size = 7\n", config),
    "json": ("a.json", encode_json(ExperimentConfig()), config),
    "manifest": ("manifest.json", make_manifest({"a": b"a", "b": b"b"}), manifest),
    "tokenizer": (
        "tokenizer.json",
        BPETokenizerConfig(vocabulary_size=300).train(SENTENCES).to_json().encode(),
        tokenizer,
    ),
    "safetensors": (
        "a.safetensors",
        tensors_to_bytes({"a": torch.arange(7.0), "b": torch.zeros(2, 3)}),
        shapes_and_tensors,
    ),
    "latents.jsonl": ("l.jsonl", b'{"mean": [0.1, 0.2, 0.3]}\n[1, 2, 3]\n', latents),
    "latents.npz": ("l.npz", b"", latents),
}


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", PARSERS)
def test_what_is_changed_is_read_or_refused(tmp_path: Path, name: str, count: int) -> None:
    file_name, valid, parse = PARSERS[name]
    file = tmp_path / file_name
    if not valid:
        with write_latents(file) as add:
            posterior = DiagonalGaussian(torch.zeros(2, 3), torch.zeros(2, 3))
            add(EncodedPart(["a", "b"], [0, 1], [False, False], posterior))
        valid = file.read_bytes()
    draws = Draws(hash64(key(1, name)))
    refused: list[str] = []
    for _ in range(count):
        file.write_bytes(changed(valid, draws))
        try:
            parse(file)
        except TextVAEError as error:
            refused.append(str(error))
    print(f"{name}: {len(refused)} of {count} refused")
    assert refused
    assert all("\n" not in said for said in refused)


LISTS = "".join(f'["a", "b {number}"]\n' for number in range(7))
ARRAY = "[" + ", ".join(f'{{"data": {{"text": "a {n}"}}, "text": null}}' for n in range(7)) + "]"
EUROPEAN = "id;text;label\n" + "".join(f'{n};"a; {n}";x\n' for n in range(7))
FILES: dict[str, tuple[str, bytes, dict[str, str]]] = {
    "text": ("a.txt", TEXT, {}),
    "latin-1": ("a.txt", TEXT.decode().encode("latin-1"), {"encoding": "latin-1"}),
    "utf-16": ("a.txt", TEXT.decode().encode("utf-16"), {}),
    "gzip": ("a.txt.gz", gzip.compress(TEXT, mtime=0), {}),
    "bzip2": ("a.txt.bz2", bz2.compress(TEXT), {}),
    "xz": ("a.csv.xz", lzma.compress(TABLE.encode()), {}),
    "semicolons": ("a.csv", EUROPEAN.encode(), {}),
    "tabs": ("a.csv", EUROPEAN.replace(";", "\t").encode(), {}),
    "lists": ("a.jsonl", LISTS.encode(), {}),
    "array": ("a.json", ARRAY.encode(), {"text_column": "data.text"}),
}
"""Files as people bring them: name, contents, options."""


@pytest.mark.parametrize("count", [60, pytest.param(5_000, marks=pytest.mark.full)])
@pytest.mark.parametrize("name", FILES)
def test_every_row_of_a_generated_file_is_a_sentence_or_counted(
    tmp_path: Path, name: str, count: int
) -> None:
    file_name, valid, options = FILES[name]
    file, draws = tmp_path / file_name, Draws(hash64(key(2, name)))
    refused: list[str] = []
    for number in range(count):
        file.write_bytes(valid if number == 0 else changed(valid, draws))
        try:
            read = read_sentences(file, max_characters=None, **options)
        except TextVAEError as error:
            refused.append(str(error))
            continue
        assert sorted([*read.rows, *read.excluded]) == list(range(read.report.rows))
        texts = list(stream_texts(str(file), **options))
        assert len(texts) == read.report.rows
        assert [texts[row] for row in read.rows] == read.texts
        assert not any(texts[row] for row in read.excluded)
        assert not any(letter in text for text in texts for letter in "\0\n\r")
    print(f"{name}: {len(refused)} of {count} refused")
    assert len(refused) < count
    assert all("\n" not in said and len(said) < 700 for said in refused)


PLANES = [(0x20, 0x7E), (0x80, 0x24F), (0x300, 0x36F), (0x590, 0x6FF), (0x900, 0xD7FF)]
PLANES += [(0xE000, 0xFFFF), (0x10000, 0x1FFFF), (0x20000, 0x10FFFF), (0x2000, 0x206F)]


def sentence(draws: Draws) -> str:
    """A few characters of all of Unicode, without line ends and NUL."""
    parts = []
    for _ in range(1 + draws.below(12)):
        low, high = PLANES[draws.below(len(PLANES))]
        parts.append(chr(low + draws.below(high - low + 1)))
    return "x" + "".join(parts) + string.ascii_letters[draws.below(52)]


@pytest.mark.parametrize("count", COUNTS)
def test_unicode_goes_through_readers_and_tokenizers(tmp_path: Path, count: int) -> None:
    draws = Draws(5)
    texts = [sentence(draws) for _ in range(count)]
    assert [clean(text) for text in texts] == texts
    quoted = ['"' + text.replace('"', '""') + '"' for text in texts]
    contents = {"a.txt": texts, "a.csv": ["text", *quoted]}
    for name, lines in contents.items():
        (tmp_path / name).write_bytes(("\n".join(lines) + "\n").encode())
        assert read_rows(str(tmp_path / name), Columns()).texts == texts
    for kind in (BPETokenizerConfig(), CharTokenizerConfig()):
        made = kind.train(texts)
        again = Tokenizer.from_json(made.to_json())
        assert [again.decode(ids) for ids in made.encode_batch(texts)] == texts
