"""Scores by the stream, what they are compared with, and the threshold."""

import itertools
import math
import shutil
from pathlib import Path

import pytest
import torch

from textvae.api.score import score, threshold
from textvae.api.score_reference import Reference, reference_of
from textvae.api.text_vae import TextVAE
from textvae.data.batching import TokenArray
from textvae.errors import CheckpointError, ConfigError, DataError
from textvae.metrics.likelihood import encode_corpus, importance_weighted, reconstruction_at
from textvae.metrics.scores import measure_features
from textvae.randomness import key, normals
from textvae.run.model_directory import publish

KINDS = ("nll", "elbo", "nll_per_token", "likelihood_ratio", "kl", "mahalanobis", "combined")
TOO_LONG = "red " * 8


@pytest.fixture(name="run", scope="module")
def run_fixture(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run, in which references are kept."""
    return Path(shutil.copytree(tiny_run, tmp_path_factory.mktemp("scoring") / "run"))


@pytest.fixture(name="vae", scope="module")
def vae_fixture(run: Path) -> TextVAE:
    return TextVAE.from_pretrained(run, device="cpu")


@pytest.fixture(name="normal", scope="module")
def normal_fixture(vae: TextVAE) -> Reference:
    return reference_of(vae, num_samples=3, seed=1)


@pytest.fixture(name="lines", scope="module")
def lines_fixture(tiny_data: Path) -> list[str]:
    return (tiny_data / "train.txt").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("kind", KINDS)
def test_a_score_does_not_depend_on_pieces_or_place(
    vae: TextVAE, normal: Reference, lines: list[str], kind: str
) -> None:
    whole = list(score(vae, lines, normal, by=kind))
    assert [one.text for one in whole] == lines
    assert [one.row for one in whole] == list(range(len(lines)))
    pieces = list(score(vae, iter(lines[::-1]), normal, by=kind, together=7))[::-1]
    # Residuals over their spread: small numbers that keep the rounding of the nll they are made of.
    allowed = 1e-4 if kind == "combined" else 1e-5
    for one, other in zip(whole, pieces, strict=True):
        assert one[2:6] == pytest.approx(other[2:6], rel=1e-5, abs=allowed)


def test_what_is_said_of_a_sentence(vae: TextVAE, normal: Reference, lines: list[str]) -> None:
    found = list(score(vae, lines, normal, by="nll"))
    array = TokenArray.from_lists(vae.tokenizer.encode_batch(lines), vae.tokenizer.start)
    features = measure_features(vae.model, array, num_samples=3, seed=1)
    for name in ("nll", "kl", "reconstruction"):
        wanted = getattr(features, name).tolist()
        assert [getattr(one, name) for one in found] == pytest.approx(wanted, rel=1e-5)
    assert [one.num_tokens for one in found] == [len(line.split()) + 1 for line in lines]
    # These are the training sentences themselves, so each is ranked among all of them.
    scores = torch.tensor([one.score for one in found], dtype=torch.float64)
    ranks = [
        100 * float(((scores < s).sum() + (scores == s).sum() / 2) / len(lines)) for s in scores
    ]
    assert [one.percentile for one in found] == pytest.approx(ranks, abs=100 / len(lines) + 1e-9)
    ends = score(vae, [lines[0], "eats eats eats today eats"], normal, by="nll")
    assert [one.percentile for one in ends][1] == 100.0


def test_strange_sentences_score_higher(vae: TextVAE, normal: Reference, lines: list[str]) -> None:
    odd = ["today today cat red", "eats likes", "cow cow cow cow cow", "unheard of words here"]
    for kind in ("nll_per_token", "likelihood_ratio", "combined"):
        usual = sorted(one.score for one in score(vae, lines, normal, by=kind))
        assert min(one.score for one in score(vae, odd, normal, by=kind)) > usual[len(usual) // 2]


def test_no_more_is_read_than_is_used(vae: TextVAE, normal: Reference) -> None:
    stream = iter(itertools.chain(["red cat eats"] * 14, [TOO_LONG]))
    assert len(list(itertools.islice(score(vae, stream, normal, together=7), 8))) == 8
    assert next(stream) == TOO_LONG


def test_an_error_comes_after_what_stands_before_it(
    vae: TextVAE, normal: Reference, lines: list[str]
) -> None:
    def broken() -> "itertools.chain[str]":
        def stop() -> "list[str]":
            raise DataError("here:4: no text")

        return itertools.chain(lines[:3], (line for _ in [0] for line in stop()))

    cases = [
        (broken(), "here:4: no text"),
        ([*lines[:3], TOO_LONG, lines[3]], r"here: row 3 \(counted from 0\) has 8 tokens, the mo"),
    ]
    for sentences, said in cases:
        found = []
        rows = score(vae, sentences, normal, source="here", too_long="refuse")
        with pytest.raises(DataError, match=said):
            found.extend(one.text for one in rows)
        assert found == lines[:3]
    kept = list(score(vae, cases[1][0], normal, too_long="drop", together=2))
    assert [one.row for one in kept] == [0, 1, 2, 4]
    cut = list(score(vae, ["", *cases[1][0]], normal, together=2))
    assert [(one.row, one.cut) for one in cut] == [(i, i == 4) for i in range(1, 6)]
    assert cut[3].num_tokens == 7  # no </s>
    assert list(score(vae, [], normal)) == []


def test_bad_calls_are_refused(vae: TextVAE, normal: Reference, lines: list[str]) -> None:
    with pytest.raises(ConfigError, match="--score odd: must be one of nll, elbo, nll_per_token"):
        list(score(vae, lines, normal, by="odd"))
    with pytest.raises(DataError, match="is one string"):
        list(score(vae, "a b", normal))
    with pytest.raises(ConfigError, match="has a latent; a background is a language model"):
        reference_of(vae, background=vae)
    with pytest.raises(ConfigError, match="num_samples 0: must be at least 1"):
        reference_of(vae, num_samples=0)


def test_a_threshold_is_a_score_of_the_validation_set(
    vae: TextVAE, normal: Reference, tiny_data: Path
) -> None:
    valid = (tiny_data / "valid.txt").read_text(encoding="utf-8").splitlines()
    scores = sorted((one.score for one in score(vae, valid, normal, by="nll")), reverse=True)
    assert len(scores) == 7
    for rate, place in ((0.125, 0), (0.249, 0), (0.25, 1), (0.5, 3), (0.99, 6)):
        found = threshold(vae, normal, rate, by="nll")
        assert found == pytest.approx(scores[place], rel=1e-5)
        assert sum(s > found + 1e-5 for s in scores) <= rate * 8 - 1 + 1e-9
    with pytest.raises(ConfigError, match="7 validation sentences tell no rate"):
        threshold(vae, normal, 0.1, by="nll")
    for bad in (0.0, 1.0, -1.0):
        with pytest.raises(ConfigError, match="is above 0 and below 1"):
            threshold(vae, normal, bad)
    with pytest.raises(DataError, match="name some with --valid"):
        threshold(vae, normal._replace(valid=None), 0.5)


# -- the reference -------------------------------------------------------------------------------


def test_a_reference_is_kept_and_taken_again(
    vae: TextVAE, normal: Reference, run: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    again = reference_of(vae, num_samples=3, seed=1, report=said.append)
    assert said == []
    assert again.facts == normal.facts
    for one, other in zip(
        (again.unigram, *again.aggregate, *again.train),
        (normal.unigram, *normal.aggregate, *normal.train),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    # For other settings, other sentences or other weights it is measured again.
    assert reference_of(vae, num_samples=2, seed=1, keep=False).facts.num_samples == 2
    assert not (run / "scoring-2-1").exists()
    others = tmp_path / "others.txt"
    others.write_text("red cat eats\nold dog sees\n", encoding="utf-8")
    found = reference_of(vae, train=others, valid=others, num_samples=3, seed=1, keep=False)
    assert (found.facts.train.source, found.facts.train.num_sentences) == (str(others), 2)
    changed = TextVAE.from_pretrained(run, device="cpu")
    with torch.no_grad():
        changed.model.decoder.output_bias += 0.1
    reference_of(changed, num_samples=3, seed=1, keep=False, report=said.append)
    assert said == ["measuring 96 normal sentences to compare with"]


def test_damage_is_never_loaded(tiny_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    vae = TextVAE.from_pretrained(run, device="cpu")
    first = reference_of(vae, num_samples=2)
    file = run / "scoring-2-0" / "reference.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    said: list[str] = []
    again = reference_of(vae, num_samples=2, report=said.append)
    assert said[0].startswith(f"{file}: does not match its checksum")
    assert said[0].endswith("measuring again")
    torch.testing.assert_close(again.train.nll, first.train.nll)
    file.write_bytes(data)
    shutil.rmtree(run / "data")
    with pytest.raises(CheckpointError, match="measure it again with --reference FILE"):
        reference_of(vae, num_samples=2)
    shutil.rmtree(file.parent)
    with pytest.raises(DataError, match="name a file of them with --reference"):
        reference_of(vae, num_samples=2)


def test_a_model_without_its_data_brings_its_reference_along(
    vae: TextVAE, tiny_data: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "alone"
    publish(alone, vae.model, vae.config, vae.tokenizer, None)
    moved = TextVAE.from_pretrained(alone, device="cpu")
    first = reference_of(moved, train=tiny_data / "train.txt", num_samples=2)
    assert first.valid is None
    assert first.unseen is first.train
    again = reference_of(moved, num_samples=2)
    assert again.facts == first.facts
    # It belongs to these weights and to no others.
    with torch.no_grad():
        moved.model.decoder.output_bias += 0.1
    with pytest.raises(DataError, match="are not there"):
        reference_of(moved, num_samples=2)


def test_a_directory_that_cannot_be_written_is_said(
    vae: TextVAE, lines: list[str], tiny_data: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "alone"
    publish(alone, vae.model, vae.config, vae.tokenizer, None)
    (alone / "scoring-2-0").write_text("in the way")
    said: list[str] = []
    moved = TextVAE.from_pretrained(alone, device="cpu")
    found = reference_of(moved, train=tiny_data / "train.txt", num_samples=2, report=said.append)
    assert said[-1].endswith("the next time will measure again")
    assert len(list(score(moved, lines, found))) == len(lines)


def test_a_language_model_scores_and_has_no_latent_scores(
    vae: TextVAE, normal: Reference, lines: list[str], tmp_path: Path
) -> None:
    settings = {"latent_dim": 0, "encoder": {"kind": "none"}, "max_length": 7}
    from textvae.config import decode  # noqa: PLC0415
    from textvae.model.vae import ModelConfig  # noqa: PLC0415

    config = decode(settings, ModelConfig, source="here")
    model = config.build(vae.tokenizer.vocabulary_size).eval()
    language = TextVAE(model, vae.tokenizer, config, path=tmp_path / "language")
    file = tmp_path / "train.txt"
    file.write_text("\n".join(lines), encoding="utf-8")
    own = reference_of(language, train=file, keep=False)
    assert own.facts.num_samples == 1
    found = list(score(language, lines[:5], own, by="nll"))
    assert [one.kl for one in found] == [0.0] * 5
    for kind in ("kl", "mahalanobis"):
        with pytest.raises(CheckpointError, match="is a language model without a latent"):
            list(score(language, lines, own, by=kind))
    # As a background, it is what the nll is compared with.
    against = reference_of(vae, background=language, num_samples=3, seed=1)
    ratios = list(score(vae, lines[:5], against, by="likelihood_ratio", background=language))
    differences = [one.nll - other.nll for one, other in zip(ratios, found, strict=True)]
    assert [one.score for one in ratios] == pytest.approx(differences, rel=1e-5)
    with pytest.raises(ConfigError, match="measured with another background model"):
        list(score(vae, lines, against, by="likelihood_ratio"))


# -- log-probabilities of tokens -------------------------------------------------------------------


def test_token_log_probs_add_up_to_the_likelihood(vae: TextVAE) -> None:
    sentences = ["red cat eats", "fox", "red cat zzyzx"]
    array = TokenArray.from_lists(vae.tokenizer.encode_batch(sentences), vae.tokenizer.start)
    posterior = encode_corpus(vae.model, array)
    same = torch.zeros(3, dtype=torch.int64)
    bound = importance_weighted(
        vae.model, array, posterior, num_samples=7, seed=3, numbers=same
    ).nll
    at_mean = reconstruction_at(vae.model, array, posterior.mean)
    rows = vae.token_log_probs(sentences, num_samples=7, seed=3)
    assert [row.tokens for row in rows] == [[*text.split(), "</s>"] for text in sentences]
    assert vae.spelling is not None
    spelled = torch.tensor([0.0, 0.0, vae.spelling.log_prob("zzyzx")], dtype=torch.float64)
    assert float(spelled[2]) < -10
    sums = torch.tensor([sum(row.at_mean) for row in rows], dtype=torch.float64)
    assert torch.allclose(sums, spelled - at_mean, atol=1e-4)
    total = vae.log_prob(sentences, num_samples=7, seed=3)
    assert torch.allclose(total, spelled - bound, atol=1e-4)
    assert torch.allclose(vae.log_prob(sentences[1:2], num_samples=7, seed=3), total[1:2])


def test_increments_are_those_of_the_bound_of_shorter_texts(vae: TextVAE) -> None:
    """Each is the difference of two bounds by the same samples of z, computed one by one."""
    text, samples = "red cat eats", 5
    (row,) = vae.token_log_probs([text], num_samples=samples, seed=3)
    ids = vae.tokenizer.encode(text)
    array = TokenArray.from_lists([ids], vae.tokenizer.start)
    posterior = encode_corpus(vae.model, array)
    noise = normals(
        key(3, "importance"),
        torch.zeros(1, dtype=torch.int64),
        torch.arange(samples)[:, None],
        lanes=vae.latent_dim,
    )
    latents = posterior.sample(noise)  # [K, 1, Z]
    weights = (vae.model.prior.log_prob(latents) - posterior.log_prob(latents)).double()[:, 0]
    writer = vae.model.decoder.writer(dtype=torch.float32, tabulate=False)
    state, tokens = writer.start(latents[:, 0]), torch.full((samples,), vae.tokenizer.start)
    bounds = [float(weights.logsumexp(0)) - math.log(samples)]
    for token in [*ids, 0]:
        logits, state = writer.step(tokens, state)
        weights = weights + logits.double().log_softmax(1)[:, token]
        bounds.append(float(weights.logsumexp(0)) - math.log(samples))
        tokens = torch.full((samples,), token)
    assert row.latent == pytest.approx(bounds[0], abs=1e-4)
    differences = [after - before for before, after in itertools.pairwise(bounds)]
    assert row.increments == pytest.approx(differences, abs=1e-4)


# -- unknown words ---------------------------------------------------------------------------------


def test_unknown_words_cost_their_spelling_in_every_likelihood(
    vae: TextVAE, normal: Reference
) -> None:
    texts = ["red cat eats", "red zzyzx eats", "red zzyzx qwrtpsdfg"]
    closed = TextVAE(vae.model, vae.tokenizer, vae.config)
    assert vae.spelling is not None
    costs = vae.spelling.nats(texts, vae.tokenizer)
    for kind in ("nll", "elbo", "likelihood_ratio"):
        rows = list(score(vae, texts, normal, by=kind))
        others = list(score(closed, texts, normal, by=kind))
        charged = costs if kind != "likelihood_ratio" else [0.0, 0.0, 0.0]
        for one, other, cost in zip(rows, others, charged, strict=True):
            assert one.score == pytest.approx(other.score + cost, abs=1e-3)
        assert [one.num_unknown for one in rows] == [0, 1, 2]
    assert rows[2].nll > rows[1].nll > rows[0].nll


def test_normal_sentences_are_charged_alike(vae: TextVAE, tmp_path: Path) -> None:
    """From the run's own data, which hold no text, as from a file of the same sentences."""
    texts = [f"red cat {word}" for word in ("zzyzx", "eats", "qwrtp", "likes")]
    file = tmp_path / "more.txt"
    file.write_text("\n".join(texts) + "\n", encoding="utf-8")
    reference = reference_of(vae, train=file, valid=file, num_samples=3, seed=1, keep=False)
    scored = [one.nll for one in score(vae, texts, reference, by="nll")]
    assert sorted(reference.train.nll.tolist()) == pytest.approx(sorted(scored), abs=1e-3)
