"""The verbs of everyday use: deterministic, independent of the batch, and clear when refusing."""

import itertools
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch

import textvae
from textvae.api.text_vae import TextVAE
from textvae.data import grammar
from textvae.errors import CheckpointError, ConfigError, DataError, TrainingError
from textvae.evaluate.summary import Evaluation
from textvae.generate.strategies import Greedy, Nucleus, Strategy, Temperature, TopK, Typical
from textvae.run.data import EMBEDDED
from textvae.run.experiment import load_config

SENTENCES = [
    "red cat eats",
    "shy dog sees today",
    "odd ant likes",
    "big cow",
    "red bee eats today",
    "fox",
    "old hen likes zebras",
]
LIMIT = 7


@pytest.fixture(scope="module")
def vae(tiny_run: Path) -> TextVAE:
    return TextVAE.from_pretrained(tiny_run, device="cpu")


def lines_of(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines()


# -- sampling ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "strategy", [Temperature(), Greedy(), TopK(k=5), Nucleus(p=0.9), Typical(p=0.9)], ids=str
)
def test_samples_are_a_function_of_the_seed_and_their_index(
    vae: TextVAE, strategy: Strategy
) -> None:
    seven = vae.sample(7, seed=3, strategy=strategy)
    assert seven == vae.sample(7, seed=3, strategy=strategy)
    assert vae.sample(3, seed=3, strategy=strategy) == seven[:3]
    assert vae.sample(7, seed=4, strategy=strategy) != seven
    assert len(set(seven)) > 3


def test_samples_are_sentences_of_the_vocabulary(vae: TextVAE) -> None:
    known = {word for word in vae.tokenizer.to_json().split('"') if word.isalpha()}
    found = vae.sample(31, seed=1)
    assert all(set(text.split()) <= known for text in found)
    assert all(len(text.split()) <= LIMIT for text in found)
    assert vae.sample(0) == []


def test_max_length_cuts_samples_and_changes_nothing_before(vae: TextVAE) -> None:
    full, cut = vae.sample(13, seed=5), vae.sample(13, seed=5, max_length=2)
    assert cut == [" ".join(text.split()[:2]) for text in full]


def test_a_latent_decodes_alone_as_among_others(vae: TextVAE) -> None:
    mean = vae.encode(SENTENCES).mean
    together = vae.decode(mean)
    assert together == [vae.decode(row[None])[0] for row in mean]
    assert together == vae.reconstruct(SENTENCES)


