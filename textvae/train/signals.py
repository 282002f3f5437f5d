"""Signals while training: all processes of a run finish the step and save."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from textvae import distributed


@contextmanager
def catch_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM, so that a step is finished and saved; a second one is raised.

    A signal that is ignored stays ignored: a shell without job control starts its background
    processes with SIGINT ignored. In other threads than the main one the list stays empty.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if caught and distributed.started_together():
            return  # torchrun forwards a signal that all have received, and waits for the save
        if caught:
            earlier = before[signal.Signals(number)]
            if callable(earlier):  # the command line's, which knows the exit code
                earlier(number, frame)
            raise KeyboardInterrupt
        caught.append(number)

    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not signal.SIG_IGN
    ]
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def agreed_signal(caught: list[int]) -> int | None:
    """The signal that some process of the run has caught, the same for all of them."""
    return distributed.all_reduce_max(caught[0] if caught else 0) or None
