"""A path through several sentences is interpolations end to end, and its figures are exact."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from textvae.api.interpolate import walk
from textvae.api.text_vae import TextVAE
from textvae.errors import ConfigError, DataError
from textvae.generate.paths import PathKind, interpolation, path_through
from textvae.generate.strategies import Temperature
from textvae.randomness import key, normals

TURNS = ["red cat eats", "shy dog sees today", "old hen likes", "red cat eats"]


@pytest.fixture(scope="module")
def vae(tiny_run: Path) -> TextVAE:
    return TextVAE.from_pretrained(tiny_run, device="cpu")


@pytest.mark.parametrize("path", ["straight", "spherical"])
@pytest.mark.parametrize("steps", [2, 5])
def test_a_path_is_made_of_interpolations(path: PathKind, steps: int) -> None:
    points = normals(key(1, "points"), torch.arange(7), lanes=5)
    found = path_through(points, steps=steps, path=path)
    assert found.shape == (6 * (steps - 1) + 1, 5)
    torch.testing.assert_close(found[:: steps - 1], points)
    for number, (start, end) in enumerate(pairwise(points)):
        leg = found[number * (steps - 1) :][:steps]
        torch.testing.assert_close(leg, interpolation(start, end, steps=steps, path=path))


@pytest.mark.parametrize("path", ["straight", "spherical"])
def test_between_two_it_is_interpolate(vae: TextVAE, path: PathKind) -> None:
    found = walk(vae, TURNS[:2], steps=5, path=path)
    assert [step.text for step in found.steps] == vae.interpolate(*TURNS[:2], steps=5, path=path)
    assert [step.share for step in found.steps] == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_it_turns_at_the_reconstructions(vae: TextVAE) -> None:
    found = walk(vae, TURNS, steps=4)
    assert len(found.steps) == 10
    assert [step.text for step in found.steps[::3]] == vae.reconstruct(TURNS)


def test_figures_of_each_step(vae: TextVAE) -> None:
    found = walk(vae, TURNS, steps=4, strategy=Temperature(), seed=3)
    latents = path_through(vae.encode(TURNS).mean, steps=4, path="straight")
    for step, latent in zip(found.steps, latents, strict=True):
        # One token after the other, as the definition has it.
        ids = [*vae.tokenizer.encode(step.text), 0]
        state = vae.model.decoder.writer(dtype=torch.float32, tabulate=False)
        token, hidden, nats = torch.tensor([vae.tokenizer.start]), state.start(latent[None]), 0.0
        for target in ids:
            with torch.inference_mode():
                logits, hidden = state.step(token, hidden)
            nats -= float(logits.log_softmax(1)[0, target])
            token = torch.tensor([target])
        assert step.reconstruction == pytest.approx(nats, rel=1e-5)
        assert step.num_tokens == len(ids)
    changes = [step.change for step in found.steps]
    assert changes[0] is None
    known = [change for change in changes if change is not None]
    assert found.mean_change == pytest.approx(sum(known) / 9)
    for change, (before, after) in zip(known, pairwise(found.steps), strict=True):
        assert (change == 0.0) == (before.text == after.text)


def test_a_path_that_stands_still(vae: TextVAE) -> None:
    found = walk(vae, [TURNS[0]] * 3, steps=3)
    assert found.mean_change == 0.0
    assert len({step.text for step in found.steps}) == 1


def test_what_is_no_path_is_refused(vae: TextVAE) -> None:
    with pytest.raises(DataError, match="passes through at least 2 sentences, found 1"):
        walk(vae, TURNS[:1])
    with pytest.raises(ConfigError, match="--steps 1"):
        walk(vae, TURNS, steps=1)
    with pytest.raises(ConfigError, match="max_length 0"):
        walk(vae, TURNS, max_length=0)


def test_the_density_of_each_step_is_that_of_the_prior(vae: TextVAE) -> None:
    found = walk(vae, TURNS, steps=4)
    latents = path_through(vae.encode(TURNS).mean, steps=4, path="straight")
    expected = vae.model.prior.log_prob(latents).tolist()
    assert [step.log_density for step in found.steps] == pytest.approx(expected)
    with pytest.raises(ConfigError, match="--path data: the prior of this model is not a mixture"):
        walk(vae, TURNS, path="data")
