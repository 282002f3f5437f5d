"""The benchmark runs, its simulated text is what it says, and its ratios are judged rightly."""

import json
import os
import subprocess
import sys
from pathlib import Path

import benchmark
import benchmark_equality as equality
import benchmark_measure as measure
import benchmark_memory as memory
import opponents
import pytest
import simulated
import torch
from click.testing import CliRunner
from torch.nn import functional as F

from textvae.generate.decoding import decode_latents
from textvae.generate.strategies import Temperature

CPU = torch.device("cpu")


def bench() -> object:
    return measure.Bench(CPU, torch.float32, 1, 1, measure.SMALL)


def test_lengths_are_those_of_the_penn_treebank() -> None:
    lengths = simulated.simulated_lengths(20_011, seed=1)
    assert float(lengths.double().mean()) == pytest.approx(22.1, abs=0.3)
    assert float(lengths.double().std()) == pytest.approx(10.3, abs=0.3)
    assert int(lengths.min()) == 2
    assert int(lengths.max()) <= 83


def test_words_have_the_frequencies_of_zipf_and_the_ids_of_words() -> None:
    corpus = simulated.simulated_corpus(2_003, 101, seed=1)
    assert int(corpus.tokens.min()) == 2
    assert int(corpus.tokens.max()) == 100
    assert corpus.num_sentences == 2_003
    shares = corpus.tokens.bincount(minlength=101)[2:] / corpus.tokens.shape[0]
    assert float((shares - simulated.zipf(99)).abs().max()) < 0.006


def test_topics_change_the_rarer_words_alone() -> None:
    plain = simulated.simulated_corpus(307, 101, seed=1)
    topics = simulated.simulated_corpus(307, 101, seed=1, num_topics=7)
    frequent = plain.tokens < simulated.FIRST_WORD + simulated.SHARED_WORDS
    assert torch.equal(plain.tokens[frequent], topics.tokens[frequent])
    assert int((plain.tokens != topics.tokens).sum()) > 1_000
    assert int(topics.tokens.max()) <= 100


def test_a_model_made_to_end_its_sentences_writes_them_as_long_as_newspapers_do() -> None:
    sizes = measure.ModelSizes(499, 23, 31, 5)
    model = measure.build_model(sizes, CPU).eval()
    simulated.give_usual_lengths(model)
    latents = model.prior.sample(211, seed=1)
    written = decode_latents(model, latents, Temperature(), seed=1, max_length=83)
    lengths = torch.tensor([len(ids) for ids in written.sentences]) + 1.0
    assert all(written.finished)
    assert 15 < float(lengths.mean()) < 30
    assert float(lengths.std()) > 5

    opponents.seed_everything(1)
    rows = opponents.sample(measure.build_opponent(model, sizes), latents, max_length=83)
    mean = sum(map(len, rows)) / len(rows)
    assert mean == pytest.approx(float(lengths.mean()), abs=3.0)


@torch.no_grad()
def test_its_next_words_are_as_uncertain_as_those_of_a_trained_model() -> None:
    sizes = measure.ModelSizes(10_000, 11, 13, 3)
    model = measure.build_model(sizes, CPU).eval()
    simulated.give_usual_lengths(model)
    batch = simulated.simulated_corpus(1, 10_000, seed=1, length=19).batch(torch.arange(1))
    latents = model.prior.sample(1, seed=1)
    features = model.decoder(batch.inputs, latents, noise=None, dtype=torch.float32)
    # The unit that counts: 0.03, 0.0591, ... whatever the words.
    counted = 1 - 0.97 ** torch.arange(1, 20)
    torch.testing.assert_close(features[0, :, 0], counted, atol=1e-5, rtol=0.0)
    logits = F.linear(features[0], model.decoder.output_weight, model.decoder.output_bias)
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    assert float(entropy.min()) > 5.0
    assert float(entropy.max()) < 6.0


