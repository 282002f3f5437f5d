"""Token ids: the word protocol, lossless bytes, and files from strangers."""

import hashlib
import itertools
import json
import re
import time
from collections import Counter

import msgspec
import pytest
from tokenizers import Tokenizer as Library

from textvae.data.tokenizer import (
    END,
    UNKNOWN,
    BPETokenizerConfig,
    CharTokenizerConfig,
    SmilesTokenizerConfig,
    Tokenizer,
    TokenizerConfig,
    WordTokenizerConfig,
)
from textvae.errors import DataError

TEXT = ["the cat sat", "the dog sat on the mat", "a <unk> sat", "the cat"]

NASTY = [
    "",
    " ",
    "  two  blanks  ",
    "a\0b",
    "a\r\nb\n",
    "\ufeffbom",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
    "e\u0301 n\u0303",
    "\u202eright to left",
    "o\ufb03ce",
    "\u5e8a\u524d\u660e\u6708\u5149",
    "</s> <s> <unk> <pad> [MASK] <|endoftext|>",
    "\u0120\u010a",
    "'s 're 'LL",
    "\u2028\u2029\x85\x1c\x1f",
    "x" * 5003,
    " " * 1009,
    "\U0001f600" * 257,
]

CONFIGS: list[TokenizerConfig] = [
    WordTokenizerConfig(),
    WordTokenizerConfig(lowercase=True),
    BPETokenizerConfig(vocabulary_size=293),
    CharTokenizerConfig(),
]


def pseudo_random_texts(number: int) -> list[str]:
    """Strings of up to 31 code points from the whole range, surrogates left out."""
    texts = []
    for index in range(number):
        digest = hashlib.shake_128(index.to_bytes(4, "little")).digest(4 * 31)
        points = [int.from_bytes(digest[i : i + 4], "little") for i in range(0, len(digest), 4)]
        # Every other one below 2^11, so that short encodings are not drowned by the rare planes.
        kept = [point % (0x110000 if point % 2 else 0x800) for point in points[: index % 32]]
        texts.append("".join(chr(point) for point in kept if not 0xD800 <= point < 0xE000))
    return texts


@pytest.fixture(scope="module", params=CONFIGS, ids=lambda config: type(config).__name__)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    trained = request.param.train(TEXT)
    assert isinstance(trained, Tokenizer)
    return trained


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return BPETokenizerConfig(vocabulary_size=307).train(TEXT)


def test_bytes_are_lossless(bpe: Tokenizer) -> None:
    for text in NASTY + pseudo_random_texts(499):
        ids = bpe.encode(text)
        assert bpe.decode(ids) == text
        assert all(UNKNOWN < index < bpe.vocabulary_size for index in ids)


def test_user_text_never_yields_control_ids(tokenizer: Tokenizer) -> None:
    for ids in tokenizer.encode_batch(NASTY):
        assert END not in ids
        assert all(0 < index < tokenizer.start for index in ids)


def test_word_protocol() -> None:
    text = ["<s> a b </s> <pad>", "a <unk> b <unk>", "a </s>"]
    words = WordTokenizerConfig().train(text)
    assert words.vocabulary_size == 2 + len({"<s>", "a", "b", "</s>", "<pad>"})
    assert words.encode("a <unk> never") == [2, UNKNOWN, UNKNOWN]
    ids = words.encode("<s> </s> <pad>")
    assert len(set(ids)) == 3
    assert min(ids) > UNKNOWN
    assert max(ids) < words.start
    assert words.decode(ids) == "<s> </s> <pad>"
    assert words.decode([2, UNKNOWN]) == "a <unk>"


def test_words_split_at_whitespace_as_python_does() -> None:
    words = WordTokenizerConfig().train(["a b"])
    text = "a\u00a0b\u3000a\x1fb\x85a\u200bb \t b"
    assert len(words.encode(text)) == len(text.split())
    assert words.decode(words.encode(" a   b ")) == "a b"


def test_vocabulary_order_is_count_then_code_point() -> None:
    words = WordTokenizerConfig().train(["b b a a c z \u00e9 B"])
    assert words.decode(range(2, words.vocabulary_size)) == "a b B c z \u00e9"


@pytest.mark.parametrize(("min_count", "known"), [(1, "a b c"), (2, "a b"), (3, "a")])
def test_min_count_keeps_what_occurs_that_often(min_count: int, known: str) -> None:
    text = ["a a a b b c"]
    words = WordTokenizerConfig(min_count=min_count).train(text)
    assert words.decode(range(2, words.vocabulary_size)) == known
    chars = CharTokenizerConfig(min_count=min_count).train(["aaabbc"])
    assert chars.decode(range(2, chars.vocabulary_size)) == known.replace(" ", "")


