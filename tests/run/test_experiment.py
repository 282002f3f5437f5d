"""Defaults < file < overrides, and every choice made for the user can be said by the user."""

import json
import re
import time
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from msgspec import structs

from textvae.api.train import experiment_config
from textvae.config import differences, encode_json, recipes
from textvae.errors import ConfigError
from textvae.run.experiment import (
    EPOCHS,
    STEPS,
    VALIDATIONS,
    ExperimentConfig,
    check_device,
    choose_data,
    choose_training,
    has_bfloat16,
    load_config,
)
from textvae.train.objective import FreeBitsPerSentence, FreeBitsTotal
from textvae.train.procedures import ProcedureConfig
from textvae.train.rate import RateConfig

NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")


def settle(
    overrides: list[str], *, embedded: bool, size: int
) -> tuple[ExperimentConfig, list[str]]:
    config, chosen = choose_data(load_config(None, overrides), embedded=embedded)
    config, more = choose_training(config, lengths=torch.full((size,), 3))
    return config, chosen + more


def test_selection_is_by_the_objective_where_it_is_not_the_elbo(tmp_path: Path) -> None:
    lengths = torch.full((101,), 3)
    overrides = ["train.objective.beta=0.2"]
    config, more = choose_training(load_config(None, overrides), lengths=lengths)
    assert config.train.selection == "objective"
    assert "train.selection=objective" in more
    assert settle([], embedded=False, size=101)[0].train.selection is None
    by_elbo = load_config(None, [*overrides, "train.selection=elbo"])
    assert choose_training(by_elbo, lengths=lengths)[0].train.selection == "elbo"
    begun = tmp_path / "experiment.json"
    for config_before, selection in ((config, "objective"), (load_config(None, overrides), None)):
        begun.write_bytes(encode_json(config_before))
        again, _ = choose_training(load_config(None, overrides), lengths=lengths, begun=begun)
        assert again.train.selection == selection, "a run continues as it began"


# -- load_config ---------------------------------------------------------------------------------


def test_without_file_and_overrides_there_are_the_defaults() -> None:
    assert load_config() == ExperimentConfig()


def test_overrides_go_before_the_file_and_the_file_before_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("seed = 3\n[model]\nlatent_dim = 5\nmax_length = 17\n", encoding="utf-8")
    found = load_config(file, ["model.latent_dim=7"])
    assert (found.seed, found.model.latent_dim, found.model.max_length) == (3, 7, 17)
    assert found.train == ExperimentConfig().train


def test_a_recipe_is_a_file_by_name() -> None:
    assert {"embedded", "ptb"} <= recipes().keys()
    for name, path in recipes().items():
        assert load_config(recipe=name) == load_config(path)
        assert load_config(None, ["seed=5"], recipe=name).seed == 5


def test_an_unknown_recipe_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"--recipe ptv: .*embedded, .*ptb"):
        load_config(recipe="ptv")


