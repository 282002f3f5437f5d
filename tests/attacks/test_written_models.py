"""Malformed settings, model directories and manifests, written out: refused in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Refuse = Callable[..., str]
LINES = b"".join(b"word%d and another\n" % number for number in range(40))
TOMLS: list[tuple[str, str]] = [
    ("seed =\n", "line 1: "),
    ("= 3\n", "line 1: "),
    ("train.device = cpu\n", "line 1: "),
    ('train.device = "cpu\n', "line 1: "),
    ("[model\nlatent_dim = 3\n", "line 1: "),
    ("seed = 1\nseed = 2\n", "line 2: "),
    ("[model]\n[model]\n", "line 2: "),
    ("se\ted = 3\n", "line 1: "),
    ("seed = 3\0\n", "line 1: "),
    ("{'seed': 3}", "line 1: "),
    ("seed = 007\n", "line 1: "),
    ("seed = 2020-01-01\n", "seed: found datetime.date(2020, 1, 1), expec"),
    ("seed = 2020-13-45\n", "line 1: "),
    ('seed = "3"\n', "seed: found '3', expected an integer >= 0 an"),
    ("seed = -1\n", "seed: found -1, expected an integer >= 0 and"),
    ("seed = 9223372036854775808\n", "seed: found 9223372036854775808, expected an"),
    ("seed = 0.5\n", "seed: found 0.5, expected an integer >= 0 an"),
    ("seed = true\n", "seed: found True, expected an integer >= 0 a"),
    ("model = [1, 2]\n", "model: found [1, 2], expected a table"),
    ("model = 3\n", "model: found 3, expected a table"),
    ("[[model]]\nlatent_dim = 3\n", "model: found [{'latent_dim': 3}], expected a"),
    ("[modle]\nlatent_dim = 3\n", "modle: unknown key"),
    ("[train]\nbatchsize = 3\n", "train.batchsize: unknown key"),
    ('[model.encoder]\nkind = "lstm"\n', "model.encoder.kind: unknown kind 'lstm'"),
    ("[model.encoder]\nkind = 3\n", "model.encoder.kind: unknown kind 3"),
    ("[train]\nclip_norm = nan\n", "train.clip_norm: found nan, expected a finit"),
    ("[train]\nclip_norm = inf\n", "train.clip_norm: found inf, expected a finit"),
    ("[train]\nclip_norm = 0\n", "train.clip_norm: found 0, expected a number"),
    ("[train]\nmax_steps = 0\n", "train.max_steps: found 0, expected an intege"),
    ("[train]\nmax_steps = -5\n", "train.max_steps: found -5, expected an integ"),
    ("[train]\nbatch_size = 0\n", "train.batch_size: found 0, expected an integ"),
    ("[train.optimizer]\nlearning_rate = -0.1\n", "train.optimizer.learning_rate: found -0.1, e"),
    ('[train.optimizer]\nlearning_rate = "fast"\n', "train.optimizer.learning_rate: found 'fast',"),
    ("[train.optimizer]\nbeta1 = 1.0\n", "train.optimizer.beta1: found 1.0, expected a"),
    ('[train.optimizer]\nkind = "lion"\n', "train.optimizer.kind: unknown kind 'lion'"),
    ("[train.objective]\nbeta = -1.0\n", "train.objective.beta: found -1.0, expected a"),
    ("[model.decoder]\ndropout_rate = 1.0\n", "model.decoder.dropout_rate: found 1.0, expec"),
    ("[model.decoder]\ndropout_rate = -0.1\n", "model.decoder.dropout_rate: found -0.1, expe"),
    ("[model.decoder]\nnum_layers = 0\n", "model.decoder.num_layers: found 0, expected"),
    ("[model.encoder]\nnum_layers = 9\n", "model.encoder.num_layers: found 9, expected"),
    ("[model]\nmax_length = 0\n", "model.max_length: found 0, expected an integ"),
    ('[model.encoder]\nkind = "none"\nhidden_dim = 3\n', "model.encoder.hidden_dim: unknown key"),
    ('[data.tokenizer]\nkind = "unigram"\n', "data.tokenizer.kind: unknown kind 'unigram'"),
    (
        '[data.tokenizer]\nkind = "word"\nvocabulary_size = 2\n',
        "data.tokenizer.vocabulary_size: found 2, exp",
    ),
    (
        '[data.tokenizer]\nkind = "bpe"\nvocabulary_size = 257\n',
        "data.tokenizer.vocabulary_size: found 257, e",
    ),
    ("[data]\ntest_share = 1.0\n", "data.test_share: found 1.0, expected a numbe"),
    ('[train]\nprecision = "float8"\n', "train.precision: found 'float8', expected on"),
    ("[evaluate]\nnum_samples = 0\n", "evaluate.num_samples: found 0, expected an i"),
    ('[evaluate]\nevaluators = "all"\n', "evaluate.evaluators: found 'all', expected a"),
    ("a" + ".a" * 100 + " = 1\n", "a.a.a: nested too deeply"),
    ('[model.encoder]\nkind = "none"\n', "model: encoder.kind none is a language model"),
    ("[model]\nlatent_dim = 0\n", "model: latent_dim 0 is a language model, so"),
]


@pytest.mark.parametrize(("content", "message"), TOMLS)
def test_settings(refused: Refuse, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.toml").write_text(content, encoding="utf-8")
    (tmp_path / "a.txt").write_bytes(LINES)
    assert message in refused("train", "a.txt", "--config", "a.toml")


Change = dict[str, Any] | bytes
MODELS: dict[str, list[tuple[Change, str]]] = {
    "config.json": [
        (b"", "not JSON, so the file is damaged"),
        (b'{"latent_dim": 5', "not JSON, so the file is damaged"),
        (b"[]", "found [], expected a table"),
        (b"null", "found None, expected a table"),
        (b'{"latent_dim": "\xff"}', "not JSON, so the file is damaged"),
        (b'{"latent_dim": 5, "latent_dim": 7}', "not JSON, so the file is damaged"),
        (b'{"latent_dim": NaN}', "not JSON, so the file is damaged"),
        (b"[" * 9000, "not JSON, so the file is damaged"),
        (b"latent_dim = 5\n", "not JSON, so the file is damaged"),
        ({"latent_dim": 7}, "decoder.initial_weight has shape (19, 5), co"),
        ({"latent_dim": 0}, "latent_dim 0 is a language model, so encoder"),
        ({"latent_dim": 5.5}, "latent_dim: found 5.5, expected an integer >"),
        ({"latent_dim": True}, "latent_dim: found True, expected an integer"),
        ({"latent_dim": None}, "latent_dim: found None, expected an integer"),
        ({"latnt_dim": 5}, "latnt_dim: unknown key"),
        ({"encoder": None}, "encoder: found None, expected a table"),
        ({"encoder": "gru"}, "encoder: found 'gru', expected a table"),
        ({"encoder": {}}, "encoder.kind: missing, and it has no default"),
        ({"encoder": {"kind": "none"}}, "encoder.kind none is a language model, so la"),
        (
            {"decoder": {"kind": "gru", "hidden_dim": 23}},
            "decoder.initial_bias has shape (19,), config",
        ),
        (
            {"decoder": {"kind": "gru", "num_layers": 2}},
            "decoder.initial_bias has shape (19,), config",
        ),
        ({"prior": {"kind": "tree"}}, "prior.kind: unknown kind 'tree'"),
        ({"labels": {"kind": "m9"}}, "labels.kind: unknown kind 'm9'"),
        ({"labels": {"kind": "m2"}}, "is missing"),
    ],
    "tokenizer.json": [
        (b"", "not written by textvae: "),
        (b"[]", "not written by textvae: "),
        (b"{}", "not written by textvae: "),
        (b'{"version": "1.0", "model": {', "not written by textvae: "),
        (b'{"version": "\xff"}', "not written by textvae: "),
        (b"the\ncat\n", "not written by textvae: "),
        (b'{"model": ' * 9000, "not written by textvae: "),
        ({"version": "2.0"}, "it has parts"),
        ({"model": None}, "not written by textvae: "),
        ({"model": []}, "not written by textvae: "),
        ({"model": {"vocab": ["a"]}}, "not written by textvae: "),
        ({"model": {"vocab": {"<unk>": "0"}}}, "not written by textvae: "),
        ({"model": {"vocab": {"<unk>": 0.5}}}, "not written by textvae: "),
        ({"post": 1}, "it has parts"),
        ({"truncation": {"max_length": 1}}, "it has parts"),
        ({"padding": {"pad_id": 0}}, "it has parts"),
        ({"normalizer": {"type": "Strip"}}, "it has parts"),
        ({"decoder": {"type": "WordPiece"}}, "it has parts"),
    ],
    "results.json": [
        (b"", "results.json: cannot be read"),
        (b"[]", "results.json: cannot be read"),
        (b'{"data": {', "results.json: cannot be read"),
        (b'{"data": "\xff"}', "results.json: cannot be read"),
        (b"null", "results.json: cannot be read"),
        (b"[" * 9000, "results.json: cannot be read"),
    ],
    "labels.json": [
        (b"", "belongs to a model with labels"),
    ],
}


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [(file, *case) for file, cases in MODELS.items() for case in cases],
    ids=lambda value: str(value)[:50],
)
def test_models(
    refused: Refuse,
    reseal: Callable[..., None],
    model: Path,
    file: str,
    change: Change,
    message: str,
) -> None:
    if not isinstance(change, bytes):
        change = json.dumps(json.loads((model / file).read_bytes()) | change).encode()
    (model / file).write_bytes(change)
    reseal(model)
    assert message in refused("sample", "model", "-n", "1")


MANIFESTS: list[tuple[bytes, str]] = [
    (b"", "not JSON, so the file is damaged"),
    (b"null", "found None, expected a table"),
    (b"[]", "found [], expected a table"),
    (b"{}", "format: missing, and it has no default"),
    (b"files:\n", "not JSON, so the file is damaged"),
    (b'{"\xff": 1}', "not JSON, so the file is damaged"),
    (b"[" * 9000, "not JSON, so the file is damaged"),
    (b'{"format": "1"}', "format: found '1', expected an integer"),
    (b'{"format": 2}', "format 2 is newer than the format 1 of this"),
    (
        b'{"format": 0, "textvae": "0", "files": {}, "seal": "' + b"0" * 64 + b'"}',
        "found format 0, expected 1",
    ),
    (b'{"format": 1e400}', "format: found inf, expected a finite number"),
    (b'{"format": 1, "format": 1}', "the key 'format' is given twice"),
    (
        b'{"format": 1, "textvae": "0", "files": [], "seal": ""}',
        "files: found [], expected a table",
    ),
    (b'{"format": 1, "textvae": "0", "files": {}, "seal": "' + b"0" * 64 + b'"}', ""),
    (
        b'{"format": 1, "textvae": "0", "files": {}, "seal": "x"}',
        "seal: found 'x', expected a string matching",
    ),
]


@pytest.mark.parametrize(("content", "message"), MANIFESTS)
def test_manifests(refused: Refuse, model: Path, content: bytes, message: str) -> None:
    (model / "manifest.json").write_bytes(content)
    assert message in refused("info", "model")
