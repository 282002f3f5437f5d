"""config.py: strict decoding, merging by precedence, and what its messages say."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest

from textvae.config import Config, decode, differences, encode_json, read_config_file, resolve
from textvae.errors import ConfigError, TextVAEError


class Constant(Config, tag_field="kind", tag="constant"):
    weight: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 1.0


class Cyclical(Config, tag_field="kind", tag="cyclical"):
    cycles: Annotated[int, msgspec.Meta(ge=1)] = 5
    share: float = 0.5


class Model(Config):
    latent_dim: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 31
    rate: Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)] = 0.25
    cell: Literal["gru", "plain"] = "gru"
    tied: bool = False
    sizes: tuple[int, ...] = (7, 11)
    name: str | None = None

    def __post_init__(self) -> None:
        if self.latent_dim < len(self.sizes):
            raise ValueError(f"latent_dim is {self.latent_dim}, expected at least one per size")


class Experiment(Config):
    seed: int = 0
    patience: int | None = 3
    model: Model = Model()
    schedule: Constant | Cyclical = Cyclical()
    data: Constant | Cyclical | None = None


class Needy(Config):
    rows: int
    model: Model = Model()


def refusal(*overrides: str, **values: object) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(Experiment, values, overrides, source="my.toml")
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) <= 240
    return message


def resolved(*overrides: str, **values: object) -> Experiment:
    return resolve(Experiment, values, overrides, source="my.toml")


# -- precedence and merging -----------------------------------------------------------------


def test_nothing_given_is_the_defaults() -> None:
    assert resolved() == Experiment()


def test_the_file_beats_the_defaults_and_an_override_beats_the_file() -> None:
    config = resolved("model.latent_dim=13", model={"latent_dim": 17, "rate": 0.5})
    assert config.model == Model(latent_dim=13, rate=0.5)


def test_given_defaults_replace_those_of_the_type() -> None:
    defaults = Experiment(seed=5, schedule=Constant(weight=0.5), model=Model(latent_dim=19))
    config = resolve(
        Experiment, {"model": {"rate": 0.5}}, ["seed=7"], source="f", defaults=defaults
    )
    assert config == Experiment(
        seed=7, schedule=Constant(weight=0.5), model=Model(latent_dim=19, rate=0.5)
    )


def test_fields_without_a_kind_keep_the_kind() -> None:
    assert resolved(schedule={"cycles": 7}).schedule == Cyclical(cycles=7)
    assert resolved("schedule.cycles=11").schedule == Cyclical(cycles=11)


def test_another_kind_replaces_the_table_and_the_same_kind_does_not() -> None:
    assert resolved(schedule={"kind": "constant"}).schedule == Constant()
    both = resolved("schedule.kind=cyclical", schedule={"kind": "cyclical", "cycles": 7})
    assert both.schedule == Cyclical(cycles=7)
    away = resolved("schedule.kind=constant", schedule={"kind": "cyclical", "cycles": 7})
    assert away.schedule == Constant()


def test_the_order_of_overrides_of_different_keys_does_not_matter() -> None:
    words = ["schedule.kind=constant", "schedule.weight=0.5"]
    assert resolved(*words) == resolved(*reversed(words))
    assert resolved(*words).schedule == Constant(weight=0.5)


def test_the_last_override_of_a_key_counts() -> None:
    assert resolved("seed=3", "seed=5").seed == 5


def test_a_field_that_is_none_by_default_can_be_set() -> None:
    assert resolved('data={kind="constant", weight=0.5}').data == Constant(weight=0.5)
    assert resolved("data.kind=constant", "data.weight=0.5").data == Constant(weight=0.5)


def test_a_required_field_may_come_from_an_override() -> None:
    assert resolve(Needy, {}, ["rows=3"], source="f") == Needy(rows=3)
    with pytest.raises(ConfigError, match=r"^f: rows: missing, and it has no default$"):
        resolve(Needy, {}, [], source="f")


def test_the_arguments_are_not_changed() -> None:
    values: dict[str, object] = {"model": {"latent_dim": 17}, "schedule": {"kind": "constant"}}
    resolve(Experiment, values, ["model.rate=0.5", "schedule.weight=0.5"], source="f")
    assert values == {"model": {"latent_dim": 17}, "schedule": {"kind": "constant"}}


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("model.rate=1e-3", "rate", 1e-3),
        ("model.rate=0", "rate", 0.0),
        ("model.tied=true", "tied", True),
        ("model.sizes=[3, 5]", "sizes", (3, 5)),
        ("model.name=runs/a b", "name", "runs/a b"),
        ("model.name=a=b", "name", "a=b"),
        ('model.name="7"', "name", "7"),
        ("model.name=2024-01-01", "name", "2024-01-01"),
        ("model.name=1\nseed = 2", "name", "1\nseed = 2"),
        ("model.cell=plain", "cell", "plain"),
        (" model.latent_dim = 13", "latent_dim", 13),
    ],
)
def test_override_values_are_toml_or_bare_words(text: str, field: str, value: object) -> None:
    assert getattr(resolved(text).model, field) == value


def test_null_is_none_in_an_override() -> None:
    assert resolved("patience=null").patience is None


# -- refusals, in words -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"sed": 1}, "my.toml: sed: unknown key; did you mean 'seed'?"),
        (
            {"model": {"latnt_dim": 1}},
            "my.toml: model.latnt_dim: unknown key; did you mean 'latent_dim'?",
        ),
        (
            {"zzz": 1},
            "my.toml: zzz: unknown key; the keys here are seed, patience, model, schedule, data",
        ),
        (
            {"schedule": {"weight": 0.5}},
            "my.toml: schedule.weight: unknown key; the keys here are cycles, share",
        ),
        (
            {"model": {"latent_dim": 0}},
            "my.toml: model.latent_dim: found 0, expected an integer >= 1 and <= 4096",
        ),
        (
            {"model": {"latent_dim": "many"}},
            "my.toml: model.latent_dim: found 'many', expected an integer >= 1 and <= 4096",
        ),
        (
            {"model": {"latent_dim": 3.5}},
            "my.toml: model.latent_dim: found 3.5, expected an integer >= 1 and <= 4096",
        ),
        (
            {"model": {"rate": 1.0}},
            "my.toml: model.rate: found 1.0, expected a number >= 0.0 and < 1.0",
        ),
        ({"seed": True}, "my.toml: seed: found True, expected an integer"),
        ({"seed": 1 << 63}, f"my.toml: seed: found {1 << 63}, expected an integer of 64 bits"),
        ({"model": {"tied": 1}}, "my.toml: model.tied: found 1, expected true or false"),
        ({"model": 3}, "my.toml: model: found 3, expected a table"),
        ({"model": {"sizes": 3}}, "my.toml: model.sizes: found 3, expected a list"),
        ({"model": {"sizes": [3, "x"]}}, "my.toml: model.sizes[1]: found 'x', expected an integer"),
        ({"model": {"cell": "lstm"}}, "my.toml: model.cell: found 'lstm', expected one of "),
        ({"model": {"name": 7}}, "my.toml: model.name: found 7, expected a string or nothing"),
        (
            {"schedule": {"kind": "cyclcal"}},
            "my.toml: schedule.kind: unknown kind 'cyclcal'; did you mean 'cyclical'? "
            "The kinds are constant, cyclical",
        ),
        (
            {"schedule": {"kind": "zzz"}},
            "my.toml: schedule.kind: unknown kind 'zzz'; the kinds are constant, cyclical",
        ),
        (
            {"schedule": {"kind": 3}},
            "my.toml: schedule.kind: unknown kind 3; the kinds are constant, cyclical",
        ),
        (
            {"data": {"weight": 0.5}},
            "my.toml: data.kind: missing, and it has no default; the kinds are constant, cyclical",
        ),
        ({"model": {"rate": float("nan")}}, "my.toml: model.rate: found nan, expected a finite"),
        ({"model": {"rate": float("inf")}}, "my.toml: model.rate: found inf, expected a finite"),
        ({"model": {"name": "\ud800"}}, "my.toml: model.name: found '\\ud800', which is not"),
        (
            {"model": {"latent_dim": 1}},
            "my.toml: model: latent_dim is 1, expected at least one per size",
        ),
    ],
)
def test_refusals_name_source_path_found_and_allowed(values: dict[str, object], words: str) -> None:
    assert refusal(**values).startswith(words)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "model.latnt_dim=3",
            "--set 'model.latnt_dim=3': model.latnt_dim: unknown key; did you mean 'latent_dim'?",
        ),
        ("seed=abc", "--set 'seed=abc': seed: found 'abc', expected an integer"),
        ("model=3", "--set 'model=3': model: found 3, expected a table"),
        ("seed", "--set 'seed': expected key.path=value"),
        ("=3", "--set '=3': expected key.path=value"),
        ("model..rate=3", "--set 'model..rate=3': expected key.path=value"),
        ("model.sizes=[1", "--set 'model.sizes=[1': the value is not TOML: "),
        ("model.tied=True", "--set 'model.tied=True': model.tied: found 'True', expected true or"),
        (
            "model.latent_dim=1",
            "my.toml with --set 'model.latent_dim=1': model: latent_dim is 1, expected",
        ),
    ],
)
def test_a_faulty_override_is_named_itself(override: str, words: str) -> None:
    assert refusal(override).startswith(words)


def test_contradicting_overrides_are_refused() -> None:
    assert "model was set to a value before" in refusal("model=3", "model.rate=0.5")


def test_a_fault_of_the_file_is_not_blamed_on_an_innocent_override() -> None:
    assert refusal("model.rate=0.5", model={"latent_dim": 0}).startswith("my.toml: model.latent")


@pytest.mark.parametrize(
    "name",
    ["a\nb", "a`b", "x" * 1000, "", "a - at `$.b.c`", "a` - at `$[3].b[x]", "\ud800", "\x1b[31m"],
)
def test_keys_made_to_confuse_give_one_clean_line(name: str) -> None:
    assert refusal(**{name: 1}).isprintable()
    assert refusal(model={name: 1}).isprintable()


def test_decode_checks_structs_composed_in_python() -> None:
    with pytest.raises(ConfigError, match=r"^here: model.latent_dim: found 0, expected"):
        decode({"model": {"latent_dim": 0}}, Experiment, source="here")
    unchecked = Experiment(schedule=Cyclical(cycles=0))
    with pytest.raises(ConfigError, match=r"^here: schedule.cycles: found 0, expected"):
        decode(unchecked, Experiment, source="here")
    with pytest.raises(ConfigError, match=r"^Experiment: schedule.cycles: found 0"):
        encode_json(unchecked)


def test_decode_of_something_that_is_no_table() -> None:
    for value in (3, None, [1], "text"):
        with pytest.raises(ConfigError, match=r"^here: found .*, expected a table$"):
            decode(value, Experiment, source="here")


def test_config_errors_are_value_errors_of_ours() -> None:
    assert issubclass(ConfigError, ValueError)
    assert issubclass(ConfigError, TextVAEError)


# -- writing and comparing ------------------------------------------------------------------------


def test_json_round_trips_and_is_stable(tmp_path: Path) -> None:
    config = Experiment(seed=7, schedule=Constant(weight=0.1), data=Cyclical(share=1e-7))
    path = tmp_path / "experiment.json"
    path.write_bytes(encode_json(config))
    again = decode(read_config_file(path), Experiment, source=str(path))
    assert again == config
    assert encode_json(again) == encode_json(config)
    assert encode_json(config).endswith(b"}\n")
    assert list(read_config_file(path)) == ["seed", "patience", "model", "schedule", "data"]


def test_differences_name_path_and_both_values() -> None:
    a = Experiment()
    b = Experiment(patience=None, model=Model(latent_dim=13, sizes=(3,)), schedule=Constant())
    assert differences(a, a) == []
    assert differences(a, b) == [
        "patience: 3 -> null",
        "model.latent_dim: 31 -> 13",
        "model.sizes: [7, 11] -> [3]",
        'schedule.kind: "cyclical" -> "constant"',
        "schedule.cycles: 5 -> absent",
        "schedule.share: 0.5 -> absent",
        "schedule.weight: absent -> 1.0",
    ]


def test_configs_are_frozen_and_keyword_only() -> None:
    with pytest.raises(AttributeError):
        Model().latent_dim = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        Model(3)  # type: ignore[misc]


# -- files ---------------------------------------------------------------------------------------


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
