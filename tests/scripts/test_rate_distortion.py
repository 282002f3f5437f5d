"""The figures of a row are those of the parts they name."""

import argparse
from pathlib import Path

import pytest
import rate_distortion as curve
from msgspec import structs

from textvae import TextVAE
from textvae.model.encoder import NoEncoderConfig
from textvae.model.prior_gaussian import StandardNormalPriorConfig


@pytest.fixture(scope="module")
def vae(tiny_run: Path) -> TextVAE:
    return TextVAE.from_pretrained(tiny_run, device="cpu")


@pytest.fixture(scope="module")
def judge(vae: TextVAE) -> TextVAE:
    """A language model of other weights over the same words, whose limit is 9 tokens."""
    config = structs.replace(
        vae.config,
        latent_dim=0,
        max_length=9,
        encoder=NoEncoderConfig(),
        prior=StandardNormalPriorConfig(),
    )
    return TextVAE(config.build(vae.tokenizer.vocabulary_size, seed=5), vae.tokenizer, config)


@pytest.fixture(scope="module")
def sentences(tiny_data: Path) -> list[str]:
    return (tiny_data / "valid.txt").read_text(encoding="utf-8").splitlines()


def test_the_judge_reads_what_it_can_and_counts_the_rest(
    judge: TextVAE, sentences: list[str]
) -> None:
    word = sentences[0].split()[0]
    reading = curve.read(judge, [word, "", " ".join([word] * 9), " ".join([word] * 10)])
    expected = judge.evaluate([word, " ".join([word] * 9)], num_samples=1).perplexity
    assert reading == curve.Reading(expected, 2, 2)
    assert curve.read(judge, [""]) == curve.Reading(None, 0, 1)


def test_a_row_has_every_figure_of_a_model_and_fewer_of_a_language_model(
    vae: TextVAE, judge: TextVAE, sentences: list[str]
) -> None:
    arguments = argparse.Namespace(importance=7, bound_sentences=None, samples=11, paths=3, seed=1)
    row = curve.row(vae, judge, sentences, arguments)
    likelihoods = vae.evaluate(sentences, num_samples=7)
    assert (row["kl"], row["perplexity"]) == (likelihoods.kl, likelihoods.perplexity)
    reconstruction = row["reconstruction"]
    assert isinstance(reconstruction, dict)
    for name in ("greedy", "beam"):
        written = vae.reconstruct(sentences, strategy=name)
        exact = sum(a == b for a, b in zip(written, sentences, strict=True)) / len(sentences)
        assert reconstruction[name]["exact"] == pytest.approx(exact)
        assert 0.0 <= reconstruction[name]["bleu"] <= 100.0
    walks = row["paths"]
    assert isinstance(walks, dict)
    assert walks["num_sentences"] + walks["num_left_out"] == 3 * (curve.STEPS - 2)
    drawn = row["samples"]
    assert isinstance(drawn, dict)
    texts = vae.sample(11, seed=1, strategy="temperature")
    assert drawn["temperature"]["distinct"] == len(set(texts)) / 11
    assert drawn["temperature"]["perplexity"] == curve.read(judge, texts).perplexity
    alone = curve.row(
        judge, judge, [text for text in sentences if len(text.split()) < 9], arguments
    )
    assert "paths" not in alone
    assert set(alone["samples"]) == {"temperature"}  # type: ignore[call-overload]
    assert alone["kl"] == 0.0
