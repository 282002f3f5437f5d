"""manifest.py: no byte of a manifest changes unnoticed, and none of its names leaves."""

import json
from pathlib import Path

import pytest

from textvae.errors import CheckpointError
from textvae.storage.manifest import (
    FORMAT,
    MANIFEST,
    check_file,
    make_manifest,
    plain_name,
    read_manifest,
)

FILES = {"b.bin": bytes(7), "a.txt": b"eleven byte"}


def refusal(directory: Path, content: bytes) -> str:
    (directory / MANIFEST).write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_manifest(directory)
    message = str(caught.value)
    assert message.startswith(f"{directory / MANIFEST}: ")
    assert message.isprintable()
    assert len(message) < len(str(directory)) + 200
    return message.removeprefix(f"{directory / MANIFEST}: ")


def test_a_manifest_gives_sizes_and_checksums(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_bytes(make_manifest(FILES))
    manifest = read_manifest(tmp_path)
    assert manifest.format == FORMAT
    assert list(manifest.files) == ["a.txt", "b.bin"]
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
        assert check_file(tmp_path / name, manifest.files[name]) == data


def test_a_change_of_any_byte_is_found(tmp_path: Path) -> None:
    good = make_manifest(FILES)
    for position in range(len(good)):
        for change in (1, 2, 128):
            bad = bytearray(good)
            bad[position] ^= change
            assert refusal(tmp_path, bytes(bad))


def test_every_cut_is_found(tmp_path: Path) -> None:
    good = make_manifest(FILES)
    for length in range(len(good)):
        assert refusal(tmp_path, good[:length])
    assert refusal(tmp_path, good + b"\n").endswith("its own checksum, so the file is damaged")


@pytest.mark.parametrize("newer", [FORMAT + 1, 10**400, 99])
def test_a_newer_format_is_named_whatever_else_it_holds(tmp_path: Path, newer: int) -> None:
    message = refusal(tmp_path, json.dumps({"format": newer, "shards": []}).encode())
    assert message.endswith("is newer than the format 1 of this version; upgrade textvae")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a":' * 400 + b"1" + b"}" * 400, ""),
        (b"[]", "found [], expected a table"),
        (b"{}", "format: missing"),
        (b'{"format": 1, "format": 1}', "the key 'format' is given twice"),
        (b'{"format": true}', "format: found True, expected an integer"),
        (b'{"format": 0, "textvae": "", "files": {}, "seal": "%s"}' % (b"0" * 64), "found format"),
        (b'{"format": 1e400}', "format: found inf, expected a finite number"),
        (b"9" * 5000, "Exceeds the limit"),
        (bytes((1 << 20) + 1), "holds 1048577 bytes"),
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    assert refusal(tmp_path, content).startswith(words)


def test_a_file_listed_twice_is_refused(tmp_path: Path) -> None:
    text = make_manifest(FILES).decode()
    entry = text[text.index('"a.txt"') : text.index('"b.bin"')]
    twice = text.replace(entry, entry + entry)
    assert refusal(tmp_path, twice.encode()) == "the key 'a.txt' is given twice"


@pytest.mark.parametrize(
    "name",
    [
        *("../a", "/etc/passwd", "a/b", "a\\b", "..", ".", "", "C:a", "a\0", "a\n", ".hidden"),
        *("-rf", "caf\u00e9", "\u202etxt", "x" * 200, "a b", MANIFEST),
    ],
)
def test_names_that_are_not_beside_the_manifest_are_refused(tmp_path: Path, name: str) -> None:
    message = refusal(tmp_path, make_manifest({name: b""}))
    assert message.endswith("is not the name of a file beside it")


def test_plain_names_are_plain() -> None:
    assert all(map(plain_name, ["config.json", "model.safetensors", "README.md", "state-1_a+b.x"]))


def test_missing_manifest(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"manifest.json: the file is missing$"):
        read_manifest(tmp_path)
