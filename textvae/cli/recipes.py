"""`textvae recipes`."""

from pathlib import Path

import click

from textvae.cli import options
from textvae.cli.terminal import emit, emit_json, emit_lines
from textvae.errors import ConfigError


@click.command(
    "recipes",
    help="""A recipe is a file of settings that ships with textvae; its first lines say what it is
    for. `textvae recipes` lists them, `textvae recipes show ptb` prints one, and `textvae recipes
    copy ptb mine.toml` writes it to a file, for `train --config mine.toml`. With --json the list
    has `name`, `about` and `file`.""",
)
@click.argument("arguments", metavar="[list | show NAME | copy NAME FILE]", nargs=-1)
@options.as_json
def command(arguments: tuple[str, ...], as_json: bool) -> None:
    """List the recipes, each with the first line of its header."""
    from textvae.config import recipe_text, recipes  # noqa: PLC0415 -- imports msgspec, 20 ms

    match arguments:
        case () | ("list",):
            files = recipes()
            width = max(map(len, files), default=0)
            for name, file in files.items():
                about = recipe_text(name).partition("\n")[0].lstrip("# ")
                if as_json:
                    emit_json({"name": name, "about": about, "file": str(file)})
                else:
                    emit(f"{name:<{width}}  {about}")
        case ("show", name):
            emit_lines(recipe_text(name).rstrip("\n"))
        case ("copy", name, target):
            _copy(name, Path(target))
        case _:
            raise click.UsageError("give list, show NAME, or copy NAME FILE")


def _copy(name: str, target: Path) -> None:
    from textvae.config import recipe_text  # noqa: PLC0415 -- as above

    text = recipe_text(name)
    if target.suffix != ".toml":
        raise ConfigError(f"{target}: a file of settings ends in .toml")
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{target}: is there already; name another file") from None
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written: {error.strerror}") from None
    emit(f"{target}: the settings of {name}")
