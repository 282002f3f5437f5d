"""BLEU, chrF, self-BLEU and the rest, against sacrebleu itself and loops written out."""

import json
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from sacrebleu.metrics.bleu import BLEU
from scipy.stats import wasserstein_distance

from textvae.evaluate.reconstruction import reconstruction_scores, sentence_scores
from textvae.evaluate.samples import histogram, wasserstein
from textvae.metrics.text_quality import (
    Tokenization,
    changes,
    corpus_bleu,
    corpus_chrf,
    cut,
    distinct,
    edit_distance,
    is_unspaced,
    ngrams,
    pooled_bleu,
    self_bleu,
    sentence_bleus,
    tokenization_for,
)
from textvae.randomness import hash64

WORDS = ["the", "a", "cat", "dog,", "sees", "likes.", "<unk>", "it's", "red"]


def texts(seed: int, size: int, longest: int = 13) -> list[str]:
    """Sentences with words in common, some short, of which some have no 4-gram."""
    return [
        " ".join(
            WORDS[hash64(seed, i, t) % len(WORDS)] for t in range(1 + hash64(seed, i) % longest)
        )
        for i in range(size)
    ]


@pytest.mark.parametrize("tokenize", ["none", "13a", "char"])
def test_scores_are_those_of_sacrebleus_command(tokenize: Tokenization, tmp_path: Path) -> None:
    hypotheses, references = texts(1, 23), texts(2, 23)
    hypotheses[::3] = references[::3]
    (tmp_path / "hyp").write_text("\n".join(hypotheses) + "\n", encoding="utf-8")
    (tmp_path / "ref").write_text("\n".join(references) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", "ref", "-i", "hyp", "-m", "bleu", "chrf"]
    done = subprocess.run(
        [*command, "--tokenize", tokenize, "--force", "--format", "json", "-w", "6"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    bleu, chrf = json.loads(done.stdout)
    found = reconstruction_scores(hypotheses, references, tokenize)
    assert found.bleu == pytest.approx(bleu["score"], abs=1e-6)
    assert found.chrf == pytest.approx(chrf["score"], abs=1e-6)
    assert found.bleu_signature == bleu["signature"]
    assert found.chrf_signature == chrf["signature"]
    assert f"tok:{tokenize}" in found.bleu_signature


@pytest.mark.parametrize("tokenize", ["none", "13a"])
def test_a_pool_of_references_is_sacrebleu_with_all_of_them(tokenize: Tokenization) -> None:
    hypotheses, references = texts(3, 17), texts(4, 11)
    metric = BLEU(tokenize=tokenize, force=True)
    expected = metric.corpus_score(hypotheses, [[text] * 17 for text in references])
    found = pooled_bleu(cut(hypotheses, tokenize), cut(references, tokenize), tokenize)
    assert found.value == pytest.approx(expected.score, rel=1e-12)
    assert found.signature == str(metric.get_signature())
    assert "nrefs:11" in found.signature


@pytest.mark.parametrize("size", [2, 3, 19])
def test_self_bleu_is_each_against_the_others(size: int) -> None:
    some = texts(5, size)
    some[0] = some[-1]  # a copy, whose best reference is its twin
    metric = BLEU(force=True, effective_order=True)
    scores = [
        metric.sentence_score(text, some[:i] + some[i + 1 :]).score for i, text in enumerate(some)
    ]
    found = self_bleu(cut(some, "13a"), "13a")
    assert found is not None
    assert found.value == pytest.approx(sum(scores) / size, rel=1e-12)
    assert found.signature == str(metric.get_signature())
    assert scores[0] == pytest.approx(100.0)


def test_self_bleu_of_one_text_is_unknown_and_of_copies_is_100() -> None:
    assert self_bleu([["a"]], "none") is None
    same = self_bleu([["a", "b", "c", "d", "e"]] * 3, "none")
    assert same is not None
    assert same.value == pytest.approx(100.0)
    different = self_bleu([["a", "b", "c", "d"], ["e", "f", "g", "h"]], "none")
    assert different is not None
    assert different.value == 0.0


def test_sentence_bleu_is_that_of_sacrebleu() -> None:
    hypotheses, references = texts(6, 7), texts(7, 7)
    metric = BLEU(effective_order=True, force=True)
    expected = [
        metric.sentence_score(a, [b]).score for a, b in zip(hypotheses, references, strict=True)
    ]
    assert sentence_bleus(hypotheses, references, "13a") == pytest.approx(expected)


def test_empty_texts_are_scored_too() -> None:
    found = sentence_scores(["", "a b"], ["a b", "a b"], "none")
    assert [one[:2] for one in found] == [(False, 2), (True, 0)]
    assert reconstruction_scores(["", "a b"], ["a b", "a b"], "none").edit_share == 0.5
    assert pooled_bleu([[], ["a"]], [["a"]], "none").value >= 0.0
    empty = self_bleu([[], []], "none")
    assert empty is not None
    assert empty.value == 0.0
    assert corpus_bleu([""], [""], "none").value == 0.0
    assert corpus_chrf(["a b"], ["a b"]).value == pytest.approx(100.0)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_distinct_counts_every_ngram(order: int) -> None:
    some = cut(texts(8, 13), "none")
    every = [tuple(t[i : i + order]) for t in some for i in range(len(t)) if i + order <= len(t)]
    assert distinct(some, order) == len(set(every)) / len(every)
    assert distinct([["a"] * (order - 1)], order) is None
    assert ngrams(["a"] * (order + 2), order) == {("a",) * order: 3}


def test_exact_match_minds_words_and_not_blanks() -> None:
    hypotheses, references = ["a  b", "A b", "a b c"], ["a b", "a b", "a c"]
    found = sentence_scores(hypotheses, references, "none")
    assert [one[:2] for one in found] == [(True, 0), (False, 1), (False, 1)]
    changed = reconstruction_scores(hypotheses, references, "none").edit_share
    assert changed == pytest.approx((0.0 + 0.5 + 1 / 3) / 3)
    scores = reconstruction_scores(["a b", "b"], ["a b", "a b"], "none")
    assert (scores.exact_match, scores.edit_distance, scores.edit_share) == (0.5, 0.5, 0.25)
    assert scores.exact_match_stderr == pytest.approx(0.5)
    assert reconstruction_scores(["a"], ["a"], "none").edit_distance_stderr is None


def test_text_is_cut_as_its_tokenizer_takes_it() -> None:
    kinds = ("word", "bpe", "char", "smiles")
    spaced, unspaced = ["the dog barks", "yes"], ["\u72d7\u5728\u53eb\u3002", "\u662f"] * 5
    assert [tokenization_for(kind, spaced) for kind in kinds] == ["none", "13a", "char", "char"]
    assert [tokenization_for(kind, unspaced) for kind in kinds] == ["none", "char", "char", "char"]
    assert is_unspaced([*unspaced, *unspaced, *unspaced, "\u72d7 \u5728 \u53eb \u3002"])
    assert not is_unspaced([*unspaced, "\u72d7 \u5728 \u53eb \u3002"])
    assert not is_unspaced(["yes", "no"]), "too short to know"
    assert not is_unspaced([])
    assert cut(["the <unk> dog, ."], "none") == [["the", "<unk>", "dog,", "."]]
    assert cut(["dog, ."], "13a") == [["dog", ",", "."]]
    assert cut(["ab c"], "char") == [["a", "b", "c"]]


def test_the_distance_of_lengths_is_that_of_scipy() -> None:
    for seed in range(5):
        first = torch.tensor([float(hash64(seed, i) % 17) for i in range(23)]).double()
        second = torch.tensor([float(hash64(seed, i, 1) % 13) for i in range(41)]).double()
        expected = wasserstein_distance(first.numpy(), second.numpy())
        assert wasserstein(first, second) == pytest.approx(expected, rel=1e-9)
    assert wasserstein(first, first) == 0.0
    assert histogram([3, 1, 3]) == [1.0, 0.0, 2.0]


# -- edits: against their definition by recursion


def recursive(first: Sequence[int], second: Sequence[int]) -> int:
    @cache
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        replaced = distance(i - 1, j - 1) + (first[i - 1] != second[j - 1])
        return min(replaced, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    return distance(len(first), len(second))


def sentence(number: int) -> list[int]:
    return [hash64(number, place) % 3 for place in range(hash64(number) % 11)]


def test_distances_are_those_of_the_recursion() -> None:
    sentences = [sentence(number) for number in range(23)]
    for first in sentences:
        for second in sentences:
            found = edit_distance(first, second)
            assert found == recursive(first, second) == edit_distance(second, first)
            assert (found == 0) == (first == second)


@pytest.mark.parametrize(
    ("sentences", "expected"),
    [
        ([[1, 2, 3], [1, 2, 3]], [0.0]),
        ([[1, 2], [3, 4], [3, 4, 5, 6]], [1.0, 0.5]),
        ([[], [], [7]], [0.0, 1.0]),
        ([[1, 2, 3, 4], [2, 3, 4]], [0.25]),
        ([[1]], []),
    ],
)
def test_a_change_is_a_share_of_the_longer_sentence(
    sentences: list[list[int]], expected: list[float]
) -> None:
    assert changes(sentences) == expected


def test_changes_are_between_neighbours() -> None:
    sentences = [sentence(number) for number in range(23)]
    found = changes(sentences)
    assert found == [changes([first, second])[0] for first, second in pairwise(sentences)]
    assert all(0.0 <= change <= 1.0 for change in found)
