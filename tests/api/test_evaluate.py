"""Each evaluator on a trained model, against the verbs and loops written out."""

import math
import os
import signal
import threading
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
import torch

from textvae.api.evaluate import run_evaluators
from textvae.api.text_vae import TextVAE
from textvae.errors import ConfigError
from textvae.evaluate.evaluators import DEFAULT, KINDS, EvaluatorConfig, check_evaluators, kind_of
from textvae.evaluate.interpolation import InterpolationEvaluator, smoothness
from textvae.evaluate.language_models import (
    ForwardPerplexityEvaluator,
    LanguageModelFit,
    ReversePerplexityEvaluator,
)
from textvae.evaluate.latent import LatentEvaluator
from textvae.evaluate.measurements import Measurements
from textvae.evaluate.reconstruction import ReconstructionEvaluator
from textvae.evaluate.samples import SamplesEvaluator
from textvae.generate.strategies import Temperature, TopK
from textvae.metrics.text_quality import cut, self_bleu
from textvae.model.decoder import GRUDecoderConfig
from textvae.model.encoder import NoEncoderConfig
from textvae.model.vae import ModelConfig
from textvae.randomness import key, permutation
from textvae.run.experiment import load_config

FIT = LanguageModelFit(
    decoder=GRUDecoderConfig(embedding_dim=13, hidden_dim=29, output_dropout_rate=0.0),
    max_steps=71,
    batch_size=31,
    learning_rate=0.02,
)
SMALL: tuple[EvaluatorConfig, ...] = (
    KINDS["likelihood"](num_samples=3),
    LatentEvaluator(),
    ReconstructionEvaluator(),
    SamplesEvaluator(num_samples=37),
    InterpolationEvaluator(num_paths=3, steps=5, num_samples=2),
    ForwardPerplexityEvaluator(num_samples=41, fit=FIT),
    ReversePerplexityEvaluator(num_samples=83, fit=FIT),
)


@pytest.fixture(scope="module")
def vae(tiny_run: Path) -> TextVAE:
    return TextVAE.from_pretrained(tiny_run, device="cpu")


@pytest.fixture(scope="module")
def lines(tiny_data: Path) -> list[str]:
    return (tiny_data / "test.txt").read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def found(vae: TextVAE) -> Measurements:
    return run_evaluators(vae, evaluators=SMALL)


def test_every_kind_is_run_and_every_name_is_one(found: Measurements) -> None:
    assert {kind_of(one) for one in SMALL} == set(KINDS)
    assert len(get_args(EvaluatorConfig)) == len(KINDS)
    assert [one.kind for one in found.measured] == [kind_of(one) for one in SMALL]
    names = [figure.name for figure in found]
    assert len(names) == len(set(names))
    for figure in found:
        values = figure.value if isinstance(figure.value, list) else [figure.value]
        assert all(isinstance(value, int | float) and math.isfinite(value) for value in values)
        assert figure.settings or figure.unit, figure.name
    assert all(one.seconds > 0.0 for one in found.measured)
    assert found.training is not None
    assert (found.training.num_sentences, found.training.decoded) == (89, True)
    assert found.versions["sacrebleu"]


def test_reconstructions_are_those_of_the_verb(
    vae: TextVAE, found: Measurements, lines: list[str]
) -> None:
    written = vae.reconstruct(lines)
    exact = sum(a == b for a, b in zip(written, lines, strict=True)) / len(lines)
    assert found["exact_match"].value == pytest.approx(exact)
    given = run_evaluators(vae, lines, evaluators=[ReconstructionEvaluator()])
    assert not given.data.decoded
    assert found.data.decoded
    for name in ("reconstruction_bleu", "reconstruction_chrf", "edit_distance", "edit_share"):
        assert given[name] == found[name]


def test_samples_are_those_of_the_verb(
    vae: TextVAE, found: Measurements, tiny_data: Path, lines: list[str]
) -> None:
    samples = vae.sample(37)
    train = (tiny_data / "train.txt").read_text(encoding="utf-8").splitlines()
    known = [sample in train for sample in samples]
    assert found["novelty"].value == pytest.approx(1 - sum(known) / 37)
    assert found["unique"].value == len(set(samples)) / 37
    lengths = [len(sample.split()) + 1 for sample in samples]
    assert found["length_mean"].value == pytest.approx(sum(lengths) / 37)
    counts = found["length_histogram"].value
    assert isinstance(counts, list)
    assert counts == [lengths.count(n) for n in range(1, max(lengths) + 1)]
    between = self_bleu(cut(lines, "none"), "none")
    assert between is not None
    assert found["data_self_bleu"].value == pytest.approx(between.value)
    theirs = [len(line.split()) + 1 for line in lines]
    assert found["data_length_mean"].value == pytest.approx(sum(theirs) / 11)
    full = sum(length - 1 >= vae.config.max_length for length in lengths)
    assert found["truncated"].value == pytest.approx(full / 37)


