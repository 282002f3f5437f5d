"""Latents come back as they were written; what is no file of latents is refused in one line."""

import csv
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from pyarrow import parquet
from torch import Tensor

from textvae.api.latent_file import ROWS, read_latents, write_latents
from textvae.api.latent_space import EncodedPart
from textvae.errors import CheckpointError, DataError
from textvae.model.gaussian import DiagonalGaussian
from textvae.randomness import key, normals

Z, N = 5, ROWS + 7


def posterior(rows: int = N) -> DiagonalGaussian:
    mean, log_variance = normals(key(1, "latents"), torch.arange(2 * rows), lanes=Z).split(rows)
    return DiagonalGaussian(mean, log_variance)


def moments(gaussian: DiagonalGaussian) -> dict[str, torch.Tensor]:
    return {"mean": gaussian.mean, "log_variance": gaussian.log_variance}


def write(path: Path, found: DiagonalGaussian, pieces: int = 3) -> None:
    with write_latents(path) as add:
        for rows in torch.arange(found.mean.shape[0]).chunk(pieces):
            texts = [f"sentence {i}" for i in rows.tolist()]
            cut = [i % 3 == 1 for i in rows.tolist()]
            add(EncodedPart(texts, (2 * rows).tolist(), cut, found[rows]))


def read(path: Path, dim: int = Z) -> Tensor:
    return torch.cat(list(read_latents(path, dim)))


@pytest.mark.parametrize("name", ["latents.npz", "latents.jsonl"])
def test_latents_come_back_to_the_bit(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, posterior())
    assert torch.equal(read(tmp_path / name), posterior().mean)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_other_tools_read_the_means(tmp_path: Path) -> None:
    expected = posterior(11)
    for name in ("a.npy", "a.csv", "a.parquet"):
        write(tmp_path / name, expected, 3)
    mean = expected.mean.numpy()
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy", allow_pickle=False), mean)
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["row", "text", *(f"mean_{place}" for place in range(mean.shape[1]))]
    table = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    lines = (tmp_path / "a.csv").read_bytes().count(b"\n")
    assert len(rows) == len(table) == 11 == lines - 1
    for row, one, numbers in zip(rows, table, mean, strict=True):
        assert (int(row[0]), row[1]) == (one["row"], one["text"])
        np.testing.assert_array_equal(np.array(row[2:], dtype=np.float32), numbers)
        np.testing.assert_array_equal(np.array(one["mean"], dtype=np.float32), numbers)


def test_numpy_reads_the_npz_without_pickle(tmp_path: Path) -> None:
    write(tmp_path / "a.npz", posterior(11))
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        assert sorted(found) == ["cut", "log_variance", "mean", "row"]
        assert found["row"].dtype == np.int64
        assert found["row"].tolist() == list(range(0, 22, 2))
        assert found["cut"].tolist() == [i % 3 == 1 for i in range(11)]
        for name, values in moments(posterior(11)).items():
            assert found[name].dtype == np.float32
            np.testing.assert_array_equal(found[name], values.numpy())


def test_the_pieces_do_not_show_in_the_bytes(tmp_path: Path) -> None:
    for name in ("a.npz", "a.jsonl"):
        write(tmp_path / name, posterior(31), pieces=1)
        write(tmp_path / f"b{name}", posterior(31), pieces=7)
        assert (tmp_path / name).read_bytes() == (tmp_path / f"b{name}").read_bytes()


def test_a_json_line_is_a_sentence_and_its_posterior(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", posterior(3))
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text("utf-8").splitlines()]
    assert [row["sentence"] for row in rows] == ["sentence 0", "sentence 1", "sentence 2"]
    for name, values in moments(posterior(3)).items():
        torch.testing.assert_close(torch.tensor([row[name] for row in rows]), values)


@pytest.mark.parametrize("name", ["a.npz", "a.jsonl"])
def test_a_failure_leaves_the_old_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"old")

    def fail() -> None:
        with write_latents(tmp_path / name) as add:
            add(EncodedPart(["a"], [0], [False], posterior(1)))
            raise DataError("a bad sentence")

    with pytest.raises(DataError, match="a bad sentence"):
        fail()
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [(name, b"old")]


def test_a_place_that_is_not_there_is_said(tmp_path: Path) -> None:
    with (
        pytest.raises(CheckpointError, match="cannot be written: No such file"),
        write_latents(tmp_path / "missing" / "a.npz"),
    ):
        pass


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_arrays_that_numpy_saved_are_read(tmp_path: Path, dtype: type) -> None:
    values = posterior(13).mean.numpy().astype(dtype)
    np.savez_compressed(tmp_path / "one.npz", anything=values)
    np.testing.assert_array_equal(read(tmp_path / "one.npz").numpy(), values.astype(np.float32))


