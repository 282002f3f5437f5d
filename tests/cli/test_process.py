"""The process around a verb: exit codes, signals, idle threads, and memory that stays with it."""

import codecs
import errno
import os
import platform
import signal
import subprocess
import sys
import time

import pytest

from textvae.cli.process import exit_code, keep_freed_memory
from textvae.cli.terminal import OutputError
from textvae.errors import CheckpointError, ConfigError, DataError, StorageError, TrainingError
from textvae.train.signals import catch_signals

glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or sys.maxsize < 2**32, reason="needs glibc, 64 bits wide"
)

BLOCKS = """
import resource, sys
from textvae.cli.process import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory({})

def use():
    blocks = [bytearray(30 << 20) for _ in range(3)]
    del blocks

use(), use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def one_line(stderr: str) -> str:
    """The error, which is the only line there is."""
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == 1
    return stderr.removeprefix("error: ").rstrip("\n")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("a: b"), 2, "a: b"),
        (TrainingError("two\n  lines"), 4, "two lines"),
        (StorageError("x: cannot be written"), 74, "x: cannot be written"),
        (CheckpointError("x: cannot be written"), 2, "x: cannot be written"),
        (DataError("x: cannot be read"), 2, "x: cannot be read"),
        (OSError(errno.ENOSPC, "No space", "m.jsonl"), 74, "m.jsonl: cannot be written: No space"),
        (OutputError("stdout is full"), 74, "stdout is full"),
    ],
    ids=repr,
)
def test_errors_have_exit_codes(
    capsys: pytest.CaptureFixture[str], error: Exception, code: int, said: str
) -> None:
    def run() -> None:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        # What could not be written is discarded with stdout, which here belongs to pytest.
        patch.setattr("sys.stdout", None)
        assert exit_code(run) == code
    assert one_line(capsys.readouterr().err) == said


def test_an_interrupt_is_130_and_a_fault_of_ours_keeps_its_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    def broken() -> None:
        raise ZeroDivisionError

    before = signal.getsignal(signal.SIGTERM)
    for run, code in [
        (interrupted, 130),
        (lambda: os.kill(os.getpid(), signal.SIGINT), 130),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), 143),
    ]:
        assert exit_code(run) == code
        assert capsys.readouterr().err == "stopped\n"
        assert signal.getsignal(signal.SIGTERM) is before
    with pytest.raises(ZeroDivisionError):
        exit_code(broken)


@pytest.mark.parametrize(
    ("policy", "spins", "after"), [(None, None, "200000"), (None, "7", "7"), ("ACTIVE", None, None)]
)
def test_idle_threads_spin_for_a_moment_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, policy: str | None, spins: str | None, after: str | None
) -> None:
    for name, value in (("OMP_WAIT_POLICY", policy), ("GOMP_SPINCOUNT", spins)):
        monkeypatch.setenv(name, "")  # so that it is put back afterwards
        monkeypatch.delenv(name)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert exit_code(lambda: None) == 0
    assert os.environ.get("OMP_WAIT_POLICY") == policy
    assert os.environ.get("GOMP_SPINCOUNT") == after


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_that_a_finalizer_swallows_comes_again(number: int, code: int) -> None:
    class Last:
        def __del__(self) -> None:
            signal.raise_signal(number)  # what is raised here, Python drops

    def run() -> None:
        Last()
        end = time.monotonic() + 5
        while time.monotonic() < end:
            pass

    assert exit_code(run) == code


def test_sigint_that_was_ignored_from_the_start_stays_ignored() -> None:
    """As a shell has it for what a script starts in the background: training is no exception."""
    earlier = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with catch_signals() as caught:
            signal.raise_signal(signal.SIGINT)
            assert caught == []
            signal.raise_signal(signal.SIGTERM)
        assert caught == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGINT, earlier)


def test_a_signal_inside_a_codec_is_said_as_any_other(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(data: bytes, errors: str = "strict") -> tuple[str, int]:
        signal.raise_signal(signal.SIGTERM)
        return "", len(data)

    def find(name: str) -> codecs.CodecInfo | None:
        return codecs.CodecInfo(interrupted, interrupted) if name == "interrupted" else None  # type: ignore[arg-type]

    codecs.register(find)
    try:
        assert exit_code(lambda: print(b"a".decode("interrupted"))) == 143
    finally:
        codecs.unregister(find)
    assert capsys.readouterr().err == "stopped\n"


def page_faults(how: str) -> int:
    """Of three blocks of 30 MiB, used five times after two."""
    # pinned down, for the user of the tests may have a malloc of his own taste
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", BLOCKS, how]
    run = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return int(run.stdout)


@glibc
def test_what_is_freed_costs_no_page_faults_again() -> None:
    kept, usual = page_faults("kept"), page_faults("usual")
    assert kept < 50
    assert usual > 50 + 10 * kept


@pytest.mark.parametrize(
    "environment",
    [
        {"MALLOC_TRIM_THRESHOLD_": "131072"},
        {"MALLOC_MMAP_THRESHOLD_": "131072"},
        {"MALLOC_MMAP_MAX_": "0"},
        {"MALLOC_TOP_PAD_": "0"},
        {"GLIBC_TUNABLES": "glibc.malloc.check=3:glibc.malloc.trim_threshold=128"},
    ],
)
def test_what_the_user_has_set_stays(environment: dict[str, str]) -> None:
    assert not keep_freed_memory(environment)


def test_where_malloc_is_not_glibcs_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textvae.cli.process.ctypes.CDLL", lambda name: object())
    assert not keep_freed_memory({})


def test_the_command_line_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[bool] = []
    monkeypatch.setattr("textvae.cli.process.keep_freed_memory", lambda: called.append(True))
    assert exit_code(lambda: None) == 0
    assert called == [True]


@glibc
def test_other_tunables_are_no_reason() -> None:
    assert keep_freed_memory({"GLIBC_TUNABLES": "glibc.rtld.nns=4"})