def test_caps_count_the_end_and_the_unknown_token() -> None:
    text = [" ".join(f"w{i}" for i in range(53))]
    assert WordTokenizerConfig(vocabulary_size=17).train(text).vocabulary_size == 17
    assert WordTokenizerConfig(vocabulary_size=55).train(text).vocabulary_size == 55
    assert WordTokenizerConfig(vocabulary_size=59).train(text).vocabulary_size == 55
    assert CharTokenizerConfig(vocabulary_size=5).train(text).vocabulary_size == 5
    assert BPETokenizerConfig(vocabulary_size=258).train(text).vocabulary_size == 258
    assert BPETokenizerConfig(vocabulary_size=263).train(["ab ab"] * 3).vocabulary_size < 263


def test_a_corpus_of_9999_types_with_unknown_gives_10000() -> None:
    text = ["<unk> " + " ".join(f"w{i}" for i in range(9998))]
    assert WordTokenizerConfig().train(text).vocabulary_size == 10_000


def test_lowercase() -> None:
    words = WordTokenizerConfig(lowercase=True).train(["The the THE Cat <UNK>"])
    assert words.vocabulary_size == 4
    assert words.encode("tHe CAT <UNK>") == [2, 3, UNKNOWN]


def test_characters_of_unspaced_text() -> None:
    couplet = "\u5e8a\u524d\u660e\u6708\u5149\u7591\u662f\u5730\u4e0a\u971c"
    chars = CharTokenizerConfig().train([couplet, couplet[:3]])
    ids = chars.encode(couplet)
    assert len(ids) == len(couplet)
    assert chars.decode(ids) == couplet
    assert chars.encode("x\u524d") == [UNKNOWN, 2]  # the lowest of the three that occur twice


MOLECULES = [  # of the literature: aspirin, bromobenzene, a chlorinated salt, rings above nine
    "CC(=O)OC1=CC=CC=C1C(=O)O",
    "Brc1ccccc1",
    "[NH4+].[Cl-]",
    "C[C@H](N)C(=O)O",
    "F/C=C\\F",
    "C1CC%12CCC1CC%12",
    "CN1C=NC2=C1C(=O)N(C(=O)N2C)C",
]


def test_molecules_are_cut_as_by_schwaller_and_come_back() -> None:
    smiles = SmilesTokenizerConfig().train(MOLECULES)
    for text in MOLECULES:
        assert smiles.decode(smiles.encode(text)) == text
    names = [smiles.decode([index]) for index in smiles.encode("C[C@H](Br)C%12.Cl")]
    assert names == ["C", "[C@H]", "(", "Br", ")", "C", "%12", ".", "<unk>"], "Cl alone is new"
    again = Tokenizer.from_json(smiles.to_json())
    assert (again.kind, again.to_json()) == ("smiles", smiles.to_json())
    assert again.encode_batch(MOLECULES) == smiles.encode_batch(MOLECULES)
    assert again.encode("C<unk>C") == [again.encode("C")[0], UNKNOWN, again.encode("C")[0]]
    library = Library.from_str(smiles.to_json())
    for text in MOLECULES:
        assert [index + 1 for index in library.encode(text).ids] == smiles.encode(text)
        assert library.decode([index - 1 for index in smiles.encode(text)]) == text


@pytest.mark.parametrize(
    ("text", "rest"), [("CCO ethanol", " ethanol"), ("C[Na", "[Na"), ("the cat", "the cat")]
)
def test_what_is_not_smiles_is_refused_and_shown(text: str, rest: str) -> None:
    message = f"{text!r} is not SMILES: nothing begins with {rest!r}"
    with pytest.raises(DataError, match=f"^{re.escape(message)}"):
        SmilesTokenizerConfig().train([*MOLECULES, text])
    with pytest.raises(DataError, match=f"^{re.escape(message)}"):
        SmilesTokenizerConfig().train(MOLECULES).encode(text)


def test_a_file_whose_tokens_are_not_of_smiles_is_refused() -> None:
    file = json.loads(SmilesTokenizerConfig(min_count=2).train(MOLECULES).to_json())
    file["model"]["vocab"] = {"<unk>": 0, "C": 1, "CC": 2}
    with pytest.raises(DataError, match="'CC' is not one token of SMILES"):
        Tokenizer.from_json(json.dumps(file))


def test_training_ignores_the_order_of_sentences() -> None:
    for config in CONFIGS:
        files = {config.train(iter(order)).to_json() for order in itertools.permutations(TEXT)}
        assert len(files) == 1


