"""The table of settings is that of the config classes, and `textvae settings` searches it."""

import json

import pytest
import settings_reference as reference
from click.testing import CliRunner

from textvae.cli.main import program
from textvae.errors import ConfigError
from textvae.run.experiment import ExperimentConfig, load_config

ROWS = list(reference.rows_of(ExperimentConfig))


def test_both_files_are_up_to_date() -> None:
    again = "run python scripts/settings_reference.py"
    assert json.loads(reference.DATA.read_text(encoding="utf-8")) == ROWS, again
    assert reference.PAGE.read_text(encoding="utf-8") == reference.table(ROWS), again


def test_every_setting_takes_its_default() -> None:
    plain = load_config(None, [])
    assert len(ROWS) > 150
    for row in ROWS:
        if row["only_with"] or not row["default"] or row["key"].startswith("start_from."):
            continue
        if row["default"] == "null" and row["key"].endswith(".kind"):
            continue  # the whole table is null
        assert load_config(None, [f"{row['key']}={row['default']}"]) == plain, row["key"]


def test_every_setting_has_a_meaning_and_belongs_to_its_kind() -> None:
    assert [row["key"] for row in ROWS if not row["about"]] == []
    unknown = []
    for row in ROWS:
        kind = row["only_with"]
        if kind and not row["key"].endswith(".kind") and row["default"]:
            try:
                load_config(None, [kind, f"{row['key']}={row['default']}"])
            except ConfigError as error:  # a rule over several settings names the others
                unknown += [row["key"]] * ("unknown" in str(error))
    assert unknown == []


@pytest.mark.parametrize(
    ("pattern", "key"),
    [
        ("word_dropout", "train.objective.word_dropout.kind"),
        ("model.*.dropout_rate", "model.decoder.dropout_rate"),
        ("Press and Wolf", "model.decoder.tie_embeddings"),
    ],
)
def test_settings_are_found_by_key_and_by_meaning(pattern: str, key: str) -> None:
    result = CliRunner().invoke(program, ["settings", pattern, "--json"])
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert key in {row["key"] for row in rows}
    assert all(row in ROWS for row in rows)
    assert len(rows) < len(ROWS) / 3
    text = CliRunner().invoke(program, ["settings", pattern]).stdout
    assert all(f"{row['key']} = {row['default']}" in text for row in rows)


def test_a_setting_that_is_not_there() -> None:
    result = CliRunner().invoke(program, ["settings", "frobnicate"])
    assert result.exit_code == 2
    assert "no setting has this" in result.stderr
