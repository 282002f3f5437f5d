"""The corpus of a run: read, tokenized, filtered, and kept beside the run as flat arrays.

Sentences that cannot be read, and data of a run that are not there or damaged, are a DataError.
"""

from array import array
from collections.abc import Callable, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import NamedTuple, NoReturn

import torch
from msgspec import structs
from torch import Tensor

from textvae.config import Config, decode, encode_json, read_config_file
from textvae.data.batching import TokenArray
from textvae.data.corpus import ReadReport, Sentences, Splits, load_splits, sentences_of
from textvae.data.grammar import ATTRIBUTES, embedded_splits
from textvae.data.memory import Texts
from textvae.data.rows import TooLong, rows_text
from textvae.data.segments import encode_sentences, shorten_texts, without
from textvae.data.spelling import SpellingModel, fit_spelling
from textvae.data.tokenizer import Tokenizer
from textvae.errors import CheckpointError, DataError
from textvae.run.experiment import ExperimentConfig
from textvae.storage.files import read_bytes, saying_why, write_file
from textvae.storage.tensors import tensors_from_bytes, tensors_to_bytes

EMBEDDED = "the embedded corpus"
SPLITS = ("train", "valid", "test")
DATA = "data"
FACTS = "data.json"
SPELLING_NATS = "spelling.safetensors"
MAX_LABELS = 1000
ENCODED_TOGETHER = 10_000
"""Sentences tokenized at once: the library's encodings take a kilobyte each."""

Report = Callable[[str], None]
"""Takes lines of progress."""


class DataOptions(NamedTuple):
    """The options of `textvae train` about data."""

    data: str | Texts | None = None
    """A file, a pattern, `-`, a directory, `hf:...` or texts in memory; None is the embedded
    corpus."""
    valid: str | Texts | None = None
    test: str | Texts | None = None
    text_column: str | None = None
    label_column: str | None = None
    labels: str | None = None
    separator: str | None = None
    encoding: str | None = None
    more: tuple[str, ...] = ()
    """Further files of the same corpus."""

    @property
    def source(self) -> str:
        """The corpus as messages and facts name it."""
        if self.more:
            return f"{self.data} and {len(self.more):,} more"
        return EMBEDDED if self.data is None else str(self.data)


class SplitFacts(Config):
    """The counts of one split."""

    read: ReadReport
    too_long_tokens: int
    """Sentences over the model's `max_length` that were dropped."""
    num_sentences: int
    num_targets: int
    """Tokens, and a `</s>` for each sentence that is not cut."""
    num_words: int
    num_characters: int
    tokens_sha256: str = ""
    """The checksum of the array as it is saved; runs of earlier versions have none."""
    num_labelled: int = 0
    """Sentences with a label."""
    num_copies: int = 0
    """Sentences, of those that were read, that stand in the split before."""
    num_in_train: int = 0
    """Sentences, of those that were read, that stand in the training set too."""
    num_shortened: int = 0
    """Sentences over the model's `max_length` that were cut or split."""


class DataFacts(Config):
    """Where a run's data came from: data.json in its `data` directory."""

    source: str
    vocabulary_size: int
    train: SplitFacts
    valid: SplitFacts
    test: SplitFacts
    label_names: tuple[str, ...] = ()
    """The labels of the training sentences, sorted; label i of the arrays is the i-th."""

    def splits(self) -> dict[str, SplitFacts]:
        """The three by name."""
        return {"train": self.train, "valid": self.valid, "test": self.test}


class TokenizedSentences(NamedTuple):
    """Sentences as an array, with their counts."""

    array: TokenArray
    facts: SplitFacts
    texts: list[str]
    """The sentences of the array; those cut or split are whole here."""
    notes: list[str]
    """Notes for the user on sentences over the limit of tokens."""


class RunData(NamedTuple):
    """The corpus of a run."""

    tokenizer: Tokenizer
    arrays: dict[str, TokenArray]
    facts: DataFacts
    test_texts: list[str]
    """The sentences of the test array."""
    notes: list[str]
    """Notes for the user on how the data were read."""
    streamed: bool = False
    """True if the arrays are those of the run directory itself."""
    spelling: SpellingModel | None = None
    """The model of the training words; None for sub-words, and for a stream: no text is kept."""
    spelling_nats: dict[str, Tensor] | None = None
    """The cost of the unknown words of each sentence, float64 `[N]` for each split."""


