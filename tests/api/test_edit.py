"""Arithmetic on latents: what is known in closed form, and what must not change the result."""

import json
from pathlib import Path

import pytest
import torch

from textvae.api.edit import analogies, attribute_vector, edit, load_vector, save_vector
from textvae.api.text_vae import TextVAE
from textvae.errors import CheckpointError, ConfigError, DataError
from textvae.generate.strategies import Temperature

FIRST, SECOND, THIRD = "red cat eats", "shy dog sees today", "old hen likes"


@pytest.fixture(scope="module")
def vae(tiny_run: Path) -> TextVAE:
    return TextVAE.from_pretrained(tiny_run, device="cpu")


@pytest.fixture(scope="module")
def lines(tiny_data: Path) -> list[str]:
    return (tiny_data / "train.txt").read_text(encoding="utf-8").splitlines()


def test_an_analogy_is_decoded_at_a_minus_b_plus_c(vae: TextVAE) -> None:
    first, second, third = vae.encode([FIRST, SECOND, THIRD]).mean
    (found,) = analogies(vae, [(FIRST, SECOND, THIRD)])
    assert found == vae.decode((first - second + third)[None])[0]


def test_an_analogy_of_the_same_changes_nothing(vae: TextVAE) -> None:
    given = [(FIRST, FIRST, SECOND), (SECOND, THIRD, THIRD)]
    assert list(analogies(vae, given)) == vae.reconstruct([SECOND, SECOND])


def test_analogies_are_a_stream_independent_of_its_pieces(
    vae: TextVAE, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    triples = [(a, b, c) for a, b, c in zip(lines, lines[1:], lines[2:], strict=False)]
    warm = Temperature(temperature=1.5)
    whole = list(analogies(vae, iter(triples), strategy=warm, seed=3))
    assert len(whole) == len(triples)
    monkeypatch.setattr("textvae.api.edit.TOGETHER", 7)
    assert list(analogies(vae, triples, strategy=warm, seed=3)) == whole
    with pytest.raises(DataError, match="here: an analogy takes 3 sentences, number 2 has 2"):
        list(analogies(vae, [triples[0], triples[0][:2]], source="here"))  # type: ignore[list-item]


def test_a_vector_is_the_difference_of_means(vae: TextVAE, lines: list[str]) -> None:
    found = attribute_vector(vae, iter(lines[:31]), iter(lines[31:]))
    mean = vae.encode(lines).mean
    torch.testing.assert_close(found.vector, mean[31:].mean(0) - mean[:31].mean(0))
    assert found[1:] == (31, len(lines) - 31)
    back = attribute_vector(vae, lines[31:], lines[:31])
    torch.testing.assert_close(back.vector, -found.vector)


def test_an_edit_adds_the_vector_so_many_times(vae: TextVAE, lines: list[str]) -> None:
    vector = attribute_vector(vae, lines[:31], lines[31:]).vector
    mean = vae.encode(lines).mean
    assert list(edit(vae, iter(lines), vector, strength=0.0)) == vae.reconstruct(lines)
    for strength in (1.0, -2.5):
        expected = vae.decode(mean + strength * vector)
        assert list(edit(vae, lines, vector, strength=strength)) == expected


def test_the_vector_between_two_sentences_leads_from_one_to_the_other(vae: TextVAE) -> None:
    vector = attribute_vector(vae, [FIRST], [SECOND]).vector
    assert list(edit(vae, [FIRST], vector)) == vae.reconstruct([SECOND])


def test_a_vector_comes_back_to_the_bit(vae: TextVAE, lines: list[str], tmp_path: Path) -> None:
    found = attribute_vector(vae, lines[:31], lines[31:])
    save_vector(tmp_path / "v.json", vae, found)
    loaded = load_vector(tmp_path / "v.json", vae)
    assert torch.equal(loaded.vector, found.vector)
    assert loaded[1:] == found[1:]
    with pytest.raises(DataError, match=r"v\.pt: a vector is a file named \.json"):
        save_vector(tmp_path / "v.pt", vae, found)
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_vector(tmp_path / "missing/v.json", vae, found)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("vector", [1.0], "a vector of 1 numbers; this model takes 5"),
        ("vector", [1.0, 2.0, 3.0, 4.0, 1e9], r"holds a number that exceeds 1e\+06"),
        ("vector", "AAAA", "is no vector: Expected `array`"),
        ("vector", None, "is no vector: Expected `array`"),
        ("weights_sha256", "0" * 64, "belongs to a model of other weights"),
        ("extra", 1, "unknown field `extra`"),
    ],
)
def test_bad_vectors_are_refused(
    vae: TextVAE, lines: list[str], tmp_path: Path, key: str, value: object, said: str
) -> None:
    path = tmp_path / "v.json"
    save_vector(path, vae, attribute_vector(vae, lines[:3], lines[3:]))
    content = json.loads(path.read_text("utf-8")) | {key: value}
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match=said) as caught:
        load_vector(path, vae)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"", "is no vector"), (b"\xff", "is no vector"), (b"[" * 2**21, "is no vector: it has over")],
    ids=["empty", "no text", "large"],
)
def test_files_that_are_no_vector(vae: TextVAE, tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "v.json").write_bytes(data)
    with pytest.raises(DataError, match=said):
        load_vector(tmp_path / "v.json", vae)
    with pytest.raises(DataError, match="there is no such file"):
        load_vector(tmp_path / "w.json", vae)


def test_what_cannot_be_edited_is_refused(vae: TextVAE, lines: list[str]) -> None:
    for strength in (float("nan"), float("inf"), 1e9):
        with pytest.raises(ConfigError, match=r"--strength .*: takes the latents beyond 1e"):
            list(edit(vae, lines, torch.ones(5), strength=strength))
    with pytest.raises(DataError, match=r"a vector of shape \(4,\): this model takes \(5,\)"):
        list(edit(vae, lines, torch.ones(4)))
    with pytest.raises(DataError, match="the sentences with: holds no sentence"):
        attribute_vector(vae, lines, [])
