"""Sentences to token ids and back: words, byte-level sub-words, characters, tokens of SMILES.

Ids, the same for every kind: `</s>` is 0, `<unk>` is 1, words (sub-words, characters) are
2 .. V-1, and `<s>` is V, which only the decoder's input knows. The file is a `tokenizers` JSON
file without any special token, so no text of a user can ever come out as `</s>` or `<s>`.

A tokenizer file may be malicious, and the library runs whatever a file names: a regular expression
that never ends, replacements that fill the memory, ids of four thousand millions. So `from_json`
compares the file with the few shapes that `to_json` writes, checks its vocabulary, and builds the
tokenizer from parts named here; the library never sees the file.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import msgspec
from tokenizers import models, pre_tokenizers, trainers

from textvae.config import Config
from textvae.data.tokenizer_format import (
    BYTES,
    KINDS,
    SMILES_PATTERN,
    UNKNOWN_WORD,
    Kind,
    byte_level,
    file_shape,
)
from textvae.errors import DataError

END = 0
UNKNOWN = 1
_SPECIAL_WORDS = ("", UNKNOWN_WORD, "<s>", "</s>", "<pad>", "<eos>", "<bos>", "<PAD>", "<UNK>")
"""Words of a vocabulary file that stand for no word of text."""
_MAX_FILE_BYTES = 64 * 2**20  # some three million words: more than a softmax can hold
_MIN_PAIR_COUNT = 2  # a pair of bytes seen once would spell out rare words whole

_SMILES = re.compile(f"{UNKNOWN_WORD}|{SMILES_PATTERN}")

_LEARNED = {"vocab", "merges", "seen_bytes"}


class WordTokenizerConfig(Config, tag_field="kind", tag="word"):
    """Words between whitespace, as in the literature; a word `<unk>` is the unknown token."""

    vocabulary_size: Annotated[int, msgspec.Meta(ge=3)] | None = None
    """At most this many, `</s>` and `<unk>` included; None keeps every word."""
    min_count: Annotated[int, msgspec.Meta(ge=1)] = 1
    """Rarer words become `<unk>`."""
    lowercase: bool = False
    """Fold case first."""

    def train(self, sentences: Iterable[str]) -> "Tokenizer":
        """The most frequent words, ties in code-point order; DataError where there is none."""
        counts: Counter[str] = Counter()
        for sentence in sentences:
            counts.update((sentence.lower() if self.lowercase else sentence).split())
        words = _most_common(counts, self.vocabulary_size, self.min_count)
        return Tokenizer("word", words, lowercase=self.lowercase)


class BPETokenizerConfig(Config, tag_field="kind", tag="bpe"):
    """Byte-level byte-pair encoding: any text comes back as it went in, and nothing is unknown."""

    vocabulary_size: Annotated[int, msgspec.Meta(ge=258)] = 8000
    """At most this many, the 256 bytes, `</s>` and `<unk>` included; fewer where the text has fewer
    pairs that occur twice."""

    def train(self, sentences: Iterable[str]) -> "Tokenizer":
        """The most frequent merges; the same whatever the order of the sentences."""
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocabulary_size - 2,
            min_frequency=_MIN_PAIR_COUNT,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            special_tokens=[],
            show_progress=False,
        )
        library, characters = byte_level(models.BPE()), set[str]()

        def noted() -> Iterator[str]:
            for sentence in sentences:
                characters.update(sentence)
                yield sentence

        library.train_from_iterator(noted(), trainer)
        model = msgspec.json.decode(library.to_str(), type=_Trained).model
        tokens = sorted(model.vocab, key=model.vocab.__getitem__)
        seen_bytes = set("".join(characters).encode())
        return Tokenizer("bpe", tokens, model.merges, seen_bytes=seen_bytes)


class CharTokenizerConfig(Config, tag_field="kind", tag="char"):
    """One token a character (code point), blanks too; for unspaced scripts."""

    vocabulary_size: Annotated[int, msgspec.Meta(ge=3)] | None = None
    """At most this many, `</s>` and `<unk>` included; None keeps every one."""
    min_count: Annotated[int, msgspec.Meta(ge=1)] = 1
    """Rarer characters become `<unk>`."""

    def train(self, sentences: Iterable[str]) -> "Tokenizer":
        """The most frequent characters, ties in code-point order; DataError where there is none."""
        counts: Counter[str] = Counter()
        for sentence in sentences:
            counts.update(sentence)
        return Tokenizer("char", _most_common(counts, self.vocabulary_size, self.min_count))


class SmilesTokenizerConfig(Config, tag_field="kind", tag="smiles"):
    """One token per atom, bond, branch or ring number of a molecule in SMILES.

    A line that is not SMILES throughout is refused, so that what is read can be written again.
    """

    min_count: Annotated[int, msgspec.Meta(ge=1)] = 1
    """Rarer tokens become `<unk>`."""

    def train(self, sentences: Iterable[str]) -> "Tokenizer":
        """The most frequent tokens, ties in code-point order; DataError where there is none."""
        counts: Counter[str] = Counter()
        for sentence in sentences:
            counts.update(_cut_smiles(sentence))
        return Tokenizer("smiles", _most_common(counts, None, self.min_count))


class FileTokenizerConfig(Config, tag_field="kind", tag="file"):
    """A tokenizer from a file: of another run, or a vocabulary of one word a line."""

    path: str
    """A tokenizer.json, a run or model directory, or a text file of words."""

    def train(self, sentences: Iterable[str]) -> "Tokenizer":
        """Read the file; DataError where there is none, or no tokenizer of this package in it."""
        path = Path(self.path)
        path = path / "tokenizer.json" if path.is_dir() else path
        try:
            data = path.read_bytes()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"{path}: the tokenizer cannot be read: {reason}") from None
        if path.suffix == ".json":
            try:
                return Tokenizer.from_json(data)
            except DataError as error:
                raise DataError(
                    f"{path}: {error}; or give a text file of one word a line"
                ) from None
        try:
            lines = [line.strip() for line in data.decode().splitlines()]
        except UnicodeError:
            raise DataError(f"{path}: a vocabulary is UTF-8 text, one word a line") from None
        words = [word for word in dict.fromkeys(lines) if word not in _SPECIAL_WORDS]
        for word in words:
            if len(word.split()) != 1:
                raise DataError(f"{path}: {word[:40]!r} is not one word; give one word a line")
        if not words:
            raise DataError(f"{path}: holds no word; give one word a line")
        return Tokenizer("word", words)


TokenizerConfig = (
    WordTokenizerConfig
    | BPETokenizerConfig
    | CharTokenizerConfig
    | SmilesTokenizerConfig
    | FileTokenizerConfig
)


class Tokenizer:
    """A vocabulary and how to cut a sentence into it. Final; made by `train` or `from_json`.

    Attributes:
        kind: "word", "bpe", "char" or "smiles".
        vocabulary_size: V, the size of the decoder's softmax: `</s>`, `<unk>` and all others.
        start: V, the id of `<s>`, an input of the decoder and never an output.
        seen_bytes: those of the training text, of a byte-level tokenizer that recorded them.
    """

    def __init__(
        self,
        kind: Kind,
        tokens: Sequence[str],
        merges: Sequence[tuple[str, str]] = (),
        *,
        lowercase: bool = False,
        seen_bytes: Collection[int] | None = None,
    ) -> None:
        self.kind = kind
        self.vocabulary_size = len(tokens) + 2
        self.start = self.vocabulary_size
        self.seen_bytes = None if seen_bytes is None else frozenset(seen_bytes)
        self.lowercase = lowercase
        self._tokens = ["</s>", UNKNOWN_WORD, *tokens]
        self._merges = list(merges)
        self._ids = {token: index for index, token in enumerate(self._tokens) if index > UNKNOWN}
        if kind == "bpe":
            vocabulary = {token: index for index, token in enumerate(tokens)}
            self._library = byte_level(models.BPE(vocab=vocabulary, merges=self._merges))

    def encode(self, sentence: str) -> list[int]:
        """Token ids of one sentence, without start and end."""
        return self.encode_batch([sentence])[0]

    def encode_batch(self, sentences: Sequence[str]) -> list[list[int]]:
        """Token ids of many sentences.

        Raises:
            DataError: a string that is not Unicode text, or, of a SMILES tokenizer, not SMILES.
        """
        if self.kind == "bpe":
            return self._encode_bytes(sentences)
        # A dictionary finds words as the library's model does, in a sixth of the time, and
        # splits where Python does, as does every count of words elsewhere in the package.
        # A literal `</s>` or `<s>` is an ordinary word; a literal `<unk>` is not in the dictionary.
        find = self._ids.get
        return [[find(piece, UNKNOWN) for piece in self.token_texts(text)] for text in sentences]

    def _encode_bytes(self, sentences: Sequence[str]) -> list[list[int]]:
        try:
            encodings = self._library.encode_batch_fast(list(sentences), add_special_tokens=False)
        except TypeError as error:
            raise DataError(
                "a sentence holds a lone surrogate, which is no Unicode character; remove it"
            ) from error
        return [[index + 2 for index in encoding.ids] for encoding in encodings]

    def pieces(self, sentence: str, limit: int) -> list[tuple[list[int], str]]:
        """A sentence in pieces of at most `limit` tokens: the ids and the text of each.

        The ids of the pieces are those of the sentence. A piece ends between two characters,
        unless one character has more than `limit` tokens.
        """
        ids = self.encode(sentence)
        if self.kind == "bpe":
            places = self._library.encode(sentence, add_special_tokens=False).offsets
        else:
            tokens = sentence.split() if self.kind == "word" else list(sentence)
            tokens = _cut_smiles(sentence) if self.kind == "smiles" else tokens
            places, end = [], 0
            for token in tokens:
                start = sentence.index(token, end)
                end = start + len(token)
                places.append((start, end))
        pieces, first = [], 0
        while first < len(ids):
            last = min(first + limit, len(ids))
            while first < last < len(ids) and places[last][0] < places[last - 1][1]:
                last -= 1
            last = last if last > first else min(first + limit, len(ids))
            text = sentence[places[first][0] : places[last - 1][1]].strip()
            pieces.append((ids[first:last], text))
            first = last
        return pieces

    def decode(self, ids: Sequence[int]) -> str:
        """The sentence of some ids, up to the first `</s>`; `<s>` is skipped.

        Words are joined by blanks. The unknown token prints as `<unk>`, whatever the kind. Bytes
        that are no UTF-8, which decoding never writes, print as U+FFFD.
        """
        shown: list[int] = []
        for index in ids:
            if index == END:
                break
            if not 0 < index <= self.start:
                raise DataError(f"token id {index} is not one of 0 to {self.start}")
            if index != self.start:
                shown.append(int(index))
        if self.kind == "bpe":
            return self._decode_bytes(shown)
        return (" " if self.kind == "word" else "").join(self._tokens[index] for index in shown)

    def _decode_bytes(self, ids: Sequence[int]) -> str:
        pieces: list[list[int]] = [[]]
        for index in ids:
            if index == UNKNOWN:
                pieces.append([])
            else:
                pieces[-1].append(index - 2)
        return UNKNOWN_WORD.join(self._library.decode(piece) for piece in pieces)

    def token_bytes(self) -> list[bytes] | None:
        """The bytes of each token id, none for the first two; None unless it is byte-level."""
        if self.kind != "bpe":
            return None
        tokens = self._tokens[UNKNOWN + 1 :]
        return [b"", b"", *(bytes(BYTES[character] for character in token) for token in tokens)]

    def token_texts(self, sentence: str) -> list[str]:
        """The text of each token, unknown ones too; not for sub-words, which know every text."""
        if self.kind == "char":
            return list(sentence)
        if self.kind == "smiles":
            return _cut_smiles(sentence)
        return (sentence.lower() if self.lowercase else sentence).split()

    def is_known(self, piece: str) -> bool:
        """True if a piece of text has a token of its own."""
        return piece in self._ids

    def unknown_words(self, sentence: str) -> list[str]:
        """The pieces of a sentence that become `<unk>`."""
        if self.kind == "bpe":
            return []
        return [piece for piece in self.token_texts(sentence) if piece not in self._ids]

    def words(self) -> list[str]:
        """The tokens but `</s>` and `<unk>`."""
        return self._tokens[2:]

    def split_prefix(self, text: str) -> tuple[list[int], bytes]:
        """The tokens of the finished words of the beginning of a sentence, and its last word.

        The last word of sub-words may go on, so its tokens are not known: it comes as UTF-8. The
        tokens of the other kinds are whole words or characters: nothing is left over.
        """
        if self.kind != "bpe":
            return self.encode(text), b""
        finished, blank = text.rstrip(), " " * (text != text.rstrip())
        (_, (start, _)) = self._library.pre_tokenizer.pre_tokenize_str(finished)[-1]
        if blank:
            return self.encode(finished), b" "
        return self.encode(text[:start]), text[start:].encode()

    def to_json(self) -> str:
        """The file: `tokenizers` JSON, byte for byte the same for the same tokenizer."""
        first = 2 if self.kind == "bpe" else 1
        vocabulary = {token: index for index, token in enumerate(self._tokens[first:])}
        model = file_shape(self.kind, self.lowercase)
        parts: dict[str, object] = {"vocab": vocabulary}
        if self.kind == "bpe":
            parts["merges"] = self._merges
            if self.seen_bytes is not None:
                parts["seen_bytes"] = sorted(self.seen_bytes)
        inner = model.pop("model")
        assert isinstance(inner, dict)
        return msgspec.json.encode({**model, "model": {**inner, **parts}}).decode()

    @classmethod
    def from_json(cls, data: str | bytes) -> "Tokenizer":
        """A tokenizer from its file; DataError for any file that `to_json` would not write."""
        if len(data) > _MAX_FILE_BYTES:
            _refuse(f"it is larger than {_MAX_FILE_BYTES // 2**20} MiB")
        try:
            file = msgspec.json.decode(data, type=dict[str, object])
            trained = msgspec.json.decode(data, type=_Trained).model
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            _refuse(str(error))
        inner = file["model"]
        assert isinstance(inner, dict)
        file["model"] = {name: inner[name] for name in inner.keys() - _LEARNED}
        for kind, lowercase in KINDS:
            if file == file_shape(kind, lowercase):
                break
        else:
            _refuse("it has parts that textvae does not write")
        tokens = _contiguous(trained.vocab)
        if kind == "bpe":
            _check_merges(trained)
        else:
            if trained.merges or inner.keys() & {"merges", "seen_bytes"}:
                _refuse("only byte-level tokenizers have merges")
            if tokens[0] != UNKNOWN_WORD:
                _refuse(f"id 0 is {tokens[0][:40]!r}, not '<unk>'")
            del tokens[0]
            _check_words(tokens, kind)
        return cls(kind, tokens, trained.merges, lowercase=lowercase, seen_bytes=trained.seen_bytes)


def untrained_config(tokenizer: Tokenizer) -> TokenizerConfig:
    """The settings of a tokenizer whose training is not on record: its kind and its case."""
    if tokenizer.kind == "word":
        return WordTokenizerConfig(lowercase=tokenizer.lowercase)
    if tokenizer.kind == "bpe":
        return BPETokenizerConfig()
    return CharTokenizerConfig() if tokenizer.kind == "char" else SmilesTokenizerConfig()


class _Model(msgspec.Struct):
    vocab: dict[str, Annotated[int, msgspec.Meta(ge=0)]]
    merges: list[tuple[str, str]] = []
    seen_bytes: set[Annotated[int, msgspec.Meta(ge=0, le=255)]] | None = None


class _Trained(msgspec.Struct):
    model: _Model


def _most_common(counts: Mapping[str, int], size: int | None, min_count: int) -> list[str]:
    known = [token for token in counts if counts[token] >= min_count and token != UNKNOWN_WORD]
    if not known:
        raise DataError(
            f"no word of the training text occurs {min_count} times or more; "
            "give more text or a lower min_count"
        )
    known.sort(key=lambda token: (-counts[token], token))
    return known if size is None else known[: size - 2]


def _refuse(reason: str) -> NoReturn:
    raise DataError(
        f"the tokenizer file was not written by textvae: {reason}; "
        "use the tokenizer.json of a model that textvae trained"
    )


def _contiguous(vocabulary: Mapping[str, int]) -> list[str]:
    """The tokens in the order of their ids, which must be 0, 1, 2, ..."""
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    if len(tokens) < 2:
        _refuse("its vocabulary is empty")
    for index, token in enumerate(tokens):
        if vocabulary[token] != index:
            _refuse(f"its ids jump to {vocabulary[token]} where {index} should be")
    return tokens


def _cut_smiles(text: str) -> list[str]:
    """The tokens of a molecule, which joined are the text; DataError for what is not SMILES."""
    tokens = [match.group() for match in _SMILES.finditer(text)]
    if sum(map(len, tokens)) != len(text):
        end = 0
        for match in _SMILES.finditer(text):
            if match.start() > end:
                break
            end = match.end()
        raise DataError(
            f"{text[:40]!r} is not SMILES: nothing begins with {text[end : end + 8]!r}; correct "
            "the line or leave it out, or use tokenizer.kind=char"
        )
    return tokens


def _check_words(tokens: Sequence[str], kind: Kind) -> None:
    for token in tokens:
        if kind == "char":
            is_one, unit = len(token) == 1, "character"
        elif kind == "smiles":
            is_one, unit = re.fullmatch(SMILES_PATTERN, token) is not None, "token of SMILES"
        else:
            is_one, unit = token.split() == [token], "word"
        if not is_one:
            _refuse(f"{token[:40]!r} is not one {unit}")


def _check_merges(model: _Model) -> None:
    """Every byte has a token, so that nothing is unknown; every other token is made by a merge."""
    made = {first + second for first, second in model.merges}
    parts = {part for merge in model.merges for part in merge}
    alphabet = set(pre_tokenizers.ByteLevel.alphabet())
    known = model.vocab.keys()
    if missing := alphabet - known:
        _refuse(f"{len(missing)} of the 256 bytes have no token")
    if wrong := (made ^ (known - alphabet)) | (parts - known):
        _refuse(f"its merges and its vocabulary disagree on {min(wrong)[:40]!r}")
