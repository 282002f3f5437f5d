"""config.py: what configuration files may hold, and where their faults are."""

from pathlib import Path

import pytest

from textvae.config import read_config_file
from textvae.errors import ConfigError


def test_toml_and_json_files_read_the_same(tmp_path: Path) -> None:
    toml, json = tmp_path / "a.toml", tmp_path / "a.json"
    toml.write_bytes(b'\xef\xbb\xbfseed = 3\n[model]\nrate = 1e-3\nname = "caf\xc3\xa9"\n')
    json.write_bytes(b'{"seed": 3, "model": {"rate": 1e-3, "name": "caf\\u00e9"}}')
    assert read_config_file(toml) == read_config_file(json)
    assert read_config_file(toml) == {"seed": 3, "model": {"rate": 1e-3, "name": "caf\u00e9"}}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.toml", b"seed = 1\nrate = = 2\n", "line 2: Invalid value"),
        ("a.toml", b"seed = 1\nrate = \n", "line 2: Invalid value"),
        ("a.toml", b"seed = 1\nname = '''\n", "line 2: "),
        ("a.toml", b"seed = 1\nseed = 2\n", "line 2: Cannot overwrite a value"),
        ("a.toml", b"seed = 1\nname = '\xff'\n", "line 2: not UTF-8"),
        ("a.toml", b"a = " + b"[" * 100_000, "nested too deeply for a configuration file"),
        ("a.json", b'{"seed": 1,\n "rate" 2}', "line 2: Expecting ':' delimiter"),
        ("a.json", b'{"seed": 1, "seed": 2}', "the key 'seed' is given twice"),
        ("a.json", b'{"rate": NaN}', "NaN is not a number"),
        ("a.json", b"[" * 100_000, "nested too deeply for a configuration file"),
        ("a.json", b"[1]", "found [1], expected an object of settings"),
        ("a.json", b"", "line 1: Expecting value"),
        ("a.yaml", b"seed: 1", "a configuration file ends in .toml or .json"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_config_file(path)
    assert str(caught.value).startswith(f"{path}: {words}")
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such configuration file"):
        read_config_file(tmp_path / "no.toml")
    (tmp_path / "dir.toml").mkdir()
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_config_file(tmp_path / "dir.toml")
