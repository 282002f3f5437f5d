"""Nats token by token add up, and their pieces are the sentence."""

import pytest
import torch

from textvae.data.batching import TokenArray
from textvae.data.tokenizer import BPETokenizerConfig, CharTokenizerConfig, WordTokenizerConfig
from textvae.metrics.likelihood import encode_corpus, reconstruction_at
from textvae.model.decoder import GRUDecoderConfig
from textvae.model.encoder import GRUEncoderConfig
from textvae.model.vae import ModelConfig
from textvae.report.surprise import surprises

TEXTS = ["a red fox", "\u732b sees \U0001f600 twice", "caf\u00e9 \ufffd now", "odd\ufffd", "fox"]
CONFIG = ModelConfig(
    latent_dim=3,
    encoder=GRUEncoderConfig(embedding_dim=5, hidden_dim=7),
    decoder=GRUDecoderConfig(embedding_dim=5, hidden_dim=11),
)


@pytest.mark.parametrize("kind", [WordTokenizerConfig, BPETokenizerConfig, CharTokenizerConfig])
def test_pieces_are_the_sentence_and_their_nats_its_reconstruction(
    kind: type[WordTokenizerConfig | BPETokenizerConfig | CharTokenizerConfig],
) -> None:
    tokenizer = kind().train(TEXTS)
    model = CONFIG.build(tokenizer.vocabulary_size, seed=1).eval()
    data = TokenArray.from_lists(tokenizer.encode_batch(TEXTS), tokenizer.start)
    mean = encode_corpus(model, data).mean
    expected = reconstruction_at(model, data, mean)
    rows = torch.tensor([4, 0, 3, 1, 2])
    found = surprises(model, tokenizer, data, rows, mean)
    for row, pieces in zip(rows.tolist(), found, strict=True):
        assert "".join(piece.text for piece in pieces) == TEXTS[row]
        assert sum(piece.nats for piece in pieces) == pytest.approx(float(expected[row]), abs=1e-4)
        assert pieces[-1].text == ""
        assert all(piece.nats > 0.0 for piece in pieces)
        if "\ufffd" not in TEXTS[row]:  # no character is cut in two
            assert not any("\ufffd" in piece.text for piece in pieces)
