"""Labels of a stream of sentences, by the model itself or by a classifier on its latents."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from textvae.api.inputs import tokenize_stream
from textvae.api.text_vae import TextVAE
from textvae.data.batching import TokenArray
from textvae.data.corpus import Sentences
from textvae.data.rows import RowCounts, TooLong
from textvae.errors import CheckpointError, ConfigError, DataError
from textvae.metrics.classification import Classification, classification
from textvae.metrics.likelihood import encode_corpus, label_log_posteriors
from textvae.metrics.prototypes import fit_logistic_regression, fit_prototypes
from textvae.run.data import DATA, load_facts, open_split, tokenize_sentences
from textvae.run.held_out import given, tokenize_given
from textvae.run.model_directory import require_latent

Kind = Literal["model", "prototypes", "logistic"]
TOGETHER = 2048
"""Sentences read in one go."""


class Label(NamedTuple):
    """The label that a classifier gives a sentence."""

    label: str
    probability: float
    """The probability of that label, the likeliest."""
    probabilities: dict[str, float]
    """The probability of every label."""
    row: int
    """The row of the sentence in its stream, from 0; rows without a label count."""
    cut: bool
    """True where the beginning of a longer text was read."""


class Classifier:
    """Labels sentences; made by `classifier`."""

    def __init__(
        self, vae: TextVAE, names: tuple[str, ...], log_posterior: Callable[[TokenArray], Tensor]
    ) -> None:
        self.vae, self.names, self._log_posterior = vae, names, log_posterior

    def log_probabilities(self, sentences: Sequence[str]) -> Tensor:
        """Log-probabilities `[N, L]` in nats.

        Raises:
            DataError: a blank sentence, or one longer than the model's limit.
        """
        array, _ = tokenize_given(self.vae.origin, given(sentences), sentences)
        return self._log_posterior(array.to(self.vae.device)).cpu()

    def labels(
        self,
        sentences: Iterable[str],
        *,
        source: str = "the sentences given",
        too_long: TooLong = "cut",
        counts: RowCounts | None = None,
        together: int = TOGETHER,
    ) -> Iterator[Label]:
        """A label for each sentence of a stream, in its order; memory does not grow with it.

        Args:
            sentences: any number of rows; a blank one has no label.
            source: where they are from, for errors.
            too_long: what becomes of rows over the model's limit of tokens.
            counts: counts the rows without a result, and those cut or split.
            together: rows read in one go.

        Raises:
            DataError: with `too_long="refuse"`, a sentence over the limit.
        """
        parts = tokenize_stream(
            self.vae.tokenizer,
            sentences,
            limit=self.vae.config.max_length,
            source=source,
            too_long=too_long,
            counts=counts,
            together=together,
        )
        for part in parts:
            if part.texts:
                array = part.array(self.vae.tokenizer).to(self.vae.device)
                table = self._log_posterior(array).cpu().double().exp().tolist()
                for row, cut, values in zip(part.rows, part.cut, table, strict=True):
                    best = max(range(len(values)), key=values.__getitem__)
                    probabilities = dict(zip(self.names, values, strict=True))
                    yield Label(self.names[best], values[best], probabilities, row, cut)
            if part.error is not None:
                raise part.error

    def evaluate(self, sentences: Sentences) -> Classification:
        """Accuracy, macro-F1, log loss and calibration on those of the sentences that have a label.

        Raises:
            DataError: none has a label, or one that the classifier has never seen.
        """
        labelled = zip(sentences.texts, sentences.labels or (), strict=False)
        pairs = [(text, label) for text, label in labelled if label]
        if not pairs:
            raise DataError(f"{sentences.source}: no sentence has a label to compare with")
        for text, label in pairs:
            if label not in self.names:
                raise DataError(
                    f"{sentences.source}: label {label!r} of {text[:40]!r} was never seen in "
                    f"training; the labels are {', '.join(self.names[:12])}"
                )
        truth = torch.tensor([self.names.index(label) for _, label in pairs])
        return classification(self.log_probabilities([text for text, _ in pairs]), truth)


def classifier(
    vae: TextVAE, *, kind: Kind | None = None, labelled: Sentences | None = None
) -> Classifier:
    """A classifier of sentences.

    Args:
        vae: the model.
        kind: `model` is its own q(y|x); `prototypes` and `logistic` (regression, of scikit-learn)
            are fitted to the posterior means of labelled sentences. None is the model's own where
            it has labels, and prototypes elsewhere.
        labelled: sentences of which some have labels; None is the train split of the run.

    Raises:
        CheckpointError: the model's own classifier of a model without labels; a language model.
        DataError: no labelled sentences, or of one label only.
        ConfigError: an unknown kind, labelled sentences for the model's own, no scikit-learn.
    """
    kind = kind or ("model" if vae.model.labels.num_labels else "prototypes")
    if kind not in get_args(Kind):
        raise ConfigError(f"--classifier {kind}: must be one of {', '.join(get_args(Kind))}")
    if kind == "model":
        if not vae.model.labels.num_labels:
            raise CheckpointError(
                f"{vae.path or 'this model'}: was trained without labels, so it has no classifier "
                "of its own; take --classifier prototypes or logistic"
            )
        if labelled is not None:
            raise ConfigError("--classifier model: is fitted already; leave out --labelled")
        return Classifier(vae, vae.labels, lambda data: label_log_posteriors(vae.model, data))
    require_latent(vae.model, vae.path)
    names, array, source = _labelled(vae, labelled)
    assert array.labels is not None
    known = (array.labels >= 0).nonzero()[:, 0]
    labels = array.labels[known]
    seen = sorted(set(labels.tolist()))
    if len(seen) < 2:
        fault = f"all labels are {names[seen[0]]!r}" if seen else "no sentence has a label"
        raise DataError(f"{source}: {fault}; a classifier needs two different ones")
    names = tuple(names[number] for number in seen)
    numbers = torch.tensor([seen.index(number) for number in labels.tolist()])
    posterior = encode_corpus(vae.model, array.select(known).to(vae.device))
    fit = fit_prototypes if kind == "prototypes" else fit_logistic_regression
    fitted = fit(posterior, numbers, len(names))

    def log_posterior(data: TokenArray) -> Tensor:
        return fitted.log_posterior(encode_corpus(vae.model, data).mean.cpu())

    return Classifier(vae, names, log_posterior)


def _labelled(vae: TextVAE, labelled: Sentences | None) -> tuple[tuple[str, ...], TokenArray, str]:
    """The names of the labels, the sentences with their labels, and where they are from."""
    if labelled is not None:
        names = tuple(sorted({*(labelled.labels or ())} - {""}))
        limit = vae.config.max_length
        array, *_ = tokenize_sentences(labelled, vae.tokenizer, limit, label_names=names)
        if array.labels is None:
            raise DataError(f"{labelled.source}: has no labels; name their column")
        return names, array, labelled.source
    facts = load_facts(vae.path / DATA) if vae.path is not None else None
    if vae.path is None or facts is None or not facts.label_names:
        raise DataError(
            f"{vae.path or 'this model'}: has no labelled sentences; give some with --labelled"
        )
    array, _ = open_split(vae.path / DATA, "train")
    if array.labels is None:
        raise DataError(f"{vae.path / DATA}: its labels are missing; give some with --labelled")
    return facts.label_names, array, facts.train.read.source