def read_splits(options: DataOptions, config: ExperimentConfig) -> Splits:
    """The sentences of the three splits."""
    if options.data is not None:
        return load_splits(
            options.data,
            more=options.more,
            valid=options.valid,
            test=options.test,
            text_column=options.text_column,
            label_column=options.label_column,
            labels_file=options.labels,
            separator=options.separator,
            encoding=options.encoding,
            config=config.data,
            seed=config.seed,
        )
    column = options.label_column
    names = [name for name in options._fields if getattr(options, name) not in (None, ())]
    if names and (names != ["label_column"] or column not in ATTRIBUTES):
        if names == ["label_column"]:
            raise DataError(
                f"--label-column {column}: needs DATA, or an attribute of the embedded corpus: "
                f"{', '.join(ATTRIBUTES)}"
            )
        raise DataError(
            f"--{names[0].replace('_', '-')} needs DATA: the embedded corpus has its own"
        )
    embedded = embedded_splits(num_train=config.data.embedded_size)
    parts = []
    for name in SPLITS:
        part = getattr(embedded, name)
        source = f"{EMBEDDED}, {name}"
        labels = part.labels
        if column is not None:
            place = list(ATTRIBUTES).index(column)
            labels = [label.split()[place].partition("=")[2] for label in labels]
        parts.append(sentences_of(part.texts, labels, source=source))
    train, valid, test = parts
    return Splits(train, valid, test, notes=[])


def tokenize(
    splits: Splits,
    tokenizer: Tokenizer,
    source: str,
    max_length: int,
    too_long: TooLong = "drop",
) -> RunData:
    """Sentences to flat arrays; those over `max_length` tokens are counted, and by default dropped.

    Labels stay with their sentences. More than MAX_LABELS different ones are ignored, with a note.
    """
    names, notes = tuple(sorted({*(splits.train.labels or ())} - {""})), list(splits.notes)
    if len(names) > MAX_LABELS:
        notes.append(f"labels ignored: {len(names):,} different ones are no classes")
        names = ()
    splits, left_out = _with_known_labels(splits, names)
    notes += left_out
    arrays: dict[str, TokenArray] = {}
    facts: dict[str, SplitFacts] = {}
    texts: list[str] = []
    spelling = fit_spelling(splits.train.texts, tokenizer)
    nats: dict[str, Tensor] = {}
    for name in SPLITS:
        part: Sentences = getattr(splits, name)
        arrays[name], facts[name], texts, long = tokenize_sentences(
            part, tokenizer, max_length, too_long=too_long, label_names=names
        )
        notes += [f"{name}: {note}" for note in long]
        if spelling is not None:
            read = shorten_texts(texts, tokenizer, max_length, too_long)
            nats[name] = torch.tensor(spelling.nats(read, tokenizer), dtype=torch.float64)
        unseen = sorted({*(part.labels or ())} - {"", *names}) if names else []
        if unseen:
            notes.append(f"{name}: labels that no training sentence has: {', '.join(unseen)[:80]}")
    for name, (copies, in_train, first) in repeats(splits).items():
        part = getattr(splits, name)
        size = len(part.texts)
        facts[name] = structs.replace(facts[name], num_copies=copies, num_in_train=in_train)
        if copies and not source.startswith(EMBEDDED):
            notes.append(f"{name}: {copies:,} of {size:,} sentences are copies of earlier ones")
        if in_train and not source.startswith(EMBEDDED):
            notes.append(
                f"{name}: {in_train:,} of {size:,} sentences stand in the training set too (the "
                f"first is row {part.rows[first]:,}, counted from 0), so figures on it flatter"
            )
    size = tokenizer.vocabulary_size
    data = DataFacts(source=source, vocabulary_size=size, label_names=names, **facts)
    return RunData(
        tokenizer, arrays, data, texts, notes, spelling=spelling, spelling_nats=nats or None
    )


def _with_known_labels(splits: Splits, names: Sequence[str]) -> tuple[Splits, list[str]]:
    """Leave out validation sentences whose label no training sentence has.

    They are of another kind than the model learns: with anomalies in it the validation set would
    select other parameters, and a threshold calibrated on it would flag none of them.
    """
    valid = splits.valid
    known = [label in ("", *names) for label in valid.labels or ()]
    if not names or all(known) or not any(known):
        return splits, []
    assert valid.labels is not None
    strange = sorted({*valid.labels} - {"", *names})
    part = valid._replace(
        texts=list(compress(valid.texts, known)),
        labels=list(compress(valid.labels, known)),
        rows=array("q", compress(valid.rows, known)),
    )
    note = (
        f"valid: {len(known) - sum(known):,} of {len(known):,} sentences left out, whose labels no "
        f"training sentence has: {', '.join(strange)[:80]}"
    )
    return splits._replace(valid=part), [note]


