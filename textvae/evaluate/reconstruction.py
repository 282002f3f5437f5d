"""The evaluator `reconstruction`: how near decoding at the posterior mean comes to the sentence."""

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, NamedTuple

import torch
from msgspec import Meta

from textvae.config import Config
from textvae.evaluate.measurements import Figure
from textvae.evaluate.subject import Subject
from textvae.generate.strategies import Greedy
from textvae.generate.writing import AnyStrategy, write
from textvae.metrics.latent_usage import standard_error
from textvae.metrics.likelihood import at_own_labels
from textvae.metrics.text_quality import (
    Tokenization,
    corpus_bleu,
    corpus_chrf,
    cut,
    edit_distances,
    exact_matches,
    sentence_bleus,
    tokenization_for,
)


class ReconstructionScores(NamedTuple):
    """Scores of reconstructions."""

    num_sentences: int
    exact_match: float
    """The fraction that is equal but for blanks between words."""
    exact_match_stderr: float | None
    edit_distance: float
    """Mean over sentences of the fewest tokens to insert, delete or replace."""
    edit_distance_stderr: float | None
    edit_share: float
    """Mean over sentences of the same over the longer one's tokens."""
    bleu: float
    """Corpus BLEU, 0 to 100."""
    bleu_signature: str
    chrf: float
    """Corpus chrF, 0 to 100."""
    chrf_signature: str


def reconstruction_scores(
    reconstructions: Sequence[str], sentences: Sequence[str], tokenize: Tokenization
) -> ReconstructionScores:
    """The scores of N >= 1 reconstructions, each beside its sentence."""
    ours, theirs = cut(reconstructions, tokenize), cut(sentences, tokenize)
    exact = torch.tensor(exact_matches(reconstructions, sentences)).double()
    edits = torch.tensor(edit_distances(ours, theirs)).double()
    longer = [max(len(a), len(b), 1) for a, b in zip(ours, theirs, strict=True)]
    bleu = corpus_bleu(reconstructions, sentences, tokenize)
    chrf = corpus_chrf(reconstructions, sentences)
    return ReconstructionScores(
        num_sentences=len(sentences),
        exact_match=float(exact.mean()),
        exact_match_stderr=standard_error(exact),
        edit_distance=float(edits.mean()),
        edit_distance_stderr=standard_error(edits),
        edit_share=math.fsum((edits / torch.tensor(longer)).tolist()) / len(sentences),
        bleu=bleu.value,
        bleu_signature=bleu.signature,
        chrf=chrf.value,
        chrf_signature=chrf.signature,
    )


class SentenceScores(NamedTuple):
    """Scores of one reconstruction."""

    exact_match: bool
    """Equal but for blanks between words."""
    edit_distance: int
    """The fewest tokens to insert, delete or replace."""
    bleu: float
    """Sentence BLEU, 0 to 100: by effective order, smoothing `exp`."""


def sentence_scores(
    reconstructions: Sequence[str], sentences: Sequence[str], tokenize: Tokenization
) -> list[SentenceScores]:
    """The scores of each of N reconstructions."""
    scores = zip(
        exact_matches(reconstructions, sentences),
        edit_distances(cut(reconstructions, tokenize), cut(sentences, tokenize)),
        sentence_bleus(reconstructions, sentences, tokenize),
        strict=True,
    )
    return [SentenceScores(*row) for row in scores]


class ReconstructionEvaluator(Config, tag_field="kind", tag="reconstruction"):
    """Exact match, BLEU, chrF and edit distance of what is written at the posterior mean."""

    max_sentences: Annotated[int, Meta(ge=1)] = 10_000
    """A random subset of this size where there are more."""
    strategy: AnyStrategy = Greedy()
    """How words are chosen."""
    tokenize: Tokenization | None = None
    """Tokenizer of sacrebleu; None is none for words, 13a for bpe, char for
    characters and for text without blanks between words."""

    def run(self, subject: Subject) -> Iterator[Figure]:
        """The figures; none of a language model."""
        if subject.model.is_language_model:
            return
        rows = subject.subset(self.max_sentences, "reconstruction")
        read = at_own_labels(subject.model, subject.data, subject.posterior.mean)
        written = write(
            subject.model,
            subject.tokenizer,
            read[rows.to(read.device)],
            self.strategy,
            seed=subject.seed,
            max_length=subject.max_length,
        )
        texts = subject.texts
        scores = reconstruction_scores(
            [subject.tokenizer.decode(ids) for ids in written],
            [texts[i] for i in rows.tolist()],
            self.tokenize or tokenization_for(subject.tokenizer.kind, texts),
        )
        size = f"{scores.num_sentences:,} sentences"
        for name, value, signature in (
            ("reconstruction_bleu", scores.bleu, scores.bleu_signature),
            ("reconstruction_chrf", scores.chrf, scores.chrf_signature),
        ):
            yield Figure(name, value, "0 to 100", f"{signature}, {size}")
        exact, exact_stderr = scores.exact_match, scores.exact_match_stderr
        yield Figure("exact_match", exact, "share", f"of {size}", exact_stderr)
        edits, edits_stderr = scores.edit_distance, scores.edit_distance_stderr
        settings = f"mean over {size}, tokens as in reconstruction bleu"
        yield Figure("edit_distance", edits, "tokens", settings, edits_stderr)
        settings = f"edit distance over the longer sentence, {size}"
        yield Figure("edit_share", scores.edit_share, "share", settings)