def test_a_recipe_and_a_file_are_refused_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--config and --recipe are two starting points"):
        load_config(tmp_path / "mine.toml", recipe="ptb")


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    config, _ = settle(["model.encoder.bidirectional=true"], embedded=False, size=101)
    file = tmp_path / "experiment.json"
    file.write_bytes(encode_json(config))
    assert load_config(file) == config


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.latent_dims=5"], "latent_dim"),
        (["seed=-1"], "seed"),
        (["model.latent_dim=0"], "model.latent_dim"),
        (["train.optimizer.kind=adam"], "adamw"),
        (["evaluate.num_samples=many"], "evaluate.num_samples"),
        (["train.max_epochs=0"], "train.max_epochs"),
    ],
)
def test_a_wrong_setting_is_named(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        load_config(None, overrides)


# -- choices -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("embedded", "kind"), [(True, "word"), (False, "bpe")])
def test_the_tokenizer_follows_the_data(embedded: bool, kind: str) -> None:
    config, chosen = choose_data(ExperimentConfig(), embedded=embedded)
    assert chosen == [f"data.tokenizer.kind={kind}"]
    assert load_config(None, chosen) == config


def test_a_tokenizer_that_was_given_stays() -> None:
    given = load_config(None, ["data.tokenizer.kind=char", "data.tokenizer.min_count=3"])
    assert choose_data(given, embedded=True) == (given, [])


@pytest.mark.parametrize("size", [1, 101, 100_003])
@pytest.mark.parametrize("embedded", [True, False])
@pytest.mark.parametrize(
    "given",
    [
        [],
        ["train.max_epochs=2.5"],
        ["train.max_steps=17"],
        ["train.max_steps=17", "train.max_epochs=3"],
        ["train.validate_every=13"],
        ["train.save_every=7", "train.device=cpu"],
        ["train.precision=bfloat16", "data.tokenizer.kind=char"],
        ["train.device=auto", "train.batch_size=5"],
    ],
)
def test_what_was_chosen_can_be_said(given: list[str], embedded: bool, size: int) -> None:
    config, chosen = settle(given, embedded=embedded, size=size)
    assert not any(choice.partition("=")[0] in str(given) for choice in chosen)
    again, nothing = settle([*given, *chosen], embedded=embedded, size=size)
    assert differences(again, config) == []
    assert nothing == []
    assert settle([*given, *chosen], embedded=embedded, size=3)[0] == config


def test_after_the_choices_nothing_is_left_open() -> None:
    config, _ = settle([], embedded=False, size=101)
    left = [name for name, value in structs.asdict(config.train).items() if value is None]
    assert left == ["micro_batch_size", "max_epochs", "selection", "patience"], "by the ELBO"
    assert config.data.tokenizer is not None


def test_the_length_is_passes_over_the_corpus_within_bounds() -> None:
    batches = sum(STEPS) // (2 * EPOCHS)  # an epoch of a corpus between the bounds
    for size, steps in (
        (7, STEPS[0]),
        (64 * batches, EPOCHS * batches),
        (64 * batches + 1, EPOCHS * (batches + 1)),
        (10**6, STEPS[1]),
    ):
        train = settle(["train.batch_size=64"], embedded=False, size=size)[0].train
        assert train.max_steps == steps
        assert train.validate_every == train.save_every == round(steps / VALIDATIONS)


@pytest.mark.parametrize(("epochs", "steps"), [(3, 33), (0.5, 6), (0.001, 1)])
def test_epochs_become_steps(epochs: float, steps: int) -> None:
    given = [f"train.max_epochs={epochs}", "train.batch_size=10"]
    assert settle(given, embedded=False, size=110)[0].train.max_steps == steps


def test_a_run_of_one_step_is_validated_and_saved() -> None:
    train = settle(["train.max_steps=1"], embedded=False, size=11)[0].train
    assert (train.max_steps, train.validate_every, train.save_every) == (1, 1, 1)


# -- devices -------------------------------------------------------------------------------------


def test_the_cpu_is_there() -> None:
    assert check_device("cpu") == torch.device("cpu")


@NO_CUDA
def test_auto_is_the_cpu_without_cuda() -> None:
    assert check_device("auto") == torch.device("cpu")
    assert settle([], embedded=False, size=11)[0].train.device == "cpu"


@pytest.mark.parametrize("name", ["tpu", "meta", "cuda:97", "cuda:x", "", "gpu", "mps"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(name: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"--device {name}: this machine has cpu")):
        check_device(name)


@NO_CUDA
def test_cuda_is_refused_where_there_is_none() -> None:
    with pytest.raises(ConfigError, match="--device cuda: this machine has cpu"):
        settle(["train.device=cuda"], embedded=False, size=11)


def test_bfloat16_is_chosen_only_where_the_device_has_it() -> None:
    precision = settle(["train.device=cpu"], embedded=False, size=11)[0].train.precision
    expected = "bfloat16" if has_bfloat16(torch.device("cpu")) else "float32"
    assert precision == expected
    assert not has_bfloat16(torch.device("mps"))


@pytest.mark.parametrize("slow", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("has_instructions", [True, False])
def test_bfloat16_is_chosen_on_a_cpu_where_its_products_are_faster(
    slow: torch.dtype, has_instructions: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    product = torch.mm

    def timed(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        if left.dtype == slow:
            time.sleep(0.02)
        small = product(left[:8, :8].float(), right[:8, :8].float())
        return small.to(left.dtype)

    monkeypatch.setattr(torch, "mm", timed)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_instructions)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    expected = has_instructions and slow == torch.float32
    assert has_bfloat16.__wrapped__(torch.device("cpu")) is expected


# -- how much is kept ------------------------------------------------------------------------------


def test_keep_moves_the_defaults_and_what_is_set_stays(tmp_path: Path) -> None:
    plain = load_config(None, [])
    assert load_config(None, ["keep=little"]) == structs.replace(plain, keep="little")
    half, most = (load_config(None, [f"keep={name}"]) for name in ("half", "most"))
    for config in (half, most):
        assert config.model.encoder.bidirectional
        assert config.model.prior.__struct_config__.tag == "flow"
        assert not config.train.objective.selects_by_elbo
    assert plain.model.latent_dim < half.model.latent_dim < most.model.latent_dim
    assert half.train.objective.beta > most.train.objective.beta
    file = tmp_path / "a.toml"
    file.write_text('keep = "most"\n[model]\nlatent_dim = 7\nprior.kind = "gaussian"\n')
    mine = load_config(file, ["train.objective.beta=0.3"])
    assert (mine.model.latent_dim, mine.train.objective.beta) == (7, 0.3)
    assert mine.model.prior.__struct_config__.tag == "gaussian"
    assert mine.model.encoder == most.model.encoder
    file = tmp_path / "experiment.json"
    file.write_bytes(encode_json(mine))
    assert load_config(file, []) == mine, "every setting of a run is set"
    assert load_config(None, ["keep=most"], defaults=mine) == mine
    assert experiment_config({"keep": "most"}) == most
    for wrong in ("all", "[1]", "3", "{a=1}"):
        with pytest.raises(ConfigError, match="keep"):
            load_config(None, [f"keep={wrong}"])


def test_keep_bounds_the_steps() -> None:
    many, few = torch.full((100_000,), 9), torch.full((640,), 9)
    for keep, most in (("little", STEPS[1]), ("half", 10_000), ("most", 18_000)):
        config = load_config(None, [f"keep={keep}"])
        assert choose_training(config, lengths=many)[0].train.max_steps == most
        assert choose_training(config, lengths=few)[0].train.max_steps == STEPS[0]


def test_a_run_that_has_begun_keeps_its_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("textvae.run.experiment.has_bfloat16", lambda _: False)
    begun, lengths = tmp_path / "experiment.json", torch.full((11,), 5)
    for precision in ("bfloat16", "float32"):
        before = load_config(None, [f"train.precision={precision}"])
        begun.write_bytes(encode_json(before))
        settled, _ = choose_training(load_config(None, []), lengths=lengths, begun=begun)
        assert settled.train.precision == precision


# -- a language model ------------------------------------------------------------------------------

LANGUAGE_MODEL = ["model.encoder.kind=none", "model.latent_dim=0"]
REFUSED = [
    *(("train.objective.rate", kind) for kind in get_args(RateConfig)[1:]),
    *(("train.objective.free_bits", kind) for kind in (FreeBitsTotal, FreeBitsPerSentence)),
    *(("train.procedure", kind) for kind in get_args(ProcedureConfig)[1:]),
]


@pytest.mark.parametrize(("name", "kind"), REFUSED)
def test_a_language_model_is_refused_what_is_about_a_latent(
    name: str, kind: Any, tmp_path: Path
) -> None:
    setting = f"{name}.kind={kind.__struct_config__.tag}"
    assert load_config(None, [setting]), "it is right for an autoencoder"
    expected = setting.replace("=", " ") + " is about a latent, and model.encoder.kind none is "
    with pytest.raises(ConfigError, match=re.escape(expected)) as caught:
        load_config(None, [*LANGUAGE_MODEL, setting])
    assert len(str(caught.value).splitlines()) == 1
    file = tmp_path / "experiment.json"
    file.write_bytes(encode_json(load_config(None, [setting])))
    with pytest.raises(ConfigError, match=f"^{re.escape(str(file))} .*{re.escape(expected)}"):
        load_config(file, LANGUAGE_MODEL)


def test_a_language_model_has_no_posterior_to_bind() -> None:
    settings = [*LANGUAGE_MODEL, "model.encoder.posterior.kind=batch_norm"]
    with pytest.raises(ConfigError, match=r"model\.encoder\.posterior: unknown key") as caught:
        load_config(None, settings)
    assert len(str(caught.value).splitlines()) == 1


def test_a_language_model_takes_all_other_training() -> None:
    others = ["train.averaging.kind=tail", "train.learning_rate.plateau.kind=divide"]
    assert load_config(None, LANGUAGE_MODEL + others).model.latent_dim == 0
    for kind in ("none", "per_dimension", "per_sentence_and_dimension"):
        load_config(None, [*LANGUAGE_MODEL, f"train.objective.free_bits.kind={kind}"])


def test_an_experiment_from_before_there_were_these_settings_loads(tmp_path: Path) -> None:
    """What lacks one of these tables has its default, which is what was done before it."""
    values = json.loads(encode_json(load_config()))
    for path in ("procedure", "averaging", "objective.rate", "learning_rate.plateau"):
        *tables, last = path.split(".")
        place = values["train"]
        for table in tables:
            place = place[table]
        del place[last]
    del values["model"]["encoder"]["posterior"]
    file = tmp_path / "experiment.json"
    file.write_text(json.dumps(values), encoding="utf-8")
    assert load_config(file) == load_config()
