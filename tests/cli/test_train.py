"""`textvae train`: what it says, what it prints, what it continues and what it refuses."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from click.testing import Result

import textvae

Invoke = Callable[..., Result]


def test_results_on_stdout_and_talk_on_stderr(trained: tuple[Path, Result]) -> None:
    said, talk = trained[1].stdout, trained[1].stderr
    assert said.startswith("model: runs/tiny\n\nsamples from the prior\n")
    samples = said.split("samples from the prior\n")[1].split("\n\n")[0]
    assert samples.count("\n") == 9
    for words in ("K = 3", "tokens", "elbo", "kl", "mutual information", "at most", "active units"):
        assert words in said
    assert "permutation cost" in said
    assert "  textvae sample runs/tiny -n 10 --seed 1\n" in said
    assert "  textvae evaluate runs/tiny\n" in said
    assert "grammatical" not in said
    assert "test carved: " in talk
    assert "tiny.txt: 100 sentences" in talk
    assert "step 29/29  nll " in talk


def test_the_command_said_is_the_same_run(
    place: Path, trained: tuple[Path, Result], invoke: Invoke
) -> None:
    lines = [line for line in trained[1].stderr.splitlines() if line.startswith("textvae train")]
    (line,) = lines
    assert "--output runs/tiny" in line
    # Nothing is left to choose by the explicit command, and the run is found finished.
    again = invoke(*shlex.split(line)[1:])
    assert again.exit_code == 0
    assert "this run is finished" in again.stderr
    assert [said for said in again.stderr.splitlines() if said.startswith("textvae")] == [line]
    assert again.stdout == trained[1].stdout


def test_the_next_commands_work(place: Path, trained: tuple[Path, Result], invoke: Invoke) -> None:
    said = trained[1].stdout.splitlines()
    commands = [line.strip() for line in said if line.startswith("  textvae ")]
    assert len(commands) == 3
    for line in commands:
        more = ["--samples", "2"] if "evaluate" in line else []
        result = invoke(*shlex.split(line)[1:], *more)
        assert result.exit_code == 0
        assert result.stdout


def test_json_is_one_object(place: Path, tiny_options: list[str], invoke: Invoke) -> None:
    result = invoke("train", "tiny.txt", *tiny_options, "--json")
    (line,) = result.stdout.splitlines()
    found = json.loads(line)
    assert found["model"] == "runs/tiny"
    assert len(found["samples"]) == 10
    assert len(found["interpolation"]) == 7
    assert found["first"] != found["second"]
    assert found["evaluation"]["num_samples"] == 3
    vae = textvae.TextVAE.from_pretrained("runs/tiny")
    assert found["samples"] == vae.sample(10, seed=0)
    assert found["interpolation"] == vae.interpolate(found["first"], found["second"])


def test_a_dry_run_writes_nothing(copy: Path, tiny_options: list[str], invoke: Invoke) -> None:
    before = sorted(copy.rglob("*"))
    (copy / "tiny.txt").write_text("a b\n\nc d\ne f\ng h\n\n", encoding="utf-8")
    arguments = ["train", "tiny.txt", "--output", "runs/other", *tiny_options, "--dry-run"]
    result = invoke(*arguments)
    assert result.exit_code == 0
    assert "dropped 2 blank" in result.stdout
    assert "parameters: " in result.stdout
    assert "steps: 29 at " in result.stdout
    found = json.loads(invoke(*arguments, "--json").stdout)
    assert found["max_steps"] == 29
    assert found["seconds_per_step"] > 0
    assert sorted(copy.rglob("*")) == before


def test_the_same_command_trains_the_same_model(
    copy: Path, tiny_options: list[str], invoke: Invoke
) -> None:
    (copy / "runs/tiny").rename(copy / "runs/first")
    assert invoke("train", "tiny.txt", *tiny_options).exit_code == 0
    for name in ("model.safetensors", "tokenizer.json", "config.json", "experiment.json"):
        before, after = copy / "runs/first" / name, copy / "runs/tiny" / name
        assert before.read_bytes() == after.read_bytes()


def test_a_config_file_the_saved_config_and_a_recipe(
    copy: Path, tiny_options: list[str], invoke: Invoke
) -> None:
    saved = ["--config", "runs/tiny/experiment.json", "--output", "runs/tiny"]
    again = invoke("train", "tiny.txt", *saved)
    assert "this run is finished" in again.stderr

    (copy / "mine.toml").write_text("seed = 3\n[train]\nbatch_size = 23\n", encoding="utf-8")
    dry = ["--dry-run", "--json", "--output", "runs/other"]
    for given, said in [
        (["--config", "mine.toml"], "--config mine.toml"),
        (["--recipe", "ptb", "--set", "model.encoder.hidden_dim=3"], "--recipe ptb"),
        (["--seed", "5", "--set", "train.log_every=2"], "--set train.log_every=2 --seed 5"),
    ]:
        result = invoke("train", "tiny.txt", *given, "--max-steps", "2", *dry)
        assert result.exit_code == 0, result.stderr
        assert said in result.stderr


def test_text_and_label_columns(copy: Path, tiny_options: list[str], invoke: Invoke) -> None:
    rows = "".join(f"{i},a {i} b,{i % 3}\n" for i in range(31))
    (copy / "rows.csv").write_text("number,said,kind\n" + rows, encoding="utf-8")
    columns = ["--text-column", "said", "--label-column", "kind"]
    result = invoke("train", "rows.csv", *columns, *tiny_options, "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert "text from column 'said'" in result.stdout
    assert "--text-column said --label-column kind" in result.stderr


def test_the_embedded_corpus_says_how_far_it_is_from_the_truth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_options: list[str], invoke: Invoke
) -> None:
    monkeypatch.chdir(tmp_path)
    few = ["--set", "evaluate.max_sentences=7", "--max-steps", "2", "--save-every", "2"]
    validation = ["--set", "train.validate_every=2", "--set", "model.max_length=23"]
    result = invoke("train", *tiny_options, *few, *validation, "--json")
    assert result.exit_code == 0, result.stderr
    assert "--recipe embedded" in result.stderr
    found = json.loads(result.stdout)
    assert found["model"] == "runs/embedded"
    assert found["num_judged"] == 1000
    assert 0.0 <= found["grammatical"] <= 1.0
    # An untrained model is far above the truth, which is within the corpus's 16 to 24 nats.
    assert 12 < found["evaluation"]["source_nll"] < found["evaluation"]["nll"]
    assert 16 < found["evaluation"]["source_entropy"] < 24
    from textvae.cli.train_summary import TrainSummary  # noqa: PLC0415 -- imports torch

    text = msgspec.convert(found, TrainSummary).text()
    assert "source nll" in text
    share = f"{100 * found['grammatical']:.1f} %"
    assert [line.split(maxsplit=1)[1] for line in text.splitlines() if "grammatical" in line] == [
        f"{share:<22}of 1,000 samples"
    ]


def test_keep_chooses_the_latent_and_the_end_says_what_comes_back(
    copy: Path, tiny_options: list[str], invoke: Invoke
) -> None:
    run = ["--keep", "half", "--output", "kept", "--max-steps", "2", "--save-every", "2"]
    run += ["--set", "model.prior.num_steps=5"]
    result = invoke("train", "tiny.txt", *tiny_options, *run, "--json")
    assert result.exit_code == 0, result.stderr
    assert "--keep half" in result.stderr
    saved = json.loads((copy / "kept/experiment.json").read_text())
    assert saved["keep"] == "half"
    assert saved["model"]["latent_dim"] == 5
    assert saved["model"]["prior"]["kind"] == "flow"
    summary = json.loads(result.stdout)
    found = summary["reconstruction"]
    assert summary["keep"] == "half"
    assert 0 <= found["exact"] <= 1
    assert 0 <= found["bleu"] <= 100
    assert found["examples"][0][0] == summary["first"]
    from textvae.cli.train_summary import TrainSummary, use_of  # noqa: PLC0415 -- imports torch

    text = msgspec.convert(summary, TrainSummary).text()
    assert f"reconstruction of {found['num_sentences']} held-out sentences: BLEU " in text
    assert f"  {use_of(found['bleu'], 'half')}" in text.splitlines()
    assert "train on more text" in use_of(19.9, "half")
    assert "--keep most" in use_of(19.9, None)
    assert "--keep most" in use_of(20.0, "half")
    assert "--keep little" in use_of(50.0, "most")


@pytest.mark.parametrize("other", [["--recipe", "ptb"], ["--start-from", "runs/none"]])
def test_keep_and_another_starting_point_are_refused(
    copy: Path, other: list[str], invoke: Invoke
) -> None:
    result = invoke("train", "tiny.txt", "--keep", "most", *other)
    assert result.exit_code == 2
    assert f"--keep and {other[0]} both choose the size of the latent" in result.stderr


# -- everyday settings -----------------------------------------------------------------------------

EVERYDAY = {
    "--epochs 2": "train.max_epochs=2",
    "--batch-size 7": "train.batch_size=7",
    "--learning-rate 0.01": "train.optimizer.learning_rate=0.01",
    "--latent-dim 3": "model.latent_dim=3",
    "--tokenizer char": "data.tokenizer.kind=char",
    "--too-long cut": "data.too_long=cut",
}


def test_everyday_settings_are_options(copy: Path, invoke: Invoke) -> None:
    from textvae.cli.train import OPTIONS, _config  # noqa: PLC0415 -- no public name

    nothing = {option.name: None for option in OPTIONS}
    for option, setting in EVERYDAY.items():
        flag, value = option.split()
        name = flag.removeprefix("--").replace("-", "_")
        assert _config((), nothing | {name: value}) == _config((setting,), nothing)
    both = ("model.encoder.hidden_dim=11", "model.decoder.hidden_dim=11")
    assert _config((), nothing | {"hidden_dim": 11}) == _config(both, nothing)
    for option in ("--lr", "--lr=3", "--hidden-size", "--vocab_size"):
        result = invoke("train", "tiny.txt", option, "3")
        assert (result.exit_code, result.stdout) == (2, "")
        assert "No such option" in result.stderr
        assert "; use --" in result.stderr
    assert "give one of them" in invoke("train", "--minutes", "1", "--epochs", "2").stderr


def test_the_schedule_fits_the_minutes(copy: Path, tiny_options: list[str], invoke: Invoke) -> None:
    place = tiny_options.index("--max-steps")
    options = tiny_options[:place] + tiny_options[place + 2 :]
    options = [*options, "--dry-run", "--json", "--minutes"]
    few, many = (
        json.loads(invoke("train", "tiny.txt", "--output", "new", *options, minutes).stdout)
        for minutes in ("0.01", "1")
    )
    assert 1 <= few["max_steps"] < many["max_steps"]
    assert 5 < many["seconds"] < 600  # a minute, on a machine that has other work
    # A run that has begun keeps its number of steps.
    begun = invoke("train", "tiny.txt", "--output", "runs/tiny", *options, "1").stdout
    assert json.loads(begun)["max_steps"] == 29


def test_a_dry_run_begins_with_what_is_read(
    copy: Path, tiny_options: list[str], invoke: Invoke
) -> None:
    (copy / "odd.csv").write_text(
        "id;text\n1;the cat sees\n2;\n3;the dog sees\n4;the dog sees\n5;a a\n6;b b\n7;c\n",
        encoding="utf-8",
    )
    result = invoke("train", "odd.csv", *tiny_options, "--output", "new", "--dry-run")
    lines = result.stdout.splitlines()
    assert lines[0] == "read"
    read = lines[1 : lines.index("data: odd.csv")]
    assert "  odd.csv: 1 row (row 1, counted from 0) blank or missing, left out" in read
    assert "  odd.csv: cells are separated by ';'" in read
    assert "  odd.csv: text from column 'text'" in read
    assert any("sentences of" in line and "1 copies" in line for line in read)
    assert "unknown: " in result.stdout
    found = json.loads(
        invoke("train", "odd.csv", *tiny_options, "--output", "new", "--dry-run", "--json").stdout
    )
    assert [f"  {line}" for line in found["read"]] == read


def test_tokenizers_of_files_and_runs(copy: Path, tiny_options: list[str], invoke: Invoke) -> None:
    (copy / "words.vocab").write_text("<pad>\nthe\ncat\nsees\n.\nthe\n", encoding="utf-8")
    kinds = [word for word in tiny_options if not word.startswith("data.tokenizer")]
    kinds = [
        a for i, a in enumerate(kinds) if not (a == "--set" and kinds[i + 1 : i + 2] == ["--set"])
    ]
    sizes = []
    for tokenizer in ("./words.vocab", "runs/tiny/tokenizer.json", "./runs/tiny"):
        words = ["train", "tiny.txt", *kinds, "--tokenizer", tokenizer, "--dry-run", "--json"]
        result = invoke(*words, "--output", "new")
        assert result.exit_code == 0, result.stderr
        sizes.append(json.loads(result.stdout)["vocabulary_size"])
    vocabulary = textvae.TextVAE.from_pretrained("runs/tiny").tokenizer.vocabulary_size
    assert sizes == [6, vocabulary, vocabulary]
    (copy / "bad.json").write_text("{}", encoding="utf-8")
    (copy / "two.vocab").write_text("the cat\n", encoding="utf-8")
    for name, said in {
        "bad.json": "bad.json: the tokenizer file was not written by textvae",
        "./none": "none: the tokenizer cannot be read",
        "./two.vocab": "'the cat' is not one word",
    }.items():
        result = invoke("train", "tiny.txt", *kinds, "--tokenizer", name, "--output", "new")
        assert result.exit_code == 2
        assert said in result.stderr
