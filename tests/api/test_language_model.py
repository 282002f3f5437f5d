"""The language-model baseline by the same commands: what works, what is refused, what it says."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import textvae
from textvae.api.latent_space import posteriors
from textvae.cli.main import program
from textvae.data.batching import TokenArray
from textvae.data.tokenizer import WordTokenizerConfig
from textvae.errors import CheckpointError
from textvae.model.encoder import NoEncoderConfig
from textvae.model.vae import ModelConfig
from textvae.train.validation import validate

OVERRIDES = (
    "model.encoder.kind=none",
    "model.latent_dim=0",
    "model.decoder.embedding_dim=13",
    "model.decoder.hidden_dim=19",
    "data.tokenizer.kind=word",
    "train.batch_size=31",
    "train.max_steps=53",
    "train.validate_every=11",
    "train.device=cpu",
    "train.precision=float32",
    "train.optimizer.learning_rate=0.02",
    "train.calibrate=true",
    "evaluate.num_samples=3",
)
Invoke = Callable[..., Result]


@pytest.fixture(scope="module")
def invoke() -> Invoke:
    return lambda *arguments: CliRunner(catch_exceptions=False).invoke(program, arguments)


@pytest.fixture(scope="module")
def trained(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """The run, and what training it wrote to stdout and to stderr."""
    run = tmp_path_factory.mktemp("language") / "run"
    settings = [word for setting in OVERRIDES for word in ("--set", setting)]
    arguments = ["train", str(tiny_data), *settings, "--output", str(run)]
    result = CliRunner(catch_exceptions=False).invoke(program, arguments)
    assert result.exit_code == 0, result.stderr
    return run, result.stdout, result.stderr


def test_training_says_nothing_of_a_latent_and_selects_from_the_first_validation(
    trained: tuple[Path, str, str],
) -> None:
    run, written, said = trained
    assert "validation: nll " in said
    for word in ("kl", "active", "ignores the latent", "nll <="):
        assert word not in said
    for word in ("interpolat", "prior", "kl ", "ignores the latent"):
        assert word not in written
    assert "samples\n" in written
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert next(line for line in lines if "validation" in line)["selected"]
    nlls = [-line["validation"]["elbo"] for line in lines if "validation" in line]
    assert min(nlls) < nlls[0] - 0.5, "it learns"


def test_the_directory_and_its_card_say_what_it_is(
    trained: tuple[Path, str, str], invoke: Invoke
) -> None:
    run = trained[0]
    card = (run / "README.md").read_text("utf-8")
    assert "# A language model of sentences" in card
    assert "variational-autoencoder" not in card
    config = json.loads((run / "config.json").read_text("utf-8"))
    assert (config["latent_dim"], config["encoder"]) == (0, {"kind": "none"})
    told = invoke("info", str(run)).stdout
    assert "latent      none: a language model" in told
    assert "encoder" not in told


def test_its_temperature_is_said_wherever_its_training_is(
    trained: tuple[Path, str, str], invoke: Invoke
) -> None:
    run, _, said = trained
    training = json.loads((run / "results.json").read_text("utf-8"))["training"]
    temperature, best = training["temperature"], training["validation_elbo"]
    assert temperature != 1.0
    assert f"temperature {temperature:.3f}: validation nll {-best:.3f}" in said
    card = (run / "README.md").read_text("utf-8")
    assert f"the weights divide all logits by {temperature:.3f}" in card
    assert f"; logits divided by {temperature:.3f} since" in invoke("info", str(run)).stdout


def test_it_samples_and_evaluates(trained: tuple[Path, str, str], invoke: Invoke) -> None:
    model = textvae.TextVAE.from_pretrained(trained[0], device="cpu")
    samples = model.sample(11, seed=1)
    assert len(set(samples)) > 5
    assert model.sample(3, seed=1) == samples[:3]
    assert invoke("sample", str(trained[0]), "-n", "11", "--seed", "1").stdout.splitlines() == (
        samples
    )
    found = model.evaluate(num_samples=7)
    assert found.num_samples == 1
    assert found.nll == -found.elbo == found.reconstruction
    assert model.evaluate(["red cat eats"]).num_tokens == 4


def test_what_needs_a_latent_is_refused_in_one_line(
    trained: tuple[Path, str, str], invoke: Invoke
) -> None:
    model = textvae.TextVAE.from_pretrained(trained[0], device="cpu")
    for verb in (model.encode, model.reconstruct, lambda pair: model.interpolate(*pair)):
        with pytest.raises(CheckpointError, match="is a language model without a latent"):
            verb(["red cat eats", "shy dog sees"])
    for verb in ("interpolate", "reconstruct"):
        result = invoke(verb, str(trained[0]), "red cat eats", "shy dog sees")
        assert (result.exit_code, result.stdout) == (2, "")
        assert len(result.stderr.splitlines()) == 1
        assert "it can sample and evaluate" in result.stderr


def test_the_same_command_continues_and_a_dry_run_estimates(
    trained: tuple[Path, str, str], tiny_data: Path, invoke: Invoke
) -> None:
    settings = [word for setting in OVERRIDES for word in ("--set", setting)]
    again = invoke("train", str(tiny_data), *settings, "--output", str(trained[0]))
    assert "this run is finished" in again.stderr
    assert again.stdout.splitlines()[-2:] == trained[1].splitlines()[-2:]
    dry = invoke("train", str(tiny_data), *settings, "--dry-run", "--json")
    assert json.loads(dry.stdout)["num_parameters"] > 0


def test_a_stream_of_sentences_is_refused_too() -> None:
    config = ModelConfig(latent_dim=0, encoder=NoEncoderConfig())
    tokenizer = WordTokenizerConfig().train(["a b"])
    vae = textvae.TextVAE(config.build(tokenizer.vocabulary_size), tokenizer, config)
    with pytest.raises(CheckpointError, match="is a language model without a latent"):
        list(posteriors(vae, ["a", "b"]))


def test_it_is_validated_in_its_own_precision() -> None:
    config = ModelConfig(latent_dim=0, encoder=NoEncoderConfig())
    data = TokenArray.from_lists([[2, 3], [], [4]], 11)
    single, double = config.build(11), config.build(11).double()
    found = [validate(vae, data, seed=0).elbo for vae in (single, double)]
    assert found[1] == pytest.approx(found[0], rel=1e-6)
