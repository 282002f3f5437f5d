"""Memory is bounded by what is in flight; what cannot be had is one line and exit code 71."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import textvae
from textvae.cli.main import program
from textvae.errors import MemoryLimitError

MOST = 600 * 2**20


def peak_memory(process: int) -> int:
    """Bytes of the largest resident set since exec; ru_maxrss counts that of the forking parent."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="needs the files of Linux in /proc"
)
def test_head_of_a_thousand_million_samples(model_kinds: dict[str, Path]) -> None:
    command = [sys.executable, "-m", "textvae", "sample", str(model_kinds["plain"])]
    command += ["-n", "1000000000", "--max-length", "2147483647"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(2)]
        peak = peak_memory(child.pid)
        child.stdout.close()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    assert all(line.endswith(b"\n") for line in lines)
    assert child.returncode == 0
    assert usage.ru_utime + usage.ru_stime < 8  # with the import of torch, which takes 1.5
    assert peak < MOST


def test_a_path_of_any_number_of_steps_streams(model_kinds: dict[str, Path]) -> None:
    vae = textvae.TextVAE.from_pretrained(model_kinds["plain"])
    ends = ["red cat eats", "shy dog sees today", "odd hen likes"]
    for path in ("straight", "spherical"):
        whole = textvae.walk(vae, ends, steps=2003, path=path).steps
        longer = list(textvae.walk_steps(vae, ends, steps=4005, path=path))[::2]
        same = [a.text == b.text for a, b in zip(whole, longer, strict=True)]
        assert sum(same) >= len(same) - 5  # by rounding of the latents
        assert [a.share for a in whole] == pytest.approx([b.share for b in longer])
    first = next(textvae.walk_steps(vae, ends, steps=2**31 - 1))
    assert first.text == whole[0].text
    with pytest.raises(MemoryLimitError, match="--steps 2000000000000: takes at least"):
        vae.interpolate(*ends, steps=2 * 10**12)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryLimitError("--steps 9: takes too much"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory:\n 9 bytes"),
        RuntimeError("std::bad_alloc"),
    ],
    ids=str,
)
def test_memory_that_cannot_be_had(
    monkeypatch: pytest.MonkeyPatch, model_kinds: dict[str, Path], error: Exception
) -> None:
    def fail(*arguments: object, **settings: object) -> None:
        raise error

    monkeypatch.setattr("textvae.api.text_vae.TextVAE.encode", fail)
    sentences = ["red cat eats", "shy dog sees"]
    arguments = ["interpolate", str(model_kinds["plain"]), *sentences]
    result = CliRunner(catch_exceptions=False).invoke(program, arguments)
    assert result.exit_code == 71
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_an_allocation_that_the_system_refuses(
    command: Callable[..., Any], model_kinds: dict[str, Path]
) -> None:
    import resource  # noqa: PLC0415 -- not on Windows

    def limit() -> None:
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * 4096
        resource.setrlimit(resource.RLIMIT_AS, (used + 200 * 2**20,) * 2)

    sentences = ["red cat eats", "shy dog sees"]
    arguments = ["interpolate", str(model_kinds["mixture"]), *sentences, "--steps", "90000000"]
    ended = command(*arguments, "--path", "data", before=limit).wait()
    assert ended.code == 71, ended
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1


def test_a_list_of_any_number_of_samples_is_refused(model_kinds: dict[str, Path]) -> None:
    vae = textvae.TextVAE.from_pretrained(model_kinds["plain"])
    with pytest.raises(MemoryLimitError, match=r"num_samples 1\d*: takes .* sample_iter") as caught:
        vae.sample(10**12)
    assert "\n" not in str(caught.value)
    assert next(vae.sample_iter(10**12)).text == vae.sample(1)[0]


def test_text_without_an_end_is_refused_before_memory_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("textvae.data.reading.memory_size", lambda: 2 * 67 * 1000)
    result = CliRunner().invoke(program, ["train", "-", "--dry-run"], input="abc\n" * 5000)
    assert result.exit_code == MemoryLimitError.exit_code
    assert "error: standard input:1001: more text than fits into memory" in result.stderr


def test_many_neighbors_of_many_sentences_are_found_in_turns(
    model_kinds: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("red cat eats\nshy dog sees today\nodd hen likes\n")
    queries = "".join(f"{word} cat\n" for word in ("red", "shy", "odd", "red"))
    model = [str(model_kinds["plain"]), "--corpus", str(corpus), "-n", "3"]
    outputs = []
    for at_once in (640_000, 3):
        monkeypatch.setattr("textvae.cli.neighbors.NEIGHBORS_AT_ONCE", at_once)
        result = CliRunner().invoke(program, ["neighbors", *model], input=queries)
        assert result.exit_code == 0, result.output
        outputs.append(result.stdout)
    assert outputs[0] == outputs[1]