def test_decode_stops_at_the_end_and_skips_the_start(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("the cat")
    text = tokenizer.decode(ids)
    assert tokenizer.decode([tokenizer.start, *ids, END, *ids]) == text == "the cat"
    assert tokenizer.decode([]) == tokenizer.decode([END]) == ""
    assert "<unk>" in tokenizer.decode([*ids, UNKNOWN])
    for outside in (-1, tokenizer.start + 1):
        with pytest.raises(DataError, match=f"token id {outside} "):
            tokenizer.decode([outside])


def test_batch_is_each_sentence(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode_batch(NASTY) == [tokenizer.encode(text) for text in NASTY]
    assert tokenizer.encode_batch([]) == []


def test_file_round_trip(tokenizer: Tokenizer) -> None:
    file = tokenizer.to_json()
    again = Tokenizer.from_json(file.encode())
    assert again.to_json() == file
    assert Tokenizer.from_json(file).kind == tokenizer.kind
    assert (again.vocabulary_size, again.start) == (tokenizer.vocabulary_size,) * 2
    assert again.encode_batch(NASTY + TEXT) == tokenizer.encode_batch(NASTY + TEXT)


def test_the_library_reads_the_file_the_same_way(tokenizer: Tokenizer) -> None:
    library = Library.from_str(tokenizer.to_json())
    shift = 2 if tokenizer.kind == "bpe" else 1
    for text in ["the CAT sat on\na b", "", "</s> zebra", *TEXT]:
        assert [index + shift for index in library.encode(text).ids] == tokenizer.encode(text)
    ids = tokenizer.encode("the cat sat")
    assert library.decode([index - shift for index in ids]) == "the cat sat"


def test_lone_surrogates_are_refused_by_bytes(bpe: Tokenizer) -> None:
    with pytest.raises(DataError, match="surrogate"):
        bpe.encode("a\ud800")


def word_file(vocabulary: object, **changes: object) -> bytes:
    file = json.loads(WordTokenizerConfig().train(["a b"]).to_json())
    file["model"]["vocab"] = vocabulary
    return json.dumps(file | changes).encode()


def bpe_file(bpe: Tokenizer, **changes: object) -> bytes:
    file = json.loads(bpe.to_json())
    file["model"] |= changes
    return json.dumps(file).encode()


GOOD = {"<unk>": 0, "a": 1, "b": 2}
REPLACE = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10}
HOSTILE = {
    "slow regex": word_file(
        GOOD,
        pre_tokenizer={
            "type": "Split",
            "pattern": {"Regex": "(a+)+$"},
            "behavior": "Isolated",
            "invert": False,
        },
    ),
    "replace bomb": word_file(GOOD, normalizer={"type": "Sequence", "normalizers": [REPLACE] * 10}),
    "id gap": word_file({"<unk>": 0, "a": 1, "b": 3}),
    "huge id": word_file({"<unk>": 0, "a": 4_000_000_000}),
    "enormous id": word_file({"<unk>": 0, "a": 10**30}),
    "negative id": word_file({"<unk>": 0, "a": -1}),
    "shared id": word_file({"<unk>": 0, "a": 1, "b": 1}),
    "id not a number": word_file({"<unk>": 0, "a": "1"}),
    "no unknown": word_file({"a": 0, "b": 1}),
    "only unknown": word_file({"<unk>": 0}),
    "two words in one": word_file({"<unk>": 0, "a b": 1}),
    "empty word": word_file({"<unk>": 0, "": 1}),
    "vocabulary a list": word_file(["a", "b"]),
    "added special token": word_file(
        GOOD, added_tokens=[{"id": 2, "content": "b", "special": True}]
    ),
    "truncation": word_file(GOOD, truncation={"max_length": 1}),
    "post-processor": word_file(GOOD, post_processor={"type": "ByteLevel"}),
    "unknown key": word_file(GOOD, extra=1),
    "newer version": word_file(GOOD, version="2.0"),
    "unigram": word_file(
        GOOD, model={"type": "Unigram", "unk_id": 0, "vocab": [["a", 0.0]], "byte_fallback": False}
    ),
    "word piece": word_file(GOOD, model={"type": "WordPiece", "vocab": GOOD, "unk_token": "<unk>"}),
    "merges of words": word_file(
        GOOD, model={"type": "WordLevel", "unk_token": "<unk>", "vocab": GOOD, "merges": []}
    ),
    "not JSON": b"hello",
    "nothing": b"",
    "a list": b"[]",
    "no model": b'{"version": "1.0"}',
    "model null": b'{"model": null}',
    "binary": bytes(range(256)),
    "deep nesting": b"[" * 100_000,
    "deep nesting inside": b'{"model": {"vocab": {}}, "x": ' + b'{"x":' * 100_000,
    "lone surrogate": b'{"model": {"vocab": {"\\ud800": 0}}}',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_in_one_line_and_at_once(name: str) -> None:
    started = time.perf_counter()
    with pytest.raises(DataError, match="tokenizer file was not written by textvae") as caught:
        Tokenizer.from_json(HOSTILE[name])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert time.perf_counter() - started < 1


def test_hostile_byte_pairs_are_refused(bpe: Tokenizer) -> None:
    model = json.loads(bpe.to_json())["model"]
    vocabulary, merges = model["vocab"], model["merges"]
    size = len(vocabulary)
    names = sorted(vocabulary, key=vocabulary.__getitem__)
    swapped = {name: index for index, name in enumerate(names[:3] + names[4:])}
    changes: dict[str, dict[str, object]] = {
        "unmade token": {"vocab": vocabulary | {"zzz": size}},
        "merge to nowhere": {"merges": [*merges, ["z", "z"]]},
        "merge of unknown parts": {"merges": [*merges, [merges[0][0] + "zz", "z"]]},
        "merge of three": {"merges": [*merges, ["a", "b", "c"]]},
        "old style merges": {"merges": [" ".join(merge) for merge in merges]},
        "no merges": {"merges": []},
        "a byte lost": {"vocab": swapped},
        "dropout": {"dropout": 0.5},
        "unknown token": {"unk_token": names[0]},
        "suffix": {"end_of_word_suffix": "x" * 1000},
    }
    for change in changes.values():
        with pytest.raises(DataError, match="not written by textvae"):
            Tokenizer.from_json(bpe_file(bpe, **change))
    assert Tokenizer.from_json(bpe_file(bpe)).to_json() == bpe.to_json()


def test_files_cut_short_or_changed_never_crash(tokenizer: Tokenizer) -> None:
    file = tokenizer.to_json().encode()
    outcomes: Counter[str] = Counter()
    for index in range(211):
        number = int.from_bytes(hashlib.blake2b(index.to_bytes(2), digest_size=8).digest())
        place = number % len(file)
        changed = file[:place] + bytes([number >> 56]) + file[place + 1 :]
        for data in (changed, file[:place]):
            try:
                again = Tokenizer.from_json(data)
            except DataError:
                outcomes["refused"] += 1
            else:
                outcomes["read"] += 1
                assert again.vocabulary_size == tokenizer.vocabulary_size
                again.encode("the cat")
    assert outcomes["refused"] >= 211  # every file cut short, at least


def test_too_large_a_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textvae.data.tokenizer._MAX_FILE_BYTES", 2**6)
    with pytest.raises(DataError, match="larger than"):
        Tokenizer.from_json(CharTokenizerConfig().train(TEXT).to_json())


def test_configs_decode_by_kind() -> None:
    for config in CONFIGS:
        plain = msgspec.to_builtins(config)
        assert msgspec.convert(plain, TokenizerConfig) == config
    for wrong in (
        {"kind": "bpe", "vocabulary_size": 257},
        {"kind": "word", "vocabulary_size": 2},
        {"kind": "char", "min_count": 0},
        {"kind": "char", "lowercase": True},
        {"kind": "smiles", "min_count": 0},
    ):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(wrong, TokenizerConfig)


@pytest.mark.parametrize("kind", ["word", "bpe", "char", "smiles"])
@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_pieces_are_the_sentence(kind: str, limit: int) -> None:
    texts = {"smiles": ["CC(=O)Oc1ccccc1C(=O)O", "BrC[NH+]=C"]}.get(kind)
    texts = texts or [
        "der s\u00fc\u00dfe K\u00e4se, \u65e5\u672c\u8a9e is  nice",
        "a",
        "na\u00efve \U0001f9c0\U0001f9c0 cheese please please",
    ]
    configs = {
        "word": WordTokenizerConfig(min_count=2),
        "bpe": BPETokenizerConfig(vocabulary_size=300),
        "char": CharTokenizerConfig(),
        "smiles": SmilesTokenizerConfig(),
    }
    tokenizer = configs[kind].train([*texts, "a a b"][: None if kind != "smiles" else -1])
    for text in texts:
        pieces = tokenizer.pieces(text, limit)
        assert [token for ids, _ in pieces for token in ids] == tokenizer.encode(text)
        assert all(0 < len(ids) <= limit for ids, _ in pieces)
        if kind != "bpe" or limit == 7:  # else a character may be in two pieces
            joined = "".join(part.replace(" ", "") for _, part in pieces)
            assert joined == text.replace(" ", "")
