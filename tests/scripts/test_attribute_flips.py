"""The estimators find vectors that are known, and an edit is judged by what the grammar reads."""

import json
from functools import cache
from itertools import product

import attribute_flips as flips
import pytest
import torch
from torch import Tensor

from textvae.data.grammar import ATTRIBUTES, embedded_grammar, label
from textvae.randomness import key, normals

Z, N = 17, 499


Values = dict[str, str]


@cache
def made_up() -> tuple[dict[tuple[str, str], Tensor], Tensor, list[Values]]:
    """Latents that are a sum of one vector for each value, without noise."""
    pairs = [(name, value) for name, choices in ATTRIBUTES.items() for value in choices]
    rows = normals(key(3, "vectors"), torch.arange(len(pairs)), lanes=Z)
    vectors = dict(zip(pairs, rows, strict=True))
    values = [embedded_grammar().draw(5, index)[1] for index in range(N)]
    mean = torch.stack([torch.stack([vectors[pair] for pair in v.items()]).sum(0) for v in values])
    return vectors, mean, values


def test_least_squares_finds_the_vectors_of_a_sum() -> None:
    vectors, mean, values = made_up()
    found = flips.least_squares(mean, values)
    for name, choices in ATTRIBUTES.items():
        for old, new in product(choices, choices):
            torch.testing.assert_close(
                found[name, new] - found[name, old],
                vectors[name, new] - vectors[name, old],
                rtol=1e-4,
                atol=1e-4,
            )


def test_class_means_and_probes_point_the_same_way() -> None:
    vectors, mean, values = made_up()
    for estimator in (flips.class_means, flips.probe):
        found = estimator(mean, values)
        truth = vectors["tense", "past"] - vectors["tense", "future"]
        step = found["tense", "past"] - found["tense", "future"]
        assert float(torch.cosine_similarity(truth, step, dim=0)) > 0.5


class Writer:
    """In place of a model: writes given sentences, whatever the latents."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def decode(self, latents: Tensor) -> list[str]:
        assert len(latents) == len(self.texts)
        return self.texts


def test_an_edit_is_judged_by_what_its_sentence_says() -> None:
    past = "my cheerful baker baked pies by the sea and i thanked her"
    future = "my cheerful baker will bake pies by the sea and i will thank her"
    roses = "my cheerful gardener will plant roses by the sea and i will thank her"
    before = embedded_grammar().attributes(past)
    assert before is not None
    part = flips.Part(torch.zeros(1, Z), [before], [before | {"topic": "garden"}])
    trial = flips.Trial(0, "tense", "past", "future")
    texts = [future, roses, past, "baked pies"]
    held = ["tense", "person"]
    found = flips.evaluate_edits(Writer(texts), part, [trial] * 4, torch.zeros(4, Z), held)
    ways = [tuple(one.values()) for one in found]
    assert list(found[0]) == list(flips.COUNTS)
    assert ways == [
        (True, True, True, True, False),
        (True, True, False, True, True),
        (True, False, False, False, False),
        (False, False, False, False, False),
    ]
    assert flips.fractions(found)["parses"] == 0.75
    assert flips.parse([label(before)]) == [before]


def test_every_ordered_pair_is_tried() -> None:
    _, mean, values = made_up()
    part = flips.Part(mean, values, [])
    given = list(flips.trials(part, 3))
    pairs = {(trial.name, trial.old, trial.new) for trial in given}
    assert len(pairs) == sum(len(c) * (len(c) - 1) for c in ATTRIBUTES.values()) == 58
    assert len(given) == 3 * 58
    assert all(values[trial.row][trial.name] == trial.old != trial.new for trial in given)


def test_the_arguments(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["attribute_flips.py", "--help"])
    with pytest.raises(SystemExit):
        flips.main()
    assert "--pairs" in capsys.readouterr().out
    json.dumps(flips.fractions([dict.fromkeys(flips.COUNTS, True)]))
