"""Whole runs on CUDA: precision, resume, labels, beams, several processes, and the command line."""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from pretend import PretendCuda

from textvae.cli.main import program
from textvae.data.batching import TokenArray
from textvae.generate.beam import Beam, beam_search
from textvae.generate.decoding import decode_latents
from textvae.generate.strategies import Nucleus, Strategy, TopK, Typical
from textvae.model.decoder import GRUDecoderConfig
from textvae.model.encoder import GRUEncoderConfig
from textvae.model.labels import LabelsConfig, M2LabelsConfig, NoLabelsConfig
from textvae.model.vae import VAE, ModelConfig
from textvae.randomness import hashes, key
from textvae.storage.training_state import load_state
from textvae.train.config import TrainConfig
from textvae.train.loop import train

V, L = 19, 3


def build(device: torch.device | str, labels: LabelsConfig | None = None) -> VAE:
    config = ModelConfig(
        latent_dim=3,
        encoder=GRUEncoderConfig(embedding_dim=5, hidden_dim=7, dropout_rate=0.1),
        decoder=GRUDecoderConfig(embedding_dim=5, hidden_dim=11, dropout_rate=0.1),
        labels=labels or NoLabelsConfig(),
    )
    return config.build(V, num_labels=L if labels else 0, seed=1).to(device)


def corpus(name: str, size: int, *, labels: bool = False) -> TokenArray:
    words = hashes(key(1, name), torch.arange(size), lanes=7) % (V - 1) + 1
    data = TokenArray.from_lists([row[: row[0] % 7] for row in words.tolist()], V)
    known = torch.arange(size) % (L + 1) - 1
    return data._replace(labels=known) if labels else data


def run(
    device: torch.device | str,
    *,
    folder: Path | None = None,
    stop: int | None = None,
    precision: str = "float32",
    labels: LabelsConfig | None = None,
    steps: int = 12,
) -> VAE:
    """Train a model; with `stop` the run is interrupted there."""

    def report(line: str) -> None:
        if line.startswith(f"step {stop}/"):
            os.kill(os.getpid(), signal.SIGTERM)

    settings = TrainConfig(
        batch_size=13, max_steps=steps, validate_every=steps, log_every=1, precision=precision
    )
    model = build(device, labels)
    data = corpus("train", 53, labels=labels is not None), corpus("valid", 11)
    train(model, *data, settings, seed=0, run=folder, report=report)
    return model


def test_bfloat16_trains_as_float32_does(cuda: torch.device) -> None:
    exact, low = (run(cuda, precision=name, steps=30) for name in ("float32", "bfloat16"))
    pairs = zip(build("cpu").parameters(), exact.parameters(), low.parameters(), strict=True)
    moves = [
        (float((b.cpu() - a).detach().norm()), float((c - b).detach().norm())) for a, b, c in pairs
    ]
    assert all(apart <= 0.2 * moved + 1e-3 for moved, apart in moves)
    assert max(apart for _, apart in moves) > 0.0


def test_a_run_that_stops_and_resumes_equals_one_that_does_not(
    cuda: torch.device, tmp_path: Path
) -> None:
    states = []
    for name, stop in (("straight", None), ("stopped", 5)):
        folder = tmp_path / name
        folder.mkdir()
        if stop is not None:
            run(cuda, folder=folder, stop=stop)
            state = load_state(folder)
            assert state is not None
            assert state.facts["step"] == stop
        model = run(cuda, folder=folder)
        states.append({name: value.cpu() for name, value in model.state_dict().items()})
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


@pytest.mark.parametrize("labels", [M2LabelsConfig(), M2LabelsConfig(summed_labels=2)])
def test_labels_train_as_on_the_cpu(cuda: torch.device, labels: LabelsConfig) -> None:
    models = [run(device, labels=labels, steps=5) for device in ("cpu", cuda)]
    for left, right in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(left, right.cpu(), rtol=1e-3, atol=1e-4)


def test_beams_find_what_they_find_on_the_cpu(cuda: torch.device) -> None:
    found = []
    for device in ("cpu", cuda):
        model = build(device).eval()
        latents = 3.0 * model.prior.sample(13, seed=2)
        found.append(beam_search(model, latents, Beam(size=4), num_best=3, max_length=9))
    for left, right in zip(*found, strict=True):
        scores = [[best.score for best in side] for side in (left, right)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-4)
        assert [best.words for best in left] == [best.words for best in right]


@pytest.mark.parametrize("strategy", [TopK(k=3), Nucleus(p=0.7), Typical(p=0.7)])
def test_every_strategy_writes_the_same_twice(cuda: torch.device, strategy: Strategy) -> None:
    model = build(cuda).eval()
    latents = model.prior.sample(53, seed=2)
    first, second = (
        decode_latents(model, latents, strategy, seed=seed, max_length=9) for seed in (3, 3)
    )
    assert first == second
    assert first != decode_latents(model, latents, strategy, seed=4, max_length=9)


SMALL = [
    *("--set", "model.encoder.hidden_dim=7", "--set", "model.decoder.hidden_dim=11"),
    *("--set", "model.latent_dim=3", "--set", "data.tokenizer.kind=word"),
    *("--set", "train.batch_size=31", "--set", "evaluate.num_samples=3"),
]


def test_the_command_line_takes_cuda_by_itself(
    cuda: torch.device, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"

    def call(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            program.main(list(arguments))
        captured = capsys.readouterr()
        assert ended.value.code in {0, None}, captured.err
        return captured.out

    call("train", str(tiny_data), "--max-steps", "9", "--output", str(output), *SMALL)
    config = json.loads((output / "experiment.json").read_text())
    assert config["train"]["device"] == "cuda"
    assert len(call("sample", str(output), "-n", "7").splitlines()) == 7
    call("interpolate", str(output), "red cat eats", "shy dog sees")
    figures = json.loads(call("evaluate", str(output), "--samples", "5", "--json"))
    assert figures["perplexity"] > 1.0


def one_of_two(real: bool) -> None:
    """Train as one of two processes that share a device, and print a sum of the parameters."""
    from textvae import distributed  # noqa: PLC0415 -- in the other process

    with nullcontext() if real else PretendCuda(), distributed.joined():
        model = run("cuda", steps=4)
        total = sum(
            float(parameter.detach().double().abs().sum()) for parameter in model.parameters()
        )
    print(f"sum {total:.9f}")


def test_two_processes_share_a_device(cuda: torch.device, request: pytest.FixtureRequest) -> None:
    real = "real" in request.node.name
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, *["real"] * real],
            env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    sums = [process.communicate(timeout=100)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sums[0] == sums[1] != ""
    alone = sum(float(p.detach().double().abs().sum()) for p in run(cuda, steps=4).parameters())
    assert float(sums[0].split()[-1]) == pytest.approx(alone, rel=1e-4)


if __name__ == "__main__":
    one_of_two(sys.argv[-1] == "real")
