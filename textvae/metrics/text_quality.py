"""Texts against texts: BLEU and chrF by sacrebleu, exact match, edits, n-grams, self-BLEU.

BLEU is Papineni et al. 2002 and chrF is Popovic 2015, both with the signature of sacrebleu (Post
2018) that says how they were made. Where every hypothesis has the same references, as samples have
a test set, or all of the other samples, the counts of n-grams to clip by are taken once for all:
the number that sacrebleu gives, in time that grows with the texts and not with their product.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from textvae.errors import ConfigError

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU

ORDER = 4
"""N-grams of up to so many tokens."""

Tokenization = Literal["none", "13a", "intl", "char", "zh"]
"""Tokenizers of sacrebleu; `none` splits at whitespace."""
Ngram = tuple[str, ...]


LONGER, UNSPACED = 4, 0.1
"""In an unspaced script fewer than this fraction of texts of at least 4 characters have a blank."""


class Score(NamedTuple):
    """A score of sacrebleu, 0 to 100."""

    value: float
    signature: str


def is_unspaced(texts: Sequence[str]) -> bool:
    """True for a script without blanks between words: few of the longer texts have a blank."""
    longer = [text for text in map(str.strip, texts) if len(text) >= LONGER]
    spaced = sum(len(text.split(maxsplit=1)) > 1 for text in longer)
    return bool(longer) and spaced < UNSPACED * len(longer)


def tokenization_for(kind: str, texts: Sequence[str]) -> Tokenization:
    """How sacrebleu should cut the texts of a model: as the model's tokenizer takes them to be cut.

    Text of a word tokenizer is cut already, and to split its `<unk>` in three would be to count
    n-grams that nobody wrote; unspaced text has no words to count.
    """
    if kind == "bpe" and is_unspaced(texts):
        return "char"
    cuts: dict[str, Tokenization] = {"word": "none", "bpe": "13a", "char": "char", "smiles": "char"}
    return cuts[kind]


def bleu_metric(tokenize: Tokenization, *, effective_order: bool = False) -> "BLEU":
    """Sacrebleu's BLEU, smoothing `exp`, which does not mind text that is tokenized already."""
    if tokenize not in get_args(Tokenization):
        known = ", ".join(get_args(Tokenization))
        raise ConfigError(f"tokenize {tokenize}: must be one of {known}")
    from sacrebleu.metrics.bleu import BLEU  # noqa: PLC0415 -- 0.2 s that most verbs need not spend

    return BLEU(tokenize=tokenize, force=True, effective_order=effective_order)


def cut(texts: Iterable[str], tokenize: Tokenization) -> list[list[str]]:
    """The tokens that sacrebleu sees in each text."""
    tokenizer = bleu_metric(tokenize).tokenizer
    return [str(tokenizer(text.strip())).split() for text in texts]


def corpus_bleu(
    hypotheses: Sequence[str], references: Sequence[str], tokenize: Tokenization
) -> Score:
    """BLEU of N texts, each against its own reference."""
    metric = bleu_metric(tokenize)
    value = metric.corpus_score(list(hypotheses), [list(references)]).score
    return Score(float(value), str(metric.get_signature()))


def corpus_chrf(hypotheses: Sequence[str], references: Sequence[str]) -> Score:
    """The chrF of N texts, each against its own reference: characters, whatever the words."""
    from sacrebleu.metrics.chrf import CHRF  # noqa: PLC0415 -- as in bleu_metric

    metric = CHRF()
    value = metric.corpus_score(list(hypotheses), [list(references)]).score
    return Score(float(value), str(metric.get_signature()))


def sentence_bleus(
    hypotheses: Sequence[str], references: Sequence[str], tokenize: Tokenization
) -> list[float]:
    """BLEU of each text against its own reference, 0 to 100; short texts by effective order."""
    metric = bleu_metric(tokenize, effective_order=True)
    pairs = zip(hypotheses, references, strict=True)
    return [float(metric.sentence_score(text, [other]).score) for text, other in pairs]


def exact_matches(hypotheses: Sequence[str], references: Sequence[str]) -> list[bool]:
    """Which texts equal their references but for blanks between words."""
    pairs = zip(hypotheses, references, strict=True)
    return [text.split() == other.split() for text, other in pairs]


def edit_distance(first: Sequence[object], second: Sequence[object]) -> int:
    """Fewest tokens to insert, delete or replace (Levenshtein 1966), in time |a| |b|."""
    row = list(range(len(second) + 1))
    for number, token in enumerate(first, start=1):
        diagonal, row[0] = row[0], number
        for place, other in enumerate(second, start=1):
            replaced = diagonal + (token != other)
            diagonal = row[place]
            row[place] = min(replaced, row[place] + 1, row[place - 1] + 1)
    return row[-1]


