"""What a report gathers, against the slow way of finding the same."""

import itertools
import shutil
from pathlib import Path

import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from textvae.api.evaluate import run_evaluators
from textvae.api.interpolate import walk
from textvae.api.text_vae import TextVAE
from textvae.errors import ConfigError
from textvae.evaluate.evaluators import EvaluatorConfig, LikelihoodEvaluator
from textvae.evaluate.measurements import FILE, write_measurements
from textvae.metrics.likelihood import encode_corpus, importance_weighted
from textvae.report.corpus import DataChoice
from textvae.report.material import WORST_K, Material, Missing, gather


@pytest.fixture(scope="module")
def vae(tiny_run: Path) -> TextVAE:
    return TextVAE.from_pretrained(tiny_run, device="cpu")


@pytest.fixture(scope="module")
def material(vae: TextVAE) -> Material:
    return gather(vae, seed=3, num_samples=5)


def test_figures_of_a_run_are_those_it_ended_with(vae: TextVAE, material: Material) -> None:
    assert vae.results is not None
    evaluation = vae.results.evaluation
    assert evaluation is not None
    assert material.numbers.value("nll") == evaluation.nll
    assert material.numbers.figures["permutation_cost"].stderr == evaluation.permutation_cost_stderr
    assert material.numbers.origin.startswith("Measured when training ended")
    other = gather(vae, DataChoice(material.corpus.texts[:7]), seed=3, num_samples=5)
    expected = vae.evaluate(material.corpus.texts[:7], num_samples=5, seed=3)
    assert other.numbers.value("nll") == expected.nll
    assert other.numbers.origin.startswith("Measured for this report")


def test_figures_that_evaluate_kept_go_before_if_they_are_of_this_model(
    tiny_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    copy = TextVAE.from_pretrained(run, device="cpu")
    evaluators: tuple[EvaluatorConfig, ...] = (LikelihoodEvaluator(num_samples=2),)
    write_measurements(run / FILE, run_evaluators(copy, evaluators=evaluators, seed=11))
    found = gather(copy).numbers
    assert (found.origin, found.seed) == ("Measured by `textvae evaluate`", 11)
    assert found.value("nll") == pytest.approx(copy.evaluate(num_samples=2, seed=11).nll)
    assert found.value("active_units") is None  # was not measured
    elsewhere = run_evaluators(copy, ["red cat eats"], evaluators=evaluators)
    write_measurements(run / FILE, elsewhere)
    assert gather(copy).numbers.origin.startswith("Measured when training ended")


def test_kl_neighbors_and_the_hardest_by_brute_force(vae: TextVAE, material: Material) -> None:
    corpus = material.corpus
    posterior = encode_corpus(vae.model, corpus.array)
    mean, variance = posterior.mean.double(), posterior.log_variance.double().exp()
    prior = vae.model.prior
    center, factor = prior.mean.double(), prior.factor.double()
    leading = [torch.zeros(1)]  # the KL of the first d dimensions; each adds its own to it
    for d in range(1, len(center) + 1):
        some = MultivariateNormal(mean[:, :d], variance[:, :d].diag_embed())
        leading.append(
            kl_divergence(some, MultivariateNormal(center[:d], scale_tril=factor[:d, :d]))
        )
    kl = [float((b - a).mean()) for a, b in itertools.pairwise(leading)]
    assert material.kl == pytest.approx(kl, rel=1e-5)
    assert material.active == [bool(value > 0.01) for value in mean.var(0)]
    assert not isinstance(material.neighbors, Missing)
    mean = (mean - center) @ factor.inverse().t()
    for one in material.neighbors:
        query = mean[corpus.texts.index(one.text)]
        distances = {
            text: float((row - query).norm())
            for text, row in zip(corpus.texts, mean, strict=True)
            if text != one.text
        }
        nearest = sorted(distances, key=lambda text: distances[text])[:5]
        assert [near.text for near in one.near] == nearest
        assert [near.distance for near in one.near] == pytest.approx(
            [distances[text] for text in nearest]
        )
    nll = importance_weighted(
        vae.model, corpus.array, posterior, num_samples=WORST_K, seed=3
    ).nll.tolist()
    lengths = [len(ids) + 1 for ids in vae.tokenizer.encode_batch(corpus.texts)]
    rate = {t: n / size for t, n, size in zip(corpus.texts, nll, lengths, strict=True)}
    assert [one.text for one in material.worst] == sorted(rate, key=lambda t: -rate[t])[:10]
    for one in material.worst:
        assert one.nll / one.num_tokens == pytest.approx(rate[one.text])
        assert one.source_nll is None


def test_samples_and_paths_are_those_of_the_verbs(vae: TextVAE, material: Material) -> None:
    assert [one.text for one in material.samples] == vae.sample(16, seed=3)
    assert not isinstance(material.paths, Missing)
    assert len(material.paths) == 3
    for path in material.paths:
        assert path.first != path.second
        assert {path.first, path.second} <= set(material.corpus.texts)
        assert path.walk == walk(vae, [path.first, path.second], seed=3)


def test_the_unigram_perplexity_is_that_of_the_token_frequencies(vae: TextVAE) -> None:
    found = gather(vae, DataChoice(["red cat", "red dog"]), num_samples=2)
    shares = torch.tensor([2, 1, 1, 2]) / 6  # red, cat, dog and the two ends
    assert found.unigram_perplexity == pytest.approx(float(shares.pow(-shares).prod()))


def test_one_sentence_has_no_neighbors(vae: TextVAE) -> None:
    found = gather(vae, DataChoice(["red cat", "red cat"]), num_samples=2)
    assert isinstance(found.paths, Missing)
    assert isinstance(found.neighbors, Missing)
    assert [one.text for one in found.worst] == ["red cat"]


def test_numbers_out_of_bounds(vae: TextVAE) -> None:
    with pytest.raises(ConfigError, match="--sentences 0"):
        gather(vae, num_sentences=0)
    with pytest.raises(ConfigError, match="--samples 0"):
        gather(vae, num_samples=0)
