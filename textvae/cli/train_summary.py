"""The results that `textvae train` prints at its end."""

import shlex
from collections.abc import Sequence

import msgspec

from textvae.api.text_vae import TextVAE
from textvae.data.grammar import embedded_grammar
from textvae.evaluate.summary import Evaluation
from textvae.metrics.text_quality import corpus_bleu, exact_matches, tokenization_for
from textvae.run.data import EMBEDDED
from textvae.run.plan import Plan
from textvae.run.training import RunOutcome

NUM_SAMPLES = 10
"""Samples that are printed."""
BLEU_HALF, BLEU_MOST = 20.0, 50.0
"""Where the description of a model changes."""
NUM_RECONSTRUCTED = 500
"""Held-out sentences that are reconstructed, a second or two."""
NUM_PARSED = 1000
"""Samples parsed where the grammar is known: a fraction of 95 % is then known to 0.7 %."""


class HeldOutReconstruction(msgspec.Struct, frozen=True, kw_only=True):
    """How held-out sentences come back, decoded greedily at their posterior means."""

    bleu: float
    """Corpus BLEU, 0 to 100."""
    exact: float
    """The fraction that comes back word for word."""
    num_sentences: int
    examples: list[tuple[str, str]]
    """Two sentences, each with its reconstruction."""

    def lines(self, keep: str | None) -> list[str]:
        """The figures, the examples, and the use that a model like this has."""
        figures = f"BLEU {self.bleu:.1f}, {100 * self.exact:.0f} % word for word"
        lines = [f"reconstruction of {self.num_sentences:,} held-out sentences: {figures}"]
        for text, written in self.examples:
            lines += [f"  {text}", f"    {written}"]
        return [*lines, f"  {use_of(self.bleu, keep)}", ""]


def use_of(bleu: float, keep: str | None) -> str:
    """One sentence about the use of a model with this BLEU, and which choice suits the other."""
    if bleu >= BLEU_MOST:
        return (
            "Most of a sentence comes back: good for editing and interpolating your own sentences; "
            "for samples and likelihoods train with --keep little."
        )
    if bleu >= BLEU_HALF:
        return (
            "A part of a sentence comes back, its frame and some of its words: to edit and "
            "interpolate your own sentences train with --keep most, for samples with --keep little."
        )
    if keep in {"half", "most"}:
        return (
            "Little of a sentence comes back, although more was to be kept: train on more text or "
            "for more steps."
        )
    return (
        "Little of a sentence comes back: good for samples and likelihoods; to edit and "
        "interpolate your own sentences train with --keep most."
    )


class TrainSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The object that `train --json` writes."""

    model: str
    """The run directory."""
    steps: int
    """0 where the run had been finished before."""
    seed: int
    samples: list[str]
    """From the prior, at temperature 1."""
    first: str
    """A held-out sentence."""
    second: str
    """Another one."""
    interpolation: list[str]
    """Between the two, greedily; the ends are their reconstructions. A language model has none."""
    reconstruction: HeldOutReconstruction | None
    """A language model has none."""
    keep: str | None
    """The choice of `--keep`."""
    evaluation: Evaluation | None
    grammatical: float | None
    """The fraction of samples that the grammar of the embedded corpus accepts."""
    num_judged: int
    """The number of samples that were parsed for it."""

    def text(self) -> str:
        """The text that is printed without --json."""
        lines = [f"model: {self.model}", ""]
        source = " from the prior" if self.interpolation else ""
        lines += [f"samples{source}", *(f"  {text}" for text in self.samples), ""]
        if self.interpolation:
            lines += ["interpolation between two held-out sentences", f"  {self.first}"]
            lines += [f"    {text}" for text in self.interpolation]
            lines += [f"  {self.second}", ""]
        if self.reconstruction is not None:
            lines += self.reconstruction.lines(self.keep)
        if self.evaluation is not None:
            lines += [f"measured on {self.evaluation.source}", self.evaluation.table()]
        if self.grammatical is not None:
            percentage = f"{100 * self.grammatical:.1f} %"
            lines += [f"  {'grammatical':<28}{percentage:<22}of {self.num_judged:,} samples"]
        model = shlex.quote(self.model)
        first, second = shlex.quote(self.first), shlex.quote(self.second)
        lines += [
            "",
            "next",
            f"  textvae sample {model} -n 10 --seed 1",
            *([f"  textvae interpolate {model} {first} {second}"] if self.interpolation else []),
            f"  textvae evaluate {model}",
        ]
        return "\n".join(lines)


def summarize(plan: Plan, outcome: RunOutcome) -> TrainSummary:
    """Sample, interpolate and, where the grammar is known, parse the samples."""
    vae = TextVAE(
        outcome.model,
        plan.data.tokenizer,
        plan.config.model,
        path=outcome.path,
        labels=plan.data.facts.label_names if outcome.model.labels.num_labels else (),
    )
    seed, embedded = plan.config.seed, plan.data.facts.source == EMBEDDED
    samples = vae.sample(NUM_PARSED if embedded else NUM_SAMPLES, seed=seed)
    first, second = held_out_pair(plan.data.test_texts)
    grammatical = None
    if embedded:
        grammar = embedded_grammar()
        grammatical = sum(map(grammar.accepts, samples)) / len(samples)
    return TrainSummary(
        model=str(outcome.path),
        steps=0 if outcome.result is None else outcome.result.steps,
        seed=seed,
        samples=samples[:NUM_SAMPLES],
        first=first,
        second=second,
        interpolation=[] if vae.model.is_language_model else vae.interpolate(first, second),
        reconstruction=None
        if vae.model.is_language_model
        else reconstruct_some(vae, plan.data.test_texts[:NUM_RECONSTRUCTED]),
        keep=plan.config.keep,
        evaluation=outcome.evaluation,
        grammatical=grammatical,
        num_judged=len(samples) if embedded else 0,
    )


def reconstruct_some(vae: TextVAE, texts: Sequence[str]) -> HeldOutReconstruction:
    """Reconstruct sentences, and compare."""
    written = vae.reconstruct(texts)
    return HeldOutReconstruction(
        bleu=corpus_bleu(written, texts, tokenization_for(vae.tokenizer.kind, texts)).value,
        exact=sum(exact_matches(written, texts)) / len(texts),
        num_sentences=len(texts),
        examples=list(zip(texts, written, strict=True))[:2],
    )


def held_out_pair(texts: Sequence[str]) -> tuple[str, str]:
    """The first two different sentences; of a set that has but one, that one twice."""
    return texts[0], next((text for text in texts if text != texts[0]), texts[0])
