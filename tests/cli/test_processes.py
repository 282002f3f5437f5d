"""What only a real process shows: start-up, pipes, full disks, signals."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXTVAE = [sys.executable, "-m", "textvae"]

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and pipes of POSIX")


def environment() -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return {**own, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def start(command: list[str], **options: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        command,
        env=environment(),
        text=True,
        stderr=subprocess.PIPE,
        **{"stdout": subprocess.PIPE, **options},
    )


def test_a_reader_that_goes_away_ends_it_silently(place: Path) -> None:
    process = start([*TEXTVAE, "sample", "runs/tiny", "-n", "2000000", "--max-length", "2"])
    assert process.stdout is not None
    for _ in range(3):
        assert process.stdout.readline()
    process.stdout.close()
    # Two million sentences would take minutes.
    assert process.wait(timeout=60) == 0
    assert process.stderr is not None
    with process.stderr as said:
        assert said.read() == ""


def emitting(text: str, times: int = 1) -> list[str]:
    """A process that emits a line as every verb does, without the cost of importing torch."""
    program = (
        "import sys; from textvae.cli.process import exit_code\n"
        "from textvae.cli.terminal import emit\n"
        f"sys.exit(exit_code(lambda: emit({text!a} * {times})))"
    )
    return [sys.executable, "-c", program]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize(
    ("command", "where"),
    [
        (emitting("a line"), "standard output"),
        (emitting("more than a buffer holds ", times=100_000), "standard output"),
        ([*TEXTVAE, "--help"], "output"),
    ],
    ids=["at the end", "at once", "help"],
)
def test_a_full_disk_is_one_line_and_74(command: list[str], where: str) -> None:
    with Path("/dev/full").open("wb") as full:
        process = start(command, stdout=full)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 74
    assert said == f"error: {where}: cannot be written: No space left on device\n"


def test_closed_descriptors_are_said(place: Path) -> None:
    reading = [*TEXTVAE, "reconstruct", "runs/tiny"]
    for command, closed, code, said in [
        (emitting("a"), ">&-", 74, "standard output: cannot be written: it is closed\n"),
        (reading, "<&-", 2, "standard input: is closed; give one sentence a line"),
    ]:
        process = start(["sh", "-c", f"{shlex.join(command)} {closed}"])
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == code
        assert stderr.startswith(f"error: {said}")
        assert stderr.count("\n") == 1


def test_results_are_utf_8_whatever_the_locale() -> None:
    process = subprocess.run(
        emitting("d\u00e9j\u00e0 \u4e2d"),
        env={**environment(), "LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
    )
    assert process.stdout == "d\u00e9j\u00e0 \u4e2d\n".encode()


def test_a_signal_stops_a_run_that_the_same_command_continues(
    copy: Path, tiny_options: list[str]
) -> None:
    longer = ["--max-steps", "1000000", "--save-every", "1000000"]
    often = ["--set", "train.log_every=5", "--set", "train.validate_every=1000000"]
    command = [*TEXTVAE, "train", "tiny.txt", "--output", "runs/long", *tiny_options]
    stopped_at = 0
    for number, code in [(signal.SIGINT, 130), (signal.SIGTERM, 143)]:
        process = start([*command, *longer, *often])
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("step "):
                process.send_signal(number)
                break
        assert process.stdout is not None
        process.stdout.close()
        said += process.stderr.readlines()
        process.stderr.close()
        assert process.wait(timeout=60) == code
        assert said[-1].startswith("runs/long: stopped after step ")
        assert said[-1].endswith("; the same command continues from there\n")
        goes_on = [line for line in said if line.startswith("runs/long: resumes from step ")]
        assert len(goes_on) == (stopped_at > 0)
        if goes_on:
            assert goes_on == [f"runs/long: resumes from step {stopped_at}\n"]
        step = int(said[-1].split("step ")[1].split(";")[0].replace(",", ""))
        assert step > stopped_at
        stopped_at = step


def test_the_first_lines_of_help_come_at_once_for_every_verb(tmp_path: Path) -> None:
    program = (
        "import sys; from textvae.cli.main import VERBS, program\n"
        "from textvae.cli.process import exit_code\n"
        "for verb in VERBS:\n"
        "    exit_code(lambda: program.make_context('textvae', [verb, '--help']).exit())\n"
        "    program.get_command(None, verb)\n"
        "assert not {'torch', 'numpy', 'msgspec', 'tokenizers'} & sys.modules.keys()\n"
    )
    begun = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert time.perf_counter() - begun < 5
