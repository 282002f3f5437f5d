"""What is published loads as it was, and parts that do not belong together are refused."""

import math
import re
import shutil
from pathlib import Path

import pytest
import torch
from msgspec import structs

from textvae.api.text_vae import TextVAE
from textvae.data.tokenizer import CharTokenizerConfig, Tokenizer, WordTokenizerConfig
from textvae.errors import CheckpointError, ConfigError, DataError, TextVAEError
from textvae.generate.decoding import decode_latents
from textvae.generate.strategies import Temperature
from textvae.model.decoder import GRUDecoderConfig
from textvae.model.encoder import GRUEncoderConfig
from textvae.model.vae import VAE, ModelConfig
from textvae.run.model_directory import Results, card, load_model, publish, read_results
from textvae.storage.checkpoint import save_model_directory, verify_directory
from textvae.storage.manifest import read_manifest
from textvae.version import installed_version

WORDS = "ant bee cow dog eel fox gnu hen ibex jay kid"
CONFIG = ModelConfig(
    latent_dim=3,
    max_length=17,
    encoder=GRUEncoderConfig(embedding_dim=5, hidden_dim=7),
    decoder=GRUDecoderConfig(embedding_dim=11, hidden_dim=2),
)
VARIANTS = {
    "plain": CONFIG,
    "words read by the decoder's vectors": structs.replace(
        CONFIG, encoder=GRUEncoderConfig(hidden_dim=7)
    ),
    "deep and tied": structs.replace(
        CONFIG,
        encoder=GRUEncoderConfig(embedding_dim=5, hidden_dim=7, num_layers=2, bidirectional=True),
        decoder=GRUDecoderConfig(embedding_dim=11, hidden_dim=2, num_layers=2, tie_embeddings=True),
    ),
}


def tokenizer() -> Tokenizer:
    return WordTokenizerConfig().train([WORDS])


def build(config: ModelConfig = CONFIG, words: Tokenizer | None = None) -> VAE:
    return config.build((words or tokenizer()).vocabulary_size, seed=5).eval()


def sentences(model: VAE) -> list[list[int]]:
    latents = model.prior.sample(13, seed=1)
    return decode_latents(model, latents, Temperature(), seed=2, max_length=17).sentences


@pytest.fixture
def results(tiny_run: Path) -> Results:
    found = read_results(tiny_run)
    assert found is not None
    return found


# -- round trips ---------------------------------------------------------------------------------


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_weights_words_and_samples_come_back(tmp_path: Path, config: ModelConfig) -> None:
    model, words = build(config), tokenizer()
    publish(tmp_path / "model", model, config, words, None)
    found = load_model(tmp_path / "model")
    assert found.config == config
    assert found.results is None
    assert found.tokenizer.to_json() == words.to_json()
    assert not found.model.training
    weights = model.state_dict()
    assert found.model.state_dict().keys() == weights.keys()
    for name, value in found.model.state_dict().items():
        assert torch.equal(value, weights[name])
    assert sentences(found.model) == sentences(model)


@pytest.mark.parametrize(
    "words",
    [CharTokenizerConfig().train([WORDS]), WordTokenizerConfig(lowercase=True).train([WORDS])],
    ids=["char", "lowercase"],
)
def test_other_tokenizers_come_back(tmp_path: Path, words: Tokenizer) -> None:
    publish(tmp_path, build(words=words), CONFIG, words, None)
    found = load_model(tmp_path).tokenizer
    assert found.encode("Ant dog") == words.encode("Ant dog")
    assert found.kind == words.kind


def test_the_files_are_those_of_a_model_directory(tmp_path: Path, results: Results) -> None:
    publish(tmp_path / "a", build(), CONFIG, tokenizer(), None)
    names = {"config.json", "model.safetensors", "tokenizer.json", "README.md", "manifest.json"}
    assert {path.name for path in (tmp_path / "a").iterdir()} == names
    publish(tmp_path / "b", build(), CONFIG, tokenizer(), results)
    assert {path.name for path in (tmp_path / "b").iterdir()} == names | {"results.json"}
    for folder in ("a", "b"):
        assert all(check.problem is None for check in verify_directory(tmp_path / folder))


