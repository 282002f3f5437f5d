"""Streams of sentences to latents and back: in order, and independent of the pieces."""

from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import get_args

import pytest
import torch

from textvae.api.latent_space import EncodedPart, Metric, neighbors, posteriors, sentences_at
from textvae.api.text_vae import TextVAE
from textvae.data.rows import RowCounts
from textvae.errors import ConfigError, DataError
from textvae.generate.strategies import Strategy, Temperature
from textvae.model.gaussian import DiagonalGaussian

LIMIT = 7
TOO_LONG = "red " * (LIMIT + 1)


@pytest.fixture(scope="module")
def vae(tiny_run: Path) -> TextVAE:
    return TextVAE.from_pretrained(tiny_run, device="cpu")


@pytest.fixture(scope="module")
def lines(tiny_data: Path) -> list[str]:
    return (tiny_data / "train.txt").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("together", [1, 13, 2048])
def test_a_stream_has_the_posteriors_of_a_list(
    vae: TextVAE, lines: list[str], together: int
) -> None:
    whole = vae.encode(lines)
    found = list(posteriors(vae, iter(lines), together=together))
    assert [text for part in found for text in part.texts] == lines
    assert [row for part in found for row in part.rows] == list(range(len(lines)))
    for name in ("mean", "log_variance"):
        together_again = torch.cat([getattr(part.posterior, name) for part in found])
        torch.testing.assert_close(together_again, getattr(whole, name), rtol=1e-5, atol=1e-5)


def test_no_more_is_read_than_is_used(vae: TextVAE) -> None:
    first = next(posteriors(vae, repeat("red cat eats"), together=17))
    assert first.posterior.mean.shape == (17, 5)


def test_sentences_over_the_limit_are_refused_or_left_out(vae: TextVAE, lines: list[str]) -> None:
    given = [*lines[:3], TOO_LONG, lines[3]]
    refused = r"here: row 3 \(counted from 0\) has 8 tokens, the model takes at most 7"
    with pytest.raises(DataError, match=refused):
        list(posteriors(vae, given, source="here", too_long="refuse", together=2))
    with pytest.raises(ConfigError, match="--too-long shorten: must be one of drop, cut, split"):
        list(posteriors(vae, given, too_long="shorten"))
    counts = RowCounts()
    found = list(posteriors(vae, given, too_long="drop", counts=counts, together=2))
    assert counts.notes("here", LIMIT) == [
        "here: 1 row (row 3, counted from 0) with more than the model's 7 tokens, left out; "
        "--too-long cut or split keeps them"
    ]
    assert [row for part in found for row in part.rows] == [0, 1, 2, 4]
    assert list(posteriors(vae, [TOO_LONG], too_long="drop")) == []


@pytest.mark.parametrize("together", [1, 3, 2048])
def test_what_is_too_long_is_cut_or_split(vae: TextVAE, lines: list[str], together: int) -> None:
    given, counts = [lines[0], "", TOO_LONG + "cat " * LIMIT, lines[1]], RowCounts()
    (found,) = _joined(posteriors(vae, given, counts=counts, together=together))
    assert (found.rows, found.cut) == ([0, 2, 3], [False, True, False])
    assert found.texts == [lines[0], ("red " * LIMIT).strip(), lines[1]]
    assert (counts.count("blank"), counts.count("cut")) == (1, 1)
    (pieces,) = _joined(posteriors(vae, given, too_long="split", together=together))
    assert (pieces.rows, pieces.cut) == ([0, 2, 2, 2, 3], [False, True, True, False, False])
    assert " ".join(pieces.texts[1:4]) == given[2].strip()
    torch.testing.assert_close(pieces.posterior.mean[:2], found.posterior.mean[:2])
    # A cut sentence is read without its end, so it is not the sentence of the same words.
    whole = vae.encode([found.texts[1]]).mean
    assert not torch.allclose(whole, found.posterior.mean[1:2], atol=1e-4)


