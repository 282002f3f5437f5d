"""Words that are not written, and words that a sentence begins with, against enumeration."""

import itertools
import math
import re
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from textvae.data.tokenizer import BPETokenizerConfig, CharTokenizerConfig, WordTokenizerConfig
from textvae.errors import ConfigError, DataError
from textvae.generate.beam import Beam, beam_search
from textvae.generate.constraints import Constraint, Prefix, constraint_of, forced_tokens
from textvae.generate.decoding import decode_latents
from textvae.generate.rules import Written
from textvae.generate.strategies import Greedy, Nucleus, Temperature, TopK
from textvae.generate.writing import DecodingSettings, candidates, write
from textvae.model.decoder import GRUDecoderConfig
from textvae.model.encoder import GRUEncoderConfig
from textvae.model.interfaces import END, UNKNOWN
from textvae.model.vae import VAE, ModelConfig
from textvae.randomness import key, normals

Z, LIMIT = 3, 11
STRATEGIES = [Greedy(), Temperature(), Temperature(temperature=3.0), TopK(k=3), Nucleus(), Beam()]
TEXT = ["the cat sat", "the hat", "catch the cat!", "a cathedral sat there", "Zug f\u00fcr \u00d6l"]
WORDS = WordTokenizerConfig().train(["a b c d e"])


def build(size: int) -> VAE:
    config = ModelConfig(
        latent_dim=Z,
        max_length=LIMIT,
        encoder=GRUEncoderConfig(embedding_dim=3, hidden_dim=2),
        decoder=GRUDecoderConfig(embedding_dim=5, hidden_dim=7),
    )
    model = config.build(size, seed=2).eval()
    with torch.no_grad():
        for parameter in model.decoder.parameters():  # type: ignore[attr-defined]
            parameter.mul_(4.0)
    return model


def latents(count: int) -> Tensor:
    return normals(key(5, "test"), torch.arange(count), lanes=Z)


# -- <unk> ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_unknown_is_never_written_unless_the_distribution_is_measured(strategy: Any) -> None:
    model, points = build(7), latents(83)
    with torch.no_grad():
        model.decoder.output_bias[UNKNOWN] += 3.0  # the likeliest word
    tokenizer = WordTokenizerConfig().train(["a b c d e"])
    free = write(model, WORDS, points, strategy, seed=1, max_length=LIMIT)
    assert any(UNKNOWN in ids for ids in free)
    constraint = constraint_of(tokenizer, None, None, LIMIT)
    written = write(model, WORDS, points, strategy, seed=1, max_length=LIMIT, constraint=constraint)
    assert not any(UNKNOWN in ids for ids in written)
    assert sum(map(len, written)) > 20


def test_the_other_words_share_the_probability_of_unknown() -> None:
    """The first word is drawn from p(w | z, w is not <unk>)."""
    model, count = build(7), 20_000
    points = latents(1).expand(count, Z)
    logits, _ = first_logits(model, points[:1])
    logits[:, UNKNOWN] = -math.inf
    expected = logits.softmax(1)[0]
    tokenizer = WordTokenizerConfig().train(["a b c d e"])
    constraint = constraint_of(tokenizer, None, None, LIMIT)
    drawn = decode_latents(
        model, points, Temperature(), seed=3, max_length=1, constraint=constraint
    )
    firsts = torch.tensor([ids[0] if ids else END for ids in drawn.sentences])
    share = firsts.bincount(minlength=7).double() / count
    assert torch.allclose(share, expected.double(), atol=4 * 0.5 / math.sqrt(count))


def first_logits(model: VAE, points: Tensor) -> tuple[Tensor, Any]:
    writer = model.decoder.writer(dtype=torch.float32, tabulate=False)
    start = torch.full((points.shape[0],), model.decoder.output_bias.shape[0])
    logits: Tensor
    with torch.no_grad():
        logits, state = writer.step(start, writer.start(points))
    return logits, state


