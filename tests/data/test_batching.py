"""Batches hold every sentence once, whole, and depend on the seed and the epoch alone."""

from pathlib import Path

import pytest
import torch

from textvae.data import batching
from textvae.data.batching import (
    Batch,
    BatchesConfig,
    EqualLengthBatches,
    Lengths,
    PooledBatches,
    TokenArray,
)
from textvae.data.tokenizer import END
from textvae.errors import DataError
from textvae.randomness import hashes, key, shuffled, uniforms

V = 23
FEW = [[5, 2, 7, 7, 3, 9], [], [4, 22, 1], [6]]


def skewed(size: int) -> list[list[int]]:
    """Sentences with many short and few long ones, the longest 60 words."""
    lengths = (uniforms(key(1, "length"), torch.arange(size)) ** 3 * 61).long().tolist()
    words = hashes(key(1, "words"), torch.arange(61), lanes=size).t() % (V - 1) + 1
    return [row[:n] for row, n in zip(words.tolist(), lengths, strict=True)]


def sentences_of(batch: Batch) -> dict[int, list[int]]:
    """What a batch says, having checked that inputs, targets and padding fit together."""
    said = {}
    for row, length in enumerate(batch.lengths.tolist()):
        targets, inputs = batch.targets[row].tolist(), batch.inputs[row].tolist()
        words = targets[: length - 1]
        assert targets[length - 1 :] == [END] * (len(targets) - length + 1)
        assert inputs[:length] == [V, *words]
        said[int(batch.indices[row])] = words
    return said


def test_a_batch_is_padded_to_its_longest_sentence() -> None:
    batch = TokenArray.from_lists(FEW, V).batch(torch.tensor([2, 1, 0]))
    assert batch.targets.dtype == batch.inputs.dtype == batch.lengths.dtype == torch.int64
    assert batch.targets.tolist() == [
        [4, 22, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0],
        [5, 2, 7, 7, 3, 9, 0],
    ]
    assert batch.inputs[:, :4].tolist() == [[V, 4, 22, 1], [V, 0, 0, 0], [V, 5, 2, 7]]
    assert batch.lengths.tolist() == [4, 1, 7]
    assert batch.indices.tolist() == [2, 1, 0]


def test_batches_of_one_hold_exactly_the_sentence() -> None:
    array = TokenArray.from_lists(FEW, V)
    for number, words in enumerate(FEW):
        batch = array.batch(torch.tensor([number]))
        assert batch.targets.tolist() == [[*words, END]]
        assert batch.inputs.tolist() == [[V, *words]]


def test_a_corpus_of_empty_sentences_is_only_ends() -> None:
    array = TokenArray.from_lists([[], [], []], V)
    batch = array.batch(torch.tensor([2, 0]))
    assert batch.inputs.tolist() == [[V], [V]]
    assert batch.targets.tolist() == [[END], [END]]
    assert array.num_targets == 3


def test_counts_include_the_end_of_each_sentence() -> None:
    array = TokenArray.from_lists(FEW, V)
    assert array.num_sentences == 4
    assert array.lengths.tolist() == [7, 1, 4, 2]
    assert array.num_targets == 14
    assert TokenArray.from_lists([], V).num_sentences == 0


def test_the_head_is_the_first_sentences() -> None:
    head = TokenArray.from_lists(FEW, V).head(3)
    assert head.num_sentences == 3
    assert head.num_targets == 12
    assert sentences_of(head.batch(torch.arange(3))) == dict(enumerate(FEW[:3]))


def test_batches_by_length_say_every_sentence_once_from_short_to_long() -> None:
    corpus = skewed(211)
    said: dict[int, list[int]] = {}
    longest = 0
    sizes = []
    for batch in TokenArray.from_lists(corpus, V).batches_by_length(13):
        assert int(batch.lengths.min()) >= longest
        longest = int(batch.lengths.max())
        found = sentences_of(batch)
        assert not found.keys() & said.keys()
        said |= found
        sizes.append(len(found))
    assert said == dict(enumerate(corpus))
    assert sizes == [13] * 16 + [3]


every_kind = pytest.mark.parametrize(
    "kind", [PooledBatches(), PooledBatches(pool=2), EqualLengthBatches()], ids=str
)


@every_kind
@pytest.mark.parametrize("size", [1, 2, 12, 13, 14, 211, 13 * 50, 13 * 50 + 1])
def test_an_epoch_holds_every_sentence_once_and_leaves_no_batch_out(
    kind: BatchesConfig, size: int
) -> None:
    lengths = hashes(key(1, "lengths"), torch.arange(size)) % 17 + 1
    batches = kind.order(lengths, 13, seed=0, epoch=0)
    assert len(batches) == kind.count(lengths, 13)
    assert sorted(torch.cat(batches).tolist()) == list(range(size))
    assert all(0 < len(batch) <= 13 for batch in batches)
    if isinstance(kind, PooledBatches):
        assert sorted(len(b) for b in batches)[1:] == [13] * (len(batches) - 1)


