"""The probability of the spelling of words that a vocabulary lacks: an open-vocabulary likelihood.

A token `<unk>` stands for every unknown word, so its probability alone ranks nonsense as normal.
The word behind it costs its spelling besides:

    p(word | <unk>) = (1 - p_literal) q(word) / (1 - sum of q over the vocabulary)

with q a character model of the training words, and p_literal the probability that the text itself
says `<unk>`, as the Penn Treebank does. These sum to 1 over all words, so a sentence with its
unknown words spelled out has a probability: docs/concepts/likelihood.md.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from textvae.config import Config
from textvae.data.tokenizer import Tokenizer
from textvae.errors import DataError

ORDER = 3
"""Characters of an n-gram."""
CODE_POINTS = 0x110000 + 1
"""The characters of Unicode and the end of a word: each has its chance, seen or not."""
MOST_WORDS = 100_000
"""Different words that are fitted, the most frequent first: what the rest adds is small."""
_PAD, _END = "\n", ""
_LITERAL = "<unk>"
MAX_FILE_BYTES = 2**26


class _File(Config):
    """spelling.json."""

    counts: dict[str, dict[str, int]]
    """How often each character, or "" for the end, follows ORDER - 1 others in a word."""
    log_unknown: float
    """Log of the probability under q that a word is not in the vocabulary."""
    num_unknown: int
    """Unknown tokens of the training text."""
    num_literal: int
    """Those of them that are `<unk>` in the text itself."""


class SpellingModel:
    """Character n-grams of words, interpolated by Witten and Bell (1991) down to any character.

    Each different word of the training text counts once, rare ones too: they resemble unknown
    words more than frequent ones do.
    """

    def __init__(self, file: _File) -> None:
        self._file = file
        self._tables: list[dict[str, dict[str, int]]] = []
        for size in range(ORDER):
            table: dict[str, Counter[str]] = defaultdict(Counter)
            for context, followers in file.counts.items():
                table[context[ORDER - 1 - size :]].update(followers)
            self._tables.append({context: dict(one) for context, one in table.items()})
        self._known: dict[str, float] = {}

    @classmethod
    def fit(cls, sentences: Iterable[str], tokenizer: Tokenizer) -> "SpellingModel":
        """The model of the words of a training text."""
        words: Counter[str] = Counter()
        for sentence in sentences:
            words.update(tokenizer.token_texts(sentence))
        unknown = {word: count for word, count in words.items() if not tokenizer.is_known(word)}
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for word, _ in words.most_common(MOST_WORDS):
            if word == _LITERAL:
                continue
            padded = _PAD * (ORDER - 1) + word
            for place, character in enumerate([*word, _END]):
                counts[padded[place : place + ORDER - 1]][character] += 1
        file = _File(
            counts={context: dict(sorted(one.items())) for context, one in sorted(counts.items())},
            log_unknown=0.0,
            num_unknown=sum(unknown.values()),
            num_literal=unknown.get(_LITERAL, 0),
        )
        model = cls(file)
        known = math.fsum(math.exp(model._log_spelling(word)) for word in tokenizer.words())
        return cls(msgspec.structs.replace(file, log_unknown=math.log1p(-min(known, 1 - 1e-9))))

    def log_prob(self, word: str) -> float:
        """Log p(word | <unk>) in nats, of a word that is not in the vocabulary."""
        if word not in self._known:
            if len(self._known) > MOST_WORDS:
                self._known.clear()
            # Half a word is added to each kind, so that neither is impossible.
            literal = (self._file.num_literal + 0.5) / (self._file.num_unknown + 1.0)
            value = math.log(literal)
            if word != _LITERAL:
                value = math.log1p(-literal) + self._log_spelling(word) - self._file.log_unknown
            self._known[word] = value
        return self._known[word]

    def nats(self, sentences: Sequence[str], tokenizer: Tokenizer) -> list[float]:
        """The cost of the spelling of the unknown words of each sentence: -log p, summed."""
        return [
            -sum(map(self.log_prob, tokenizer.unknown_words(sentence))) for sentence in sentences
        ]

    def conditional(self, context: str, character: str) -> float:
        """The probability of a character, or "" for the end, after the characters before it."""
        probability = 1.0 / CODE_POINTS
        for size, table in enumerate(self._tables):
            followers = table.get(context[len(context) - size :])
            if followers is None:
                break
            total, kinds = sum(followers.values()), len(followers)
            probability = (followers.get(character, 0) + kinds * probability) / (total + kinds)
        return probability

    def _log_spelling(self, word: str) -> float:
        padded = _PAD * (ORDER - 1) + word
        return math.fsum(
            math.log(self.conditional(padded[place : place + ORDER - 1], character))
            for place, character in enumerate([*word, _END])
        )

    def to_json(self) -> bytes:
        """The file."""
        return msgspec.json.encode(self._file) + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> "SpellingModel":
        """A model from its file.

        Raises:
            DataError: it is not one.
        """
        try:
            file = msgspec.json.decode(data, type=_File)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise DataError(f"not a model of spelling: {str(error)!a}") from None
        counts = [count for one in file.counts.values() for count in one.values()]
        if (
            not file.counts
            or any(len(context) != ORDER - 1 for context in file.counts)
            or any(len(one) > 1 for followers in file.counts.values() for one in followers)
            or min(counts, default=0) < 1
            or not -100.0 < file.log_unknown <= 0.0
            or not 0 <= file.num_literal <= file.num_unknown
        ):
            raise DataError("not a model of spelling: its numbers are out of bounds")
        return cls(file)


def fit_spelling(sentences: Iterable[str], tokenizer: Tokenizer) -> SpellingModel | None:
    """The model of a training text; None where the tokenizer knows every text."""
    if tokenizer.kind == "bpe":
        return None
    return SpellingModel.fit(sentences, tokenizer)
