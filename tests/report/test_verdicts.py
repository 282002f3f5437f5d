"""Verdicts on either side of their rules, and what is said of numbers that nobody knows."""

from pathlib import Path

import pytest

from textvae.report.verdicts import (
    GENERATION_ENTRIES,
    LATENT_ENTRIES,
    Number,
    Numbers,
    explain_figures,
    explain_generation,
)

PACKAGE = Path(__file__).parents[2] / "textvae"


def numbers(latent_dim: int = 7, tokenizer: str = "bpe", **figures: float | Number) -> Numbers:
    made = {k: v if isinstance(v, Number) else Number(v) for k, v in figures.items()}
    return Numbers(made, "somewhere", tokenizer, latent_dim, 3, "float32", "Measured", None)


@pytest.mark.parametrize(
    ("figures", "name", "verdict"),
    [
        ({"nll": 10.19, "source_nll": 10.0}, "nll", "good"),
        ({"nll": 10.49, "source_nll": 10.0}, "nll", "fair"),
        ({"nll": 10.51, "source_nll": 10.0}, "nll", "poor"),
        ({"nll": 10.0}, "nll", None),
        ({"perplexity": 49.0}, "perplexity", "good"),
        ({"perplexity": 99.0}, "perplexity", "fair"),
        ({"perplexity": 101.0}, "perplexity", "poor"),
        ({"elbo": -10.4, "nll": 10.0}, "elbo", "good"),
        ({"elbo": -11.2, "nll": 10.0}, "elbo", "poor"),
        ({"kl": 0.49}, "kl", "poor"),
        ({"kl": 0.51}, "kl", "good"),
        ({"mutual_information": 2.0, "mutual_information_cap": 2.1}, "mutual_information", None),
        ({"mutual_information": 2.0, "mutual_information_cap": 5.0}, "mutual_information", "good"),
        ({"mutual_information": 0.2, "mutual_information_cap": 5.0}, "mutual_information", "poor"),
        ({"kl": 5.0, "mutual_information": 3.5}, "aggregate_kl", "fair"),
        ({"aggregate_kl": 0.9, "kl": 9.0, "mutual_information": 1.0}, "aggregate_kl", "good"),
        ({"kl_largest_share": 0.6}, "kl_largest_share", "fair"),
        ({"active_units": 4}, "active_units", "good"),
        ({"active_units": 3}, "active_units", "fair"),
        ({"active_units": 0}, "active_units", "poor"),
        ({"permutation_cost": 0.1, "reconstruction": 1.0}, "permutation_cost", "poor"),
        ({"permutation_cost": 0.3, "reconstruction": 30.0}, "permutation_cost", "fair"),
        ({"permutation_cost": 4.0, "reconstruction": 30.0}, "permutation_cost", "good"),
    ],
)
def test_verdicts_of_likelihood_and_latent(
    figures: dict[str, float], name: str, verdict: str | None
) -> None:
    found = explain_figures(numbers(**figures), unigram_perplexity=100.0)[name]
    assert found.verdict == verdict
    assert found.meaning.endswith((".", ").")), found.meaning


@pytest.mark.parametrize(
    ("figures", "name", "verdict", "said"),
    [
        ({"novelty": Number(0.6, 0.01, "share")}, "novelty", "good", "from 50 % is good"),
        ({"novelty": Number(0.05, None, "share")}, "novelty", "poor", "from 10 % fair"),
        ({"truncated": Number(0.02, None, "share")}, "truncated", "fair", "up to 1 % is good"),
        ({"path_detour": 2.6}, "path_detour", "poor", "up to 1.50 is good, up to 2.50 fair"),
        ({"length_mean": 9.0}, "length_mean", None, "of the corpus."),
        ({"length_mean": 9.6, "data_length_mean": 10.0}, "length_mean", "good", ": 10 (within 5 %"),
        (
            {"length_mean": 11.9, "data_length_mean": 10.0},
            "length_mean",
            "poor",
            "within 15 % fair",
        ),
        (
            {"path_perplexity": 12.0, "path_ends_perplexity": 10.0},
            "path_perplexity",
            "fair",
            ": 10 (up to 1 times is good, up to 1.50 times fair)",
        ),
        ({"self_bleu": Number(40.0, None, "0 to 100")}, "self_bleu", None, "compare models"),
    ],
)
def test_verdicts_of_what_it_writes(
    figures: dict[str, float | Number], name: str, verdict: str | None, said: str
) -> None:
    found = explain_generation(numbers(**figures))
    assert list(found) == [name]
    assert found[name].verdict == verdict
    assert said in found[name].meaning


def test_shares_are_percent_and_distinct_is_one_line() -> None:
    orders = {
        f"distinct_{k}": Number(0.1 * k, None, "share", f"of all {k}-grams") for k in range(1, 5)
    }
    found = explain_generation(numbers(exact_match=Number(0.125, 0.01, "share", "of 9"), **orders))
    assert found["exact_match"].value == "12.5 \u00b1 1 %"
    assert found["distinct_1"].value == "10.0 % \u00b7 20.0 % \u00b7 30.0 % \u00b7 40.0 %"
    assert found["distinct_1"].settings == "of all 1- to 4-grams"


def test_a_language_model_has_no_figures_of_a_latent_and_words_say_the_same_once() -> None:
    every = {"nll": 9.0, "perplexity": 8.0, "elbo": -9.0, "kl": 0.0, "active_units": 0}
    every |= {"perplexity_per_word": 8.0, "bits_per_character": 1.0, "permutation_cost": 0.0}
    found = explain_figures(
        numbers(latent_dim=0, tokenizer="word", **every), unigram_perplexity=100.0
    )
    assert list(found) == ["nll", "perplexity"]
    longer = explain_figures(numbers(latent_dim=0, **every), unigram_perplexity=100.0)
    assert list(longer) == ["nll", "perplexity", "perplexity_per_word", "bits_per_character"]
    assert explain_figures(numbers(), unigram_perplexity=100.0) == {}


def test_every_figure_with_a_sentence_is_one_that_evaluate_measures() -> None:
    sources = " ".join(
        path.read_text(encoding="utf-8")
        for package in ("evaluate", "metrics")
        for path in (PACKAGE / package).glob("*.py")
    )
    entries = LATENT_ENTRIES | GENERATION_ENTRIES
    names = [*entries, *(e.rule.against for e in entries.values() if e.rule and e.rule.against)]
    for name in names:
        written = name.removesuffix("_mean") if name.endswith("length_mean") else name
        assert f'"{written}"' in sources, name
