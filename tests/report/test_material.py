"""What a report gathers, against the slow way of finding the same."""

import itertools
import math
import shutil
from pathlib import Path

import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from textvae.api.evaluate import run_evaluators
from textvae.api.interpolate import walk
from textvae.api.text_vae import TextVAE
from textvae.data.batching import TokenArray
from textvae.data.tokenizer import BPETokenizerConfig, CharTokenizerConfig, WordTokenizerConfig
from textvae.errors import ConfigError
from textvae.evaluate.evaluators import EvaluatorConfig, LikelihoodEvaluator
from textvae.evaluate.measurements import FILE, write_measurements
from textvae.metrics.likelihood import encode_corpus, importance_weighted, reconstruction_at
from textvae.model.decoder import GRUDecoderConfig
from textvae.model.encoder import GRUEncoderConfig
from textvae.model.vae import ModelConfig
from textvae.randomness import key, normals
from textvae.report.corpus import DataChoice
from textvae.report.curves import Point, read_curves
from textvae.report.material import (
    WORST_K,
    Material,
    Missing,
    gather,
    principal_plane,
    surprises,
)


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
    with torch.no_grad():
        copy.model.encoder.posterior_bias += 0.1
    write_measurements(run / FILE, run_evaluators(copy, evaluators=evaluators, seed=11))
    copy = TextVAE.from_pretrained(run, device="cpu")  # whose weights the file is not of
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


# -- principal components against what they are by definition


def _drawn(size: int, dim: int) -> torch.Tensor:
    return normals(key(3, "projection"), torch.arange(size), lanes=dim)


def test_the_axes_of_a_known_cloud() -> None:
    turn = torch.tensor([[math.cos(0.4), math.sin(0.4)], [-math.sin(0.4), math.cos(0.4)]])
    cross = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]]) @ turn
    found = principal_plane(cross + torch.tensor([5.0, -2.0]))
    assert found.fractions == pytest.approx((0.9, 0.1))
    assert found.points.abs() == pytest.approx(
        torch.tensor([[3.0, 0.0], [3.0, 0.0], [0.0, 1.0], [0.0, 1.0]]).double(), abs=1e-5
    )
    centre = torch.tensor([5.0, -2.0]).norm()
    assert math.hypot(*found.origin) == pytest.approx(float(centre), rel=1e-6)


def test_against_the_singular_values_and_distances() -> None:
    mean = _drawn(37, 5) * torch.tensor([1.0, 4.0, 0.5, 2.0, 0.1])
    found = principal_plane(mean)
    centred = (mean - mean.mean(0)).double()
    values = torch.linalg.svdvals(centred).square()
    assert found.fractions == pytest.approx((values[:2] / values.sum()).tolist())
    assert found.points.square().sum(0).tolist() == pytest.approx(values[:2].tolist())
    flat = principal_plane(mean[:, :2])  # two dimensions lose nothing
    assert torch.cdist(flat.points, flat.points) == pytest.approx(
        torch.cdist(mean[:, :2].double(), mean[:, :2].double()), abs=1e-4
    )


def test_the_picture_never_flips() -> None:
    mean = _drawn(23, 7)
    found, again = principal_plane(mean), principal_plane(mean.flip(0))
    assert again.points.flip(0) == pytest.approx(found.points, abs=1e-9)


@pytest.mark.parametrize("size", [1, 5])
def test_too_little_to_span_a_plane(size: int) -> None:
    found = principal_plane(_drawn(size, 1))
    assert found.points.shape == (size, 2)
    assert found.points[:, 1].abs().max() == 0.0
    assert found.fractions == ((1.0 if size > 1 else 0.0), 0.0)


# -- nats token by token add up, and their pieces are the sentence


TEXTS = ["a red fox", "\u732b sees \U0001f600 twice", "caf\u00e9 \ufffd now", "odd\ufffd", "fox"]
SMALL = ModelConfig(
    latent_dim=3,
    encoder=GRUEncoderConfig(embedding_dim=5, hidden_dim=7),
    decoder=GRUDecoderConfig(embedding_dim=5, hidden_dim=11),
)


@pytest.mark.parametrize("kind", [WordTokenizerConfig, BPETokenizerConfig, CharTokenizerConfig])
def test_pieces_are_the_sentence_and_their_nats_its_reconstruction(
    kind: type[WordTokenizerConfig | BPETokenizerConfig | CharTokenizerConfig],
) -> None:
    tokenizer = kind().train(TEXTS)
    model = SMALL.build(tokenizer.vocabulary_size, seed=1).eval()
    data = TokenArray.from_lists(tokenizer.encode_batch(TEXTS), tokenizer.start)
    mean = encode_corpus(model, data).mean
    expected = reconstruction_at(model, data, mean)
    rows = torch.tensor([4, 0, 3, 1, 2])
    found = surprises(model, tokenizer, data, rows, mean)
    for row, pieces in zip(rows.tolist(), found, strict=True):
        assert "".join(piece.text for piece in pieces) == TEXTS[row]
        assert sum(piece.nats for piece in pieces) == pytest.approx(float(expected[row]), abs=1e-4)
        assert pieces[-1].text == ""
        assert all(piece.nats > 0.0 for piece in pieces)
        if "\ufffd" not in TEXTS[row]:  # no character is cut in two
            assert not any("\ufffd" in piece.text for piece in pieces)


# -- metrics.jsonl as a run writes it, and as a crash may leave it


LINES = """
{"step":7,"kl_weight":0.25,"reconstruction":31.5,"kl":2.5,"active_units":3,"loss":9.0}
{"step":11,"validation":{"elbo":-29.5,"kl":1.5,"active_units":2},"selected":true}
{"step":14,"kl_weight":1.0,"reconstruction":21.0,"kl":4.0,"active_units":5,"loss":9.0}
{"step":22,"validation":{"elbo":-24.5,"kl":3.5,"active_units":null},"selected":true}
{"step":23,"something":"of a later version"}
{"step":33,"validation":{"elbo":-26.5,"kl":3.75,"active_units":5},"selected":false}
[1, 2]
\xff
{"step":35,"kl_wei"""


def test_every_curve_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(LINES.encode("latin-1"))
    found = read_curves(tmp_path)
    assert found is not None
    assert found.train_nll == [Point(7, 34.0), Point(14, 25.0)]
    assert found.valid_nll == [Point(11, 29.5), Point(22, 24.5), Point(33, 26.5)]
    assert found.train_kl == [Point(7, 2.5), Point(14, 4.0)]
    assert found.valid_kl == [Point(11, 1.5), Point(22, 3.5), Point(33, 3.75)]
    assert found.kl_weight == [Point(7, 0.25), Point(14, 1.0)]
    assert found.active_units == [Point(7, 3.0), Point(14, 5.0)]
    assert found.selected == 22


def test_none_where_there_is_nothing(tmp_path: Path) -> None:
    assert read_curves(None) is None
    assert read_curves(tmp_path) is None
    (tmp_path / "metrics.jsonl").write_text("\n{]\n", encoding="utf-8")
    assert read_curves(tmp_path) is None


def test_the_curves_of_a_real_run(tiny_run: Path) -> None:
    found = read_curves(tiny_run)
    assert found is not None
    assert found.selected == found.valid_nll[-1].step == 127
    assert found.train_nll[0].value > found.train_nll[-1].value
    assert len(found.kl_weight) == len(found.active_units) == len(found.train_kl) > 0
