"""Streams of sentences to latents and back: in order, and independent of the pieces."""

from itertools import repeat
from pathlib import Path
from typing import get_args

import pytest
import torch

from textvae.api.latent_space import Metric, neighbors, posteriors, sentences_at
from textvae.api.text_vae import TextVAE
from textvae.errors import ConfigError, DataError
from textvae.generate.strategies import Strategy, Temperature

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
    assert [number for part in found for number in part.numbers] == list(range(len(lines)))
    for name in ("mean", "log_variance"):
        together_again = torch.cat([getattr(part.posterior, name) for part in found])
        torch.testing.assert_close(together_again, getattr(whole, name), rtol=1e-5, atol=1e-5)


def test_no_more_is_read_than_is_used(vae: TextVAE) -> None:
    first = next(posteriors(vae, repeat("red cat eats"), together=17))
    assert first.posterior.mean.shape == (17, 5)


def test_sentences_over_the_limit_are_refused_or_left_out(vae: TextVAE, lines: list[str]) -> None:
    given = [*lines[:3], TOO_LONG, lines[3]]
    with pytest.raises(DataError, match="here: sentence 4 has 8 tokens, the model takes at most 7"):
        list(posteriors(vae, given, source="here", together=2))
    left_out: list[int] = []
    found = list(posteriors(vae, given, skipped=left_out.append, together=2))
    assert left_out == [3]
    assert [number for part in found for number in part.numbers] == [0, 1, 2, 4]
    assert list(posteriors(vae, [TOO_LONG], skipped=left_out.append)) == []


def test_blanks_and_strings_are_refused(vae: TextVAE) -> None:
    with pytest.raises(DataError, match="sentence 2 is blank"):
        list(posteriors(vae, ["a", " "]))
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


@pytest.mark.parametrize("metric", ["euclidean", "scaled"])
def test_neighbors_are_those_of_brute_force(vae: TextVAE, lines: list[str], metric: Metric) -> None:
    corpus, queries = [*lines, *lines[:29]], ["old hen likes", lines[3]]
    found = neighbors(vae, queries, corpus, size=7, metric=metric)
    posterior, query = vae.encode(lines), vae.encode(queries).mean
    whole = vae.encode(corpus)
    scale = torch.ones(5)
    if metric == "scaled":
        scale = (whole.mean.var(0, correction=0) + whole.log_variance.exp().mean(0)).sqrt()
    distances = ((query[:, None] - posterior.mean) / scale).norm(dim=2)
    for near, row in zip(found, distances, strict=True):
        best = row.argsort()[:7].tolist()
        assert [(one.text, one.number) for one in near] == [(lines[i], i) for i in best]
        torch.testing.assert_close(
            torch.tensor([one.distance for one in near]), row[best], rtol=1e-4, atol=1e-5
        )
    assert (found[1][0].text, found[1][0].number) == (lines[3], 3)
    assert found[1][0].distance == pytest.approx(0.0, abs=1e-5)


def test_neighbors_leave_out_what_is_too_long(vae: TextVAE, lines: list[str]) -> None:
    left_out: list[int] = []
    corpus = [TOO_LONG, *lines[:5]]
    for metric in get_args(Metric):
        left_out.clear()
        (found,) = neighbors(
            vae, [lines[0]], corpus, size=2, metric=metric, skipped=left_out.append
        )
        assert (left_out, found[0].number) == ([0], 1)
    with pytest.raises(DataError, match="here: holds no sentence that the model takes"):
        neighbors(vae, [lines[0]], [TOO_LONG], source="here", skipped=left_out.append)
    with pytest.raises(ConfigError, match="reads the corpus twice"):
        neighbors(vae, [lines[0]], iter(corpus), metric="scaled")
    with pytest.raises(ConfigError, match="--metric cosine: must be one of euclidean, scaled"):
        neighbors(vae, [lines[0]], corpus, metric="cosine")  # type: ignore[arg-type]
