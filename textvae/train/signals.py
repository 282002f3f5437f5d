"""Signals while training: the step is finished and saved, by all processes of a run."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from textvae import distributed


@contextmanager
def catch_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM, so that a step is finished and saved; a second one is raised.

    What this process was started to ignore stays ignored, as in all else of Python: a shell without
    job control has SIGINT ignored by what it starts in the background.
    Only the main thread may set handlers; elsewhere the list stays empty.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if caught and distributed.started_together():
            return  # torchrun passes on what all have got, and waits for the save
        if caught:
            earlier = before[signal.Signals(number)]
            if callable(earlier):  # the command line's, which knows the exit code
                earlier(number, frame)
            raise KeyboardInterrupt
        caught.append(number)

    heard = (signal.SIGINT, signal.SIGTERM)
    answered = [number for number in heard if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in answered}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def agreed_signal(caught: list[int]) -> int | None:
    """The signal that some process of the run has caught, the same for all of them."""
    return distributed.all_reduce_max(caught[0] if caught else 0) or None
