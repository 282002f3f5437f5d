"""The masks of logs in the guide to anomalies: fields go, templates stay, and scores separate."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import textvae
from textvae.run.experiment import load_config

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "anomalies.md"
SETTINGS = ["data.tokenizer.kind=word", "model.latent_dim=3", "train.max_steps=90", "seed=1"]
SETTINGS += [f"model.{part}.hidden_dim=23" for part in ("encoder", "decoder")]
SETTINGS += [f"model.{part}.embedding_dim=17" for part in ("decoder",)]
SETTINGS += ["train.optimizer.learning_rate=0.02", "train.device=cpu", "evaluate.num_samples=2"]


@pytest.fixture(scope="module")
def mask() -> Callable[[str], str]:
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Callable[[str], str]] = {}
    exec(code, names)
    return names["mask"]


@pytest.mark.parametrize(
    ("line", "masked"),
    [
        (
            "2024-03-01T10:22:31.123Z worker-17 fetched 0x7f3a9c00 from 10.0.0.12:8080 in 351 ms",
            "<time> worker-<number> fetched <hex> from <ip> in <number> ms",
        ),
        ("2024-03-01 10:22:31,007 INFO user=42 ok", "<time> INFO user=<number> ok"),
        ("req 550e8400-e29b-41d4-a716-446655440000 done", "req <uuid> done"),
        ("commit 9fceb02d0ae5 at 10:22:31", "commit <hex> at <time>"),
        ("retry -3 of 5 after 0.25 s", "retry <number> of <number> after <number> s"),
        ("facade of the decade, cafe bed", "facade of the decade, cafe bed"),
        ("no field here", "no field here"),
    ],
)
def test_fields_of_a_log_are_masked(mask: Callable[[str], str], line: str, masked: str) -> None:
    assert mask(line) == masked
    assert mask(masked) == masked


def test_masked_logs_have_anomalies(mask: Callable[[str], str], tmp_path: Path) -> None:
    services = ["web", "mail", "cron", "disk", "auth"]
    templates = [
        "INFO {} worker-{} fetched 0x{:x}00ff from 10.0.0.{}",
        "INFO {} user={} logged in after {} ms from 10.0.0.{}",
    ]
    for name, first, size in (("train", 0, 240), ("valid", 1000, 41), ("test", 2000, 37)):
        lines = [
            f"2024-03-{1 + first // 100:02}T10:{i % 60:02}:00Z "
            + templates[i % 2].format(services[i % 5], i % 19, 4096 + i, i % 251)
            for i in range(first, first + size)
        ]
        (tmp_path / f"{name}.txt").write_text("\n".join(map(mask, lines)), encoding="utf-8")
    config = load_config(None, SETTINGS)
    vae = textvae.TextVAE.train(tmp_path, config=config, output=tmp_path / "run")
    normal = textvae.reference_of(vae, num_samples=2)
    new = [
        "2025-07-09T23:01:59Z INFO disk worker-3 fetched 0xffff01 from 192.168.7.9",
        "2025-07-09T23:01:59Z INFO auth user=900 logged in after 4 ms from 10.1.1.1",
        "",
        "2025-07-09T23:02:00Z INFO logged fetched user=7 from 10.0.0.1 in in after",
        "2025-07-09T23:02:01Z worker-3 worker-4 ms ms",
    ]
    scores = {one.row: one.score for one in textvae.score(vae, map(mask, new), normal)}
    assert list(scores) == [0, 1, 3, 4]
    assert max(scores[0], scores[1]) < min(scores[3], scores[4])
