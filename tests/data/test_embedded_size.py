"""The size of the embedded corpus."""

from textvae.data.grammar import embedded_splits


def test_a_larger_training_set_begins_as_the_usual_one_and_leaves_the_others() -> None:
    usual, larger, smaller = (embedded_splits(num_train=n) for n in (None, 80_101, 31))
    assert larger.train.texts[:80_000] == usual.train.texts
    assert len(larger.train.texts) == len(larger.train.labels) == 80_101
    held = {*usual.valid.texts, *usual.test.texts}
    assert sum(text in held for text in larger.train.texts[80_000:]) < 5  # short ones recur
    assert smaller.train.texts == usual.train.texts[:31]
    assert (larger.valid, larger.test) == (usual.valid, usual.test)
