"""A signal that comes where Python can raise nothing still stops the verb."""

import signal
import time

import pytest

from textvae.cli.main import exit_code


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
