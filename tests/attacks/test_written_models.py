"""Malformed settings, model directories and manifests, written out: refused in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Refuse = Callable[..., str]
LINES = b"".join(b"word%d and another\n" % number for number in range(40))
TOMLS: dict[str, tuple[str, str]] = {
    "no value": ("seed =\n", "line 1: "),
    "no key": ("= 3\n", "line 1: "),
    "no quotes": ("train.device = cpu\n", "line 1: "),
    "open string": ('train.device = "cpu\n', "line 1: "),
    "open table": ("[model\nlatent_dim = 3\n", "line 1: "),
    "twice a key": ("seed = 1\nseed = 2\n", "line 2: "),
    "twice a table": ("[model]\n[model]\n", "line 2: "),
    "a tab in a key": ("se\ted = 3\n", "line 1: "),
    "a NUL": ("seed = 3\0\n", "line 1: "),
    "no TOML": ("{'seed': 3}", "line 1: "),
    "zeros before": ("seed = 007\n", "line 1: "),
    "a date for a seed": ("seed = 2020-01-01\n", "seed: found datetime.date(2020, 1, 1), expec"),
    "an impossible date": ("seed = 2020-13-45\n", "line 1: "),
    "text for a seed": ('seed = "3"\n', "seed: found '3', expected an integer >= 0 an"),
    "a seed below zero": ("seed = -1\n", "seed: found -1, expected an integer >= 0 and"),
    "a seed of 2^63": (
        "seed = 9223372036854775808\n",
        "seed: found 9223372036854775808, expected an",
    ),
    "a seed and a half": ("seed = 0.5\n", "seed: found 0.5, expected an integer >= 0 an"),
    "a truth for a seed": ("seed = true\n", "seed: found True, expected an integer >= 0 a"),
    "a list for a table": ("model = [1, 2]\n", "model: found [1, 2], expected a table"),
    "a number for a table": ("model = 3\n", "model: found 3, expected a table"),
    "tables for a table": (
        "[[model]]\nlatent_dim = 3\n",
        "model: found [{'latent_dim': 3}], expected a",
    ),
    "an unknown table": ("[modle]\nlatent_dim = 3\n", "modle: unknown key"),
    "an unknown key": ("[train]\nbatchsize = 3\n", "train.batchsize: unknown key"),
    "an unknown kind": (
        '[model.encoder]\nkind = "lstm"\n',
        "model.encoder.kind: unknown kind 'lstm'",
    ),
    "a kind that is a number": (
        "[model.encoder]\nkind = 3\n",
        "model.encoder.kind: unknown kind 3",
    ),
    "not a number": ("[train]\nclip_norm = nan\n", "train.clip_norm: found nan, expected a finit"),
    "infinity": ("[train]\nclip_norm = inf\n", "train.clip_norm: found inf, expected a finit"),
    "a clip of zero": ("[train]\nclip_norm = 0\n", "train.clip_norm: found 0, expected a number"),
    "no steps": ("[train]\nmax_steps = 0\n", "train.max_steps: found 0, expected an intege"),
    "steps below zero": (
        "[train]\nmax_steps = -5\n",
        "train.max_steps: found -5, expected an integ",
    ),
    "a batch of none": (
        "[train]\nbatch_size = 0\n",
        "train.batch_size: found 0, expected an integ",
    ),
    "a rate below zero": (
        "[train.optimizer]\nlearning_rate = -0.1\n",
        "train.optimizer.learning_rate: found -0.1, e",
    ),
    "a rate in words": (
        '[train.optimizer]\nlearning_rate = "fast"\n',
        "train.optimizer.learning_rate: found 'fast',",
    ),
    "beta1 of one": (
        "[train.optimizer]\nbeta1 = 1.0\n",
        "train.optimizer.beta1: found 1.0, expected a",
    ),
    "an optimizer unknown": (
        '[train.optimizer]\nkind = "lion"\n',
        "train.optimizer.kind: unknown kind 'lion'",
    ),
    "beta below zero": (
        "[train.objective]\nbeta = -1.0\n",
        "train.objective.beta: found -1.0, expected a",
    ),
    "a dropout of one": (
        "[model.decoder]\ndropout_rate = 1.0\n",
        "model.decoder.dropout_rate: found 1.0, expec",
    ),
    "a dropout below zero": (
        "[model.decoder]\ndropout_rate = -0.1\n",
        "model.decoder.dropout_rate: found -0.1, expe",
    ),
    "no layers": (
        "[model.decoder]\nnum_layers = 0\n",
        "model.decoder.num_layers: found 0, expected",
    ),
    "nine layers": (
        "[model.encoder]\nnum_layers = 9\n",
        "model.encoder.num_layers: found 9, expected",
    ),
    "no length": ("[model]\nmax_length = 0\n", "model.max_length: found 0, expected an integ"),
    "a field of another kind": (
        '[model.encoder]\nkind = "none"\nhidden_dim = 3\n',
        "model.encoder.hidden_dim: unknown key",
    ),
    "a tokenizer unknown": (
        '[data.tokenizer]\nkind = "unigram"\n',
        "data.tokenizer.kind: unknown kind 'unigram'",
    ),
    "a vocabulary of two": (
        '[data.tokenizer]\nkind = "word"\nvocabulary_size = 2\n',
        "data.tokenizer.vocabulary_size: found 2, exp",
    ),
    "bytes without tokens": (
        '[data.tokenizer]\nkind = "bpe"\nvocabulary_size = 257\n',
        "data.tokenizer.vocabulary_size: found 257, e",
    ),
    "all for the test": (
        "[data]\ntest_share = 1.0\n",
        "data.test_share: found 1.0, expected a numbe",
    ),
    "a precision unknown": (
        '[train]\nprecision = "float8"\n',
        "train.precision: found 'float8', expected on",
    ),
    "no samples": ("[evaluate]\nnum_samples = 0\n", "evaluate.num_samples: found 0, expected an i"),
    "evaluators in a string": (
        '[evaluate]\nevaluators = "all"\n',
        "evaluate.evaluators: found 'all', expected a",
    ),
    "deep tables": ("a" + ".a" * 100 + " = 1\n", "a.a.a: nested too deeply"),
    "a language model with a latent": (
        '[model.encoder]\nkind = "none"\n',
        "model: encoder.kind none is a language model",
    ),
    "a VAE without a latent": (
        "[model]\nlatent_dim = 0\n",
        "model: latent_dim 0 is a language model, so",
    ),
}


@pytest.mark.parametrize("name", TOMLS)
def test_settings(refused: Refuse, tmp_path: Path, name: str) -> None:
    content, said = TOMLS[name]
    (tmp_path / "a.toml").write_text(content, encoding="utf-8")
    (tmp_path / "a.txt").write_bytes(LINES)
    assert said in refused("train", "a.txt", "--config", "a.toml")


Change = dict[str, Any] | bytes
MODELS: dict[str, tuple[str, Change, str]] = {
    "config nothing": ("config.json", b"", "not JSON, so the file is damaged"),
    "config cut": ("config.json", b'{"latent_dim": 5', "not JSON, so the file is damaged"),
    "config list": ("config.json", b"[]", "found [], expected a table"),
    "config null": ("config.json", b"null", "found None, expected a table"),
    "config no utf-8": (
        "config.json",
        b'{"latent_dim": "\xff"}',
        "not JSON, so the file is damaged",
    ),
    "config twice a key": (
        "config.json",
        b'{"latent_dim": 5, "latent_dim": 7}',
        "not JSON, so the file is damaged",
    ),
    "config not a number": (
        "config.json",
        b'{"latent_dim": NaN}',
        "not JSON, so the file is damaged",
    ),
    "config nested": ("config.json", b"[" * 9000, "not JSON, so the file is damaged"),
    "config toml": ("config.json", b"latent_dim = 5\n", "not JSON, so the file is damaged"),
    "config another latent": (
        "config.json",
        {"latent_dim": 7},
        "decoder.initial_weight has shape (19, 5), co",
    ),
    "config no latent": (
        "config.json",
        {"latent_dim": 0},
        "latent_dim 0 is a language model, so encoder",
    ),
    "config half a latent": (
        "config.json",
        {"latent_dim": 5.5},
        "latent_dim: found 5.5, expected an integer >",
    ),
    "config true latent": (
        "config.json",
        {"latent_dim": True},
        "latent_dim: found True, expected an integer",
    ),
    "config null latent": (
        "config.json",
        {"latent_dim": None},
        "latent_dim: found None, expected an integer",
    ),
    "config unknown key": ("config.json", {"latnt_dim": 5}, "latnt_dim: unknown key"),
    "config no encoder": (
        "config.json",
        {"encoder": None},
        "encoder: found None, expected a table",
    ),
    "config encoder of words": (
        "config.json",
        {"encoder": "gru"},
        "encoder: found 'gru', expected a table",
    ),
    "config encoder without kind": (
        "config.json",
        {"encoder": {}},
        "encoder.kind: missing, and it has no default",
    ),
    "config another encoder": (
        "config.json",
        {"encoder": {"kind": "none"}},
        "encoder.kind none is a language model, so la",
    ),
    "config another decoder": (
        "config.json",
        {"decoder": {"kind": "gru", "hidden_dim": 23}},
        "decoder.initial_bias has shape (19,), config",
    ),
    "config more layers": (
        "config.json",
        {"decoder": {"kind": "gru", "num_layers": 2}},
        "decoder.initial_bias has shape (19,), config",
    ),
    "config unknown prior": (
        "config.json",
        {"prior": {"kind": "flow"}},
        "prior.kind: unknown kind 'flow'",
    ),
    "config unknown labels": (
        "config.json",
        {"labels": {"kind": "m9"}},
        "labels.kind: unknown kind 'm9'",
    ),
    "config with labels": ("config.json", {"labels": {"kind": "m2"}}, "is missing"),
    "tokenizer nothing": ("tokenizer.json", b"", "not written by textvae: "),
    "tokenizer list": ("tokenizer.json", b"[]", "not written by textvae: "),
    "tokenizer object": ("tokenizer.json", b"{}", "not written by textvae: "),
    "tokenizer cut": (
        "tokenizer.json",
        b'{"version": "1.0", "model": {',
        "not written by textvae: ",
    ),
    "tokenizer no utf-8": ("tokenizer.json", b'{"version": "\xff"}', "not written by textvae: "),
    "tokenizer words": ("tokenizer.json", b"the\ncat\n", "not written by textvae: "),
    "tokenizer nested": ("tokenizer.json", b'{"model": ' * 9000, "not written by textvae: "),
    "tokenizer version": ("tokenizer.json", {"version": "2.0"}, "it has parts"),
    "tokenizer no model": ("tokenizer.json", {"model": None}, "not written by textvae: "),
    "tokenizer model list": ("tokenizer.json", {"model": []}, "not written by textvae: "),
    "tokenizer vocabulary list": (
        "tokenizer.json",
        {"model": {"vocab": ["a"]}},
        "not written by textvae: ",
    ),
    "tokenizer ids of words": (
        "tokenizer.json",
        {"model": {"vocab": {"<unk>": "0"}}},
        "not written by textvae: ",
    ),
    "tokenizer ids of halves": (
        "tokenizer.json",
        {"model": {"vocab": {"<unk>": 0.5}}},
        "not written by textvae: ",
    ),
    "tokenizer another key": ("tokenizer.json", {"post": 1}, "it has parts"),
    "tokenizer truncation": ("tokenizer.json", {"truncation": {"max_length": 1}}, "it has parts"),
    "tokenizer padding": ("tokenizer.json", {"padding": {"pad_id": 0}}, "it has parts"),
    "tokenizer strip": ("tokenizer.json", {"normalizer": {"type": "Strip"}}, "it has parts"),
    "tokenizer decoder": ("tokenizer.json", {"decoder": {"type": "WordPiece"}}, "it has parts"),
    "results nothing": ("results.json", b"", "results.json: cannot be read"),
    "results list": ("results.json", b"[]", "results.json: cannot be read"),
    "results cut": ("results.json", b'{"data": {', "results.json: cannot be read"),
    "results no utf-8": ("results.json", b'{"data": "\xff"}', "results.json: cannot be read"),
    "results null": ("results.json", b"null", "results.json: cannot be read"),
    "results nested": ("results.json", b"[" * 9000, "results.json: cannot be read"),
    "labels nothing": ("labels.json", b"", "belongs to a model with labels"),
}


@pytest.mark.parametrize("name", MODELS)
def test_models(refused: Refuse, reseal: Callable[..., None], model: Path, name: str) -> None:
    file, change, said = MODELS[name]
    if not isinstance(change, bytes):
        change = json.dumps(json.loads((model / file).read_bytes()) | change).encode()
    (model / file).write_bytes(change)
    reseal(model)
    assert said in refused("sample", "model", "-n", "1")


MANIFESTS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "not JSON, so the file is damaged"),
    "null": (b"null", "found None, expected a table"),
    "a list": (b"[]", "found [], expected a table"),
    "an object": (b"{}", "format: missing, and it has no default"),
    "no JSON": (b"files:\n", "not JSON, so the file is damaged"),
    "no UTF-8": (b'{"\xff": 1}', "not JSON, so the file is damaged"),
    "nested": (b"[" * 9000, "not JSON, so the file is damaged"),
    "format of words": (b'{"format": "1"}', "format: found '1', expected an integer"),
    "a later format": (b'{"format": 2}', "format 2 is newer than the format 1 of this"),
    "format zero": (
        b'{"format": 0, "textvae": "0", "files": {}, "seal": "' + b"0" * 64 + b'"}',
        "found format 0, expected 1",
    ),
    "a huge format": (b'{"format": 1e400}', "format: found inf, expected a finite number"),
    "twice a key": (b'{"format": 1, "format": 1}', "the key 'format' is given twice"),
    "files in a list": (
        b'{"format": 1, "textvae": "0", "files": [], "seal": ""}',
        "files: found [], expected a table",
    ),
    "another seal": (
        b'{"format": 1, "textvae": "0", "files": {}, "seal": "' + b"0" * 64 + b'"}',
        "",
    ),
    "a seal of letters": (
        b'{"format": 1, "textvae": "0", "files": {}, "seal": "x"}',
        "seal: found 'x', expected a string matching",
    ),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests(refused: Refuse, model: Path, name: str) -> None:
    content, said = MANIFESTS[name]
    (model / "manifest.json").write_bytes(content)
    assert said in refused("info", "model")
