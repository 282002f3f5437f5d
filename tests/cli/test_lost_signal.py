"""Signals where Python drops what is raised, or puts words of its own into it."""

import codecs
import signal
import time

import pytest

from textvae.cli.main import exit_code
from textvae.train.signals import catch_signals


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
