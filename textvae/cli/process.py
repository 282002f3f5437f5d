"""The process around a verb: exit codes, signals, the spinning of threads, the heap.

Exit codes: 0 done (also where the reader of a pipe went away), 1 a fault of textvae (with its
traceback), 2 something the user has to put right, 4 training diverged, 71 out of memory, 74 a
result that could not be written, 75 another process of the run was lost, 130 and 143 stopped by
SIGINT and SIGTERM. They are stable: docs/develop/reliability.md.
"""

import _thread
import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping

import click

from textvae import distributed
from textvae.cli.terminal import OutputError, discard_stdout, flush, log
from textvae.errors import MemoryLimitError, RankError, TextVAEError, is_out_of_memory
from textvae.storage.files import is_disk_error

USAGE, OUTPUT = 2, 74
SIGNALLED = 128
"""Shells add the number of the signal."""

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""The parameters' numbers in glibc's malloc.h (mallopt(3))."""
KEPT = 1 << 30
"""Bytes of free memory that are kept at the top of the heap."""
MAPPED_ALONE = 32 << 20
"""Blocks above this are mapped by themselves and given back when freed. Kept as well, they lie
among the others: the peak of a step of 512 sentences of 80 tokens was 4.6 GB instead of 3.6."""
THE_USERS = (
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_MMAP_MAX_",
    "MALLOC_TOP_PAD_",
)


class Terminated(KeyboardInterrupt):
    """SIGTERM where no loop is there to finish its step."""


def exit_code(run: Callable[[], None]) -> int:
    """Run a verb, log an error in one line on stderr, and return the exit code.

    A fault that is ours comes through as it is, for its traceback.
    """
    # libgomp's idle threads spin for long by default, which on a machine that is busy otherwise
    # made a training step 4 to 7 times slower; not to spin at all (OMP_WAIT_POLICY=PASSIVE) halves
    # the speed of small models on a quiet one, 9,600 against 19,700 tokens/s. A spin of a fraction
    # of a millisecond gives both (docs/develop/log.md). It is read once,
    # when torch loads the library.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "200000")
    keep_freed_memory()
    try:
        with _interruptible():
            return _flushed(run)
    except click.UsageError as error:
        hint = f" See: {error.ctx.command_path} --help" if error.ctx else ""
        return _refuse(f"{error.format_message()}{hint}", USAGE)
    except click.ClickException as error:
        return _refuse(error.format_message(), error.exit_code)
    except (KeyboardInterrupt, click.Abort) as stop:
        # Where it came inside a codec, Python puts words of its own into it, and the cause beside.
        log("stopped" if stop.__cause__ else str(stop) or "stopped")
        return SIGNALLED + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)
    except OutputError as error:
        discard_stdout()
        return _refuse(str(error), OUTPUT)
    except TextVAEError as error:
        return _refuse(str(error), error.exit_code)
    except BrokenPipeError:
        discard_stdout()
        return 0
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200]
        return _refuse(
            f"out of memory{': ' if reason else ''}{reason}; ask for less at once: shorter or "
            "fewer sentences, a smaller beam, batch or --rows",
            MemoryLimitError.exit_code,
        )
    except OSError as error:
        if not is_disk_error(error):
            raise
        if error.filename is None:  # of click's own output, such as --help
            discard_stdout()
        return _refuse(f"{error.filename or 'output'}: cannot be written: {error.strerror}", OUTPUT)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Make SIGTERM leave as SIGINT does, through everything that tidies up."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return

    def leave(number: int, frame: object) -> None:
        raise Terminated

    before, hook = signal.signal(signal.SIGTERM, leave), sys.unraisablehook
    sys.unraisablehook = _insisting(hook)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        signal.signal(signal.SIGTERM, before)


def _insisting(
    hook: Callable[["sys.UnraisableHookArgs"], object],
) -> Callable[["sys.UnraisableHookArgs"], None]:
    """A hook that sends a signal once more which came where nothing can be raised.

    Python drops what is raised in a finalizer or in a callback of a weak reference, of which the
    import of a module has some: the verb would go on for as long as it takes.
    """

    def insist(dropped: "sys.UnraisableHookArgs") -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            hook(dropped)
            return
        number = signal.SIGTERM if issubclass(dropped.exc_type, Terminated) else signal.SIGINT
        again = threading.Timer(0.01, _thread.interrupt_main, [number])  # when we are out of it
        again.daemon = True
        again.start()

    return insist


def _flushed(run: Callable[[], None]) -> int:
    try:
        run()
    except click.exceptions.Exit as stop:
        flush()
        return stop.exit_code
    flush()
    return 0


def _refuse(message: str, code: int) -> int:
    line = "error: " + " ".join(message.split())
    if distributed.is_first():
        log(line)
    elif code != RankError.exit_code:  # else the lost one has written its error, or the first will
        log(f"process {os.environ['RANK']}: {line}", any_process=True)
    return code


def keep_freed_memory(environment: Mapping[str, str] = os.environ, *, size: int = KEPT) -> bool:
    """Let malloc keep freed memory for the next step, up to `size` bytes; returns whether it does.

    glibc gives the top of its heap back to the kernel as soon as a few tens of megabytes of it are
    free, and a training step that frees its gradients and logits then pays for every page again. It
    is a setting of the whole process, so the command line makes it and the library does not.
    Nothing is done where malloc is not glibc's, or not 64 bits wide, or the user has set it.
    """
    if any(name in environment for name in THE_USERS):
        return False
    if "glibc.malloc" in environment.get("GLIBC_TUNABLES", ""):
        return False
    if os.name != "posix" or sys.maxsize < 2**32:
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(MMAP_THRESHOLD, MAPPED_ALONE)) and bool(mallopt(TRIM_THRESHOLD, size))
