"""The plain VAE on images: short, learns, and draws what can be opened."""

import json
import zlib
from pathlib import Path

import digits
import pytest
import torch
from click.testing import CliRunner

SCRIPT = Path(__file__).parents[2] / "scripts/digits.py"


def pixels(path: Path) -> torch.Tensor:
    """The grey values of a PNG without filters, as the script writes them."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    start = data.index(b"IDAT") + 4
    size = int.from_bytes(data[start - 8 : start - 4], "big")
    assert int.from_bytes(data[start + size : start + size + 4], "big") == zlib.crc32(
        data[start - 4 : start + size]
    )
    rows = torch.tensor(list(zlib.decompress(data[start : start + size])))
    return rows.view(height, width + 1)[:, 1:]


def test_it_is_short() -> None:
    assert len(SCRIPT.read_text(encoding="utf-8").splitlines()) < 150


def test_it_learns_and_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "NUM_SAMPLES", 50)
    arguments = ["--output", str(tmp_path), "--steps", "90"]
    result = CliRunner(catch_exceptions=False).invoke(digits.main, arguments)
    found = json.loads(result.stdout)
    assert found["nll"] <= -found["elbo"] < 38  # fair coins are 64 log 2 = 44.4
    assert -found["elbo"] == pytest.approx(found["reconstruction"] + found["kl"], abs=0.1)
    sizes = {"reconstructions": (240, 800), "samples": (640, 800), "interpolation": (400, 800)}
    for name, size in sizes.items():
        image = pixels(tmp_path / f"{name}.png")
        assert tuple(image.shape) == size
        assert len(image.unique()) > 3
    # The margin is grey, and the first digit is the one that was read.
    assert int(pixels(tmp_path / "reconstructions.png")[0, 0]) == 64
