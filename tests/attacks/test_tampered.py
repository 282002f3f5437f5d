"""Models whose weights, figures or names were changed under a valid manifest, read by every verb.

Each verb works, or refuses the model in one line; nothing reaches the terminal but printable text,
and no figure is plausible where its tensor is not finite.
"""

import json
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from textvae.cli.main import VERBS, program

Tensors = dict[str, torch.Tensor]
ESCAPES = "\x1b]0;title\x07\x1b[2Jred\r\n\u202e\x9b31m\t\u2028"
BIAS, FACTOR = "decoder.output_bias", "prior.factor"


def with_value(name: str, value: float) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors[name].view(-1)[0] = value

    return change


def of_type(name: str, dtype: torch.dtype) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors[name] = tensors[name].to(dtype)

    return change


def scaled(factor: float) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        for name in tensors:
            tensors[name] = tensors[name] * factor

    return change


def above_diagonal(tensors: Tensors) -> None:
    tensors[FACTOR][0, -1] = 1.0


REFUSED: dict[str, tuple[Callable[[Tensors], None], str]] = {
    "NaN in the decoder": (with_value(BIAS, float("nan")), BIAS),
    "infinity in the decoder": (with_value(BIAS, float("inf")), BIAS),
    "NaN in the encoder": (with_value("encoder.posterior_weight", float("nan")), "encoder."),
    "minus infinity in the prior": (with_value("prior.mean", float("-inf")), "prior.mean"),
    "NaN in the prior": (with_value(FACTOR, float("nan")), FACTOR),
    "a negative deviation": (with_value(FACTOR, -1.0), FACTOR),
    "a factor that is not triangular": (above_diagonal, FACTOR),
    "a weight of 1e38": (with_value(BIAS, 1e38), BIAS),
    "weights times 1e30": (scaled(1e30), "exceeds"),
    "int64": (of_type(BIAS, torch.int64), BIAS),
    "bool": (of_type(BIAS, torch.bool), BIAS),
    "complex64": (of_type(BIAS, torch.complex64), BIAS),
    "float64": (of_type(BIAS, torch.float64), BIAS),
    "bfloat16": (of_type(BIAS, torch.bfloat16), BIAS),
    "float8": (of_type(BIAS, torch.float8_e4m3fn), BIAS),
}
TENSORS: dict[str, Callable[[Tensors], None]] = {
    "weights of zero": scaled(0.0),
    "weights times 1e10": scaled(1e10),
    "weights that are subnormal": scaled(1e-42),
    "a prior far away": with_value("prior.mean", 1e14),
    "a prior without width": with_value(FACTOR, 1e-30),
}

Change = Callable[[Any], object]


def every(value: object, kinds: tuple[type, ...], put: object) -> object:
    """A JSON value with all leaves of some types replaced."""
    if isinstance(value, dict):
        return {name: every(part, kinds, put) for name, part in value.items()}
    if isinstance(value, list):
        return [every(part, kinds, put) for part in value]
    return put if type(value) in kinds else value


def leaves(put: object, *kinds: type) -> Change:
    return lambda value: every(value, kinds, put)


def lists(put: list[object]) -> Change:
    def change(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: change(part) for name, part in value.items()}
        return put if isinstance(value, list) and all(map(_is_number, value)) else value

    return change


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


JSON: dict[str, Change] = {
    "figures of 1e308": leaves(1e308, float),
    "figures of -1e308": leaves(-1e308, float),
    "figures of 1e299": leaves(1e299, float),
    "figures of 1e30": leaves(1e30, float),
    "figures of 5e-324": leaves(5e-324, float),
    "figures of 0": leaves(0.0, float),
    "counts of 0": leaves(0, int),
    "counts of -1": leaves(-1, int),
    "counts of 10^30": leaves(10**30, int),
    "counts of 10^400": leaves(10**400, int),
    "counts of 2^62": leaves(2**62, int),
    "no figures": leaves(None, float),
    "figures that are text": leaves("1e9", float),
    "text with escapes": leaves(ESCAPES, str),
    "text without end": leaves("x" * 300_000, str),
    "text of nothing": leaves("", str),
    "everything is null": lambda value: every(value, (int, float, str), None),
    "a list": lambda value: [value],
    "lists of nothing": lists([]),
    "lists of 1e308": lists([1e308, -1e308, 1e308]),
    "deep": lambda value: b'{"a":' * 50_000,
    "no JSON": lambda value: b"{",
    "no UTF-8": lambda value: b'{"data": "\xff"}',
    "NaN": lambda value: json.dumps(value).replace("0.", "NaN, 0.").encode(),
}
CONTROLS = {"Cc", "Cs", "Zl", "Zp"}
REVERSING = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
FILES = ("results.json", "evaluation.json", "metrics.jsonl")
READERS = [verb for verb in VERBS if verb not in {"train", "recipes", "settings"}]