# -- banned words --------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
@pytest.mark.parametrize("kind", [WordTokenizerConfig, CharTokenizerConfig, BPETokenizerConfig])
def test_banned_words_are_not_written(kind: Any, strategy: Any) -> None:
    tokenizer = kind().train(TEXT * 3)
    model, points = build(tokenizer.vocabulary_size), latents(97)
    if tokenizer.kind == "bpe":  # letters of the words alone, so that something is written
        keep = {0, *itertools.chain(*tokenizer.encode_batch([*TEXT, "c a t h e \u00d6 l s"]))}
        drop = [token for token in range(tokenizer.vocabulary_size) if token not in keep]
        with torch.no_grad():
            model.decoder.output_bias[drop] = -50.0
    banned = ["cat", "the", "\u00d6l", "sat", "a", "unheardof"]
    letter = r"\S" if tokenizer.kind == "word" else r"\w"
    patterns = [re.compile(rf"(?<!{letter}){word}(?!{letter})") for word in banned]

    def written(constraint: Constraint) -> list[str]:
        ids = write(
            model, tokenizer, points, strategy, seed=1, max_length=LIMIT, constraint=constraint
        )
        return [tokenizer.decode(sentence) for sentence in ids]

    free = written(constraint_of(tokenizer, None, None, LIMIT))
    if strategy == Temperature():  # the others may not come near one
        assert any(pattern.search(text) for text in free for pattern in patterns)
    texts = written(constraint_of(tokenizer, banned, None, LIMIT))
    assert not any(pattern.search(text) for text in texts for pattern in patterns)
    assert len(set("".join(texts))) > 1


def test_a_ban_of_text_masks_what_completes_a_word_and_nothing_else() -> None:
    letters = "ab\u00e9_"  # an ideograph is no letter of the word beside it
    alphabet = letters + " \u597d"
    tokenizer = CharTokenizerConfig().train([alphabet])
    rules = constraint_of(tokenizer, ["ab", "b", "\u00e9", "\u597da"], None, 50).rules
    word = rf"(?:(?<![{letters}])(?:ab|b|\u00e9)|\u597da)"
    for length in range(5):
        for characters in itertools.product(alphabet, repeat=length):
            text = "".join(characters)
            if re.search(rf"{word}[^{letters}]", text):
                continue
            ids = torch.tensor([tokenizer.encode(text)], dtype=torch.int64).view(1, -1)
            logits = torch.zeros(1, tokenizer.vocabulary_size)
            for rule in rules:
                rule(logits, Written(ids, torch.tensor([length])))
            assert bool(logits[0, END].isneginf()) == bool(re.search(rf"{word}$", text))
            for letter in alphabet:
                (token,) = tokenizer.encode(letter)
                masked = bool(logits[0, token].isneginf())
                assert masked == bool(re.search(rf"{word}[^{letters}]", text + letter))


def test_bans_are_refused_in_words() -> None:
    tokenizer = WordTokenizerConfig().train(TEXT)
    for word in ("", " ", "two words"):
        with pytest.raises(ConfigError, match=r"--ban '.*': must be one word"):
            constraint_of(tokenizer, [word], None, LIMIT)
    bpe = BPETokenizerConfig().train(TEXT)
    with pytest.raises(ConfigError, match="4,000 bytes; ban fewer"):
        constraint_of(bpe, [f"{number:09}" for number in range(999)], None, LIMIT)


# -- prefixes ------------------------------------------------------------------------------------


class Enumerable(NamedTuple):
    """All token sequences up to a length, with p(tokens and the end | z)."""

    sequences: list[tuple[int, ...]]
    probabilities: Tensor


PIECES = [b"", b"<unk>", b"a", b"b", b"ab", b"ba", b"aba"]


def enumerate_model(model: VAE, point: Tensor, length: int) -> Enumerable:
    size = len(PIECES)
    found: list[tuple[int, ...]] = []
    masses: list[float] = []

    def follow(begun: tuple[int, ...], mass: float, tokens: Tensor, state: Any) -> None:
        writer = model.decoder.writer(dtype=torch.float32, tabulate=False)
        logits, state = writer.step(tokens, state)
        logits[:, UNKNOWN] = -math.inf
        probabilities = logits.double().softmax(1)[0].tolist()
        found.append(begun)
        if len(begun) == length:
            masses.append(mass)  # cut
            return
        masses.append(mass * probabilities[END])
        for token in range(2, size):
            below = mass * probabilities[token]
            follow((*begun, token), below, torch.tensor([token]), state)

    writer = model.decoder.writer(dtype=torch.float32, tabulate=False)
    with torch.no_grad():
        follow((), 1.0, torch.tensor([size]), writer.start(point))
    return Enumerable(found, torch.tensor(masses, dtype=torch.float64))


