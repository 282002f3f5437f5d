"""Sums over an interval against direct sums, and a journal that never says a step twice."""

from pathlib import Path

import msgspec
import pytest
import torch

from textvae.kernels.linear_cross_entropy import CrossEntropy
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.inferred import ElboTerms
from textvae.randomness import key, normals
from textvae.train.metrics import Journal, Progress, RunningSums

Z, SIZES = 5, (3, 7, 2)


def batches(scale: torch.Tensor) -> list[ElboTerms]:
    """Batches of different sizes, whose means vary by `scale` in each dimension."""
    found = []
    for number, size in enumerate(SIZES):
        draws = normals(key(number, "terms"), torch.arange(size), lanes=Z)
        posterior = DiagonalGaussian(100.0 + draws * scale, draws)
        total = draws.square().sum()
        found.append(
            ElboTerms(
                CrossEntropy(total, draws[:, 0]), posterior.kl_to_standard_normal(), posterior
            )
        )
    return found


def nothing() -> RunningSums:
    return RunningSums(Z, torch.device("cpu"))


def filled(given: list[ElboTerms]) -> RunningSums:
    sums = nothing()
    for number, terms in enumerate(given):
        size = terms.kl.shape[0]
        sums.add(terms, torch.tensor(float(number + 1)), torch.full((size,), number + 2))
    return sums


def test_an_interval_is_the_mean_over_sentences_and_not_over_batches() -> None:
    given = batches(torch.ones(Z))
    found, count = filled(given).read(), sum(SIZES)
    assert found.reconstruction == pytest.approx(
        sum(float(t.reconstruction.total) for t in given) / count
    )
    assert found.kl == pytest.approx(sum(float(t.kl.double().sum()) for t in given) / count)
    assert found.loss == pytest.approx((1 * 3 + 2 * 7 + 3 * 2) / count)
    assert found.num_targets == 2 * 3 + 3 * 7 + 4 * 2


def test_active_units_are_those_whose_mean_varies_by_a_hundredth() -> None:
    scale = torch.tensor([0.0, 0.01, 0.03, 0.3, 1.0])
    given = batches(scale)
    means = torch.cat([terms.posterior.mean for terms in given]).double()
    expected = int((means.var(0, unbiased=False) > 0.01).sum())
    assert 0 < expected < Z
    assert filled(given).read().active_units == expected


def test_reading_starts_anew_and_nothing_reads_as_nothing() -> None:
    sums = filled(batches(torch.ones(Z)))
    sums.read()
    assert sums.read() == (0.0, 0.0, 0, 0, 0.0)


def test_a_gradient_does_not_pass_through_the_sums() -> None:
    leaf = torch.ones(3, Z, requires_grad=True)
    posterior = DiagonalGaussian(leaf, leaf)
    terms = ElboTerms(CrossEntropy(leaf.sum(), leaf[:, 0].detach()), leaf * 2, posterior)
    sums = nothing()
    sums.add(terms, leaf.sum().detach(), torch.ones(3, dtype=torch.int64))
    assert sums.read().kl == pytest.approx(10.0)


def steps(path: Path) -> list[int]:
    return [msgspec.json.decode(line)["step"] for line in path.read_bytes().splitlines()]


def test_lines_are_objects_in_the_order_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    journal = Journal(path, 0)
    journal.write(step=1, loss=2.5)
    journal.write(step=2, validation={"elbo": -3.0}, selected=True)
    lines = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
    assert lines == [
        {"step": 1, "loss": 2.5},
        {"step": 2, "validation": {"elbo": -3.0}, "selected": True},
    ]


def test_a_resumed_journal_drops_the_lines_beyond_its_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    journal = Journal(path, 0)
    for step in (1, 2, 3, 3, 4, 5):
        journal.write(step=step)
    resumed = Journal(path, 3)
    assert steps(path) == [1, 2, 3, 3]
    resumed.write(step=4)
    assert steps(path) == [1, 2, 3, 3, 4]


@pytest.mark.parametrize(
    "rest",
    [
        b'{"st',
        b'{"step":',
        b'{"step":2',
        b'{"step":2}',
        b"\0\0\0\0",
        b'{"other":1}\n',
        b"[2]\n",
        b"\xff\n",
    ],
)
def test_a_line_cut_short_is_dropped_and_the_next_stands_alone(rest: bytes, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step":1}\n' + rest)
    Journal(path, 7).write(step=8)
    assert steps(path) == [1, 8]


def test_a_journal_of_a_new_run_drops_everything_before_it(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step":1}\n{"step":2}\n')
    Journal(path, 0)
    assert steps(path) == []


def test_without_a_path_nothing_is_written(tmp_path: Path) -> None:
    Journal(None, 0).write(step=1)
    assert list(tmp_path.iterdir()) == []


def test_progress_prints_a_line_per_interval_and_other_lines() -> None:
    said: list[str] = []
    progress = Progress(10, 0, nothing(), said.append)
    progress.advance()
    interval = filled(batches(torch.ones(Z))).read()
    speed = progress.interval(1, interval, 0.25)
    progress.print("a line that stays")
    progress.close()
    assert speed > 0.0
    assert said[0].startswith("step 1/10  nll <= ")
    assert f"kl {interval.kl:.2f}  kl_weight 0.25  active 5/{Z}" in said[0]
    assert f"nll <= {interval.reconstruction + interval.kl:.2f}" in said[0]
    assert said[1:] == ["a line that stays"]


def test_time_that_is_left_out_does_not_slow_the_speed() -> None:
    progress = Progress(10, 0, nothing(), lambda _: None)
    interval = filled(batches(torch.ones(Z))).read()
    slow = progress.interval(1, interval, 1.0)
    progress.leave_out(-1000.0)  # as if a thousand seconds of training had passed
    assert progress.interval(2, interval, 1.0) == pytest.approx(
        interval.num_targets / 1e3, rel=1e-2
    )
    assert slow > interval.num_targets / 1e3


def test_a_resumed_run_has_the_speed_of_its_own_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    before = filled(batches(torch.ones(Z)))
    resumed = nothing()
    resumed.load(before.tensors())
    now = 100.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    progress = Progress(10, 3, resumed, lambda _: None)
    size, length = 7, 11
    terms = batches(torch.ones(Z))[1]
    for _ in range(2):
        resumed.add(terms, torch.tensor(1.0), torch.full((size,), length))
        now += 0.5
        assert progress.interval(4, resumed.read(), 1.0) == pytest.approx(size * length / 0.5)