def repeats(splits: Splits) -> dict[str, tuple[int, int, int]]:
    """Copies within each split, sentences that are in train too, and the index of the first."""
    train, result = set(splits.train.texts), {}
    for name in SPLITS:
        texts = getattr(splits, name).texts
        leaked = [] if name == "train" else [i for i, text in enumerate(texts) if text in train]
        copies = len(texts) - (len(train) if name == "train" else len(set(texts)))
        result[name] = (copies, len(leaked), leaked[0] if leaked else -1)
    return result


def describe_splits(splits: Splits) -> list[str]:
    """Lines on the text before it is tokenized: rows, reasons, lengths, copies and leaks."""
    lines = list(splits.notes)
    for name, (copies, in_train, _) in repeats(splits).items():
        lengths = sorted(map(len, getattr(splits, name).texts))
        lines.append(
            f"{name}: {len(lengths):,} sentences of {lengths[0]:,} to {lengths[-1]:,} characters, "
            f"half of them up to {lengths[len(lengths) // 2]:,}; {copies:,} copies"
            + (f", {in_train:,} in train too" if name != "train" else "")
        )
    return lines


def tokenize_sentences(
    part: Sentences,
    tokenizer: Tokenizer,
    max_length: int,
    *,
    too_long: TooLong = "drop",
    label_names: Sequence[str] = (),
) -> TokenizedSentences:
    """One split of `tokenize`. A label that is not among `label_names` counts as none."""
    flat, lengths, words, characters = array("i"), array("q"), 0, 0
    sources, cut, over = array("q"), array("b"), list[int]()
    for first in range(0, len(part.texts), ENCODED_TOGETHER):
        chunk = part.texts[first : first + ENCODED_TOGETHER]
        encoded = encode_sentences(chunk, tokenizer, max_length, too_long)
        if encoded.too_long and too_long == "refuse":
            refuse_too_long(part, first + encoded.too_long[0], max_length)
        flat.extend(encoded.tokens)
        lengths.extend(encoded.lengths)
        words += encoded.num_words
        characters += encoded.num_characters
        over += [first + index for index in encoded.too_long]
        sources.extend(first + index for index in encoded.sources)
        cut.extend(encoded.cut)
    if not lengths:
        raise DataError(
            f"{part.source}: no sentence has at most {max_length} tokens; raise model.max_length, "
            "or give --too-long cut or split"
        )
    tokens = TokenArray.from_flat(flat, lengths, tokenizer.start, cut=cut)
    num_labelled = 0
    if label_names:
        numbers = {name: number for number, name in enumerate(label_names)}
        names = part.labels or [""] * len(part.texts)
        labels = torch.tensor([numbers.get(names[index], -1) for index in sources])
        tokens = tokens._replace(labels=labels)
        num_labelled = int((labels >= 0).sum())
    dropped = over if too_long == "drop" else []
    facts = SplitFacts(
        read=part.report,
        too_long_tokens=len(dropped),
        num_sentences=tokens.num_sentences,
        num_targets=tokens.num_targets,
        num_words=words,
        num_characters=characters,
        tokens_sha256=tokens.checksum(),
        num_labelled=num_labelled,
        num_shortened=len(over) - len(dropped),
    )
    notes = []
    if over:
        verb = {"cut": "cut to as many", "split": "split"}.get(
            too_long, "left out; --too-long cut or split keeps them"
        )
        notes.append(
            f"{rows_text(len(over), part.rows[over[0]])} of {len(part.texts):,} with more than "
            f"{max_length:,} tokens (model.max_length) {verb}"
        )
    return TokenizedSentences(tokens, facts, without(part.texts, dropped), notes)


def refuse_too_long(part: Sentences, index: int, max_length: int) -> NoReturn:
    """DataError for a sentence over the limit of tokens."""
    raise DataError(
        f"{part.source}: row {part.rows[index]:,} (counted from 0) has more than {max_length:,} "
        "tokens, the most that the model takes (model.max_length); shorten it, or give --too-long "
        "drop, cut or split"
    )