def test_batches_of_equal_length_have_no_padding_and_are_full_where_they_can_be() -> None:
    corpus = TokenArray.from_lists(skewed(2003), V)
    full = 0
    for indices in EqualLengthBatches().order(corpus.lengths, 13, seed=0, epoch=0):
        assert corpus.lengths[indices].unique().numel() == 1
        full += len(indices) == 13
    assert full == int((corpus.lengths.bincount() // 13).sum())


@every_kind
def test_the_order_is_a_function_of_seed_and_epoch(kind: BatchesConfig) -> None:
    lengths = TokenArray.from_lists(skewed(211), V).lengths

    def order(seed: int, epoch: int) -> list[list[int]]:
        return [b.tolist() for b in kind.order(lengths, 13, seed=seed, epoch=epoch)]

    first = order(0, 0)
    before = torch.get_rng_state()
    assert order(0, 0) == first
    assert torch.equal(torch.get_rng_state(), before)
    assert first not in (order(0, 1), order(1, 0))
    assert {frozenset(b) for b in first} != {frozenset(b) for b in order(0, 1)}


def test_batches_are_of_similar_lengths_and_come_in_no_order_of_length() -> None:
    corpus = TokenArray.from_lists(skewed(20011), V)
    cells, means = 0, []
    for indices in PooledBatches().order(corpus.lengths, 31, seed=0, epoch=0):
        lengths = corpus.lengths[indices]
        cells += int(lengths.max()) * len(lengths)
        means.append(float(lengths.double().mean()))
    assert corpus.num_targets / cells > 0.9
    rank = torch.tensor(means)
    neighbours = torch.corrcoef(torch.stack([rank[1:], rank[:-1]]))[0, 1]
    assert abs(float(neighbours)) < 4 / len(means) ** 0.5


@pytest.mark.parametrize("corpus", [FEW, [], [[], []], [[3]]], ids=["few", "none", "empty", "one"])
def test_what_is_saved_can_be_opened(corpus: list[list[int]], tmp_path: Path) -> None:
    saved = TokenArray.from_lists(corpus, V)
    saved.save(tmp_path / "train")
    found = TokenArray.open(tmp_path / "train", V)
    assert found.tokens.dtype == torch.int32
    assert torch.equal(found.tokens, saved.tokens)
    assert torch.equal(found.offsets, saved.offsets)
    assert found.start == V
    if corpus:
        rows = torch.arange(len(corpus))
        assert sentences_of(found.batch(rows)) == dict(enumerate(corpus))


def test_saving_again_replaces_a_longer_corpus(tmp_path: Path) -> None:
    TokenArray.from_lists(FEW, V).save(tmp_path / "train")
    TokenArray.from_lists([[3]], V).save(tmp_path / "train")
    assert TokenArray.open(tmp_path / "train", V).tokens.tolist() == [3]


def test_a_head_can_be_saved_too(tmp_path: Path) -> None:
    TokenArray.from_lists(FEW, V).head(3).save(tmp_path / "head")
    found = TokenArray.open(tmp_path / "head", V)
    assert sentences_of(found.batch(torch.arange(3))) == dict(enumerate(FEW[:3]))


@pytest.mark.parametrize("suffix", [".tokens", ".offsets"])
def test_a_missing_file_is_named(suffix: str, tmp_path: Path) -> None:
    TokenArray.from_lists(FEW, V).save(tmp_path / "train")
    (tmp_path / f"train{suffix}").unlink()
    with pytest.raises(DataError, match=rf"train\{suffix}: .* missing"):
        TokenArray.open(tmp_path / "train", V)


@pytest.mark.parametrize("suffix", [".tokens", ".offsets"])
@pytest.mark.parametrize("kept", [0, 3, 8])
def test_files_that_were_cut_short_are_refused(suffix: str, kept: int, tmp_path: Path) -> None:
    TokenArray.from_lists(FEW, V).save(tmp_path / "train")
    file = tmp_path / f"train{suffix}"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(DataError, match="do not belong together"):
        TokenArray.open(tmp_path / "train", V)


@pytest.mark.parametrize("offsets", [[0, 3, 9], [0, 7, 3, 10], [2, 4, 10], [-1, 4, 10]])
def test_offsets_that_do_not_fit_the_tokens_are_refused(offsets: list[int], tmp_path: Path) -> None:
    tokens = torch.arange(10, dtype=torch.int32)
    TokenArray(tokens, torch.tensor(offsets), V).save(tmp_path / "train")
    with pytest.raises(DataError, match="do not belong together"):
        TokenArray.open(tmp_path / "train", V)


def test_selected_sentences_are_those_asked_for() -> None:
    sentences = [[2, 3], [], [4], [5, 6, 7], []]
    data = TokenArray.from_lists(sentences, 11)
    for rows in ([3, 1, 0], [4], [2, 2], []):
        found = data.select(torch.tensor(rows, dtype=torch.int64))
        expected = TokenArray.from_lists([sentences[row] for row in rows], 11)
        assert found.tokens.tolist() == expected.tokens.tolist()
        assert found.offsets.tolist() == expected.offsets.tolist()


# -- the order of a corpus too large to hold its order -------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7, 97, 1024, 3001])
def test_shuffled_is_a_permutation_that_needs_no_other_position(size: int) -> None:
    found = shuffled(5, size, torch.arange(size))
    assert found.sort().values.tolist() == list(range(size))
    some = torch.arange(0, size, 3)
    assert shuffled(5, size, some).tolist() == found[some].tolist()


def test_shuffled_is_uniform_and_forgets_neighbours() -> None:
    """Chi-square of where a position goes, and of how far apart two neighbours come to lie."""
    size, keys = 11, 2200
    found = torch.stack(
        [shuffled(key(number, "test"), size, torch.arange(size)) for number in range(keys)]
    )
    gaps = (found[:, 1:] - found[:, :-1]) % size
    for values, cells in ((found, size), (gaps - 1, size - 1)):
        for column in values.t():
            counts = column.bincount(minlength=cells).double()
            expected = keys / cells
            chi_square = float(((counts - expected) ** 2 / expected).sum())
            assert chi_square < 36, "the 0.0001 tail of 10 degrees of freedom"


def large_lengths(size: int) -> Lengths:
    drawn = hashes(1, torch.arange(size)) % 29
    return Lengths(torch.cat([torch.zeros(1, dtype=torch.int64), drawn.cumsum(0)]))


@pytest.mark.parametrize("config", [PooledBatches(pool=3), EqualLengthBatches()])
def test_a_large_corpus_has_every_sentence_once_an_epoch(
    config: BatchesConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "WINDOW", 2)
    sizes = large_lengths(211)
    for epoch in (0, 1):
        order = config.order(sizes, 7, seed=3, epoch=epoch)
        assert len(order) == config.count(sizes, 7)
        assert torch.cat(list(order)).sort().values.tolist() == list(range(211))
        again = config.order(sizes, 7, seed=3, epoch=epoch)
        assert again[len(order) - 1].tolist() == order[len(order) - 1].tolist(), "from anywhere"
    first, second = (config.order(sizes, 7, seed=3, epoch=epoch) for epoch in (0, 1))
    assert torch.cat(list(first)).tolist() != torch.cat(list(second)).tolist()


def test_windows_pool_similar_lengths() -> None:
    sizes = large_lengths(4001)
    order = PooledBatches().order(sizes, 20, seed=3, epoch=0)
    padded = sum(len(batch) * int(sizes.of(batch).max()) for batch in order)
    assert padded < 1.05 * float(sizes.of(torch.arange(4001)).sum())


# -- sentences that are cut ------------------------------------------------------------------------


def test_a_cut_sentence_has_no_end(tmp_path: Path) -> None:
    cut = [True, False, False, True]
    array = TokenArray.from_lists(FEW, V, cut=cut)
    assert array.lengths.tolist() == [6, 1, 4, 1]
    assert array.num_targets == sum(map(len, FEW)) + 2
    batch = array.batch(torch.tensor([0, 2]))
    assert batch.lengths.tolist() == [6, 4]
    assert batch.targets[0, :6].tolist() == FEW[0]
    assert batch.inputs[0, :6].tolist() == [V, *FEW[0][:-1]]
    assert array.select(torch.tensor([3, 1])).lengths.tolist() == [1, 1]
    assert array.head(2).lengths.tolist() == [6, 1]
    assert Lengths(array.offsets, array.cut).of(torch.tensor([3, 0])).tolist() == [1, 6]
    array.save(tmp_path / "train")
    found = TokenArray.open(tmp_path / "train", V)
    assert found.cut is not None
    assert found.cut.tolist() == cut
    assert found.checksum() == array.checksum() != array._replace(cut=None).checksum()
    array._replace(cut=None).save(tmp_path / "train")
    assert TokenArray.open(tmp_path / "train", V).cut is None


@pytest.mark.parametrize("marks", [b"\x01", b"\x02\0\0\0", b"\0\x01\0\0"], ids=repr)
def test_marks_of_cut_sentences_that_do_not_fit_are_refused(tmp_path: Path, marks: bytes) -> None:
    TokenArray.from_lists(FEW, V, cut=[True, False, False, True]).save(tmp_path / "train")
    (tmp_path / "train.cut").write_bytes(marks)
    with pytest.raises(DataError, match="its marks do not belong to the tokens"):
        TokenArray.open(tmp_path / "train", V)
