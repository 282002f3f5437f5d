"""`textvae recipes`."""

import click

from textvae.cli import options
from textvae.cli.terminal import emit, emit_json


@click.command(
    "recipes",
    help="""A recipe is a file of settings that ships with textvae; its first lines say what it is
    for. With --json: `name`, `about` and `file`.""",
)
@options.as_json
def command(as_json: bool) -> None:
    """List the recipes, each with the first line of its header."""
    from textvae.run.experiment import recipes  # noqa: PLC0415 -- imports torch, 1.5 s

    files = recipes()
    width = max(map(len, files), default=0)
    for name, file in files.items():
        about = file.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        if as_json:
            emit_json({"name": name, "about": about, "file": str(file)})
        else:
            emit(f"{name:<{width}}  {about}")
