"""An evaluation is a view of measurements, and its table can be read whatever the figures."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from small import small_config

from textvae.api.evaluate import run_evaluators
from textvae.api.text_vae import TextVAE
from textvae.data.batching import TokenArray
from textvae.evaluate.summary import Evaluation

V = 11


@pytest.fixture(scope="module")
def vae(tiny_run: Path) -> TextVAE:
    return TextVAE.from_pretrained(tiny_run, device="cpu")


@pytest.fixture(scope="module")
def found(evaluate_tokens: Callable[..., Evaluation]) -> Evaluation:
    config = small_config(3, 5, 7)
    data = TokenArray.from_lists([[2, 3, 4] * 4, [5], [], [6, 7]], V)
    model = config.build(V).eval()
    return evaluate_tokens(model, data, num_words=4, num_characters=41, num_samples=5, seed=0)


def test_figures_follow_from_each_other(found: Evaluation) -> None:
    assert (found.num_sentences, found.num_tokens) == (4, 12 + 1 + 0 + 2 + 4)
    total = torch.tensor(found.nll * 4).double()
    assert found.perplexity == pytest.approx(float((total / 19).exp()), rel=1e-5)
    assert found.perplexity_per_word == pytest.approx(float((total / 4).exp()), rel=1e-5)
    assert found.nll <= -found.elbo
    assert found.bits_per_character == pytest.approx(
        float(total / torch.tensor(2.0).double().log()) / 41, rel=1e-5
    )


def test_columns_stay_apart_where_a_word_is_a_whole_sentence(found: Evaluation) -> None:
    assert found.perplexity_per_word is not None
    assert found.perplexity_per_word > 1e4
    for value, said in ((12345.678, " 12345.678 "), (4.7e15, " 4.70e+15 ")):
        changed = {name: getattr(found, name) for name in found.__struct_fields__}
        table = Evaluation(**(changed | {"tokenizer": "bpe", "perplexity_per_word": value})).table()
        (line,) = [line for line in table.splitlines() if "per word" in line]
        assert said in line
        assert line.endswith("4 words")


def test_text_without_blanks_has_no_figure_per_word(tmp_path: Path) -> None:
    lines = [
        f"{a}{b}{a}\u3002\u597d"
        for a in "\u6625\u7720\u4e0d\u89c9"
        for b in "\u6653\u5904\u95fb\u9e1f"
    ]
    overrides = {"model": {"latent_dim": 3, "encoder": {"hidden_dim": 7}}}
    overrides["model"]["decoder"] = {"hidden_dim": 7, "embedding_dim": 5}
    settings = overrides | {"train": {"max_steps": 2}, "evaluate": {"num_samples": 2}}
    vae = TextVAE.train(
        lines[:12],
        valid=lines[12:14],
        test=lines[14:],
        config=settings,
        output=tmp_path / "run",
        progress=False,
    )
    measured = run_evaluators(vae, lines[14:], evaluators="likelihood,latent,reconstruction")
    view = Evaluation.of(measured)
    assert view.perplexity_per_word is None
    assert "the text has no blanks between words" in view.table()
    assert view.perplexity > 1.0
    bleu = next(figure for figure in measured if figure.name == "reconstruction_bleu")
    assert "tok:char" in bleu.settings
    assert vae.results is not None
    assert vae.results.evaluation is not None
    assert vae.results.evaluation.perplexity_per_word is None


def test_it_is_a_view_of_measurements(vae: TextVAE, tiny_data: Path) -> None:
    measured = run_evaluators(vae, tiny_data / "valid.txt", evaluators="likelihood,latent")
    view = Evaluation.of(measured)
    flat = measured.flat()
    for name in ("nll", "nll_stderr", "kl", "perplexity", "mutual_information", "active_units"):
        assert getattr(view, name) == flat[name]
    assert (view.num_words, view.source) == (measured.data.num_words, measured.data.source)
    again = view.measurements(vae.model, vae.tokenizer)
    assert Evaluation.of(again) == view
    assert again.model == msgspec.structs.replace(measured.model, path=None)
    figures = {figure.name: figure for figure in measured}
    assert len(list(again)) > 12
    assert all(figures[figure.name] == figure for figure in again)


def test_one_sentence_and_one_sample_are_enough(vae: TextVAE) -> None:
    found = vae.evaluate(["red cat eats"], num_samples=1)
    assert found.nll == pytest.approx(-found.elbo)
    assert (found.num_tokens, found.mutual_information_cap) == (4, 0.0)
    # What one sentence or one sample cannot say is unknown, and not 0.
    assert found.nll_stderr is found.nll_monte_carlo_stderr is None
    assert found.active_units is found.permutation_cost is found.permutation_cost_stderr is None
    assert found.mutual_information_stderr is None
    for said in ("nll", "active units", "permutation cost"):
        (line,) = [line for line in found.table().splitlines() if line.startswith(f"  {said} ")]
        assert "unknown" in line
    assert msgspec.to_builtins(found)["active_units"] is None


def test_unknown_words_are_counted(vae: TextVAE) -> None:
    found = vae.evaluate(["red zebra eats", "a red okapi"], num_samples=1)
    assert (found.num_unknown, found.num_tokens) == (3, 8)
    assert "3 of 8 tokens are <unk> (37.50 %)" in found.table()
    known = vae.evaluate(["red cat eats"], num_samples=1)
    assert known.num_unknown == 0
    assert "<unk>" not in known.table()