def test_samples_stream_in_blocks_that_change_nothing(
    vae: TextVAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = vae.sample(700, seed=3, max_length=3)
    sizes: list[int] = []
    draw = vae.model.prior.sample

    def counted(num_samples: int, **options: int) -> torch.Tensor:
        sizes.append(num_samples)
        return draw(num_samples, **options)

    monkeypatch.setattr(vae.model.prior, "sample", counted)
    # A thousand million of them would not fit into memory.
    stream = vae.sample_iter(10**9, seed=3, max_length=3)
    samples = list(itertools.islice(stream, 700))
    assert [one.text for one in samples] == expected
    assert [one.number for one in samples] == list(range(700))
    assert sizes == [256, 512]
    ranked = list(vae.sample_iter(3, seed=3, beam_size=3, n_best=2))
    assert [(one.number, one.rank) for one in ranked] == [(i, r) for i in range(3) for r in (1, 2)]
    assert all(one.log_prob is not None for one in ranked)


def test_a_strategy_by_name_is_its_struct(vae: TextVAE) -> None:
    named = vae.sample(7, strategy="nucleus", top_p=0.5, seed=3)
    assert named == vae.sample(7, strategy=Nucleus(p=0.5), seed=3)
    mean = vae.encode(SENTENCES).mean
    assert vae.decode(mean, top_k=1) == vae.decode(mean)
    with pytest.raises(ConfigError, match="--n-best belongs to sample and reconstruct"):
        vae.sample(7, n_best=2)


def test_latents_of_any_kind_are_decoded(vae: TextVAE) -> None:
    posterior = vae.encode(SENTENCES)
    expected, mean = vae.decode(posterior.mean), posterior.mean
    for latents in (posterior, mean.tolist(), mean.numpy(), mean.double(), list(mean.numpy())):
        assert vae.decode(latents) == expected
    for wrong in ("red cat", None, [["a"]], mean.to(torch.complex64), [object()]):
        with pytest.raises(TypeError, match=r"latents: found \w+, expected numbers \[N, Z\]"):
            vae.decode(wrong)


def test_what_is_no_sentence_is_a_type_error(vae: TextVAE) -> None:
    with pytest.raises(TypeError, match="sentences: found int, expected a list of strings"):
        vae.encode(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="sentence 2: found NoneType, expected a string"):
        vae.reconstruct(["red cat", None])  # type: ignore[list-item]
    generated = (text for text in SENTENCES)
    assert torch.equal(vae.encode(generated).mean, vae.encode(SENTENCES).mean)  # type: ignore[arg-type]


def test_its_repr_names_what_it_is(vae: TextVAE) -> None:
    text = repr(vae.to("cpu"))
    assert text.startswith(f"TextVAE(vocabulary={vae.tokenizer.vocabulary_size:,} word tokens, ")
    assert "latent_dim=5, " in text
    assert f"device={vae.device}, trained on " in text
    assert "perplexity=" in text
    with pytest.raises(ConfigError, match="abacus"):
        vae.to("abacus")


# -- encoding ------------------------------------------------------------------------------------


def test_posteriors_have_a_row_a_sentence_in_its_order(vae: TextVAE) -> None:
    found = vae.encode(SENTENCES)
    assert found.mean.shape == found.log_variance.shape == (len(SENTENCES), 5)
    assert found.mean.dtype == torch.float32
    backwards = vae.encode(SENTENCES[::-1])
    torch.testing.assert_close(backwards.mean.flip(0), found.mean, rtol=1e-5, atol=1e-5)
    assert len(found.mean.unique(dim=0)) == len(SENTENCES)


def test_a_posterior_does_not_depend_on_the_batch(vae: TextVAE) -> None:
    together = vae.encode(SENTENCES * 11)
    for number, text in enumerate(SENTENCES):
        alone = vae.encode([text])
        for row in (number, number + 10 * len(SENTENCES)):
            torch.testing.assert_close(together.mean[row], alone.mean[0], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(
                together.log_variance[row], alone.log_variance[0], rtol=1e-5, atol=1e-5
            )


def test_blanks_around_a_sentence_are_no_part_of_it(vae: TextVAE) -> None:
    assert torch.equal(vae.encode(["  red cat eats\n"]).mean, vae.encode(["red cat eats"]).mean)


# -- paths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["straight", "spherical"])
@pytest.mark.parametrize("steps", [2, 5])
def test_an_interpolation_ends_at_the_reconstructions(vae: TextVAE, path: str, steps: int) -> None:
    first, second = "red cat eats", "shy dog sees today"
    found = vae.interpolate(first, second, steps=steps, path=path)  # type: ignore[arg-type]
    assert len(found) == steps
    assert found[0] != found[-1]
    assert [found[0], found[-1]] == vae.reconstruct([first, second])
    assert found == vae.interpolate(first, second, steps=steps, path=path)  # type: ignore[arg-type]


def test_drawn_reconstructions_are_a_function_of_the_seed(vae: TextVAE) -> None:
    warm = Temperature(temperature=2.0)
    first = vae.reconstruct(SENTENCES, strategy=warm, seed=1)
    assert first == vae.reconstruct(SENTENCES, strategy=warm, seed=1)
    assert first[:3] == vae.reconstruct(SENTENCES[:3], strategy=warm, seed=1)
    assert first != vae.reconstruct(SENTENCES, strategy=warm, seed=2)


# -- evaluation ----------------------------------------------------------------------------------


def figures(found: Evaluation) -> dict[str, object]:
    """All but where the sentences came from and how long it took."""
    kept = msgspec.to_builtins(found)
    for name in ("seconds", "source", "sha256"):
        del kept[name]
    return dict(kept)


def test_list_file_and_test_split_give_the_same_figures(vae: TextVAE, tiny_data: Path) -> None:
    file = tiny_data / "test.txt"
    given = vae.evaluate(lines_of(file), num_samples=5, seed=2)
    for data in (file, str(file), tiny_data, None):
        found = vae.evaluate(data, num_samples=5, seed=2)
        assert figures(found) == figures(given)
        assert found.source == str(file)
        assert found.sha256 == given.sha256
    assert (given.source, given.num_sentences) == ("the sentences given", 11)
    assert given.num_tokens == sum(len(line.split()) + 1 for line in lines_of(file))
    assert (given.num_samples, given.seed, given.tokenizer) == (5, 2, "word")


@pytest.mark.parametrize("rows", [1, 7, 101])
def test_figures_do_not_depend_on_how_many_are_decoded_at_once(vae: TextVAE, rows: int) -> None:
    first = figures(vae.evaluate(SENTENCES, num_samples=13))
    second = figures(vae.evaluate(SENTENCES, num_samples=13, rows=rows))
    assert second.keys() == first.keys()
    for name, value in first.items():
        near = pytest.approx(value, rel=1e-5) if isinstance(value, float) else value
        assert second[name] == near, name


def test_the_order_of_sentences_and_copies_matter_only_to_the_noise(vae: TextVAE) -> None:
    once = vae.evaluate(SENTENCES, num_samples=503)
    twice = vae.evaluate(SENTENCES[::-1] * 2, num_samples=503)
    assert twice.num_tokens == 2 * once.num_tokens
    assert twice.kl == pytest.approx(once.kl, rel=1e-5)
    assert twice.nll == pytest.approx(once.nll, abs=5 * once.nll_monte_carlo_stderr + 1e-3)


def test_the_embedded_corpus_brings_its_truth(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(grammar, "SPLIT_SIZES", {"train": 101, "valid": 11, "test": 31})
    texts, source = grammar.embedded_splits().test.texts, grammar.embedded_grammar()
    kept = [text for text in texts if len(text.split()) <= 13]
    assert 0 < len(kept) < len(texts)
    overrides = ["train.max_steps=3", "train.device=cpu", "model.max_length=13"]
    vae = TextVAE.train(config=load_config(None, [*overrides, "evaluate.num_samples=2"]))
    assert vae.path == Path("runs") / "embedded"
    found = vae.evaluate(num_samples=2)
    assert found.num_sentences == len(kept)
    assert found.source == f"{EMBEDDED}, test"
    exact = -sum(map(source.log_probability, kept)) / len(kept)
    assert found.source_nll == pytest.approx(exact)
    assert found.source_entropy == source.entropy()
    assert found.nll > exact
    vae.save_pretrained("copy")
    assert figures(TextVAE.from_pretrained("copy").evaluate(num_samples=2)) == figures(found)


# -- words instead of nonsense -------------------------------------------------------------------

VERBS: list[Callable[[TextVAE, list[str]], object]] = [
    lambda vae, texts: vae.encode(texts),
    lambda vae, texts: vae.reconstruct(texts),
    lambda vae, texts: vae.interpolate(texts[0], texts[-1]),
]


@pytest.mark.parametrize("verb", VERBS, ids=["encode", "reconstruct", "interpolate"])
def test_sentences_that_cannot_be_taken_are_refused_by_number(
    vae: TextVAE, verb: Callable[[TextVAE, list[str]], object]
) -> None:
    for blank in ("", "  ", "\n"):
        with pytest.raises(DataError, match="the sentences given: number 2 is blank; leave it out"):
            verb(vae, ["red cat", blank])
    long = "sentence 2 has 8 tokens, the model takes at most 7; shorten it or leave it out"
    with pytest.raises(DataError, match=re.escape(f"the sentences given: {long}")):
        verb(vae, ["red cat", "red " * 8])
    with pytest.raises(DataError, match=r"the sentences given: all its . rows are blank"):
        verb(vae, [" "])


def test_no_sentences_at_all_are_refused(vae: TextVAE) -> None:
    for verb in (vae.encode, vae.reconstruct, vae.evaluate):
        with pytest.raises(DataError, match="the sentences given: is empty"):
            verb([])


def test_one_string_is_not_taken_for_its_letters(vae: TextVAE) -> None:
    for verb in (vae.encode, vae.reconstruct):
        with pytest.raises(DataError, match=re.escape("give a list of sentences")):
            verb("cat")


def test_evaluation_leaves_out_what_training_would(vae: TextVAE, tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("red cat\n\n" + "cow " * 9 + "\n", encoding="utf-8")
    assert vae.evaluate(file, num_samples=3).num_sentences == 1
    assert vae.evaluate(["cow " * 9, "cow"], num_samples=3).num_sentences == 1
    with pytest.raises(DataError, match=re.escape(str(tmp_path / "nowhere.txt"))):
        vae.evaluate(tmp_path / "nowhere.txt")


@pytest.mark.parametrize("shape", [(3, 4), (5,), (2, 3, 5), (0, 1)])
def test_latents_of_another_shape_are_refused(vae: TextVAE, shape: tuple[int, ...]) -> None:
    words = f"latents of shape {shape}: this model takes (any number, 5)"
    with pytest.raises(DataError, match=re.escape(words)):
        vae.decode(torch.zeros(shape))


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        (Temperature(temperature=0.0), "temperature"),
        (Temperature(temperature=-1.0), "temperature"),
        (TopK(k=0), "k"),
        (Nucleus(p=0.0), "p"),
        (Nucleus(p=1.5), "p"),
    ],
    ids=str,
)
def test_a_strategy_out_of_bounds_is_refused(vae: TextVAE, strategy: Strategy, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"\b{words}\b"):
        vae.sample(3, strategy=strategy)


def test_numbers_that_make_no_sense_are_refused(vae: TextVAE) -> None:
    with pytest.raises(ConfigError, match="max_length -1: must be at least 1"):
        vae.sample(3, max_length=-1)
    with pytest.raises(ConfigError, match="num_samples -1: must be at least 0"):
        vae.sample(-1)
    with pytest.raises(ConfigError, match="num_samples 0: must be at least 1"):
        vae.evaluate(SENTENCES, num_samples=0)
    with pytest.raises(ConfigError, match="--steps 1"):
        vae.interpolate("red cat", "big cow", steps=1)
    with pytest.raises(ConfigError, match="--path round: must be one of straight, spherical"):
        vae.interpolate("red cat", "big cow", path="round")  # type: ignore[arg-type]


# -- directories ---------------------------------------------------------------------------------


def test_a_saved_model_is_the_same_model(vae: TextVAE, tmp_path: Path) -> None:
    vae.save_pretrained(tmp_path / "there")
    found = TextVAE.from_pretrained(tmp_path / "there", device="cpu")
    assert found.config == vae.config
    assert found.results == vae.results
    assert found.sample(7, seed=1) == vae.sample(7, seed=1)
    assert torch.equal(found.encode(SENTENCES).mean, vae.encode(SENTENCES).mean)
    with pytest.raises(DataError, match="the data of this run are missing; name the sentences"):
        found.evaluate()


def test_a_used_directory_is_not_saved_into(vae: TextVAE, tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.tex").write_text("precious", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "used", tmp_path / "used" / "thesis.tex"):
        with pytest.raises(CheckpointError, match=re.escape(f"{path}: is in use; save to")):
            vae.save_pretrained(path)
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["thesis.tex"]
    vae.save_pretrained(tmp_path / "empty")
    assert TextVAE.from_pretrained(tmp_path / "empty").sample(2) == vae.sample(2)


def test_what_is_not_there_is_missed_in_words(tiny_run: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere: there is no such run or model directory"):
        TextVAE.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="--device cuda:97: this machine has cpu"):
        TextVAE.from_pretrained(tiny_run, device="cuda:97")


# -- training ------------------------------------------------------------------------------------


def test_training_gives_the_model_of_its_run(
    tiny_data: Path, tiny_overrides: tuple[str, ...], tmp_path: Path
) -> None:
    config = load_config(None, [*tiny_overrides, "train.max_steps=11", "train.log_every=5"])

    def stop(line: str) -> None:
        if line.startswith("step 5/11"):
            os.kill(os.getpid(), signal.SIGINT)

    run = tmp_path / "run"
    with pytest.raises(
        TrainingError, match="stopped by signal 2 at step 5; the same call continues"
    ):
        textvae.TextVAE.train(tiny_data, config=config, output=run, report=stop)
    found = textvae.TextVAE.train(tiny_data, config=config, output=str(run))
    assert found.path == run
    assert found.results is not None
    assert found.results.training.steps == 11
    assert found.sample(3) == TextVAE.from_pretrained(run).sample(3)


def test_no_verb_touches_the_random_numbers_of_torch(
    vae: TextVAE, tiny_data: Path, tiny_overrides: tuple[str, ...], tmp_path: Path
) -> None:
    before = torch.get_rng_state()
    vae.sample(3)
    vae.reconstruct(SENTENCES, strategy=Nucleus())
    vae.interpolate("red cat", "big cow", path="spherical")
    vae.evaluate(SENTENCES, num_samples=3)
    vae.save_pretrained(tmp_path / "there")
    TextVAE.from_pretrained(tmp_path / "there")
    more = ["train.max_steps=2", "model.decoder.dropout_rate=0.3"]
    config = load_config(None, [*tiny_overrides, *more])
    TextVAE.train(tiny_data, config=config, output=tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before)
