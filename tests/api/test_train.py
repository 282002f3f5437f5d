"""Training from Python: texts in memory, a dict of settings, progress, events and history."""

import re
from pathlib import Path

import pytest

from textvae import ConfigError, DataError, Event, TextVAE, load_config
from textvae.storage.checkpoint import METRICS

SETTINGS = ("train.max_steps=7", "train.log_every=3", "train.validate_every=4")


@pytest.fixture(scope="module")
def parts(tiny_data: Path) -> dict[str, list[str]]:
    names = ("train", "valid", "test")
    return {n: (tiny_data / f"{n}.txt").read_text("utf-8").splitlines() for n in names}


def test_texts_in_memory_train_the_model_that_files_train(
    tiny_data: Path,
    tiny_overrides: tuple[str, ...],
    parts: dict[str, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = load_config(None, [*tiny_overrides, *SETTINGS])
    monkeypatch.chdir(tmp_path)
    from_files = TextVAE.train(tiny_data, config=config, output="files", progress=False)
    assert capsys.readouterr() == ("", "")
    events: list[Event] = []
    texts = ["", None, *parts["train"]]
    vae = TextVAE.train(
        texts, valid=parts["valid"], test=parts["test"], config=config, callback=events.append
    )
    assert vae.sample(5) == from_files.sample(5)
    assert vae.results is not None
    assert vae.results.data.source == "the texts given"
    assert vae.results.data.train.read.blank == 2
    assert vae.results.data.train.read.sha256 == from_files.results.data.train.read.sha256
    assert re.fullmatch(r"texts-[0-9a-f]{8}", vae.path.name)

    # A test is neither a terminal nor a notebook: lines on stderr.
    output, error = capsys.readouterr()
    assert output == ""
    assert "step 3/7  nll <= " in error

    assert [(event.phase, event.step) for event in events] == [
        ("train", 3),
        ("validation", 4),
        ("train", 6),
        ("train", 7),
        ("validation", 7),
        ("evaluation", 7),
    ]
    assert events == vae.history
    assert {"reconstruction", "kl", "loss", "kl_weight", "seconds"} <= events[0].metrics.keys()
    assert {"elbo", "kl", "selected"} <= events[1].metrics.keys()
    assert events[-1].metrics["perplexity"] == vae.results.evaluation.perplexity
    assert all(
        isinstance(value, int | float) for event in events for value in event.metrics.values()
    )
    vae.save_pretrained("copy")
    assert TextVAE.from_pretrained("copy").history == []
    (vae.path / METRICS).write_bytes(b'{"step":3,"loss":2.5}\n{"step":4,"lo')
    assert vae.history[:-1] == [Event("train", 3, {"loss": 2.5})]


def test_a_dict_of_splits_is_read_by_its_names(
    tiny_overrides: tuple[str, ...], parts: dict[str, list[str]], tmp_path: Path
) -> None:
    lines: list[str] = []
    named = {"train": parts["train"], "validation": parts["valid"], "test": parts["test"]}
    config = load_config(None, [*tiny_overrides, "train.max_steps=2"])
    vae = TextVAE.train(named, config=config, output=tmp_path / "run", report=lines.append)
    assert vae.results is not None
    assert vae.results.data.valid.num_sentences == len(parts["valid"])
    assert lines
    with pytest.raises(DataError, match="has valid and test but nothing to train on"):
        TextVAE.train({"valid": ["a"], "test": ["b"]}, output=tmp_path / "none")
    with pytest.raises(DataError, match="give their labels with them, as a pair"):
        TextVAE.train(parts["train"], labels="labels.txt", output=tmp_path / "none")
    with pytest.raises(DataError, match="needs a file or a hub data set"):
        TextVAE.train(parts["train"], config={"data": {"stream": True}}, output=tmp_path / "none")


def test_an_exception_of_a_callback_ends_the_run_which_can_continue(
    tiny_overrides: tuple[str, ...], parts: dict[str, list[str]], tmp_path: Path
) -> None:
    def fail(event: Event) -> None:
        if event.step == 6:
            raise InterruptedError

    config = load_config(None, [*tiny_overrides, *SETTINGS, "train.save_every=4"])
    values = {"config": config, "output": tmp_path / "run", "progress": False}
    with pytest.raises(InterruptedError):
        TextVAE.train(parts["train"], callback=fail, **values)
    vae = TextVAE.train(parts["train"], **values)
    assert [event.step for event in vae.history] == [3, 4, 6, 7, 7, 7]


def test_a_dict_of_settings_names_what_is_wrong_in_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config: .*did you mean 'train'"):
        TextVAE.train(["red cat"], config={"trian": {"max_steps": 7}}, output=tmp_path / "run")
