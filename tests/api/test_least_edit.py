"""Edits by the least change: the direction, the classifier, and the choice among candidates."""

import math
from pathlib import Path

import pytest
import torch

from textvae.api import least_edit
from textvae.api.least_edit import (
    Attribute,
    Edited,
    attribute_of,
    between,
    edit_least,
    fit_logistic,
)
from textvae.api.text_vae import TextVAE
from textvae.data.tokenizer import BPETokenizerConfig, CharTokenizerConfig, WordTokenizerConfig
from textvae.errors import DataError
from textvae.metrics.text_quality import edit_distances
from textvae.randomness import key, normals
from textvae.run.experiment import load_config


def two_gaussians(size: int) -> torch.Tensor:
    """Points of N(0, C) and N(d, C): the log-odds are linear, with weights C^-1 d."""
    noise = normals(key(3, "least"), torch.arange(2 * size), lanes=3).double()
    noise[:, 1] = 0.5 * noise[:, 0] + noise[:, 1]
    noise[size:, 0] += 2.0
    return noise


def test_the_regression_finds_the_log_odds_of_two_gaussians() -> None:
    weight, bias = fit_logistic(two_gaussians(20_000), 20_000)
    covariance = torch.tensor([[1.0, 0.5, 0.0], [0.5, 1.25, 0.0], [0.0, 0.0, 1.0]]).double()
    shift = torch.tensor([2.0, 0.0, 0.0]).double()
    exact = torch.linalg.solve(covariance, shift)
    torch.testing.assert_close(weight, exact, atol=0.12, rtol=0.0)  # some 3 standard errors
    assert bias == pytest.approx(float(-exact @ shift / 2), abs=0.12)


def test_sets_of_different_sizes_weigh_the_same() -> None:
    points = two_gaussians(5_000)
    both, few = fit_logistic(points, 5_000), fit_logistic(points[3_000:], 2_000)
    torch.testing.assert_close(both[0], few[0], atol=0.2, rtol=0.0)
    assert both[1] == pytest.approx(few[1], abs=0.2)


@pytest.fixture(scope="module")
def vae(tiny_run: Path) -> TextVAE:
    return TextVAE.from_pretrained(tiny_run, device="cpu")


@pytest.fixture(scope="module")
def sets(tiny_data: Path) -> tuple[list[str], list[str]]:
    lines = (tiny_data / "train.txt").read_text(encoding="utf-8").splitlines()
    short = [line for line in lines if not line.endswith("today")]
    return short, [line for line in lines if line.endswith("today")]


def test_a_step_along_the_direction_raises_the_log_odds_by_one(
    vae: TextVAE, sets: tuple[list[str], list[str]]
) -> None:
    attribute = attribute_of(vae, *sets)
    assert (attribute.num_from, attribute.num_to) == tuple(map(len, sets))
    mean = vae.encode(sets[0]).mean
    raised = attribute.log_odds(mean + 3.0 * attribute.direction) - attribute.log_odds(mean)
    torch.testing.assert_close(raised, torch.full_like(raised, 3.0), atol=1e-3, rtol=0.0)
    # Of all moves that raise them as much it is the shortest in the metric of the covariance.
    means = [vae.encode(one).mean.double() for one in sets]
    centred = torch.cat([one - one.mean(0) for one in means])
    precision = torch.linalg.inv(centred.t() @ centred / len(centred))
    direction, weight = attribute.direction.double(), attribute.weight.double()
    cost = direction @ precision @ direction
    for lane in range(5):
        other = (
            direction + 0.1 * normals(key(1, "other"), torch.tensor([lane]), lanes=5)[0].double()
        )
        other = other / (weight @ other)
        assert other @ precision @ other >= cost * (1 - 1e-4)


def test_of_accepted_candidates_the_nearest_is_taken() -> None:
    def one(text: str, probability: float, accepted: bool, changed: int) -> Edited:
        return Edited("a b c", text, probability, accepted, changed, 0.0)

    unsure, surer = one("a b c", 0.2, False, 0), one("a b d", 0.7, False, 1)
    far, near = one("x y z", 0.99, True, 3), one("a b z", 0.9, True, 1)
    assert sorted([near, surer, far, unsure], key=least_edit._rank) == [unsure, surer, far, near]


