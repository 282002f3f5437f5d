"""The command line: verbs imported when they are called, exit codes, errors in one line.

Exit codes: 0 done (also where the reader of a pipe went away), 1 a fault of textvae (with its
traceback), 2 something the user has to put right, 4 training diverged, 74 a result that could not
be written, 75 another process of the run was lost, 130 and 143 stopped by SIGINT and SIGTERM. They
are stable: docs/develop/reliability.md.
"""

import _thread
import contextlib
import difflib
import importlib
import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import click

from textvae import distributed
from textvae.cli.heap import keep_freed_memory
from textvae.cli.terminal import OutputError, complain, discard_stdout, flush, talk
from textvae.errors import RankError, TextVAEError
from textvae.storage.files import is_disk_error

VERBS = {
    "train": "Train a model on a corpus, or continue a run that stopped.",
    "sample": "Write new sentences, drawn from the prior.",
    "interpolate": "Write the sentences between two sentences or more.",
    "reconstruct": "Encode sentences and write what the decoder makes of them.",
    "encode": "Write the posteriors of sentences: means and log-variances.",
    "decode": "Write the sentences of latents, such as encode wrote.",
    "neighbors": "Find the sentences of a corpus that are nearest to a sentence.",
    "analogy": "Edit one sentence as two others differ.",
    "attribute": "Change sentences by the difference of two sets of them.",
    "score": "Say how strange sentences are, one score a line.",
    "classify": "Write the label of each sentence, and its probability.",
    "evaluate": "Measure likelihood, perplexity and the use of the latent.",
    "report": "Write a page to look at: curves, figures, a map, sentences.",
    "info": "Say what a model is: sizes, data, numbers, checksums.",
    "recipes": "List the recipes for train --recipe.",
}

SHARED = {"train", "sample", "encode", "score", "evaluate"}
"""What several processes (`torchrun -m textvae ...`) do together."""

USAGE, OUTPUT = 2, 74
SIGNALLED = 128  # shells add the number of the signal


class Terminated(KeyboardInterrupt):
    """SIGTERM where no loop is there to finish its step."""


class Program(click.Group):
    """A click group whose commands are the modules of this package, named in VERBS."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs in the order in which a user meets them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one verb and take its `command`."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"textvae.cli.{cmd_name}").command
        command.help = f"{VERBS[cmd_name]}\n\n{inspect.cleandoc(command.help or '')}"
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; a misspelt one is refused with the nearest."""
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], VERBS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the verbs are {', '.join(VERBS)}."
            raise click.UsageError(f"No such verb {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs from the table, without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run and leave the process with an exit code; never returns."""
        if "_TEXTVAE_COMPLETE" in os.environ:  # a shell asks for completion; click answers it
            super().main(prog_name="textvae")
        given = kwargs.get("args", args[0] if args else None)
        arguments = sys.argv[1:] if given is None else list(given)

        def run() -> None:
            if not distributed.is_first() and not SHARED.intersection(arguments[:1]):
                return  # what is not shared is done once
            with self.make_context("textvae", arguments) as context:
                self.invoke(context)

        sys.exit(exit_code(run))


def exit_code(run: Callable[[], None]) -> int:
    """Run, say what went wrong in one line on stderr, and return the exit code.

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
        talk("stopped" if stop.__cause__ else str(stop) or "stopped")
        return SIGNALLED + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)
    except OutputError as error:
        discard_stdout()
        return _refuse(str(error), OUTPUT)
    except TextVAEError as error:
        return _refuse(str(error), error.exit_code)
    except BrokenPipeError:
        discard_stdout()
        return 0
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
        talk(line)
    elif code != RankError.exit_code:  # else the one that was lost has spoken, or the first will
        complain(f"process {os.environ['RANK']}: {line}")
    return code


def _print_version(context: click.Context, option: click.Parameter, asked: bool) -> None:
    if not asked:
        return
    from textvae.version import installed_version  # noqa: PLC0415 -- 20 ms

    click.echo(f"textvae {installed_version()}")
    context.exit()


@click.group(
    cls=Program,
    invoke_without_command=True,
    subcommand_metavar="VERB ...",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Results go to stdout and talk to stderr. `textvae VERB --help` says more.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
@click.pass_context
def program(context: click.Context) -> None:
    """A variational autoencoder for sentences."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(USAGE)


def main() -> None:
    """The entry point."""
    program.main(sys.argv[1:])
