"""sample, interpolate, reconstruct, evaluate, info and recipes on one tiny model."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

import textvae

FIRST, SECOND = "the dog sees the cat .", "the fox eats the cow ."

EVALUATION_KEYS = {
    "nll",
    "nll_stderr",
    "elbo",
    "kl",
    "reconstruction",
    "perplexity",
    "perplexity_elbo",
    "num_tokens",
    "num_sentences",
    "num_samples",
    "mutual_information",
    "mutual_information_cap",
    "active_units",
    "latent_dim",
    "permutation_cost",
    "seed",
    "precision",
    "device",
}

Invoke = Callable[..., Result]


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_sample_is_the_python_call(place: Path, invoke: Invoke) -> None:
    vae = textvae.TextVAE.from_pretrained("runs/tiny")
    result = invoke("sample", "-n", "11", "--seed", "3")
    assert result.exit_code == 0
    assert result.stdout.split("\n")[:-1] == vae.sample(11, seed=3)
    assert result.stderr == "model: runs/tiny\n"
    found = objects(invoke("sample", "runs/tiny", "-n", "11", "--seed", "3", "--json").stdout)
    samples = vae.sample_iter(11, seed=3, with_log_probs=True)
    assert found == [
        {"index": one.number, "text": one.text, "log_prob": one.log_prob} for one in samples
    ]
    assert [row["text"] for row in found] == vae.sample(11, seed=3)
    assert all(row["log_prob"] < 0 for row in found)


def test_words_are_banned_and_begun_with_on_the_command_line(place: Path, invoke: Invoke) -> None:
    vae = textvae.TextVAE.from_pretrained("runs/tiny")
    words = [word for text in vae.sample(50, seed=3) for word in text.split()]
    ban = sorted(set(words), key=words.count)[-2:]
    options = ["-n", "50", "--seed", "3", "--ban", ban[0], "--ban", ban[1]]
    texts = invoke("sample", *options).stdout.splitlines()
    assert texts == vae.sample(50, seed=3, ban=ban)
    assert not {*ban} & {word for text in texts for word in text.split()}
    prefix = " ".join(words[:2])
    for verb in (
        ["sample", "-n", "5"],
        ["reconstruct", "red cat"],
        ["interpolate", "red cat", "fox"],
    ):
        texts = invoke(verb[0], "runs/tiny", *verb[1:], "--prefix", prefix).stdout.splitlines()
        assert texts
        assert all(text.startswith(prefix) for text in texts)
    assert vae.interpolate("red cat", "fox", prefix=prefix) == texts
    refused = invoke("sample", "--prefix", "unheardof")
    assert refused.exit_code == 2
    assert (
        "--prefix 'unheardof': holds a word that is not in the model's vocabulary" in refused.stderr
    )


def test_a_longer_list_of_samples_begins_with_the_shorter_one(place: Path, invoke: Invoke) -> None:
    # More than are decoded side by side, so that the second batch is seen too.
    short = invoke("sample", "-n", "263", "--max-length", "3").stdout
    assert invoke("sample", "-n", "277", "--max-length", "3").stdout.startswith(short)
    assert invoke("sample", "-n", "263", "--max-length", "3", "--seed", "1").stdout != short


@pytest.mark.parametrize(
    ("given", "strategy"),
    [
        (["--strategy", "greedy"], textvae.Greedy()),
        (["--temperature", "0.5"], textvae.Temperature(temperature=0.5)),
        (["--top-k", "3", "--temperature", "2"], textvae.TopK(k=3, temperature=2.0)),
        (["--strategy", "nucleus", "--top-p", "0.5"], textvae.Nucleus(p=0.5)),
        (["--typical-p", "0.3"], textvae.Typical(p=0.3)),
        (
            ["--min-length", "7", "--top-k", "3"],
            textvae.TopK(k=3, rules=(textvae.MinLength(tokens=7),)),
        ),
        (
            ["--repetition-penalty", "1.5", "--no-repeat-ngram", "2", "--beam-size", "2"],
            textvae.Beam(
                size=2,
                rules=(
                    textvae.RepetitionPenalty(factor=1.5),
                    textvae.NoRepeatedNgrams(size=2),
                ),
            ),
        ),
        (["--beam-size", "3"], textvae.Beam(size=3)),
        (["--length-penalty", "mean"], textvae.Beam(length_penalty=textvae.TokenMean())),
    ],
    ids=str,
)
def test_decoding_options_reach_the_decoder(
    place: Path, invoke: Invoke, given: list[str], strategy: Any
) -> None:
    vae = textvae.TextVAE.from_pretrained("runs/tiny")
    expected = vae.sample(7, seed=5, strategy=strategy, max_length=11)
    result = invoke("sample", "-n", "7", "--seed", "5", "--max-length", "11", *given)
    assert result.stdout.split("\n")[:-1] == expected
    assert all(len(line.split()) <= 11 for line in result.stdout.splitlines())


def test_samples_near_a_sentence(place: Path, invoke: Invoke) -> None:
    vae = textvae.TextVAE.from_pretrained("runs/tiny")
    near = ["sample", "-n", "263", "--seed", "3", "--near", FIRST]
    for options, scale in (([], None), (["--scale", "2.5"], 2.5)):
        lines = invoke(*near, *options).stdout.splitlines()
        assert lines == vae.sample(263, seed=3, near=FIRST, scale=scale)
        assert lines[:7] == vae.sample(7, seed=3, near=FIRST, scale=scale)
    (alone,) = set(invoke(*near, "--scale", "0", "--strategy", "greedy").stdout.splitlines())
    assert [alone] == vae.reconstruct([FIRST])
    found = invoke("sample", "-n", "3", "--near", "-", stdin=FIRST.encode())
    assert found.stdout.splitlines() == vae.sample(3, near=f" {FIRST} ")


def test_interpolate_with_and_without_a_model_and_from_standard_input(
    place: Path, invoke: Invoke
) -> None:
    vae = textvae.TextVAE.from_pretrained("runs/tiny")
    expected = vae.interpolate(FIRST, SECOND, steps=5)
    arguments = ["interpolate", FIRST, SECOND, "--steps", "5"]
    newest = invoke(*arguments)
    assert newest.stdout.split("\n")[:-1] == expected
    assert newest.stderr == "model: runs/tiny\n"
    named = invoke("interpolate", "runs/tiny", FIRST, SECOND, "--steps", "5")
    assert (named.stdout, named.stderr) == (newest.stdout, "")
    lines = f"\ufeff{FIRST}\r\n{SECOND}\n".encode()
    for extra in ([], ["-"], ["runs/tiny"], ["runs/tiny", "-"]):
        assert invoke("interpolate", *extra, "--steps", "5", stdin=lines).stdout == newest.stdout
    found = objects(invoke(*arguments, "--json").stdout)
    assert [row["text"] for row in found] == expected
    assert [row["step"] for row in found] == [0, 1, 2, 3, 4]
    assert [row["share"] for row in found] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert all(row["reconstruction"] > 0.0 and row["num_tokens"] >= 1 for row in found)
    known = [row["change"] for row in found[1:]]
    assert found[0]["change"] is None
    assert {row["mean_change"] for row in found} == {found[0]["mean_change"]}
    assert found[0]["mean_change"] == pytest.approx(sum(known) / 4)
    assert invoke(*arguments, "--path", "spherical").exit_code == 0


def test_interpolate_passes_through_every_sentence(place: Path, invoke: Invoke) -> None:
    turns = [FIRST, SECOND, FIRST]
    found = invoke("interpolate", "runs/tiny", *turns, "--steps", "3").stdout.splitlines()
    assert found[::2] == invoke("reconstruct", "runs/tiny", *turns).stdout.splitlines()
    stdin = "\n".join(turns).encode()
    assert invoke("interpolate", "--steps", "3", stdin=stdin).stdout.splitlines() == found


def test_the_ends_of_an_interpolation_are_reconstructions(place: Path, invoke: Invoke) -> None:
    between = invoke("interpolate", FIRST, SECOND).stdout.splitlines()
    assert invoke("reconstruct", FIRST, SECOND).stdout.splitlines() == [between[0], between[-1]]


def test_reconstruct_writes_a_line_for_each_sentence(place: Path, invoke: Invoke) -> None:
    stdin = f"{FIRST}\n\n  \n{SECOND}".encode()
    result = invoke("reconstruct", "runs/tiny", stdin=stdin)
    said = "standard input: 2 rows (the first is row 1, counted from 0) blank or missing, left out"
    assert result.stderr == f"{said}\n"
    given = invoke("reconstruct", FIRST, SECOND)
    assert given.stdout.splitlines() == [result.stdout.splitlines()[i] for i in (0, 3)]
    assert result.stdout.splitlines()[1:3] == ["", ""]
    assert given.stdout.count("\n") == 2
    found = objects(invoke("reconstruct", FIRST, SECOND, "--json").stdout)
    assert [row["sentence"] for row in found] == [FIRST, SECOND]
    assert [row["reconstruction"] for row in found] == given.stdout.splitlines()
    drawn = ["reconstruct", FIRST, SECOND, "--temperature", "3", "--seed"]
    assert invoke(*drawn, "1").stdout == invoke(*drawn, "1").stdout != invoke(*drawn, "2").stdout


def test_the_n_best_are_lines_and_with_json_have_scores(place: Path, invoke: Invoke) -> None:
    vae = textvae.TextVAE.from_pretrained("runs/tiny")
    options = ["--n-best", "2", "--beam-size", "3", "--length-penalty", "0.7"]
    beam = textvae.Beam(size=3, length_penalty=textvae.GNMTPenalty(alpha=0.7))
    expected = textvae.n_best(vae, vae.encode([FIRST, SECOND]).mean, 2, beam=beam)
    lines = invoke("reconstruct", FIRST, SECOND, *options).stdout.splitlines()
    assert lines == [one.text for best in expected for one in best]
    assert lines[::2] == vae.reconstruct([FIRST, SECOND], strategy=beam)
    found = objects(invoke("reconstruct", FIRST, SECOND, *options, "--json").stdout)
    assert [row["sentence"] for row in found] == [FIRST, FIRST, SECOND, SECOND]
    assert [row["rank"] for row in found] == [1, 2, 1, 2]
    for row, one in zip(found, [one for best in expected for one in best], strict=True):
        assert row["reconstruction"] == one.text
        assert (row["log_prob"], row["score"]) == (one.log_prob, one.score)
        assert row["log_prob"] <= row["score"] < 0
    refused = invoke("interpolate", FIRST, SECOND, *options)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "--n-best belongs to sample and reconstruct" in refused.stderr
    between = objects(invoke("interpolate", FIRST, SECOND, *options[2:], "--json").stdout)
    assert [row["step"] for row in between] == list(range(7))
    samples = objects(invoke("sample", "-n", "3", *options, "--json").stdout)
    assert [(row["index"], row["rank"]) for row in samples] == [
        (index, rank) for index in range(3) for rank in (1, 2)
    ]


def test_evaluate_says_every_figure_and_setting(place: Path, invoke: Invoke) -> None:
    result = invoke("evaluate", "runs/tiny", "--samples", "3", "--seed", "2", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    (found,) = objects(result.stdout)
    assert found.keys() >= EVALUATION_KEYS
    assert (found["num_samples"], found["seed"], found["latent_dim"]) == (3, 2, 5)
    assert found["precision"] == "float32"
    per_token = found["nll"] * found["num_sentences"] / found["num_tokens"]
    assert math.isclose(found["perplexity"], math.exp(per_token), rel_tol=1e-6)
    table = invoke("evaluate", "--samples", "3", "--seed", "2")
    assert table.stderr == "model: runs/tiny\n"
    assert f"over {found['num_tokens']:,} tokens" in table.stdout
    assert "K = 3" in table.stdout


def test_evaluate_takes_data_in_every_place(place: Path, invoke: Invoke) -> None:
    options = ["--samples", "2", "--rows", "13", "--json"]
    text = (place / "tiny.txt").read_bytes()
    results = [
        invoke("evaluate", "runs/tiny", "tiny.txt", *options),
        invoke("evaluate", "tiny.txt", *options),
        invoke("evaluate", "-", *options, stdin=text),
        invoke("evaluate", "runs/tiny", "-", *options, stdin=text),
    ]
    figures = [objects(result.stdout)[0] for result in results]
    assert {row["num_sentences"] for row in figures} == {100}
    assert len({row["nll"] for row in figures}) == 1
    assert {row["source"] for row in figures} == {"tiny.txt", "standard input"}


def test_info_says_what_a_model_is(place: Path, invoke: Invoke) -> None:
    vae = textvae.TextVAE.from_pretrained("runs/tiny")
    parameters = sum(p.numel() for p in vae.model.parameters())
    said = invoke("info").stdout
    for words in ("runs/tiny", f"{parameters:,}", "word, 13 in", "tiny.txt", "29 steps", "nll"):
        assert words in said
    (found,) = objects(invoke("info", "runs/tiny", "--json").stdout)
    assert found["num_parameters"] == parameters
    assert found["config"]["latent_dim"] == 5
    assert found["results"]["evaluation"].keys() >= EVALUATION_KEYS - {"num_samples"}
    assert "files" not in found


def test_info_of_a_model_that_was_saved_elsewhere(
    place: Path, tmp_path: Path, invoke: Invoke
) -> None:
    textvae.TextVAE.from_pretrained("runs/tiny").save_pretrained(tmp_path / "there")
    assert invoke("info", str(tmp_path / "there"), "--verify").exit_code == 0
    result = invoke("evaluate", str(tmp_path / "there"))
    assert result.exit_code == 2
    assert "name the sentences to evaluate" in result.stderr


def test_verify_names_each_file_that_is_wrong(copy: Path, invoke: Invoke) -> None:
    right = invoke("info", "--verify")
    assert right.exit_code == 0
    assert "files are right" in right.stdout
    (found,) = objects(invoke("info", "--verify", "--json").stdout)
    assert all(row["problem"] is None for row in found["files"])
    assert {"manifest.json", "model.safetensors"} <= {row["name"] for row in found["files"]}

    weights = copy / "runs/tiny/model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    wrong = invoke("info", "--verify")
    assert wrong.exit_code == 2
    assert "WRONG  model.safetensors" in wrong.stdout.splitlines()
    assert "ok     config.json" in wrong.stdout.splitlines()
    assert wrong.stderr.startswith("error: 1 of ")
    assert wrong.stderr.count("\n") == 1
    json_result = invoke("info", "--verify", "--json")
    assert json_result.exit_code == 2
    (found,) = objects(json_result.stdout)
    assert [row["name"] for row in found["files"] if row["problem"]] == ["model.safetensors"]
    assert invoke("sample").exit_code == 2


def test_recipes_are_listed_with_what_they_are_for(invoke: Invoke) -> None:
    found = objects(invoke("recipes", "--json").stdout)
    assert {"embedded", "ptb"} <= {row["name"] for row in found}
    lines = invoke("recipes").stdout.splitlines()
    for line, row in zip(lines, found, strict=True):
        assert line.split(maxsplit=1) == [row["name"], row["about"]]
        first = Path(row["file"]).read_text(encoding="utf-8").splitlines()[0]
        assert first == f"# {row['about']}"


def test_a_recipe_is_shown_and_copied(place: Path, invoke: Invoke) -> None:
    text = Path(objects(invoke("recipes", "--json").stdout)[0]["file"]).read_text(encoding="utf-8")
    assert invoke("recipes", "show", "embedded").stdout == text
    assert invoke("recipes", "copy", "embedded", "mine.toml").exit_code == 0
    assert Path("mine.toml").read_text(encoding="utf-8") == text
    for arguments, message in [
        (["copy", "embedded", "mine.toml"], "mine.toml: is there already"),
        (["copy", "embedded", "mine.txt"], "mine.txt: a file of settings ends in .toml"),
        (["copy", "embedded", "no/mine.toml"], "no/mine.toml: cannot be written"),
        (["show", "embeded"], "did you mean 'embedded'?"),
        (["embedded"], "give list, show NAME, or copy NAME FILE"),
    ]:
        result = invoke("recipes", *arguments)
        assert result.exit_code == 2
        assert message in result.stderr
    assert invoke("recipes", "list").stdout == invoke("recipes").stdout