def test_novelty_is_unknown_without_the_training_set(
    vae: TextVAE, lines: list[str], tmp_path: Path
) -> None:
    vae.save_pretrained(tmp_path / "there")
    alone = TextVAE.from_pretrained(tmp_path / "there")
    given = run_evaluators(alone, lines, evaluators=[SMALL[3], SMALL[5]])
    assert given["novelty"].value is None
    assert "not beside the model" in given["novelty"].settings
    assert given["forward_perplexity"].value is None
    assert given.training is None


def test_paths_are_interpolations_and_their_middles_are_judged(
    vae: TextVAE, found: Measurements, lines: list[str]
) -> None:
    order = pairs()
    paths = [vae.interpolate(lines[a], lines[b], steps=5) for a, b in order]
    tokens = [vae.tokenizer.encode_batch(path) for path in paths]
    parts = [smoothness(path) for path in tokens]
    assert found["path_change"].value == pytest.approx(sum(one.mean_change for one in parts) / 3)
    largest = sum(one.largest_change for one in parts) / 3
    assert found["path_largest_change"].value == pytest.approx(largest)
    detours = [one.detour for one in parts if one.detour is not None]
    assert found["path_detour"].value == pytest.approx(sum(detours) / len(detours))
    middles = [text for path in paths for text in path[1:-1]]
    judged = vae.evaluate(middles, num_samples=2)
    assert found["path_perplexity"].value == pytest.approx(judged.perplexity, rel=1e-5)
    ends = vae.evaluate([lines[i] for pair in order for i in pair], num_samples=2)
    assert found["path_ends_perplexity"].value == pytest.approx(ends.perplexity, rel=1e-5)


def pairs() -> list[tuple[int, int]]:
    """Three pairs of 11 sentences, as the evaluator draws them."""
    order = permutation(key(0, "pairs"), 11)[:6].tolist()
    return list(zip(order[::2], order[1::2], strict=True))


def test_a_straight_way_has_no_detour() -> None:
    path = [[1, 1, 1], [2, 1, 1], [2, 2, 1], [2, 2, 2]]
    assert smoothness(path) == (pytest.approx(1 / 3), pytest.approx(1 / 3), 1.0)
    there_and_back = [[1], [2], [1], [3]]
    assert smoothness(there_and_back).detour == 3.0
    assert smoothness([[1], [2], [1]]).detour is None
    for first, second in pairwise(path):
        assert smoothness([first, second]).detour == 1.0


def test_figures_do_not_depend_on_how_many_are_decoded_at_once(
    vae: TextVAE, found: Measurements
) -> None:
    again = run_evaluators(vae, evaluators=SMALL[:5], rows=7)
    for figure in again:
        if figure.name != "num_samples":
            assert figure.value == pytest.approx(found[figure.name].value, rel=1e-5), figure.name


def test_the_seed_decides_what_is_drawn(vae: TextVAE, found: Measurements) -> None:
    again = run_evaluators(vae, evaluators=SMALL[3:4], seed=1)
    assert again["length_histogram"].value != found["length_histogram"].value
    assert again.seed == 1


def test_language_models_read_word_by_word_and_learn(
    vae: TextVAE, lines: list[str], found: Measurements
) -> None:
    # Of parameters that have not moved the perplexity can be written out.
    still = LanguageModelFit(decoder=FIT.decoder, max_steps=1, learning_rate=1e-30)
    begun = run_evaluators(
        vae,
        evaluators=[
            ForwardPerplexityEvaluator(num_samples=41, fit=still),
            ReversePerplexityEvaluator(num_samples=41, fit=still),
        ],
    )
    shape = ModelConfig(latent_dim=0, encoder=NoEncoderConfig(), decoder=FIT.decoder)
    model = shape.build(vae.tokenizer.vocabulary_size, seed=0).eval()
    writer = model.decoder.writer(dtype=torch.float32, tabulate=False)

    def perplexity(texts: list[str]) -> float:
        nats, count = 0.0, 0
        for text in texts:
            state, token = writer.start(torch.empty(1, 0)), vae.tokenizer.start
            for target in [*vae.tokenizer.encode(text), 0]:
                with torch.inference_mode():
                    logits, state = writer.step(torch.tensor([token]), state)
                nats -= float(logits.log_softmax(1)[0, target])
                token, count = target, count + 1
        return math.exp(nats / count)

    before = perplexity(vae.sample(41))
    assert begun["forward_perplexity"].value == pytest.approx(before, rel=1e-5)
    expected = pytest.approx(perplexity(lines), rel=1e-5)
    for name in ("forward_perplexity_of_data", "reverse_perplexity", "reverse_perplexity_of_data"):
        assert begun[name].value == expected
    for name in ("forward_perplexity_of_data", "reverse_perplexity_of_data"):
        after = found[name].value
        assert isinstance(after, float)
        assert 1.0 < after < before / 2
    assert "fitted to 89 training sentences in 71 steps" in found["forward_perplexity"].settings
    assert "fitted to 79 and selected by 4 samples" in found["reverse_perplexity"].settings


