"""Labels from the file to the sentence: two tiny models with labels, and one without."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

import textvae

Invoke = Callable[..., Result]
SENTENCE = "big cat eats gladly"
STEPS = ("--max-steps", "13", "--set", "train.validate_every=13", "--save-every", "13")


def rows() -> list[dict[str, str | None]]:
    """Of 140 sentences one in three has a label; the last word tells it."""
    pairs = [f"{a} {n}" for a in ("big", "old", "shy", "odd", "red") for n in NAMES]
    told = [
        (f"{pair} {verb} {word}", label)
        for pair in pairs
        for verb in ("eats", "sees")
        for word, label in (("gladly", "positive"), ("badly", "negative"))
    ]
    return [{"text": t, "mood": y if i % 3 == 0 else None} for i, (t, y) in enumerate(told)]


NAMES = ("cat", "dog", "fox", "hen", "cow", "bee", "ant")


ONE_CLASS: list[dict[str, str | None]] = [{"text": f"a {name}", "mood": "x"} for name in NAMES]


def write(path: Path, table: list[dict[str, str | None]]) -> None:
    path.write_text("\n".join(map(json.dumps, table)) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def labelled(
    tmp_path_factory: pytest.TempPathFactory, tiny_options: list[str], invoke: Invoke
) -> Path:
    place = tmp_path_factory.mktemp("labelled")
    write(place / "moods.jsonl", rows())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        options = [*tiny_options, *STEPS, "--set", "model.labels.kind=m2"]
        columns = ["--label-column", "mood", "--output", "runs/m2"]
        result = invoke("train", "moods.jsonl", *columns, *options)
        assert result.exit_code == 0, result.stderr
        assert "2 different; 93 sentences have none" in result.stderr
    return place


def test_conditional_generation(
    labelled: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(labelled)
    run = "runs/m2"
    vae = textvae.TextVAE.from_pretrained(run)
    assert vae.labels == ("negative", "positive")
    two = [invoke("sample", run, "-n", "7", "--label", label).stdout for label in vae.labels]
    assert two[0].splitlines() == vae.sample(7, label="negative")
    drawn = [
        json.loads(line)
        for line in invoke("sample", run, "-n", "7", "--json").stdout.split("\n")[:-1]
    ]
    assert {row["label"] for row in drawn} == {"negative", "positive"}
    for row in drawn:  # a sample is the one its label asks for
        assert row["text"] == two[vae.labels.index(row["label"])].splitlines()[row["index"]]
    beam = invoke("sample", run, "-n", "2", "--label", "negative", "--beam-size", "2")
    assert len(beam.stdout.splitlines()) == 2
    other = invoke("reconstruct", run, SENTENCE, "--label", "negative").stdout.splitlines()
    assert other == vae.reconstruct([SENTENCE], label="negative")
    assert invoke("reconstruct", run, SENTENCE).stdout.splitlines() == vae.reconstruct([SENTENCE])
    path = invoke("interpolate", run, "--steps", "3", "--label", "negative", SENTENCE, "old dog")
    assert path.stdout.splitlines() == vae.interpolate(
        SENTENCE, "old dog", steps=3, label="negative"
    )
    assert path.stdout.splitlines()[0] == other[0]
    near = vae.sample(3, near=SENTENCE, scale=0.0, label="negative", strategy=textvae.Greedy())
    assert near == other * 3
    report = vae.evaluate([SENTENCE, "old dog sees badly"], num_samples=3)
    assert 0.0 < report.elbo * -1 < 1e3
    names = "likelihood,latent,reconstruction,samples,interpolation"
    measured = invoke("evaluate", run, "--evaluators", names, "--samples", "3", "--json")
    assert measured.exit_code == 0, measured.stderr
    vae.save_pretrained(labelled / "copy")
    again = textvae.TextVAE.from_pretrained(labelled / "copy")
    assert again.sample(7, label="negative") == two[0].splitlines()


def test_latents_of_m2_are_decoded_under_a_label(labelled: Path) -> None:
    vae = textvae.TextVAE.from_pretrained(labelled / "runs" / "m2")
    mean = vae.encode([SENTENCE, SENTENCE]).mean
    both = vae.decode(mean, label=["negative", "positive"])
    assert [both[0]] == vae.decode(mean[:1], label="negative")
    with pytest.raises(textvae.DataError, match="reads a label beside the latent"):
        vae.decode(mean)


@pytest.mark.parametrize(
    ("run", "arguments", "said"),
    [
        ("m2", ["sample", "--label", "posit"], "label 'posit': the model has never seen it"),
        ("m2", ["reconstruct", SENTENCE, "--label", "x"], "its labels are negative, positive"),
        ("tiny", ["sample", "--label", "positive"], "was trained without labels"),
        ("tiny", ["reconstruct", "the cat .", "--label", "x"], "was trained without labels"),
        ("tiny", ["interpolate", "the cat", "a dog", "--label", "x"], "was trained without labels"),
    ],
)
def test_a_label_that_is_not_there(
    labelled: Path,
    trained: tuple[Path, Result],
    invoke: Invoke,
    run: str,
    arguments: list[str],
    said: str,
) -> None:
    place = trained[0] if run == "tiny" else labelled
    result = invoke(arguments[0], str(place / "runs" / run), *arguments[1:])
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("table", "options", "said"),
    [
        (rows(), ["--label-column", "moody"], "has no column 'moody'"),
        (rows(), [], "no labels, but model.labels.kind needs labels"),
        (
            [{**row, "mood": "x"} for row in rows()],
            ["--label-column", "mood"],
            "all labels are 'x'",
        ),
        (rows(), ["--label-column", "mood", "--test", "other.jsonl"], "never seen in training"),
    ],
    ids=["no column", "no labels", "one class", "unseen"],
)
def test_labels_from_which_nothing_can_be_learnt(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_options: list[str],
    invoke: Invoke,
    table: list[dict[str, str | None]],
    options: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "moods.jsonl", table)
    write(tmp_path / "other.jsonl", [{"text": "a cat", "mood": "sour"}])
    m2 = ["--set", "model.labels.kind=m2"]
    result = invoke("train", "moods.jsonl", *options, *m2, *tiny_options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert not (tmp_path / "runs").exists()


def test_the_names_belong_to_the_model(labelled: Path, tmp_path: Path) -> None:
    run = tmp_path / "m2"
    shutil.copytree(labelled / "runs" / "m2", run)
    names = run / "labels.json"
    names.write_text(names.read_text(encoding="utf-8").replace("pos", "nos"), encoding="utf-8")
    with pytest.raises(textvae.CheckpointError, match=r"labels.json: does not match its checksum"):
        textvae.TextVAE.from_pretrained(run)
    names.unlink()
    with pytest.raises(textvae.CheckpointError, match=r"labels.json"):
        textvae.TextVAE.from_pretrained(run)


def test_classify_is_a_filter(
    labelled: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(labelled)
    told = [str(row["text"]) for row in rows()][:31]
    stdin = ("\n".join(told) + "\n\n").encode()
    for arguments in (["runs/m2"], ["runs/m2", "--classifier", "prototypes"]):
        lines = invoke("classify", *arguments, stdin=stdin).stdout.splitlines()
        full = invoke("classify", *arguments, "--json", stdin=stdin).stdout.splitlines()
        assert (len(lines), len(full), lines[-1]) == (32, 31, "")
        for line, row in zip(lines[:-1], map(json.loads, full), strict=True):
            assert line == f"{row['label']}\t{row['probability']:.4f}"
            assert list(row["probabilities"]) == ["negative", "positive"]
            assert sum(row["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)
            assert row["probabilities"][row["label"]] == row["probability"] >= 0.5
        empty = invoke("classify", *arguments, stdin=b"")
        assert (empty.exit_code, empty.stdout) == (0, "")
    columns = ["--label-column", "mood", "--text-column", "text"]
    scores = invoke("classify", "runs/m2", "moods.jsonl", "--scores", "--json", *columns).stdout
    found = json.loads(scores)
    assert found["num_sentences"] == 47
    first = [row for row in rows() if row["mood"]]
    stdin = "\n".join(str(row["text"]) for row in first).encode()
    labels = [
        line.split("\t")[0]
        for line in invoke("classify", "runs/m2", stdin=stdin).stdout.splitlines()
    ]
    right = sum(label == row["mood"] for label, row in zip(labels, first, strict=True))
    assert found["accuracy"] == pytest.approx(right / 47)
    plain = invoke("classify", "runs/m2", "moods.jsonl", "--scores", *columns).stdout
    assert f"accuracy           {found['accuracy']:.4f}" in plain.splitlines()


@pytest.mark.parametrize(
    ("run", "arguments", "said"),
    [
        ("tiny", [], "has no labelled sentences"),
        ("tiny", ["--classifier", "model"], "was trained without labels"),
        ("tiny", ["--labelled", "one.csv"], "all labels are 'x'; a classifier needs two"),
        ("m2", ["--labelled", "one.csv"], "is fitted already"),
        ("m2", ["--label-column", "mood"], "belongs to --labelled and --scores"),
        ("m2", ["--scores"], "name it"),
        ("m2", ["one.csv", "--scores"], "label 'x' of 'a b' was never seen in training"),
        ("m2", ["one.csv", "--scores", "--label-column", "y"], "has no column 'y'"),
    ],
)
def test_what_cannot_be_classified(
    labelled: Path,
    trained: tuple[Path, Result],
    invoke: Invoke,
    monkeypatch: pytest.MonkeyPatch,
    run: str,
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(labelled)
    (labelled / "one.csv").write_text("text,label\na b,x\nb a,\n", encoding="utf-8")
    place = trained[0] if run == "tiny" else labelled
    result = invoke("classify", str(place / "runs" / run), *arguments, stdin=b"the cat\n")
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