@pytest.fixture(scope="module")
def spoilt(
    tiny_run: Path,
    tmp_path_factory: pytest.TempPathFactory,
    reseal: Callable[..., None],
    verb_arguments: dict[str, list[str]],
) -> Callable[[str, Callable[[Path], object]], Path]:
    """A run with figures of its own, of which a file is changed."""
    folder = tmp_path_factory.mktemp("tampered")
    whole = folder / "whole"
    shutil.copytree(tiny_run, whole, ignore=shutil.ignore_patterns("state", ".lock"))
    arguments = [*verb_arguments["evaluate"][:-2], "--evaluators", "likelihood,latent"]
    result = CliRunner(catch_exceptions=False).invoke(program, ["evaluate", str(whole), *arguments])
    assert result.exit_code == 0, result.stderr

    def make(name: str, change: Callable[[Path], object]) -> Path:
        path = folder / name
        if not path.is_dir():
            shutil.copytree(whole, path)
            change(path)
            reseal(path)
        return path

    return make


def read(verb: str, path: Path, arguments: list[str]) -> tuple[int, str]:
    """Run a verb; what must hold of it whatever the model is."""
    result = CliRunner(catch_exceptions=False).invoke(program, [verb, str(path), *arguments])
    assert result.exit_code in {0, 2, 71}, (result.stdout, result.stderr)
    if result.exit_code:
        assert result.stderr.startswith("error: "), result.stderr
        assert result.stderr.count("\n") == 1, result.stderr
        assert len(result.stderr) < 1000
        assert result.stdout == ""
    shown = (result.stdout + result.stderr).replace("\n", "").replace("\t", "")
    assert not CONTROLS.intersection(map(unicodedata.category, shown)), ascii(shown)
    assert not REVERSING.intersection(shown)
    return result.exit_code, result.stderr


def change_tensors(change: Callable[[Tensors], None]) -> Callable[[Path], None]:
    def act(path: Path) -> None:
        tensors = load_file(path / "model.safetensors")
        change(tensors)
        save_file(tensors, path / "model.safetensors")

    return act


def change_json(file: str, change: Change) -> Callable[[Path], None]:
    def act(path: Path) -> None:
        lines = (path / file).read_bytes().splitlines() if file.endswith("l") else None
        texts = [(path / file).read_bytes()] if lines is None else lines
        changed = [change(json.loads(text)) for text in texts]
        data = [
            value if isinstance(value, bytes) else json.dumps(value).encode() for value in changed
        ]
        (path / file).write_bytes(b"\n".join(data) + b"\n")

    return act


def cases(verbs_each: int) -> list[tuple[str, str]]:
    """Kinds of models and verbs: for each kind so many verbs, another set for each."""
    kinds = [*REFUSED, *TENSORS, *(f"{file}: {name}" for file in FILES for name in JSON)]
    chosen = []
    for number, kind in enumerate(kinds):
        fixed = ["report", "info"] if ": " in kind and verbs_each < len(READERS) else []
        verbs = [READERS[(3 * number + place) % len(READERS)] for place in range(verbs_each)]
        chosen += [(kind, verb) for verb in (fixed or verbs)]
    return chosen


def check(
    kind: str,
    verb: str,
    spoilt: Callable[[str, Callable[[Path], object]], Path],
    verb_arguments: dict[str, list[str]],
) -> None:
    file, _, name = kind.partition(": ")
    arguments = verb_arguments[verb]
    if file in FILES:
        path = spoilt(kind, change_json(file, JSON[name]))
        arguments = arguments[1:] if verb == "report" else arguments  # on the data of the run
        read(verb, path, arguments)
    elif kind in REFUSED:
        change, tensor = REFUSED[kind]
        code, line = read(verb, spoilt(kind, change_tensors(change)), arguments)
        assert code == 2
        assert tensor in line
    else:
        read(verb, spoilt(kind, change_tensors(TENSORS[kind])), arguments)


@pytest.mark.parametrize(("kind", "verb"), cases(2), ids=str)
def test_a_sample_of_tampered_models(
    spoilt: Callable[[str, Callable[[Path], object]], Path],
    verb_arguments: dict[str, list[str]],
    kind: str,
    verb: str,
) -> None:
    check(kind, verb, spoilt, verb_arguments)


@pytest.mark.full
@pytest.mark.parametrize(("kind", "verb"), cases(len(READERS)), ids=str)
def test_all_verbs_on_all_tampered_models(
    spoilt: Callable[[str, Callable[[Path], object]], Path],
    verb_arguments: dict[str, list[str]],
    kind: str,
    verb: str,
) -> None:
    check(kind, verb, spoilt, verb_arguments)
