"""Launches and waits on the pretend device stay within tests/cuda/budgets.toml.

Each figure is the difference between a longer and a shorter piece of the same work, so that what is
done once does not count.
"""

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pretend import Counts, PretendCuda

from textvae.data.batching import TokenArray
from textvae.generate.beam import Beam, beam_search
from textvae.generate.decoding import decode_latents
from textvae.generate.strategies import Greedy, Nucleus, Strategy, Temperature, TopK, Typical
from textvae.metrics.likelihood import encode_corpus, importance_weighted
from textvae.model.decoder import GRUDecoderConfig
from textvae.model.encoder import GRUEncoderConfig
from textvae.model.interfaces import END
from textvae.model.vae import VAE, ModelConfig
from textvae.run.experiment import load_config
from textvae.train.graph import WARM_UP
from textvae.train.loop import train

BUDGETS = tomllib.loads((Path(__file__).parent / "budgets.toml").read_text(encoding="utf-8"))
VOCABULARY, WORDS = 1009, 21
SIZES = (
    "model.latent_dim=5",
    "model.encoder.hidden_dim=17",
    "model.decoder.embedding_dim=13",
    "model.decoder.hidden_dim=19",
    "train.device=cuda",
    "train.precision=bfloat16",
)
STEP_SETTINGS = {
    "default": (),
    "ptb": ("train.objective.word_dropout.end=0.3",),
    "ptb_long": ("train.objective.word_dropout.end=0.3", "train.averaging.share=1.0"),
    "captured": ("train.cuda_graph=true",),
}
"""Recipes, with everything in them active at every step."""


def corpus(size: int) -> TokenArray:
    """Sentences of WORDS words."""
    rows = [[2 + (31 * i + 7 * t) % (VOCABULARY - 2) for t in range(WORDS)] for i in range(size)]
    return TokenArray.from_lists(rows, VOCABULARY)


def assert_within(counts: Counts, kind: str, name: str) -> None:
    budget = BUDGETS[kind][name]
    print(f"{kind}.{name} = {{ launches = {counts.launches}, waits = {counts.waits} }}")
    assert counts.launches <= budget["launches"]
    assert counts.waits <= budget["waits"]


def difference(
    device: PretendCuda, work: Callable[[int], object], shorter: int, longer: int
) -> tuple[float, float]:
    """Launches and waits per unit of work."""
    counts = []
    for size in (shorter, longer):
        device.reset()
        work(size)
        counts.append(device.counts())
    launches, waits = (b - a for a, b in zip(*counts, strict=True))
    return launches / (longer - shorter), waits / (longer - shorter)


@pytest.mark.parametrize("name", STEP_SETTINGS)
def test_a_training_step(pretend: PretendCuda, name: str) -> None:
    recipe = name if name.startswith("ptb") else None
    config = load_config(None, (*SIZES, *STEP_SETTINGS[name]), recipe=recipe)
    batch, data = 32, corpus(64)

    def work(steps: int) -> None:
        settings = {"batch_size": batch, "max_steps": steps, "validate_every": steps}
        settings |= {"save_every": steps, "calibrate": False}
        model = config.model.build(VOCABULARY, seed=1).to("cuda")
        chosen = type(config.train)(**{**_fields(config.train), **settings})
        train(model, data, data.head(3), chosen, seed=0, run=None, report=lambda line: None)

    first = WARM_UP + 2 if name == "captured" else 2
    assert_within(Counts(*difference(pretend, work, first, first + 2)), "step", name)


def _fields(config: object) -> dict[str, object]:
    return {name: getattr(config, name) for name in config.__struct_fields__}  # type: ignore[attr-defined]


def writer_model() -> VAE:
    """A model on the device that never ends a sentence."""
    config = ModelConfig(
        latent_dim=5,
        encoder=GRUEncoderConfig(hidden_dim=17),
        decoder=GRUDecoderConfig(embedding_dim=13, hidden_dim=19),
    )
    model = config.build(VOCABULARY, seed=1)
    with torch.no_grad():
        model.decoder.output_bias[END] = -1e4
    return model.to("cuda").eval()


@pytest.mark.parametrize(
    "strategy", [Greedy(), Temperature(), TopK(k=50), Nucleus(p=0.9), Typical(p=0.95)]
)
def test_a_position_of_sampling(pretend: PretendCuda, strategy: Strategy) -> None:
    model = writer_model()
    latents = model.prior.sample(37, seed=1)

    def work(words: int) -> None:
        decode_latents(model, latents, strategy, seed=1, max_length=words)

    counts = Counts(*difference(pretend, work, 8, 24))
    assert_within(counts, "position", type(strategy).__struct_config__.tag)


def test_a_position_of_beam_search(pretend: PretendCuda) -> None:
    model = writer_model()
    latents = model.prior.sample(11, seed=1)

    def work(words: int) -> None:
        beam_search(model, latents, Beam(size=5), max_length=words)

    assert_within(Counts(*difference(pretend, work, 16, 48)), "position", "beam")


def test_a_sentence_of_importance_weighting(pretend: PretendCuda) -> None:
    model = writer_model()
    data = corpus(96).to(torch.device("cuda"))
    posterior = encode_corpus(model, data)

    def work(sentences: int) -> None:
        part = data.head(sentences)
        importance_weighted(model, part, posterior, num_samples=500, seed=0)

    counts = Counts(*difference(pretend, work, 32, 96))
    assert_within(counts, "importance_weighting", "sentence")


def test_every_budget_is_measured() -> None:
    names = {kind: set(budgets) for kind, budgets in BUDGETS.items()}
    assert names == {
        "step": set(STEP_SETTINGS),
        "position": {"greedy", "temperature", "top_k", "nucleus", "typical", "beam"},
        "importance_weighting": {"sentence"},
    }
