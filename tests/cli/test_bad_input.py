"""Bad input: one line on stderr saying where, what and what to do; exit code 2; nothing written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

LONG = "the " * 20
A, B = "the dog sees the cat .", "the fox eats the cow ."
CATS, COWS = "cats.txt", "cows.txt"

Invoke = Callable[..., Result]


def fingerprint(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "tiny.tx"], "tiny.tx: there is no such file; did you mean tiny.txt?"),
        (["train", "empty.txt"], "empty.txt: is empty; give it one sentence a line"),
        (["train", "blank.txt"], "blank.txt: all its 3 rows are blank"),
        (["train", "bytes.txt"], "bytes.txt:2: byte 0xff is not UTF-8"),
        (["train", "nul.txt"], "nul.txt:1: holds a NUL"),
        (["train", "two.txt"], "two.txt: 2 different sentences are too few"),
        (["train", "empty"], "empty: a directory without a train file"),
        (["train", "tiny.txt", "--text-column", "text"], "tiny.txt: plain text has no columns"),
        (["train", "tiny.txt", "--valid", "missing.txt"], "missing.txt: there is no such file"),
        (["train", "tiny.txt", "--labels", "two.txt"], "two.txt: 2 labels for the 100 rows"),
        (["train", "--labels", "two.txt"], "--labels needs DATA"),
        (["train", "tiny.txt", "--config", "missing.toml"], "missing.toml: there is no such conf"),
        (["train", "tiny.txt", "--config", "bad.toml"], "latent_dim"),
        (["train", "tiny.txt", "--config", "two.txt"], "two.txt: a configuration file ends in"),
        (["train", "tiny.txt", "--recipe", "pbt"], "pbt: did you mean 'ptb'? the recipes are"),
        (["train", "tiny.txt", "--recipe", "ptb", "--config", "bad.toml"], "give one of them"),
        (["train", "tiny.txt", "--set", "model.latnt_dim=3"], "latent_dim"),
        (["train", "tiny.txt", "--set", "model.latent_dim=none"], "model.latent_dim"),
        (["train", "tiny.txt", "--set", "seed"], "expected key.path=value"),
        (["train", "tiny.txt", "--device", "abacus"], "--device abacus: this machine has cpu"),
        (["train", "tiny.txt", "--output", "used"], "used: is in use and holds no run"),
        (["train", "tiny.txt", "--output", "two.txt"], "two.txt: is in use"),
        (["train", "tiny.txt", "--seed", "1", "--output", "runs/tiny"], "seed: 0 -> 1"),
        (["sample", "missing"], "missing: there is no such directory"),
        (["sample", "tiny"], "tiny: there is no such directory; did you mean runs/tiny?"),
        (["sample", "two.txt"], "two.txt: is a file, expected a run or model directory"),
        (["sample", "empty"], "empty: has no manifest.json, so it is no run or model"),
        (["sample", "--top-k", "3", "--top-p", "0.5"], "--top-k and --top-p are two strategies"),
        (["sample", "--temperature", "0"], "--temperature 0.0: must be greater than 0"),
        (["sample", "--temperature", "nan"], "--temperature nan: must be"),
        (["sample", "--strategy", "greedy", "--top-k", "3"], "--top-k belongs to"),
        (["sample", "--min-length", "20"], "a sentence of at least 20 and at most 19 tokens"),
        (["sample", "--min-length", "3", "--max-length", "2"], "at least 3 and at most 2 tokens"),
        (["sample", "--repetition-penalty", "0.5"], "--repetition-penalty 0.5: must be from 1"),
        (["sample", "--no-repeat-ngram", "1", "--min-length", "19"], "leave a sentence no word"),
        (["sample", "--scale", "0.5"], "--scale 0.5: belongs to --near"),
        (["sample", "--near", "the cat", "--scale", "-1"], "--scale -1.0: must be from 0 to 1000"),
        (["sample", "--near", LONG], "sentence 1 has 20 tokens"),
        (["sample", "--near", " "], "sentence 1: is blank"),
        (["sample", "--n-best", "7"], "--n-best 7: must be from 1 to --beam-size 5"),
        (["reconstruct", "--strategy", "greedy", "--n-best", "2", "a"], "--n-best belongs to"),
        (["interpolate", "a", "b", "--length-penalty", "x"], "--length-penalty x: must be a"),
        (["sample", "--device", "abacus"], "--device abacus: this machine has cpu"),
        (["reconstruct", LONG, "--too-long", "refuse"], "at most 19"),
        (["reconstruct", "runs/missing", "a"], "runs/missing: there is no such directory"),
        (["reconstruct", "two.txt"], "two.txt: is a file"),
        (["interpolate", "the cat", LONG], "sentence 2 has 20 tokens"),
        (["interpolate", "the cat"], "passes through at least 2 sentences, found 1"),
        (["evaluate", "empty"], "empty: has no manifest.json"),
        (["evaluate", "runs/tiny", "missing.txt"], "missing.txt: there is no such file"),
        (["evaluate", "missing.txt"], "missing.txt: there is no such model directory and no"),
        (["evaluate", "blank.txt"], "blank.txt: all its 3 rows are blank"),
        (["evaluate", "long.txt", "--too-long", "refuse"], "long.txt: row 1 (counted from 0) has"),
        (["info", "empty"], "empty: has no manifest.json"),
        (["info", "--verify", "empty"], "empty: has no manifest.json"),
        (["encode", "runs/tiny", "tiny.tx"], "tiny.tx: there is no such file; did you mean tiny"),
        (
            ["encode", "tiny.txt", "--output", "a.pt"],
            "a.pt: latents are written to files named .npz, .js",
        ),
        (["encode", "tiny.txt", "--output", "no/a.npz"], "no/a.npz: cannot be written: No such"),
        (["encode", "long.txt", "--too-long", "refuse", "--output", "a.npz"], "row 1 (counted"),
        (["encode", "long.txt", "--too-long", "refuse", "--output", "a.jsonl"], "row 1 (counted"),
        (["encode", "long.txt", "--too-long", "shorten"], "'shorten' is not one of 'drop', 'cut'"),
        (["encode", "blank.txt"], "blank.txt: holds only 3 blank lines"),
        (["encode", "runs/tiny", "bytes.txt"], "bytes.txt:2: byte 0xff is not UTF-8"),
        (["encode", "a", "b", "c"], "MODEL and FILE are 2 arguments at most, found 3"),
        (["decode", "runs/tiny", "tiny.txt"], "tiny.txt: latents are files named"),
        (["decode", "runs/tiny", "none.npz"], "none.npz: there is no such file"),
        (["decode", "runs/tiny", "short.jsonl"], "short.jsonl:1: a latent of 2 numbers; this mo"),
        (["decode", "runs/tiny", "bad.npz"], "bad.npz: damaged or no .npz file"),
        (["decode", "runs/tiny", "huge.jsonl"], "huge.jsonl: row 1 holds a number that is not"),
        (["decode", "runs/tiny"], "standard input: holds no latents"),
        (["neighbors", "the cat"], "Missing option '--corpus'"),
        (
            ["neighbors", "the cat", "--corpus", "tiny.tx"],
            "tiny.tx: there is no such file; did you mean tiny.txt?",
        ),
        (["neighbors", "--corpus", "-"], "--corpus -: standard input is read once"),
        (
            ["neighbors", "the cat", "--corpus", "-", "--metric", "scaled"],
            "--corpus -: standard input is read once",
        ),
        (["neighbors", "the cat", "--corpus", "-"], "standard input: holds nothing"),
        (["neighbors", "the " * 20, "--corpus", "tiny.txt"], "at most 19"),
        (["neighbors", "the cat", "--corpus", "tiny.txt", "-n", "0"], "0 is not in the range"),
        (["report", "runs/tiny", "tiny.tx"], "tiny.tx: there is no such file"),
        (["report", "runs/tiny", "tiny.txt", "x"], "2 arguments at most"),
        (["report", "runs/tiny", "--sentences", "0"], "0 is not in the range"),
        (["report", "runs/tiny", "--output", "runs"], "runs: is a directory; name a file"),
        (["report", "runs/tiny", "--output", "no/where.html"], "there is no directory no"),
        (["report", "runs/tiny", "--labels", "tiny.txt"], "belong to DATA"),
        (["report", "runs/tiny", "tiny.txt", "--label-column", "kind"], "has no columns"),
        (["report", "nowhere/at-all", "tiny.txt"], "there is no such directory"),
        (
            ["evaluate", "runs/tiny", "--evaluators", "likelyhood"],
            "--evaluators likelyhood: they are likelihood, latent",
        ),
        (["evaluate", "runs/tiny", "--evaluators", ","], "--evaluators nothing: they are"),
        (
            ["evaluate", "runs/tiny", "--output", "no/where.json"],
            "--output no/where.json: there is no directory no",
        ),
        (
            ["evaluate", "runs/tiny", "--config", "none.toml"],
            "none.toml: there is no such configuration file",
        ),
        (["evaluate", "runs/tiny", "--config", "twice.toml"], "likelihood is there twice"),
        (["evaluate", "runs/tiny", "--samples", "0"], "--samples"),
        (["analogy", A, B], "an analogy takes 3 sentences, found 2"),
        (["analogy", "runs/tiny", A], "found 1 besides the MODEL runs/tiny"),
        (["analogy", "runs/tiny"], "standard input: holds nothing"),
        (["analogy", A, B, "the " * 20], "row 2 (counted from 0) has 20 tokens"),
        (["attribute", A], "a vector needs --from and --to, or --vector"),
        (["attribute", A, "--from", CATS], "a vector needs --from and --to, or --vector"),
        (["attribute", A, "--vector", "v.json", "--to", CATS], "--vector is used as it is"),
        (["attribute", A, "--vector", "v.json"], "v.json: there is no such file"),
        (["attribute", A, "--vector", CATS], "cats.txt: is no vector"),
        (["attribute", A, "--from", CATS, "--to", "cow.txt"], "did you mean cows.txt?"),
        (["attribute", "--from", CATS, "--to", "-"], "standard input is read once"),
        (["attribute", A, "--from", CATS, "--to", COWS, "--strength", "nan"], "--strength nan: t"),
        (["attribute", "--from", CATS, "--to", COWS, "--output", "v.npz"], "a vector is a file na"),
        (
            ["attribute", A, "--data", "table.csv", "--from", "cat", "--to", "cwo"],
            "--to cwo: no row of table.csv has that label; did you mean 'cow'?",
        ),
        (
            ["attribute", A, "--data", CATS, "--from", "cat", "--to", "cow"],
            "cats.txt: has no labels; name their column with --label-column",
        ),
        (
            ["attribute", A, "--label-column", "label", "--from", CATS, "--to", COWS],
            "--label-column belongs to --data",
        ),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_changes_nothing(
    copy: Path, invoke: Invoke, arguments: list[str], said: str
) -> None:
    for name in ("empty", "used"):
        (copy / name).mkdir()
    for name, data in {
        "empty.txt": b"",
        "blank.txt": b"\n \n\t\n",
        "bytes.txt": b"a b\nc \xff\n",
        "nul.txt": b"a\0b\n",
        "two.txt": b"a b\nc d\n",
        "long.txt": f"the cat .\n{LONG}\n".encode(),
        "bad.toml": b"[model]\nlatent_dmi = 3\n",
        "used/diary.txt": b"dear diary\n",
        "short.jsonl": b"[1, 2]\n",
        "huge.jsonl": b"[1, 2, 1e9, 0, 0]\n",
        "bad.npz": b"PK",
        "twice.toml": b'[[evaluate.evaluators]]\nkind = "likelihood"\n' * 2,
        CATS: b"the dog sees the cat .\nthe fox eats the cat .\n",
        COWS: b"the dog sees the cow .\nthe fox eats the cow .\n",
        "table.csv": b"label,text\ncat,the dog sees the cat .\ncow,the fox eats the cow .\n",
    }.items():
        (copy / name).write_bytes(data)
    before = fingerprint(copy)
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert fingerprint(copy) == before


def test_other_data_in_a_used_directory(
    copy: Path, tiny_options: list[str], invoke: Invoke
) -> None:
    text = (copy / "tiny.txt").read_text(encoding="utf-8")
    (copy / "tiny.txt").write_text(text + "the end .\n", encoding="utf-8")
    result = invoke("train", "tiny.txt", *tiny_options)
    assert result.exit_code == 2
    assert "runs/tiny: holds another run (" in result.stderr
    assert "whose text differs" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_tokenizer_that_does_not_belong_to_the_weights(copy: Path, invoke: Invoke) -> None:
    run = copy / "runs/tiny"
    document = json.loads((run / "tokenizer.json").read_text(encoding="utf-8"))
    words = document["model"]["vocab"]
    words["word"] = len(words)
    (run / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    changed = invoke("sample")
    assert changed.exit_code == 2
    assert "tokenizer.json" in changed.stderr

    # With the checksums made anew, as a person who swapped the tokenizer on purpose would.
    from textvae.storage.checkpoint import save_model_directory  # noqa: PLC0415 -- for this test alone

    names = ["config.json", "model.safetensors", "tokenizer.json", "README.md"]
    save_model_directory(copy / "swapped", {name: (run / name).read_bytes() for name in names})
    swapped = invoke("sample", "swapped")
    assert swapped.exit_code == 2
    assert "the tokenizer does not belong to the weights" in swapped.stderr
    assert swapped.stderr.count("\n") == 1


def test_a_missing_file_of_a_model(copy: Path, invoke: Invoke) -> None:
    (copy / "runs/tiny/model.safetensors").unlink()
    result = invoke("sample")
    assert result.exit_code == 2
    assert "model.safetensors: the file is missing" in result.stderr
    shutil.rmtree(copy / "runs")
    nothing = invoke("sample")
    assert nothing.exit_code == 2
    assert (
        "there is no run; name a run directory, or make one with: textvae train" in nothing.stderr
    )
