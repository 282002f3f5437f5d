"""The table of an evaluation can be read, whatever the figures."""

import pytest
import torch

from textvae.data.batching import TokenArray
from textvae.evaluate.bounds import TextCounts
from textvae.evaluate.summary import Evaluation, evaluate
from textvae.model.decoder import GRUDecoderConfig
from textvae.model.encoder import GRUEncoderConfig
from textvae.model.vae import ModelConfig

V = 11


@pytest.fixture(scope="module")
def found() -> Evaluation:
    config = ModelConfig(
        latent_dim=3,
        encoder=GRUEncoderConfig(embedding_dim=5, hidden_dim=7),
        decoder=GRUDecoderConfig(embedding_dim=5, hidden_dim=7),
    )
    data = TokenArray.from_lists([[2, 3, 4] * 4, [5], [], [6, 7]], V)
    counts = TextCounts(num_words=4, num_characters=41)
    return evaluate(config.build(V).eval(), data, counts, num_samples=5, seed=0)


def test_figures_follow_from_each_other(found: Evaluation) -> None:
    assert (found.num_sentences, found.num_tokens) == (4, 12 + 1 + 0 + 2 + 4)
    total = torch.tensor(found.nll * 4).double()
    assert found.perplexity == pytest.approx(float((total / 19).exp()), rel=1e-5)
    assert found.perplexity_per_word == pytest.approx(float((total / 4).exp()), rel=1e-5)
    assert found.nll <= -found.elbo
    assert found.bits_per_character == pytest.approx(
        float(total / torch.tensor(2.0).double().log()) / 41, rel=1e-5
    )


def test_columns_stay_apart_where_a_word_is_a_whole_sentence(found: Evaluation) -> None:
    assert found.perplexity_per_word > 1e4
    for value, said in ((12345.678, "perplexity 12345.678 "), (4.7e15, "perplexity 4.70e+15 ")):
        changed = {name: getattr(found, name) for name in found.__struct_fields__}
        table = Evaluation(**(changed | {"perplexity_per_word": value})).table()
        (line,) = [line for line in table.splitlines() if "a word" in line]
        assert said in line
        assert line.endswith("4 words")