def changes(sentences: Sequence[Sequence[int]]) -> list[float]:
    """The change at each step of S sentences but the first, `[S - 1]` in [0, 1].

    The edit distance over the length of the longer sentence: 0 is no change, 1 a sentence without a
    common token; two empty ones are equal.
    """
    return [
        edit_distance(first, second) / max(len(first), len(second), 1)
        for first, second in pairwise(sentences)
    ]


def edit_distances(
    hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[str]]
) -> list[int]:
    """The fewest tokens to insert, delete or replace, of texts from `cut`."""
    pairs = zip(hypotheses, references, strict=True)
    return [0 if first == second else edit_distance(first, second) for first, second in pairs]


def ngrams(tokens: Sequence[str], order: int) -> Counter[Ngram]:
    """How often each n-gram of just this order occurs."""
    return Counter(tuple(tokens[i : i + order]) for i in range(len(tokens) - order + 1))


def distinct(texts: Sequence[Sequence[str]], order: int) -> float | None:
    """Different n-grams over all n-grams of some texts (Li et al. 2016); None where there is none.

    It falls as texts are added, so it compares only between as many of about one length.
    """
    seen: set[Ngram] = set()
    total = 0
    for tokens in texts:
        counts = ngrams(tokens, order)
        seen.update(counts)
        total += sum(counts.values())
    return len(seen) / total if total else None


class _Most(NamedTuple):
    """The largest count of an n-gram in one text, in which, and in any other."""

    first: int
    owner: int
    second: int


class ReferencePool:
    """Texts that are the references of every hypothesis."""

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        """Count once, for hypotheses to come."""
        self._most: dict[Ngram, _Most] = {}
        self._lengths = Counter(len(tokens) for tokens in texts)
        for owner, tokens in enumerate(texts):
            for order in range(1, ORDER + 1):
                for gram, count in ngrams(tokens, order).items():
                    before = self._most.get(gram, _Most(0, -1, 0))
                    if count > before.first:
                        self._most[gram] = _Most(count, owner, before.first)
                    elif count > before.second:
                        self._most[gram] = before._replace(second=count)

    def statistics(self, tokens: Sequence[str], without: int = -1) -> list[int]:
        """The sums of BLEU: lengths of hypothesis and nearest reference, matches and n-grams.

        Text number `without` is no reference this time; -1 takes all.

        Returns:
            `[length, reference length, matches of order 1 to 4, n-grams of order 1 to 4]`.
        """
        matches, totals = [], []
        for order in range(1, ORDER + 1):
            counts = ngrams(tokens, order)
            totals.append(sum(counts.values()))
            matches.append(sum(min(n, self._limit(gram, without)) for gram, n in counts.items()))
        excluded_length = len(tokens) if without >= 0 else None
        near = min(
            (length for length, n in self._lengths.items() if n > (length == excluded_length)),
            key=lambda length: (abs(length - len(tokens)), length),
        )
        return [len(tokens), near, *matches, *totals]

    def _limit(self, gram: Ngram, without: int) -> int:
        most = self._most.get(gram)
        if most is None:
            return 0
        return most.second if most.owner == without else most.first


def pooled_bleu(
    texts: Sequence[Sequence[str]], references: Sequence[Sequence[str]], tokenize: Tokenization
) -> Score:
    """Corpus BLEU of texts, each against all references (Yu et al. 2017 measure samples so).

    N >= 1 texts and M >= 1 references from `cut`, with the tokenization by which they were cut.
    """
    pool, metric = ReferencePool(references), bleu_metric(tokenize)
    rows = [pool.statistics(tokens) for tokens in texts]
    value = _bleu(metric, [sum(column) for column in zip(*rows, strict=True)])
    return Score(value, _signature(metric, len(references)))


def self_bleu(texts: Sequence[Sequence[str]], tokenize: Tokenization) -> Score | None:
    """Mean sentence BLEU of each text against all the others (Zhu et al. 2018).

    100 is a generator that repeats itself. It rises with the number of texts, so it compares only
    between as many. None for a single text, which has no others.
    """
    if len(texts) < 2:
        return None
    pool, metric = ReferencePool(texts), bleu_metric(tokenize, effective_order=True)
    values = [
        _bleu(metric, pool.statistics(tokens, without=number))
        for number, tokens in enumerate(texts)
    ]
    return Score(sum(values) / len(values), _signature(metric, len(texts) - 1))


def _bleu(metric: "BLEU", sums: Sequence[int]) -> float:
    score = metric.compute_bleu(
        correct=list(sums[2 : 2 + ORDER]),
        total=list(sums[2 + ORDER :]),
        sys_len=sums[0],
        ref_len=sums[1],
        smooth_method="exp",
        effective_order=metric.effective_order,
        max_ngram_order=ORDER,
    )
    return float(score.score)


def _signature(metric: "BLEU", num_references: int) -> str:
    metric.num_refs = num_references
    return str(metric.get_signature())
