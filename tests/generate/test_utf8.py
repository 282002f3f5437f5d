"""Byte-level tokenizers write valid UTF-8 alone, by every strategy, at whatever length is cut."""

import itertools
from typing import Any

import pytest
import torch

from textvae.data.tokenizer import BPETokenizerConfig, Tokenizer, WordTokenizerConfig
from textvae.generate.beam import Beam, beam_search
from textvae.generate.decoding import decode_latents
from textvae.generate.rules import MinLength, NoRepeatedNgrams, RepetitionPenalty
from textvae.generate.strategies import Greedy, Nucleus, Temperature, TopK, Typical
from textvae.generate.utf8 import TextMask, text_mask
from textvae.model.decoder import GRUDecoderConfig
from textvae.model.encoder import GRUEncoderConfig
from textvae.model.interfaces import END
from textvae.model.vae import VAE, ModelConfig

CPU = torch.device("cpu")
SENTENCES = [
    "\uc548\ub155 \uc138\uacc4, \uc548\ub155",
    "\u4f60\u597d\u4e16\u754c \u3053\u3093\u306b\u3061\u306f",
    "caf\u00e9 \U0001f600\U0010ffff\U00020bb7",
    "na\u00efve \u0928\u092e\u0938\u094d\u0924\u0947 \ud7ff\ue000",
] * 5
CONFIG = ModelConfig(
    latent_dim=3,
    encoder=GRUEncoderConfig(embedding_dim=5, hidden_dim=7),
    decoder=GRUDecoderConfig(embedding_dim=11, hidden_dim=13),
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return BPETokenizerConfig(vocabulary_size=283).train(SENTENCES)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> VAE:
    """A decoder that never was trained, and rarely ends: all bytes are as likely."""
    model = CONFIG.build(tokenizer.vocabulary_size, seed=5).eval()
    with torch.no_grad():
        model.decoder.output_bias[END] = -3.0
    return model


def raw(tokenizer: Tokenizer, ids: list[int]) -> bytes:
    pieces = tokenizer.token_bytes()
    assert pieces is not None
    return b"".join(pieces[token] for token in ids)


def test_the_table_is_the_decoder_of_python() -> None:
    """All sequences of up to three bytes, one of each class, and a sample of four."""
    whole = Tokenizer.from_json(BPETokenizerConfig(vocabulary_size=258).train(["a"]).to_json())
    every = Tokenizer("bpe", [*whole._tokens[2:]])  # which bytes were seen is not recorded
    mask = text_mask(every, CPU)
    assert mask is not None
    token = {piece: index for index, piece in enumerate(every.token_bytes() or []) if piece}
    edges = [0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1]
    edges += [0xEC, 0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF]
    for length in (1, 2, 3, 4):
        pools = [edges] * length if length < 4 else [[0xEF, 0xF0, 0xF1, 0xF4, 0xF5], *[edges] * 3]
        for values in itertools.product(*pools):
            state, allowed = 0, True
            for byte in values:
                index = token[bytes([byte])]
                allowed &= not bool(mask.forbidden[3 * len(mask.following) + state, index])
                state = int(mask.following[state, index])
            try:
                bytes(values).decode()
                valid = True
            except UnicodeDecodeError:
                valid = False
            assert valid == (allowed and state == 0), bytes(values)


STRATEGIES: list[Any] = [
    Greedy(),
    Temperature(),
    Temperature(temperature=3.0),
    TopK(k=30),
    Nucleus(p=0.9),
    Typical(p=0.9),
    Temperature(rules=(MinLength(tokens=5), RepetitionPenalty(factor=1.3))),
    TopK(k=100, rules=(NoRepeatedNgrams(size=4),)),
    Beam(size=3),
    Beam(size=2, rules=(MinLength(tokens=4),)),
]


@pytest.mark.parametrize("max_length", [1, 2, 3, 4, 5, 17])
@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_sentences_are_valid_and_of_bytes_that_were_seen(
    model: VAE, tokenizer: Tokenizer, strategy: Any, max_length: int
) -> None:
    if any(isinstance(r, MinLength) and r.tokens > max_length for r in strategy.rules):
        return
    mask = text_mask(tokenizer, CPU)
    latents = model.prior.sample(31, seed=max_length)
    if isinstance(strategy, Beam):
        beams = beam_search(model, latents, strategy, max_length=max_length, mask=mask)
        written = [one.words for beam in beams for one in beam]
    else:
        written = decode_latents(
            model, latents, strategy, seed=3, max_length=max_length, mask=mask
        ).sentences
    seen = set("".join(SENTENCES).encode())
    for ids in written:
        assert len(ids) <= max_length
        data = raw(tokenizer, ids)
        data.decode()
        assert seen.issuperset(data)
        assert "<unk>" not in tokenizer.decode(ids)
    if isinstance(strategy, Temperature) and max_length == 17:
        plain = decode_latents(model, latents, strategy, seed=3, max_length=max_length).sentences
        assert any("\ufffd" in tokenizer.decode(ids) for ids in plain)


def test_what_is_drawn_is_the_distribution_without_the_forbidden(tokenizer: Tokenizer) -> None:
    mask = text_mask(tokenizer, CPU)
    assert mask is not None
    logits = torch.randn(2, tokenizer.vocabulary_size, generator=torch.Generator().manual_seed(1))
    left = mask.apply(logits, torch.tensor([0, 2]), 9).softmax(1)
    allowed = left > 0
    assert not bool((allowed[0] & allowed[1]).any())
    assert bool(allowed.any(1).all())
    expected = logits.softmax(1) * allowed
    torch.testing.assert_close(left, expected / expected.sum(1, keepdim=True))


def test_a_beam_keeps_the_likelihoods_of_the_model(model: VAE, tokenizer: Tokenizer) -> None:
    latents = model.prior.sample(5, seed=1)
    mask = text_mask(tokenizer, CPU)
    (best,) = beam_search(model, latents[:1], Beam(size=4), max_length=6, mask=mask)[:1]
    state, log_likelihood = model.decoder.writer(dtype=torch.float32, tabulate=False), 0.0
    active, previous = state.start(latents[:1]), tokenizer.start
    for token in [*best[0].words, END]:
        logits, active = state.step(torch.tensor([previous]), active)
        log_likelihood += float(logits.log_softmax(1)[0, token])
        previous = token
    assert best[0].log_likelihood == pytest.approx(log_likelihood, abs=1e-4)


def test_only_bytes_have_a_mask_and_what_was_seen_is_kept(tokenizer: Tokenizer) -> None:
    assert text_mask(WordTokenizerConfig().train(["a b"]), CPU) is None
    again = Tokenizer.from_json(tokenizer.to_json())
    assert again.seen_bytes == frozenset("".join(SENTENCES).encode())
    assert again.to_json() == tokenizer.to_json()


def test_a_file_that_lies_about_what_was_seen_leaves_no_dead_end(tokenizer: Tokenizer) -> None:
    tokens = tokenizer._tokens[2:]
    lying = Tokenizer("bpe", tokens, tokenizer._merges, seen_bytes={0x41, 0xE0, 0x80, 0xF0})
    mask = text_mask(lying, CPU)
    assert isinstance(mask, TextMask)
    model = CONFIG.build(lying.vocabulary_size, seed=5).eval()
    found = decode_latents(
        model, model.prior.sample(9, seed=1), Temperature(), seed=1, max_length=30, mask=mask
    )
    assert {byte for ids in found.sentences for byte in raw(lying, ids)} == {0x41}


def test_a_limit_of_two_thousand_million_takes_no_memory(model: VAE, tokenizer: Tokenizer) -> None:
    with torch.no_grad():
        model.decoder.output_bias[END] = 3.0
    latents = model.prior.sample(301, seed=1)
    for rules in ((), (NoRepeatedNgrams(size=3),)):
        long = decode_latents(
            model, latents, Temperature(rules=rules), seed=3, max_length=2**31 - 1
        )
        short = decode_latents(model, latents, Temperature(rules=rules), seed=3, max_length=500)
        assert long == short
    found = beam_search(model, latents[:7], Beam(size=3), max_length=2**31 - 1)
    assert found == beam_search(model, latents[:7], Beam(size=3), max_length=90)