def check_labels(splits: Splits, data: RunData) -> None:
    """Refuse labels from which a model cannot learn, or on which it cannot be evaluated."""
    train, names = splits.train, data.facts.label_names
    if not names:
        kinds = len({*(train.labels or ())} - {""})
        count = f"{kinds:,} different labels, more than {MAX_LABELS:,}" if kinds else "no labels"
        raise DataError(
            f"{train.source}: {count}, but model.labels.kind needs labels; name their column with "
            "--label-column or their file with --labels"
        )
    if len(names) == 1:
        raise DataError(
            f"{train.source}: all labels are {names[0]!r}; a classifier needs two different ones"
        )
    counts = data.arrays["train"].labels
    assert counts is not None
    for number, name in enumerate(names):
        if not bool((counts == number).any()):
            raise DataError(
                f"{train.source}: every sentence labelled {name!r} has too many tokens; raise "
                "model.max_length"
            )
    for part in (splits.valid, splits.test):
        for text, label in zip(part.texts, part.labels or (), strict=False):
            if label and label not in names:
                raise DataError(
                    f"{part.source}: label {label!r} of {text[:40]!r} was never seen in training; "
                    f"the training labels are {', '.join(names[:12])}"
                )


def save_run_data(folder: Path, data: RunData) -> None:
    """Write the arrays, and data.json last: with it the folder is whole."""
    with saying_why(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, tokens in () if data.streamed else data.arrays.items():
        tokens.save(folder / name)
    if data.spelling_nats is not None:
        write_file(folder / SPELLING_NATS, tensors_to_bytes(data.spelling_nats))
    write_file(folder / FACTS, encode_json(data.facts))


def load_facts(folder: Path) -> DataFacts | None:
    """data.json, which `save_run_data` writes last, or None if it is missing."""
    file = folder / FACTS
    return decode(read_config_file(file), DataFacts, source=str(file)) if file.is_file() else None


def open_run_data(folder: Path, tokenizer: Tokenizer) -> RunData:
    """The data of a run as another process has saved them, memory-mapped, without the texts."""
    facts = load_facts(folder)
    if facts is None:
        raise DataError(f"{folder}: is not there; processes of one run need one file system")
    arrays = {name: TokenArray.open(folder / name, facts.vocabulary_size) for name in SPLITS}
    return RunData(tokenizer, arrays, facts, [], [])


def open_split(folder: Path, name: str) -> tuple[TokenArray, SplitFacts]:
    """One split of a run, memory-mapped."""
    facts = load_facts(folder)
    if facts is None:
        raise DataError(
            f"{folder}: the data of this run are missing; name the sentences to evaluate"
        )
    tokens, split = TokenArray.open(folder / name, facts.vocabulary_size), facts.splits()[name]
    if split.tokens_sha256 not in ("", tokens.checksum()):
        raise DataError(
            f"{folder / name}: does not match its checksum in {FACTS}, so the tokens were changed; "
            "name the sentences to evaluate"
        )
    return tokens, split


def open_spelling_nats(folder: Path, name: str, num_sentences: int) -> Tensor:
    """The cost of the unknown words of each sentence of a split, float64 `[N]`.

    Raises:
        DataError: the file is missing or damaged.
    """
    file = folder / SPELLING_NATS
    try:
        nats = tensors_from_bytes(read_bytes(file, at_most=2**34), file).get(name)
    except CheckpointError as error:
        raise DataError(f"{error}; name the sentences to compare with") from None
    if nats is None or nats.shape != (num_sentences,) or not bool((nats >= 0).all()):
        raise DataError(f"{file}: does not belong to the data; name the sentences to compare with")
    return nats


def data_differences(before: DataFacts, now: DataFacts) -> list[str]:
    """A line for each split whose sentences are not those that a run was started with."""
    old, new = before.splits(), now.splits()
    return [
        f"{name}: {old[name].num_sentences} sentences of {old[name].read.source} -> "
        f"{new[name].num_sentences} of {new[name].read.source}, whose text differs"
        for name in SPLITS
        if old[name].read.sha256 != new[name].read.sha256
        or old[name].num_sentences != new[name].num_sentences
    ]


def describe(facts: DataFacts) -> list[str]:
    """Rows kept and dropped, a line per split."""
    lines = []
    for name, split in facts.splits().items():
        dropped: Mapping[str, int] = {
            "blank": split.read.blank,
            "with too many characters": split.read.too_long_characters,
            "with too many tokens": split.too_long_tokens,
        }
        reasons = [f"{count:,} {reason}" for reason, count in dropped.items() if count]
        lines.append(
            f"{name}: {split.num_sentences:,} sentences, {split.num_targets:,} tokens with </s>"
            + (f", {split.num_labelled:,} labelled" if split.num_labelled else "")
            + (f"; dropped {', '.join(reasons)}" if reasons else "")
            + (f"; {split.num_copies:,} copies" if split.num_copies else "")
            + (f"; {split.num_in_train:,} in train too" if split.num_in_train else "")
            + (f"; {split.num_shortened:,} cut or split" if split.num_shortened else "")
        )
    return lines
