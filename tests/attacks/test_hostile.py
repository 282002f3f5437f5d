"""Model directories, corpora and options made to do harm: refused in one line, nothing run."""

import gzip
import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

# Protocol 0 of pickle: would make a file named canary if anything ever loaded it.
PICKLE = b"cposix\nsystem\n(S'touch canary'\ntR."
HUGE = 2**62


def header(value: object, data: bytes = b"") -> bytes:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


WEIGHTS: dict[str, bytes] = {
    "a pickle": PICKLE,
    "a zip with a pickle": b"PK\x03\x04" + PICKLE,
    "a pickle after a header": header({"a": tensor(offsets=(0, len(PICKLE)))}, PICKLE),
    "nothing": b"",
    "a header of 2^63 bytes": struct.pack("<Q", 2**63) + b"{}",
    "a header of 2^64-1 bytes": struct.pack("<Q", 2**64 - 1) + b"{}",
    "a header longer than the file": struct.pack("<Q", 10**6) + b"{}",
    "a header of 100 MB": struct.pack("<Q", 10**8) + b" " * 100,
    "a header that is nested": header(b"[" * 50_000),
    "a header that is a list": header([]),
    "a header that is no text": header(b"\xff\xfe"),
    "a shape of 2^62": header({"a": tensor(shape=[HUGE])}, bytes(8)),
    "a shape that overflows": header({"a": tensor(shape=[2**32, 2**32])}, bytes(8)),
    "a shape below zero": header({"a": tensor(shape=[-1])}, bytes(8)),
    "a shape of text": header({"a": tensor(shape="x")}, bytes(8)),
    "offsets beyond the file": header({"a": tensor(offsets=(0, HUGE))}, bytes(8)),
    "offsets that go back": header({"a": tensor(offsets=(8, 0))}, bytes(8)),
    "offsets that overlap": header({"a": tensor(), "b": tensor()}, bytes(8)),
    "a hole": header({"a": tensor(offsets=(8, 16))}, bytes(16)),
    "an unknown type": header({"a": tensor(dtype="X9")}, bytes(8)),
    "a tensor of another model": header({"a": tensor()}, bytes(8)),
    "a thousand tensors": header({f"t{i}": tensor(shape=[0], offsets=(0, 0)) for i in range(1000)}),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights(
    refuse: Callable[..., str], reseal: Callable[..., None], model: Path, name: str
) -> None:
    (model / "model.safetensors").write_bytes(WEIGHTS[name])
    reseal(model)
    refuse("info", str(model))


def test_weights_that_are_a_terabyte_of_nothing(
    refuse: Callable[..., str], reseal: Callable[..., None], model: Path
) -> None:
    os.truncate(model / "model.safetensors", 2**40)  # takes no room on the disk
    reseal(model, **{"model.safetensors": 2**40})
    refuse("sample", str(model))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "README.md", "results.json"])
def test_files_that_are_gigabytes_of_nothing(
    refuse: Callable[..., str], reseal: Callable[..., None], model: Path, name: str
) -> None:
    os.truncate(model / name, 2**33)
    reseal(model, **{name: 2**33})
    (model / "results.json").unlink() if name != "results.json" else None
    if name == "results.json":  # not needed to load a model: it is what the manifest lists
        os.truncate(model / name, 2**25)
        reseal(model)
    refuse("sample", str(model))


CONFIGS: dict[str, dict[str, Any]] = {
    "a latent of 10^9": {"latent_dim": 10**9},
    "a latent of 10^400": {"latent_dim": 10**400},
    "a latent of 1e400": {"latent_dim": float("inf")},
    "a latent below zero": {"latent_dim": -1},
    "a length of 2^63": {"max_length": 2**63},
    "a million layers": {"encoder": {"kind": "gru", "num_layers": 10**6}},
    "a hidden state of 2^40": {"decoder": {"kind": "gru", "hidden_dim": 2**40}},
    "a class to import": {"encoder": {"kind": "os.system"}},
    "a target": {"_target_": "os.system"},
    "an attribute of Python": {"__class__": "os.system"},
    "a list": {"encoder": [{"kind": "gru"}]},
    "text for a number": {"latent_dim": "__import__('os').system('touch canary')"},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configs(
    refuse: Callable[..., str], reseal: Callable[..., None], model: Path, name: str
) -> None:
    value = json.loads((model / "config.json").read_bytes())
    (model / "config.json").write_text(json.dumps(value | CONFIGS[name]), encoding="utf-8")
    reseal(model)
    refuse("sample", str(model))


def spoilt_tokenizers() -> dict[str, Callable[[dict[str, Any]], object]]:
    def model(**parts: Any) -> Callable[[dict[str, Any]], object]:
        return lambda file: file["model"].update(parts)

    def top(**parts: Any) -> Callable[[dict[str, Any]], object]:
        return lambda file: file.update(parts)

    bomb = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10}
    return {
        "a regular expression without end": top(
            pre_tokenizer={
                "type": "Split",
                "pattern": {"Regex": "(a+)+$"},
                "behavior": "Isolated",
                "invert": False,
            }
        ),
        "a bomb of replacements": top(normalizer={"type": "Sequence", "normalizers": [bomb] * 9}),
        "a precompiled map": top(normalizer={"type": "Precompiled", "precompiled_charsmap": "AA"}),
        "an id of 4,000,000,000": model(vocab={"<unk>": 0, "a": 4_000_000_000}),
        "an id of 2^70": model(vocab={"<unk>": 0, "a": 2**70}),
        "an id below zero": model(vocab={"<unk>": 0, "a": -1}),
        "two of one id": model(vocab={"<unk>": 0, "a": 1, "b": 1}),
        "no words": model(vocab={}),
        "a control token": top(added_tokens=[{"id": 1, "content": "</s>", "special": True}]),
        "another model": model(type="Unigram"),
        "merges of words": model(merges=[["a", "b"]]),
        "a word with a blank": model(vocab={"<unk>": 0, "a b": 1}),
    }