def test_the_same_model_gives_the_same_bytes(tmp_path: Path, results: Results) -> None:
    for folder in ("a", "b"):
        publish(tmp_path / folder, build(), CONFIG, tokenizer(), results)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_results_come_back(tmp_path: Path, results: Results) -> None:
    assert results.evaluation is not None
    truth = structs.replace(results.evaluation, source_nll=17.25, source_entropy=1.0 / 3.0)
    training = structs.replace(results.training, finished=False, validation_elbo=None)
    for number, given in enumerate(
        [
            results,
            structs.replace(results, evaluation=truth),
            structs.replace(results, evaluation=None, training=training),
        ]
    ):
        publish(tmp_path / str(number), build(), CONFIG, tokenizer(), given)
        assert read_results(tmp_path / str(number)) == given
        assert load_model(tmp_path / str(number)).results == given


def test_a_model_without_results_has_none(tmp_path: Path) -> None:
    publish(tmp_path, build(), CONFIG, tokenizer(), None)
    assert read_results(tmp_path) is None
    assert read_results(tmp_path / "nowhere") is None


def test_the_results_of_a_model_as_bad_as_can_be_come_back(
    tmp_path: Path, results: Results
) -> None:
    words, config = tokenizer(), CONFIG
    model = build(config, words)
    with torch.no_grad():
        model.decoder.output_bias[2] = 1e6
    found = TextVAE(model, words, config).evaluate(["bee cow dog"], num_samples=2)
    assert found.nll > 1e6
    assert found.perplexity > 1e300
    given = structs.replace(results, evaluation=found)
    publish(tmp_path, model, config, words, given)
    assert read_results(tmp_path) == given


# -- parts that do not belong together -------------------------------------------------------------


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    other = WordTokenizerConfig().train([WORDS + " lynx"])
    publish(tmp_path, build(), CONFIG, other, None)
    words = "the tokenizer does not belong to the weights: it has 14 words, they have 13"
    with pytest.raises(CheckpointError, match=re.escape(f"{tmp_path}: {words}")):
        load_model(tmp_path)


def test_a_tokenizer_of_the_same_size_is_found_by_its_checksum(tmp_path: Path) -> None:
    publish(tmp_path, build(), CONFIG, tokenizer(), None)
    other = WordTokenizerConfig().train([WORDS.replace("kid", "koi")])
    (tmp_path / "tokenizer.json").write_text(other.to_json(), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"tokenizer.json: does not match its checksum"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (structs.replace(CONFIG, latent_dim=4), "config.json asks for"),
        (VARIANTS["deep and tied"], "has shape (2,), config.json asks for (4,)"),
        (
            structs.replace(CONFIG, encoder=VARIANTS["deep and tied"].encoder),
            "has shape none, config.json asks for (",
        ),
        (
            structs.replace(CONFIG, decoder=GRUDecoderConfig(embedding_dim=11, hidden_dim=3)),
            "has shape (2,)",
        ),
    ],
    ids=["latent", "layers", "directions", "hidden"],
)
def test_a_config_of_other_shapes_is_refused(
    tmp_path: Path, config: ModelConfig, words: str
) -> None:
    publish(tmp_path, build(), config, tokenizer(), None)
    with pytest.raises(CheckpointError, match=re.escape(words)) as caught:
        load_model(tmp_path)
    assert "take both from the same model" in str(caught.value)


@pytest.mark.parametrize(
    "file", ["config.json", "tokenizer.json", "model.safetensors", "results.json"]
)
@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
def test_a_damaged_file_is_refused_by_name(
    tmp_path: Path, results: Results, file: str, damage: str
) -> None:
    publish(tmp_path, build(), CONFIG, tokenizer(), results)
    path = tmp_path / file
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if damage == "cut" else data[:-3] + b"\xff" + data[-2:])
    with pytest.raises(CheckpointError, match=re.escape(f"{path}: ")):
        load_model(tmp_path)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "results.json"])
@pytest.mark.parametrize("garbage", [b"\xff", b"[", b"1"])
def test_damage_that_is_not_looked_for_is_still_said_in_words(
    tmp_path: Path, results: Results, file: str, garbage: bytes
) -> None:
    publish(tmp_path, build(), CONFIG, tokenizer(), results)
    path = tmp_path / file
    path.write_bytes(garbage * path.stat().st_size)
    with pytest.raises(TextVAEError, match=re.escape(str(path))) as caught:
        load_model(tmp_path, verify=False)
    assert "\n" not in str(caught.value)