def test_between_a_sentence_and_a_text_lie_all_subsets_of_the_changes() -> None:
    old = ["the", "food", "was", "not", "good"]
    new = ["the", "pizza", "was", "good", "today"]
    found = [" ".join(units) for units in between(old, new)]
    assert sorted(found) == sorted(
        f"the {noun} was{negation} good{end}"
        for noun in ("food", "pizza")
        for negation in (" not", "")
        for end in ("", " today")
    )
    assert list(between(old, old)) == [old]
    assert list(between(["The", "Food"], ["the", "food"], lowercase=True)) == [["The", "Food"]]
    many = [str(number) for number in range(13)]
    other = [unit if place % 2 else "x" for place, unit in enumerate(many)]
    assert list(between(many, other)) == [other]  # 7 places: beyond the most


def test_a_change_that_the_classifier_does_not_need_is_undone(vae: TextVAE) -> None:
    sentence, text = "red cat eats", "big cat eats today"
    means = vae.encode([sentence, text, "red cat eats today", "big cat eats"]).mean
    # Accepts `today`, whatever the colour.
    weight = (means[2] + means[1] - means[0] - means[3]).double()
    odds = means.double() @ weight
    assert min(odds[1], odds[2]) > max(odds[0], odds[3])
    scale = 2.0 / float(min(odds[1], odds[2]) - max(odds[0], odds[3]))
    bias = 2.0 - scale * float(min(odds[1], odds[2]))
    attribute = Attribute((scale * weight).float(), bias, torch.ones(5), 1, 1)
    edited = least_edit._least(vae, attribute, sentence, {sentence: 0.0, text: 4.0}, 1.0)
    assert (edited.text, edited.accepted) == ("red cat eats today", True)
    assert (edited.num_changed, edited.strength) == (1, 4.0)
    nothing = least_edit._least(vae, attribute, sentence, {sentence: 0.0, text: 4.0}, 99.0)
    assert not nothing.accepted
    assert nothing.text in (text, "red cat eats today")


def test_edits_are_what_they_say(vae: TextVAE, sets: tuple[list[str], list[str]]) -> None:
    attribute = attribute_of(vae, *sets)
    sentences = sets[0][:5]
    edits = list(edit_least(vae, sentences, attribute))
    assert [one.sentence for one in edits] == sentences
    assert edits == list(edit_least(vae, iter(sentences), attribute))
    for one in edits:
        odds = float(attribute.log_odds(vae.encode([one.text or one.sentence]).mean)[0])
        assert one.probability == pytest.approx(1 / (1 + math.exp(-odds)), abs=1e-5)
        assert one.accepted is (odds >= least_edit.MARGIN and bool(one.text))
        distance = edit_distances([one.text.split()], [one.sentence.split()])[0]
        assert one.num_changed == distance
        assert one.strength >= 0.0


def test_what_has_the_attribute_is_not_moved(
    vae: TextVAE, sets: tuple[list[str], list[str]]
) -> None:
    attribute = Attribute(torch.zeros(5), 9.0, torch.ones(5), 1, 1)
    edits = list(edit_least(vae, sets[0][:3], attribute))
    assert [(one.text, one.num_changed, one.strength, one.accepted) for one in edits] == [
        (sentence, 0, 0.0, True) for sentence in sets[0][:3]
    ]


def test_sets_without_two_sentences_are_refused(vae: TextVAE) -> None:
    with pytest.raises(DataError, match="the sentences with: holds 1 sentences"):
        attribute_of(vae, ["red cat eats", "shy dog sees today"], ["odd hen likes"])


@pytest.mark.parametrize("kind", ["char", "bpe", "lowercase words"])
def test_changes_are_counted_in_tokens_of_the_model(
    kind: str, tiny_overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(least_edit, "MOST_PLACES", 0)  # the text is the only candidate
    tokenizers = {
        "char": CharTokenizerConfig(),
        "bpe": BPETokenizerConfig(vocabulary_size=259),
        "lowercase words": WordTokenizerConfig(lowercase=True),
    }
    lines = ["\u5f88\u597d\u5403\u7684\u83dc", "\u4e0d\u597d\u5403\u7684\u996d"]
    lines = ["a fine cat", "a poor cat"] if kind == "lowercase words" else lines
    tokenizer = tokenizers[kind].train(lines)
    settings = [text for text in tiny_overrides if text.startswith("model.")]
    config = load_config(None, [*settings, "model.max_length=23"]).model
    vae = TextVAE(config.build(tokenizer.vocabulary_size, seed=7), tokenizer, config)
    attribute = Attribute(torch.zeros(5), 9.0, torch.ones(5), 1, 1)
    first = "A Fine Cat" if kind == "lowercase words" else lines[0]
    judged = least_edit._least(vae, attribute, first, {lines[1]: 1.0}, 99.0)
    # The unspaced sentences differ in two of five characters, which have three bytes each.
    assert judged.num_changed == {"char": 2, "bpe": 6, "lowercase words": 1}[kind]