@pytest.mark.parametrize("name", spoilt_tokenizers())
def test_tokenizers(
    refuse: Callable[..., str], reseal: Callable[..., None], model: Path, name: str
) -> None:
    file = json.loads((model / "tokenizer.json").read_bytes())
    spoilt_tokenizers()[name](file)
    (model / "tokenizer.json").write_text(json.dumps(file), encoding="utf-8")
    reseal(model)
    refuse("sample", str(model))


NAMES = ["../secret", "/etc/passwd", "..", ".", "", "a/b", "a\\b", "C:x", "a\0b", "con\n", "-rf"]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_in_a_manifest(
    refuse: Callable[..., str],
    write_manifest: Callable[[Path, dict[str, Any]], None],
    model: Path,
    name: str,
) -> None:
    (model.parent / "secret").write_text("secret", encoding="utf-8")
    value = json.loads((model / "manifest.json").read_bytes())
    value["files"][name] = {"size": 6, "sha256": "0" * 64}
    del value["seal"]
    write_manifest(model, value)
    assert "secret," not in refuse("info", "--verify", str(model))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("target", ["/etc/passwd", "/dev/zero", "../elsewhere", "."])
def test_links(refuse: Callable[..., str], model: Path, name: str, target: str) -> None:
    (model / name).rename(model.parent / "elsewhere")
    (model / name).symlink_to(target)
    assert "is a link" in refuse("sample", str(model))


def test_a_manifest_that_is_a_pipe_or_endless(refuse: Callable[..., str], model: Path) -> None:
    (model / "manifest.json").unlink()
    os.mkfifo(model / "manifest.json")
    refuse("info", str(model))
    (model / "manifest.json").unlink()
    (model / "manifest.json").symlink_to("/dev/zero")
    refuse("info", str(model))


def test_bombs(refuse: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(bytes(2**20)) * 3001)
    refuse("train", "a.txt.gz")
    column = pyarrow.DictionaryArray.from_arrays(
        pyarrow.array([0] * 20_011, pyarrow.int32()), pyarrow.array(["x" * 2**20])
    )
    parquet.write_table(pyarrow.table({"text": column}), tmp_path / "a.parquet")
    refuse("train", "a.parquet", seconds=9)  # pyarrow alone is imported in two
    (tmp_path / "a.jsonl").write_bytes(b"[" * 2**20 + b"\n")
    refuse("train", "a.jsonl")
    (tmp_path / "a.toml").write_text(f"model = {'[' * 10**5}", encoding="utf-8")
    refuse("train", "--config", "a.toml")
    (tmp_path / "b.toml").symlink_to("/dev/zero")
    refuse("train", "--config", "b.toml")


def test_latents_that_are_not(refuse: Callable[..., str], tiny_run: Path, tmp_path: Path) -> None:
    objects = b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1, 5), }"
    many = objects.replace(b"'|O'", b"'<f4'").replace(b"(1, 5)", b"(9999999999, 5)")
    for number, content in enumerate([objects + b" " * 50 + b"\n" + PICKLE, many, PICKLE, b""]):
        file = tmp_path / f"{number}.npz"
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("mean.npy", content)
        refuse("decode", str(tiny_run), str(file))
    (tmp_path / "a.jsonl").write_text("[1e39, 0, 0, 0, 0]\n", encoding="utf-8")
    refuse("decode", str(tiny_run), str(tmp_path / "a.jsonl"))


OPTIONS = [
    ["sample", "-n", str(10**30)],
    ["sample", "--seed", str(2**64)],
    ["sample", "--max-length", str(2**70)],
    ["sample", "--top-k", str(10**40)],
    ["sample", "--temperature", "1e999"],
    ["sample", "--top-p", "nan"],
    ["sample", "--device", "cuda:99999999999999999999"],
    ["evaluate", "--samples", str(2**70)],
    ["evaluate", "--rows", str(2**70)],
    ["interpolate", "--steps", str(10**20)],
    ["train", "--seed", str(2**63)],
    ["train", "--max-steps", str(2**80)],
    ["train", "--set", "train.batch_size=9999999999999999999"],
    ["train", "--set", "train.optimizer.learning_rate=1e300"],
    ["train", "--set", "model.latent_dim=1000000000"],
    ["train", "--set", "data.tokenizer.kind=bpe", "--set", "data.tokenizer.vocabulary_size=1e30"],
    ["train", "--recipe", "../../../etc/passwd"],
    ["train", "--output", "a\0b"],
    ["train", "x\0y"],
]


@pytest.mark.parametrize(
    "words", OPTIONS, ids=lambda words: " ".join(words)[:50].replace("\0", "0")
)
def test_options(refuse: Callable[..., str], tiny_run: Path, words: list[str]) -> None:
    verb, *options = words
    refuse(verb, *([] if verb == "train" else [str(tiny_run)]), *options)