def test_a_setting_of_the_config_that_is_unknown_is_named(tmp_path: Path) -> None:
    publish(tmp_path, build(), CONFIG, tokenizer(), None)
    path = tmp_path / "config.json"
    path.write_bytes(path.read_bytes().replace(b"latent_dim", b"latent_din"))
    with pytest.raises(ConfigError, match="latent_din"):
        load_model(tmp_path, verify=False)


def test_labels_of_a_kind_that_was_removed_are_refused_by_name(
    tiny_run: Path, tmp_path: Path
) -> None:
    kind, removed = b'"kind": "none"', b'"kind": "m1_m2"'
    publish(tmp_path / "whole", build(), CONFIG, tokenizer(), None)
    files = {file.name: file.read_bytes() for file in (tmp_path / "whole").iterdir()}
    config = files["config.json"].rpartition(kind)
    del files["manifest.json"]
    save_model_directory(
        tmp_path / "whole", {**files, "config.json": config[0] + removed + config[2]}
    )
    shutil.copytree(tiny_run, tmp_path / "stopped")
    (tmp_path / "stopped" / "manifest.json").unlink()
    experiment = tmp_path / "stopped" / "experiment.json"
    head, labels, rest = experiment.read_bytes().partition(b'"labels": {')
    experiment.write_bytes(head + labels + rest.replace(kind, removed, 1))
    version = installed_version()
    message = f"labels of kind m1_m2, which textvae {version} no longer reads; .* again with model"
    for name in ("whole", "stopped"):
        with pytest.raises(CheckpointError, match=message) as caught:
            load_model(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))


def test_results_of_a_model_that_is_not_whole_do_not_count(tiny_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    (run / "manifest.json").unlink()
    assert read_results(run) is None
    assert load_model(run).results is None


@pytest.mark.parametrize("name", ["nowhere", "file", "empty"])
def test_what_is_no_model_is_refused_in_words(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("text", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=re.escape(f"{tmp_path / name}: ")):
        load_model(tmp_path / name)


def test_a_model_that_was_not_loaded_has_no_test_split() -> None:
    made = TextVAE(build(), tokenizer(), CONFIG)
    with pytest.raises(DataError, match="has no test split; give the sentences"):
        made.evaluate()
    assert made.evaluate(["bee cow"], num_samples=2).num_tokens == 3


# -- the card ------------------------------------------------------------------------------------


def test_the_card_holds_the_numbers(tiny_run: Path, results: Results) -> None:
    text = (tiny_run / "README.md").read_text(encoding="utf-8")
    found, evaluation = load_model(tiny_run), results.evaluation
    assert evaluation is not None
    assert text == card(found.model, found.config, found.tokenizer, results)
    assert text.startswith("---\nlibrary_name: textvae\n")
    count = sum(p.numel() for p in found.model.parameters())
    for part in (
        f"a latent of 5 dimensions, {count:,} parameters and a word vocabulary of 18",
        f"Trained on {results.data.source}.",
        *(split.read.sha256 for split in results.data.splits().values()),
        "| train | 89 | ",
        "127 steps in ",
        "these are the weights of step 127",
        f"On {evaluation.source}:",
        f"{evaluation.nll:.3f} +- {evaluation.nll_stderr:.3f}",
        f"{evaluation.perplexity:.3f}",
        f"over {evaluation.num_tokens:,} tokens",
        f"active units                {evaluation.active_units} ",
        f"of {evaluation.latent_dim}: means vary",
    ):
        assert part in text
    assert math.isclose(
        evaluation.perplexity,
        math.exp(evaluation.nll * evaluation.num_sentences / evaluation.num_tokens),
    )


def test_the_card_of_a_stopped_run_says_so(results: Results) -> None:
    stopped = structs.replace(
        results, evaluation=None, training=structs.replace(results.training, finished=False)
    )
    text = card(build(), CONFIG, tokenizer(), stopped)
    assert "The run was stopped before its end." in text
    assert "## Numbers" not in text
    assert "## Data" not in card(build(), CONFIG, tokenizer(), None)


def test_files_of_an_aggregate_posterior_are_ignored(tmp_path: Path) -> None:
    """Older versions kept a mixture beside the weights."""
    publish(tmp_path, build(), CONFIG, tokenizer(), None)
    files = {name: (tmp_path / name).read_bytes() for name in read_manifest(tmp_path).files}
    files |= {"aggregate.json": b"{}", "aggregate.safetensors": b"tensors"}
    save_model_directory(tmp_path, files)
    assert load_model(tmp_path).config == CONFIG
    assert all(check.problem is None for check in verify_directory(tmp_path))
