"""The command line: verbs by name, each imported when it is called."""

import difflib
import importlib
import inspect
import os
import sys
from typing import Any

import click

from textvae import distributed
from textvae.cli.process import USAGE, exit_code

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
    "score": "Write the anomaly score of each sentence, one a line.",
    "classify": "Write the label of each sentence, and its probability.",
    "evaluate": "Measure likelihood, perplexity and the use of the latent.",
    "report": "Write an HTML page: curves, figures, a map, sentences.",
    "info": "Show a model: sizes, data, figures, checksums.",
    "recipes": "List, show or copy the recipes for train --recipe.",
    "settings": "List the settings for train --set, with defaults and meanings.",
}

SHARED = {"train", "sample", "encode", "score", "evaluate"}
"""The verbs that several processes (`torchrun -m textvae ...`) share."""


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
        words = kwargs.get("args", args[0] if args else None)
        arguments = sys.argv[1:] if words is None else list(words)

        def run() -> None:
            if not distributed.is_first() and not SHARED.intersection(arguments[:1]):
                return  # what is not shared is done once
            with self.make_context("textvae", arguments) as context:
                self.invoke(context)

        sys.exit(exit_code(run))


def _print_version(context: click.Context, option: click.Parameter, is_set: bool) -> None:
    if not is_set:
        return
    from textvae.version import installed_version  # noqa: PLC0415 -- 20 ms

    click.echo(f"textvae {installed_version()}")
    context.exit()


@click.group(
    cls=Program,
    invoke_without_command=True,
    subcommand_metavar="VERB ...",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Results go to stdout, messages to stderr. More help: `textvae VERB --help`.",
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