def test_a_ratio_is_ours_over_theirs_and_meets_a_bound_or_does_not() -> None:
    result = measure.Result("tokens/second", (6.0, 9.0, 8.0), (2.0, 2.0, 2.0))
    assert result.ratios() == [3.0, 4.5, 4.0]
    row = benchmark.as_json("train_a", result)
    assert (row["median"], row["target_met"], row["goal_met"]) == (4.0, True, False)
    cells = benchmark.table_line("train_a", result).split()[-6:]
    assert " ".join(cells) == ">= 3.5 met >= 5 short"
    less = measure.Result("bytes", (3.0,), (10.0,))
    cells = benchmark.table_line("memory", less).split()[-6:]
    assert " ".join(cells) == "<= 0.333 met <= 0.2 short"
    assert "target" not in benchmark.as_json("gemm", measure.Result("FLOP", (1.0,), ()))


def test_flops_of_a_token_are_those_of_two_grus_and_the_vocabulary() -> None:
    assert measure.ModelSizes(10_000, 256, 512, 32).training_flops() == 3 * (4718592 + 10240000)


def test_a_product_of_a_recurrence_costs_what_its_arithmetic_does() -> None:
    small = measure.recurrent_product(CPU, torch.float32, 7, 23)
    large = measure.recurrent_product(CPU, torch.float32, 7, 512)
    assert 0 < 3 * small < large < 1  # 500 times the arithmetic


def test_the_peak_of_memory_is_what_the_action_allocates() -> None:
    if not memory.CLEAR.exists():
        pytest.skip("needs the files of Linux in /proc")
    size = 64 * 2**20
    # In a process of its own, as the benchmark does: this one may have memory to reuse.
    program = f"""
import torch, benchmark_memory as memory
torch.ones({2 * size}, dtype=torch.uint8)  # a peak before the action must not count
print(memory.measure(torch.device("cpu"), lambda: torch.ones({size}, dtype=torch.uint8)))
"""
    found = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(memory.__file__).parent,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(found.stdout) == pytest.approx(size, rel=0.1)


def test_a_curve_is_sums_over_windows() -> None:
    losses, targets = [1.0, 3.0, 5.0, 5.0, 2.0, 2.0, 8.0, 4.0], [1, 3, 5, 5, 2, 2, 4, 2]
    assert equality.by_window(losses, targets) == (1.0, 1.0, 1.0, 2.0)


def test_the_held_out_loss_of_the_same_weights_is_the_same() -> None:
    setup = equality.task(bench(), measure.SMALL.curve_model)
    model = measure.build_model(setup.sizes, CPU).eval()
    opponent = measure.build_opponent(model, setup.sizes).eval()
    ours, theirs = equality.held_out_loss(setup, model), equality.held_out_loss(setup, opponent)
    assert theirs == pytest.approx(ours, rel=1e-5)


def test_the_command_prints_a_table_or_json() -> None:
    arguments = ["--small", "--repeats", "2", "--only", "train_a,feeding"]
    result = CliRunner().invoke(benchmark.main, arguments)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("machine ")
    rows = [line.split()[0] for line in lines[1:] if line[0] != " "]
    assert rows == ["row", "feeding", "train_a"]
    shares = ["peak spent on true targets: textvae", "latency floor reached: textvae"]
    assert all(any(share in line for line in lines) for share in shares)
    result = CliRunner().invoke(benchmark.main, [*arguments, "--json", "-"])
    found = json.loads(result.stdout)
    assert found["sizes"] == "small"
    assert [row["row"] for row in found["rows"]] == ["feeding", "train_a"]
    assert len(found["rows"][0]["ours"]) == len(found["rows"][0]["ratios"]) == 2


def test_every_target_is_of_a_row_and_unknown_rows_are_refused() -> None:
    assert benchmark.TARGETS.keys() <= benchmark.ROWS.keys()
    assert benchmark.chosen_rows(None) == list(benchmark.ROWS)
    result = CliRunner().invoke(benchmark.main, ["--only", "no_such_row"])
    assert result.exit_code == 2
    assert "no_such_row" in result.stderr