def _joined(parts: Iterator[EncodedPart]) -> list[EncodedPart]:
    every = list(parts)
    posterior = DiagonalGaussian(
        torch.cat([part.posterior.mean for part in every]),
        torch.cat([part.posterior.log_variance for part in every]),
    )
    texts, rows, cut = ([one for part in every for one in part[i]] for i in range(3))
    return [EncodedPart(texts, rows, cut, posterior)]


def test_one_string_is_refused(vae: TextVAE) -> None:
    with pytest.raises(DataError, match="is one string"):
        list(posteriors(vae, "a b"))


@pytest.mark.parametrize("strategy", [None, Temperature(temperature=1.5)], ids=str)
def test_pieces_decode_as_the_whole(
    vae: TextVAE, lines: list[str], strategy: Strategy | None
) -> None:
    options = {} if strategy is None else {"strategy": strategy, "seed": 3}
    latents = vae.encode(lines).mean
    whole = vae.decode(latents, **options)  # type: ignore[arg-type]
    found = sentences_at(vae, latents.split(7), **options)  # type: ignore[arg-type, no-untyped-call]
    assert list(found) == whole


def test_latents_of_another_dimension_are_refused(vae: TextVAE) -> None:
    for bad in (torch.zeros(3, 4), torch.zeros(5)):
        with pytest.raises(DataError, match="this model takes"):
            list(sentences_at(vae, [torch.zeros(2, 5), bad]))
    with pytest.raises(ConfigError, match="max_length 0: must be at least 1"):
        list(sentences_at(vae, [torch.zeros(2, 5)], max_length=0))


# -- neighbors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["euclidean", "scaled", "cosine"])
def test_neighbors_are_those_of_brute_force(vae: TextVAE, lines: list[str], metric: Metric) -> None:
    corpus, queries = [*lines, *lines[:29]], ["old hen likes", lines[3]]
    found = neighbors(vae, queries, corpus, size=7, metric=metric)
    posterior, query = vae.encode(lines), vae.encode(queries).mean
    whole = vae.encode(corpus)
    scale = torch.ones(5)
    if metric == "scaled":
        scale = (whole.mean.var(0, correction=0) + whole.log_variance.exp().mean(0)).sqrt()
    distances = ((query[:, None] - posterior.mean) / scale).norm(dim=2)
    if metric == "cosine":
        distances = 1 - torch.cosine_similarity(query[:, None], posterior.mean, dim=2)
    for near, row in zip(found, distances, strict=True):
        best = row.argsort()[:7].tolist()
        assert [(one.text, one.number) for one in near] == [(lines[i], i) for i in best]
        torch.testing.assert_close(
            torch.tensor([one.distance for one in near]), row[best], rtol=1e-4, atol=1e-5
        )
    assert (found[1][0].text, found[1][0].number) == (lines[3], 3)
    assert found[1][0].distance == pytest.approx(0.0, abs=1e-5)


def test_neighbors_leave_out_what_is_too_long(vae: TextVAE, lines: list[str]) -> None:
    corpus = [TOO_LONG, "", *lines[:5]]
    for metric in get_args(Metric):
        counts = RowCounts()
        (found,) = neighbors(vae, [lines[0]], corpus, size=2, metric=metric, counts=counts)
        assert (counts.count("too_long_tokens"), found[0].number) == (1, 2)
    with pytest.raises(DataError, match="here: holds no sentence that the model takes"):
        neighbors(vae, [lines[0]], [TOO_LONG], source="here")
    with pytest.raises(ConfigError, match="reads the corpus twice"):
        neighbors(vae, [lines[0]], iter(corpus), metric="scaled")
    with pytest.raises(ConfigError, match="--metric manhattan: must be one of euclidean, scaled"):
        neighbors(vae, [lines[0]], corpus, metric="manhattan")  # type: ignore[arg-type]
