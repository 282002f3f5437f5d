"""The aggregate posterior is kept with the model, survives crashes, and goes with its weights."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from textvae.api.aggregate import fit_aggregate, save_aggregate
from textvae.api.text_vae import TextVAE
from textvae.errors import CheckpointError, ConfigError, DataError
from textvae.generate.strategies import Temperature
from textvae.run.aggregate_file import FACTS, TENSORS, read_aggregate, write_aggregate
from textvae.run.model_directory import load_model, publish
from textvae.storage.checkpoint import verify_directory
from textvae.storage.manifest import MANIFEST, changed_manifest, read_manifest
from textvae.storage.tensors import tensors_to_bytes

TEXTS = ["red cat eats", "shy dog sees today", "old hen likes", "big cow sees", "odd ant eats"]


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the tiny run, to be changed."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def fitted(path: Path, seed: int = 0) -> TextVAE:
    vae = TextVAE.from_pretrained(path, device="cpu")
    fit_aggregate(vae, num_components=2, seed=seed)
    return vae


def test_it_is_fitted_to_the_latents_of_the_data(run: Path) -> None:
    vae = TextVAE.from_pretrained(run, device="cpu")
    chosen = fit_aggregate(vae)
    assert vae.aggregate is not None
    assert vae.results is not None
    assert vae.aggregate.facts.num_fitted + vae.aggregate.facts.num_held_out == 89
    # The model is nearly an autoencoder: its latents are far from the prior.
    assert chosen.best.gain > 1.0
    drawn = vae.aggregate.mixture.sample(4001, seed=1)
    texts = (Path(vae.results.data.source) / "train.txt").read_text(encoding="utf-8").splitlines()
    posterior = vae.encode(texts)
    deviation = posterior.mean.std(0)
    assert bool(((drawn.mean(0) - posterior.mean.mean(0)).abs() < 0.3 * deviation).all())


def test_samples_come_from_it(run: Path) -> None:
    vae = fitted(run)
    assert vae.aggregate is not None
    latents = vae.aggregate.mixture.sample(7, seed=3).float()
    found = vae.sample(7, seed=3, prior="aggregate")
    assert found == vae.decode(latents, strategy=Temperature(), seed=3)
    assert found[:2] == vae.sample(2, seed=3, prior="aggregate")
    assert found != vae.sample(7, seed=3)


def test_it_is_kept_and_comes_back(run: Path, tmp_path: Path) -> None:
    vae = fitted(run)
    assert read_aggregate(run) is None
    assert save_aggregate(vae) == run
    assert all(check.problem is None for check in verify_directory(run))
    vae.save_pretrained(tmp_path / "copy")
    for path in (run, tmp_path / "copy"):
        found = TextVAE.from_pretrained(path, device="cpu").aggregate
        assert found is not None
        assert vae.aggregate is not None
        assert found.facts == vae.aggregate.facts
        assert all(map(torch.equal, found.mixture, vae.aggregate.mixture))
        assert read_manifest(path).files.keys() >= {TENSORS, FACTS}


def test_other_weights_are_published_without_it(run: Path) -> None:
    vae = fitted(run)
    save_aggregate(vae)
    publish(run, vae.model, vae.config, vae.tokenizer, vae.results)
    assert load_model(run).aggregate is None


def test_a_crash_leaves_a_whole_model(
    run: Path, killed_at: Callable[[int, Callable[[], object]], bool]
) -> None:
    first, second = fitted(run), fitted(run, seed=1)
    save_aggregate(first)
    assert first.aggregate is not None
    assert second.aggregate is not None
    known, moment, seen = [first.aggregate.facts, second.aggregate.facts, None], 1, set()
    while killed_at(moment, lambda: save_aggregate(second)):
        found = load_model(run)
        facts = None if found.aggregate is None else found.aggregate.facts
        assert facts in known
        seen.add(known.index(facts))
        write_aggregate(run, first.aggregate)
        moment += 3
    assert seen >= {0, 2}
    found = load_model(run)
    assert found.aggregate is not None
    assert found.aggregate.facts == second.aggregate.facts


@pytest.mark.parametrize("name", [TENSORS, FACTS])
def test_damage_is_found(run: Path, name: str) -> None:
    save_aggregate(fitted(run))
    data = bytearray((run / name).read_bytes())
    data[len(data) // 2] ^= 1
    (run / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=f"{name}: does not match its checksum"):
        TextVAE.from_pretrained(run)


def test_what_is_no_mixture_is_refused(run: Path) -> None:
    vae = fitted(run)
    assert vae.aggregate is not None
    mixture = vae.aggregate.mixture
    good = mixture._asdict()
    wrong: list[tuple[dict[str, torch.Tensor], str]] = [
        ({"mean": mixture.mean}, "is no mixture"),
        (good | {"mean": mixture.mean[:1]}, "shapes or numbers"),
        (good | {"mean": mixture.mean / 0.0}, "shapes or numbers"),
        (good | {"factor": -mixture.factor}, "a covariance has no inverse"),
        ({name: part[:0] for name, part in good.items()}, "a covariance has no inverse"),
        (
            good | {"mean": mixture.mean[:, :3], "factor": mixture.factor[:, :3, :3]},
            "has 3 dimensions, the latent 5",
        ),
    ]
    save_aggregate(vae)
    for tensors, words in wrong:
        data = tensors_to_bytes(tensors)
        (run / TENSORS).write_bytes(data)
        listed = changed_manifest(read_manifest(run), add={TENSORS: data})
        (run / MANIFEST).write_bytes(listed)
        with pytest.raises(CheckpointError, match=words):
            load_model(run)
    for facts in (b"{}", b"[", json.dumps({"source": 3}).encode()):
        (run / FACTS).write_bytes(facts)
        (run / MANIFEST).write_bytes(changed_manifest(read_manifest(run), add={FACTS: facts}))
        with pytest.raises(CheckpointError, match=FACTS):
            load_model(run)


def test_what_cannot_be_is_refused(run: Path, tmp_path: Path) -> None:
    vae = TextVAE.from_pretrained(run, device="cpu")
    with pytest.raises(ConfigError, match="--prior aggregate: this model has no aggregate"):
        vae.sample(prior="aggregate")
    with pytest.raises(CheckpointError, match="has no aggregate posterior"):
        save_aggregate(vae)
    with pytest.raises(ConfigError, match="--prior other: must be one of model, aggregate"):
        vae.sample(prior="other")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="sentence 2 is blank"):
        fit_aggregate(vae, ["red cat eats", " "])
    with pytest.raises(DataError, match="is one string"):
        fit_aggregate(vae, "red cat eats")
    with pytest.raises(ConfigError, match="--sentences 1"):
        fit_aggregate(vae, max_sentences=1)
    fit_aggregate(vae, TEXTS, num_components=1)
    with pytest.raises(ConfigError, match="--near draws around a sentence"):
        vae.sample(prior="aggregate", near="red cat eats")
    shutil.rmtree(run / "data")
    with pytest.raises(DataError, match="has no data of a run; give the sentences"):
        fit_aggregate(vae)
    (run / MANIFEST).unlink()
    with pytest.raises(CheckpointError, match="has not finished a model yet"):
        save_aggregate(vae)
    with pytest.raises(CheckpointError, match="has no directory"):
        save_aggregate(TextVAE(vae.model, vae.tokenizer, vae.config, aggregate=vae.aggregate))
