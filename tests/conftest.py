"""Processes that die at a chosen moment, for the tests of what a kill leaves behind."""

import os
import signal
import sys
from collections.abc import Callable

import pytest


def _killed_at(moment: int, action: Callable[[], object]) -> bool:
    """Run in a forked process that dies at its n-th file operation; whether it died.

    Python reports opening, renaming, making and removing of files to audit hooks before they
    happen, so counting them reaches every moment between two of them.
    """
    child = os.fork()
    if child == 0:
        left = [moment]

        def count(event: str, _: object) -> None:
            if event == "open" or event.startswith(("os.", "shutil.")):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(count)
            action()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.fixture
def killed_at() -> Callable[[int, Callable[[], object]], bool]:
    """The function above: test modules cannot import each other under importlib mode."""
    return _killed_at
