"""Freed memory stays with the process: fewer page faults, and the user's settings are kept."""

import os
import platform
import subprocess
import sys

import pytest

from textvae.cli.heap import keep_freed_memory
from textvae.cli.main import exit_code

glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or sys.maxsize < 2**32, reason="needs glibc, 64 bits wide"
)

BLOCKS = """
import resource, sys
from textvae.cli.heap import keep_freed_memory

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
    monkeypatch.setattr("textvae.cli.heap.ctypes.CDLL", lambda name: object())
    assert not keep_freed_memory({})


def test_the_command_line_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[bool] = []
    monkeypatch.setattr("textvae.cli.main.keep_freed_memory", lambda: called.append(True))
    assert exit_code(lambda: None) == 0
    assert called == [True]


@glibc
def test_other_tunables_are_no_reason() -> None:
    assert keep_freed_memory({"GLIBC_TUNABLES": "glibc.rtld.nns=4"})