def test_half_a_fit_is_no_figure(vae: TextVAE) -> None:
    # The training loop ends cleanly at a signal; the evaluation must not go on as if nothing were.
    long = LanguageModelFit(decoder=FIT.decoder, max_steps=100_000)
    timer = threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        run_evaluators(vae, evaluators=[ForwardPerplexityEvaluator(num_samples=7, fit=long)])
    timer.join()


def test_samples_of_a_temperature_are_easier_to_read(vae: TextVAE) -> None:
    cold, hot = (
        run_evaluators(
            vae,
            evaluators=[
                ForwardPerplexityEvaluator(
                    num_samples=41, strategy=Temperature(temperature=heat), fit=FIT
                )
            ],
        )["forward_perplexity"].value
        for heat in (0.1, 50.0)
    )
    assert isinstance(cold, float)
    assert isinstance(hot, float)
    assert cold < hot


def test_a_single_sentence_leaves_unknown_what_it_cannot_say(vae: TextVAE) -> None:
    found = run_evaluators(vae, ["red cat eats"], evaluators=SMALL[:5])
    for name in ("active_units", "permutation_cost", "path_change", "data_self_bleu"):
        assert found[name].value is None
    for name in ("nll", "mutual_information", "aggregate_kl", "edit_distance"):
        assert found[name].stderr is None
        assert found[name].value is not None


def test_larger_corpora_are_measured_on_a_part(vae: TextVAE, lines: list[str]) -> None:
    few = [
        LatentEvaluator(max_sentences=7),
        ReconstructionEvaluator(max_sentences=5),
        SamplesEvaluator(num_samples=2, max_sentences=3),
    ]
    found = run_evaluators(vae, lines, evaluators=few)
    assert "from 7 sentences" in found["mutual_information"].settings
    assert found["mutual_information_cap"].value == pytest.approx(math.log(7))
    assert "of 5 sentences" in found["exact_match"].settings
    assert "nrefs:3|" in str(found["corpus_bleu"].settings)
    assert found["data_length_mean"].settings.startswith("11 sentences")
    whole = run_evaluators(vae, lines, evaluators=[LatentEvaluator()])
    assert found["kl_per_dimension"] == whole["kl_per_dimension"]


def test_kl_by_dimension_adds_to_the_kl(vae: TextVAE, found: Measurements) -> None:
    parts = found["kl_per_dimension"].value
    assert isinstance(parts, list)
    assert len(parts) == 5
    assert sum(parts) == pytest.approx(found["kl"].value, rel=1e-6)
    assert found["kl_largest_share"].value == pytest.approx(max(parts) / sum(parts))
    assert found["nll"].value == pytest.approx(vae.evaluate(num_samples=3).nll, rel=1e-6)


def test_a_language_model_has_what_needs_no_latent(tiny_data: Path, tmp_path: Path) -> None:
    config = load_config(
        None,
        [
            "model.encoder.kind=none",
            "model.latent_dim=0",
            "model.max_length=7",
            "model.decoder.embedding_dim=5",
            "model.decoder.hidden_dim=7",
            "data.tokenizer.kind=word",
            "train.max_steps=3",
            "train.device=cpu",
            "evaluate.num_samples=2",
        ],
    )
    model = TextVAE.train(tiny_data, config=config, output=tmp_path / "run")
    found = run_evaluators(model, evaluators=SMALL[:5])
    assert {"nll", "perplexity", "self_bleu", "novelty"} <= found.flat().keys()
    assert not {"active_units", "exact_match", "path_change"} & found.flat().keys()
    assert "exact: there is no latent" in found["nll"].settings


def test_what_python_composes_is_checked(vae: TextVAE) -> None:
    with pytest.raises(ConfigError, match=r"samples is there twice"):
        run_evaluators(vae, evaluators=[SamplesEvaluator(), SamplesEvaluator()])
    with pytest.raises(ConfigError, match="num_samples"):
        check_evaluators([SamplesEvaluator(num_samples=1)])
    with pytest.raises(ConfigError, match=r"--evaluators smaples: they are likelihood, latent"):
        run_evaluators(vae, evaluators="smaples")
    assert check_evaluators(DEFAULT) == DEFAULT


def test_a_config_names_evaluators(tmp_path: Path) -> None:
    file = tmp_path / "some.toml"
    file.write_text(
        '[[evaluate.evaluators]]\nkind = "samples"\nstrategy = { kind = "top_k", k = 3 }\n',
        encoding="utf-8",
    )
    assert load_config(file).evaluate.evaluators == (SamplesEvaluator(strategy=TopK(k=3)),)
    with pytest.raises(ConfigError, match=r"(?s)evaluators.*kind"):
        load_config(None, ['evaluate.evaluators=[{kind="sample"}]'])