def archive(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as out:
        for name, data in members.items():
            out.writestr(f"{name}.npy", data)
    return file.getvalue()


def array(values: object, *, cut: int = 0, pickled: bool = False) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(values), allow_pickle=pickled)
    return file.getvalue()[: len(file.getvalue()) - cut]


def header(shape: str) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


ZEROS = np.zeros((3, Z))
BAD_ARRAYS = {
    "another dimension": (archive(mean=array(np.zeros((3, 7)))), r"shape \(3, 7\).*\(N, 5\)"),
    "one axis": (archive(mean=array(np.zeros(Z))), r"shape \(5,\)"),
    "not a number": (archive(mean=array(ZEROS * np.nan)), "row 1 holds a number that is not"),
    "infinite": (archive(mean=array(ZEROS + np.inf)), "row 1 holds"),
    "huge": (
        archive(mean=array(ZEROS + np.diag([0.0, -1e7, 0.0]) @ np.ones((3, Z)))),
        r"row 2 .* exceeds 1e\+06",
    ),
    "beyond float32": (archive(mean=array(ZEROS + 1e300)), "row 1 holds"),
    "objects": (archive(mean=array(ZEROS.astype(object), pickled=True)), "an array of object"),
    "integers": (archive(mean=array(np.zeros((3, Z), int))), "an array of int64"),
    "records": (archive(mean=array(np.zeros(3, "f4,f4"))), "an array of"),
    "columns": (archive(mean=array(np.asfortranarray(ZEROS))), "lies in columns"),
    "none": (archive(mean=array(np.zeros((0, Z)))), "holds no latents"),
    "cut": (archive(mean=array(ZEROS, cut=9)), "is cut short"),
    "promised": (archive(mean=header(f"({10**15}, {Z})")), "is cut short"),
    "negative": (archive(mean=header(f"(-3, {Z})")), r"shape \(-3, 5\)|no header"),
    "no header": (archive(mean=b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 3000), "no header"),
    "no array": (archive(mean=b"hello"), "no header"),
    "two arrays": (archive(a=array(ZEROS), b=array(ZEROS)), "holds no array `mean`"),
    "no zip": (b"hello", r"damaged or no \.npz file"),
    "empty": (b"", r"damaged or no \.npz file"),
    "half": (archive(mean=array(ZEROS))[:150], r"damaged or no \.npz file"),
}


@pytest.mark.parametrize(("data", "said"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_bad_arrays_are_refused_in_one_line(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "bad.npz"
    path.write_bytes(data)
    with pytest.raises(DataError, match=said) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


BAD_LINES = {
    "another dimension": ("[0,0,0,0,0]\n[0,0]", ":2: a latent of 2 numbers; this model takes 5"),
    "not a number": ("[0,0,0,0,NaN]", ":1: JSON is malformed"),
    "beyond float64": ("[0,0,0,0,1e999]", ":1: Number out of range"),
    "huge": ("[0,0,0,0,1]\n\n[0,0,0,0,1e30]", ": row 2 holds a number that is not finite or exc"),
    "words": ('["a"]', ":1: Expected `float`, got `str`"),
    "no mean": ('{"median": [0,0,0,0,0]}', ":1: Object missing required field `mean`"),
    "a number": ("7", ":1: Expected"),
    "deep": ("[" * 100_000, ":1: "),
    "no text": ("\udcff", ":1: "),
    "nothing": ("\n \n", ": holds no latents"),
}


@pytest.mark.parametrize(("text", "said"), BAD_LINES.values(), ids=BAD_LINES)
def test_bad_lines_are_refused_with_their_number(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}{said}")


def test_other_files_are_refused(tmp_path: Path) -> None:
    for name, said in (("a.pt", "named .npz or .jsonl"), ("a.npz", "there is no such file")):
        with pytest.raises(DataError, match=said):
            read(tmp_path / name)
    with (
        pytest.raises(DataError, match=r"named \.npz, \.jsonl, \.npy, \.csv, \.parquet"),
        write_latents(tmp_path / "a.pt"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_plain_lists_are_latents(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("[1, 2.5, -3, 0, 4e-1]\n", encoding="utf-8")
    assert read(tmp_path / "a.jsonl").tolist() == [[1.0, 2.5, -3.0, 0.0, pytest.approx(0.4)]]
