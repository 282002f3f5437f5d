"""A model whose prior is a mixture: kept, read back, measured and shown as what it is."""

from pathlib import Path
from typing import get_args

import pytest
import torch
from click.testing import CliRunner
from msgspec import structs

from textvae.api.evaluate import run_evaluators
from textvae.api.interpolate import walk
from textvae.api.text_vae import TextVAE
from textvae.cli.main import program
from textvae.evaluate.evaluators import KINDS
from textvae.evaluate.latent import LatentEvaluator
from textvae.generate.paths import PathKind, path_through
from textvae.model.mixture import GaussianMixture
from textvae.model.prior_gaussian import GaussianPrior
from textvae.model.prior_mixture import MixturePrior, MixturePriorConfig
from textvae.model.vae import VAE
from textvae.run.data import DataOptions
from textvae.run.dry_run import dry_run
from textvae.run.experiment import load_config
from textvae.run.plan import plan_run

TURNS = ["red cat eats", "shy dog sees today"]


@pytest.fixture(scope="module")
def mixed(tiny_run: Path) -> TextVAE:
    """The tiny model, with two Gaussians in the place of its prior."""
    vae = TextVAE.from_pretrained(tiny_run, device="cpu")
    config = structs.replace(vae.config, prior=MixturePriorConfig(max_components=3))
    model = config.build(vae.tokenizer.vocabulary_size)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(state | vae.model.state_dict())
    assert isinstance(model.prior, MixturePrior)
    dim = config.latent_dim
    weights, unit = torch.tensor([0.4, 0.6]).double(), torch.eye(dim).double()
    mean = torch.stack([torch.full((dim,), value).double() for value in (-0.8, 0.7)])
    model.prior.set_mixture(
        GaussianMixture(weights.log(), mean, torch.stack([0.5 * unit, 0.9 * unit]))
    )
    return TextVAE(model, vae.tokenizer, config)


@pytest.fixture(scope="module")
def kept(mixed: TextVAE, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mixed") / "model"
    mixed.save_pretrained(path)
    return path


def test_it_is_read_back_as_it_was(mixed: TextVAE, kept: Path) -> None:
    read = TextVAE.from_pretrained(kept, device="cpu")
    assert not read.model.prior.kl_is_exact
    assert read.sample(7, seed=3) == mixed.sample(7, seed=3)
    latents = mixed.model.prior.sample(401, seed=1)
    assert 0.3 < float((latents[:, 0] < 0).float().mean()) < 0.7
    assert torch.equal(read.model.prior.log_prob(latents), mixed.model.prior.log_prob(latents))


def test_its_figures_say_what_is_estimated(mixed: TextVAE, tiny_data: Path) -> None:
    lines = (tiny_data / "valid.txt").read_text(encoding="utf-8").splitlines()
    evaluators = (KINDS["likelihood"](num_samples=53), LatentEvaluator())
    found = run_evaluators(mixed, lines, evaluators=evaluators)
    assert found["kl"].settings == "to the prior, estimated"
    dimensions, kl, elbo = (found[name].value for name in ("kl_per_dimension", "kl", "elbo"))
    assert isinstance(dimensions, list)
    assert isinstance(kl, float)
    assert isinstance(elbo, float)
    assert sum(dimensions) == pytest.approx(kl, rel=1e-5)
    reconstruction = found["reconstruction"].value
    assert isinstance(reconstruction, float)
    assert kl == pytest.approx(-elbo - reconstruction, abs=0.2), "by other draws"
    assert "aggregate_kl" in found
    assert "aggregate_moments_kl" not in found


def test_paths_along_the_data_take_it_as_their_density(mixed: TextVAE) -> None:
    mixture, mean = mixed.model.prior.mixture, mixed.encode(TURNS).mean
    assert mixture is not None
    for path in get_args(PathKind):
        found = walk(mixed, TURNS, steps=5, path=path)
        latents = path_through(mean, steps=5, path=path, prior=mixed.model.prior)
        expected = mixture.log_prob(latents.double()).tolist()
        assert [step.log_density for step in found.steps] == pytest.approx(expected)
        assert [step.text for step in found.steps] == mixed.interpolate(*TURNS, steps=5, path=path)
    straight, along = (
        path_through(mean, steps=5, path=path, prior=mixed.model.prior)
        for path in ("straight", "data")
    )
    assert not torch.equal(straight, along)


def test_it_is_shown_by_its_gaussians(mixed: TextVAE, kept: Path, tmp_path: Path) -> None:
    shown = CliRunner(catch_exceptions=False).invoke(program, ["info", str(kept)])
    assert f"{mixed.config.latent_dim} dimensions, mixture prior (2 Gaussians)" in shown.stdout
    page, data = tmp_path / "page.html", tmp_path / "data.txt"
    lines = [mixed.sample(1, seed=number)[0] or "word" for number in range(5)]
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")
    arguments = ["report", str(kept), str(data), "--output", str(page), "--samples", "2"]
    result = CliRunner(catch_exceptions=False).invoke(program, arguments)
    assert result.exit_code == 0, result.stderr
    text = page.read_text(encoding="utf-8")
    assert "mixture prior (2 Gaussians)" in text
    assert "95 % of a normal with its moments" in text


def test_a_dry_run_fits_none(
    tiny_data: Path,
    tiny_overrides: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A mixture is fitted once, when a run ends, however long the run is."""
    config = load_config(None, [*tiny_overrides, "model.prior.kind=mixture"])
    priors: list[object] = []

    def watched(model: VAE, *_: object, **__: object) -> None:
        priors.append(model.prior)

    monkeypatch.setattr("textvae.run.dry_run.train", watched)
    dry_run(plan_run(DataOptions(str(tiny_data)), config, tmp_path / "run"))
    assert [type(prior) for prior in priors] == [GaussianPrior] * 2
