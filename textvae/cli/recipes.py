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
    from textvae.config import recipe_file, recipes  # noqa: PLC0415 -- imports msgspec, 20 ms

    match arguments:
        case () | ("list",):
            files = recipes()
            width = max(map(len, files), default=0)
            for name, file in files.items():
                about = file.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
                if as_json:
                    emit_json({"name": name, "about": about, "file": str(file)})
                else:
                    emit(f"{name:<{width}}  {about}")
        case ("show", name):
            file = recipe_file(name, source="recipes show")
            emit_lines(file.read_text(encoding="utf-8").rstrip("\n"))
        case ("copy", name, target):
            _copy(recipe_file(name, source="recipes copy"), Path(target))
        case _:
            raise click.UsageError("give list, show NAME, or copy NAME FILE")


def _copy(recipe: Path, target: Path) -> None:
    if target.suffix != ".toml":
        raise ConfigError(f"{target}: a file of settings ends in .toml")
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(recipe.read_text(encoding="utf-8"))
    except FileExistsError:
        raise ConfigError(f"{target}: is there already; name another file") from None
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written: {error.strerror}") from None
    emit(f"{target}: the settings of {recipe.stem}")
