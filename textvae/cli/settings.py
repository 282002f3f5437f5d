"""`textvae settings`."""

import json
from fnmatch import fnmatch
from pathlib import Path

import click

from textvae.cli import options
from textvae.cli.terminal import emit, emit_json
from textvae.errors import ConfigError

FILE = Path(__file__).with_suffix(".json")
"""Made by scripts/settings_reference.py."""


@click.command(
    "settings",
    help="""The settings that `train --set KEY=VALUE` and the files of --config take, with their
    defaults, types and meanings. PATTERN is a part of the key or of the meaning, or a key with `*`,
    as in `textvae settings dropout` and `textvae settings 'train.objective.*'`. With --json: `key`,
    `type`, `default`, `about` and `only_with` (the kind that the setting belongs to).""",
)
@click.argument("pattern", required=False)
@options.as_json
def command(pattern: str | None, as_json: bool) -> None:
    """List settings, each with its default, type and meaning."""
    rows = json.loads(FILE.read_text(encoding="utf-8"))
    part = (pattern or "").lower()
    matching = [
        row
        for row in rows
        if part in f"{row['key']} {row['about']}".lower() or fnmatch(row["key"], part)
    ]
    if not matching:
        raise ConfigError(f"{pattern}: no setting has this in its key or its meaning")
    for row in matching:
        if as_json:
            emit_json(row)
            continue
        emit(f"{row['key']} = {row['default']}  ({row['type']})")
        about = row["about"] + (f" Only with {row['only_with']}." if row["only_with"] else "")
        if about:
            emit(f"    {about}")
