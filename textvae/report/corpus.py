"""The sentences a report is about, with whatever labels can be had for them."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from textvae.api.text_vae import TextVAE
from textvae.data.batching import TokenArray
from textvae.data.corpus import Sentences, read_sentences, sentences_of
from textvae.data.grammar import embedded_splits
from textvae.data.rows import clean
from textvae.errors import DataError
from textvae.randomness import key, permutation
from textvae.run.data import DATA, EMBEDDED, SplitFacts, open_split, tokenize_sentences

NO_LABELS = (
    "The sentences have no labels; give DATA with a label column, or with --labels, to colour them."
)


class Property(NamedTuple):
    """A property of the sentences, given by labels."""

    name: str
    """`label`, or of labels such as `tense=past place=coast` one of their names."""
    values: list[str]
    """One per sentence."""

    def by_frequency(self) -> list[str]:
        """The different values, the most frequent first, ties in code-point order."""
        counts = Counter(self.values)
        return sorted(counts, key=lambda value: (-counts[value], value))


class Corpus(NamedTuple):
    """N sentences."""

    texts: list[str]
    array: TokenArray
    """On the model's device."""
    facts: SplitFacts
    labels: list[Property]
    """Empty where there are none."""
    source: str
    whole_source: str
    """The source that these were drawn from."""
    is_embedded: bool
    is_test_of_run: bool
    """They are from the test set of the run."""


class DataChoice(NamedTuple):
    """The options that choose the data."""

    data: str | Path | Sequence[str] | None = None
    """A file, a directory (its test split), `hf:name`, or a list; None is the run's test split."""
    text_column: str | None = None
    label_column: str | None = None
    labels: str | Path | Sequence[str] | None = None
    """A file of one label a line, or a list, in step with the sentences."""


def read_corpus(vae: TextVAE, choice: DataChoice, *, limit: int, seed: int) -> Corpus:
    """At most `limit` sentences of a corpus, drawn by the seed and in its order.

    Those over the model's limit of tokens are left out, and counted in the facts.
    """
    data = choice.data
    if data is None:
        sentences, whole_source, embedded = _of_run(vae, choice, limit, seed)
    else:
        embedded = False
        if isinstance(data, str | Path):
            labels = choice.labels
            if labels is not None and not isinstance(labels, str | Path):
                raise DataError("labels in a list belong to sentences in a list; give a file")
            whole = read_sentences(
                data,
                text_column=choice.text_column,
                label_column=choice.label_column,
                labels_file=labels,
            )
        else:
            whole = _given(data, choice.labels)
        whole_source = whole.source
        sentences = _drawn(whole, limit, seed)
    return _tokenized(vae, sentences, whole_source, is_embedded=embedded, of_run=data is None)


def _given(texts: Sequence[str], labels: str | Path | Sequence[str] | None) -> Sentences:
    if isinstance(texts, str) or isinstance(labels, str | Path):
        raise DataError("sentences in a list take labels in a list, one for each")
    if labels is not None and len(labels) != len(texts):
        raise DataError(f"{len(labels)} labels for {len(texts)} sentences; give one for each")
    cleaned = [clean(text) for text in texts]
    return sentences_of(cleaned, labels, source="the sentences given")


def _of_run(vae: TextVAE, choice: DataChoice, limit: int, seed: int) -> tuple[Sentences, str, bool]:
    """Some of a run's test split, what the whole is called, and whether it is the embedded one."""
    if any(option is not None for option in choice[1:]):
        raise DataError("columns and labels belong to DATA; name the sentences too")
    if vae.origin.is_embedded:
        test = embedded_splits().test
        whole = sentences_of(test.texts, test.labels, source=f"{EMBEDDED}, test")
        return _drawn(whole, limit, seed), whole.source, True
    if vae.path is None:
        raise DataError("a model without a run has no test split; give the sentences")
    array, facts = open_split(vae.path / DATA, "test")
    original = _original(facts)
    if original is not None:
        return _drawn(original, limit, seed), facts.read.source, False
    rows = _choose(array.num_sentences, limit, seed)
    texts = []
    for index in rows:
        first, end = int(array.offsets[index]), int(array.offsets[index + 1])
        texts.append(vae.tokenizer.decode(array.tokens[first:end].tolist()))
    source = _part_of(facts.read.source, len(texts), array.num_sentences)
    return sentences_of(texts, source=source), facts.read.source, False


def _original(facts: SplitFacts) -> Sentences | None:
    """The file a split was read from, with its labels, if it still is what it was.

    A run keeps tokens, not labels: so the labels are there only while the file is.
    """
    read = facts.read
    if read.label_column is None or not Path(read.source).is_file():
        return None
    separate = Path(read.label_column).is_file()
    try:
        sentences = read_sentences(
            read.source,
            text_column=read.column,
            label_column=None if separate else read.label_column,
            labels_file=read.label_column if separate else None,
        )
    except DataError:
        return None
    return sentences if sentences.report.sha256 == read.sha256 else None


def _choose(size: int, limit: int, seed: int) -> list[int]:
    """At most `limit` of `range(size)`, in order."""
    if size <= limit:
        return list(range(size))
    drawn: list[int] = permutation(key(seed, "report sentences"), size)[:limit].tolist()
    return sorted(drawn)


def _drawn(whole: Sentences, limit: int, seed: int) -> Sentences:
    if len(whole.texts) <= limit:
        return whole
    rows = _choose(len(whole.texts), limit, seed)
    labels = None if whole.labels is None else [whole.labels[i] for i in rows]
    texts = [whole.texts[i] for i in rows]
    source = _part_of(whole.source, limit, len(whole.texts))
    return sentences_of(texts, labels, source=source)


def _part_of(source: str, size: int, whole: int) -> str:
    return source if size >= whole else f"{size:,} of {whole:,} of {source}"


def _tokenized(
    vae: TextVAE, part: Sentences, whole_source: str, *, is_embedded: bool, of_run: bool
) -> Corpus:
    limit = vae.config.max_length
    array, facts, texts, _ = tokenize_sentences(part, vae.tokenizer, limit)
    labels = part.labels
    if labels is not None and len(texts) != len(part.texts):
        fits = [len(ids) <= limit for ids in vae.tokenizer.encode_batch(part.texts)]
        labels = [label for label, fit in zip(labels, fits, strict=True) if fit]
    return Corpus(
        texts=texts,
        array=array.to(vae.model.device),
        facts=facts,
        labels=[] if labels is None else properties(labels),
        source=part.source,
        whole_source=whole_source,
        is_embedded=is_embedded,
        is_test_of_run=of_run,
    )


def properties(labels: Sequence[str]) -> list[Property]:
    """Labels as they are, or where each is a line of `name=value`, one property for each name.

    A property with one value for all sentences is left out.
    """
    rows: list[dict[str, str]] = []
    for label in labels:
        parts = [word.partition("=") for word in label.split()]
        rows.append({name: value for name, between, value in parts if name and between})
        if len(rows[-1]) != len(parts) or not parts or rows[-1].keys() != rows[0].keys():
            return _varying([Property("label", list(labels))])
    names = list(rows[0]) if rows else []
    return _varying([Property(name, [row[name] for row in rows]) for name in names])


def _varying(properties: list[Property]) -> list[Property]:
    return [labels for labels in properties if len(set(labels.values)) > 1]