@pytest.mark.parametrize("partial", [b"a", b"aba", b"baab"])
def test_samples_after_a_prefix_are_those_that_begin_with_it(partial: bytes) -> None:
    """By enumeration: p(x | z, x begins with the tokens, and then with the text)."""
    model, count, length = build(len(PIECES)), 30_000, 4
    point = latents(1)
    every = enumerate_model(model, point, length)
    assert float(every.probabilities.sum()) == pytest.approx(1.0)
    fixed = (3,)

    def begins(ids: tuple[int, ...]) -> bool:
        text = b"".join(PIECES[token] for token in ids[1:])
        return ids[:1] == fixed and text.startswith(partial)

    kept = torch.tensor([begins(ids) for ids in every.sequences])
    expected = torch.where(kept, every.probabilities, 0.0)
    expected /= expected.sum()
    rules = constraint_of(WordTokenizerConfig().train(["a"]), None, None, length).rules
    constraint = Constraint(rules, Prefix(list(fixed), partial), PIECES)
    drawn = decode_latents(
        model,
        point.expand(count, Z),
        Temperature(),
        seed=3,
        max_length=length,
        constraint=constraint,
    )
    places = {ids: number for number, ids in enumerate(every.sequences)}
    numbers = torch.tensor([places[tuple(ids)] for ids in drawn.sentences])
    share = numbers.bincount(minlength=len(expected)).double() / count
    deviation = (expected * (1 - expected) / count).sqrt()
    assert bool(((share - expected).abs() <= 5 * deviation + 1e-9).all())
    greedy = write(model, WORDS, point, Greedy(), seed=0, max_length=length, constraint=constraint)[
        0
    ]
    assert begins(tuple(greedy))
    best = beam_search(model, point, Beam(), max_length=length, constraint=constraint, num_best=3)
    assert all(begins(tuple(one.words)) for one in best[0])


def test_a_drawn_prefix_is_a_function_of_the_seed_and_the_index() -> None:
    model, points = build(len(PIECES)), latents(300)
    constraint = Constraint((), Prefix([2], b"ab"), PIECES)

    def drawn(first: int, count: int) -> list[list[int]]:
        return decode_latents(
            model,
            points[first : first + count],
            Temperature(),
            seed=3,
            max_length=LIMIT,
            first_index=first,
            constraint=constraint,
        ).sentences

    every = drawn(0, 300)
    assert every[7:20] == drawn(7, 13)
    assert every[299:] == drawn(299, 1)
    assert len({tuple(ids[1:3]) for ids in every}) > 3


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
@pytest.mark.parametrize("kind", [WordTokenizerConfig, CharTokenizerConfig, BPETokenizerConfig])
def test_sentences_begin_with_the_prefix(kind: Any, strategy: Any) -> None:
    tokenizer = kind().train(TEXT * 3)
    model = build(tokenizer.vocabulary_size)
    for prefix in ("the", "the cat", "the cat "):
        settings = DecodingSettings(
            strategy, 1, LIMIT, 1, constraint_of(tokenizer, None, prefix, LIMIT)
        )
        for (one,) in candidates(model, tokenizer, latents(17), settings):
            assert (one.text + " ").startswith(prefix if kind is not WordTokenizerConfig else "the")
            assert one.text.encode().startswith(prefix.strip().encode())


def test_prefixes_are_refused_in_words() -> None:
    tokenizer = WordTokenizerConfig().train(TEXT)
    with pytest.raises(ConfigError, match="--prefix: is blank"):
        constraint_of(tokenizer, None, "  ", LIMIT)
    with pytest.raises(DataError, match="--prefix 'the zzz': holds a word that is not in"):
        constraint_of(tokenizer, None, "the zzz", LIMIT)
    with pytest.raises(ConfigError, match="--prefix: has 3 tokens, a sentence at most 2"):
        constraint_of(tokenizer, None, "the cat sat", 2)
    pieces = [b"", b"<unk>", b"a", b"aa", b"aaa", b"b"]
    constraint = Constraint((), Prefix([], b"a" * 40), pieces)
    writer = build(6).decoder.writer(dtype=torch.float32, tabulate=False)
    with torch.no_grad(), pytest.raises(ConfigError, match="cut into tokens in too many ways"):
        forced_tokens(writer, latents(1), constraint, Greedy(), seed=0, max_length=50)


# -- log-probabilities ---------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [Greedy(), Temperature(), TopK(k=3)], ids=str)
def test_the_log_probabilities_of_samples_are_those_of_the_model(strategy: Any) -> None:
    model, points, length = build(len(PIECES)), latents(23), 4
    constraint = Constraint((), Prefix([2], b"a"), PIECES)
    drawn = decode_latents(
        model,
        points,
        strategy,
        seed=3,
        max_length=length,
        constraint=constraint,
        with_log_probs=True,
    )
    assert drawn.log_probs is not None
    for ids, log_prob, point in zip(drawn.sentences, drawn.log_probs, points, strict=True):
        writer = model.decoder.writer(dtype=torch.float32, tabulate=False)
        state, total, tokens = writer.start(point[None]), 0.0, torch.tensor([len(PIECES)])
        with torch.no_grad():
            for token in [*ids, END]:
                logits, state = writer.step(tokens, state)
                total += float(logits.log_softmax(1)[0, token])
                tokens = torch.tensor([token])
        assert log_prob == pytest.approx(total, abs=1e-5)
