"""The data of a report, gathered from a model, without its layout."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from textvae.api.interpolate import Walk, walk
from textvae.api.text_vae import TextVAE
from textvae.data.batching import TokenArray
from textvae.data.grammar import embedded_grammar
from textvae.data.tokenizer import Tokenizer
from textvae.errors import ConfigError
from textvae.evaluate.bounds import LikelihoodEvaluator
from textvae.evaluate.evaluators import measure, weights_file_sha256
from textvae.evaluate.latent import LatentEvaluator
from textvae.evaluate.measurements import FILE, Measurements, read_measurements
from textvae.generate.neighbors import Nearest, Neighbor
from textvae.metrics.latent_usage import ACTIVE_VARIANCE
from textvae.metrics.likelihood import at_own_labels, encode_corpus, importance_weighted
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.vae import VAE
from textvae.randomness import key, permutation
from textvae.report.corpus import NO_LABELS, Corpus, DataChoice, Property, read_corpus
from textvae.report.curves import Curves, read_curves
from textvae.report.verdicts import Numbers, numbers_of
from textvae.run.held_out import HeldOut, subject_of

NUM_SAMPLES, NUM_WALKS, WALK_STEPS = 16, 3, 7
NUM_QUERIES, NUM_NEIGHBORS, NUM_WORST = 4, 5, 10
WORST_K = 10
"""K of the bound by which the worst-modelled sentences are found; the page says it."""
NO_LATENT = "This is a language model: it has no latent."


class Missing(NamedTuple):
    """The reason why a part of a report is missing."""

    reason: str


class PriorSample(NamedTuple):
    """A sentence from the prior."""

    text: str
    grammatical: bool | None
    """On the embedded corpus, whether its grammar accepts it."""


class Path(NamedTuple):
    """An interpolation between two sentences of the corpus."""

    first: str
    second: str
    walk: Walk


class Nearby(NamedTuple):
    """A sentence of the corpus and those nearest to it."""

    text: str
    near: list[Neighbor]


class Piece(NamedTuple):
    """Some characters of a sentence."""

    text: str
    """With the blanks around it; empty for the end of the sentence."""
    nats: float
    """-log p of its tokens, given those before and the latent."""


class Hard(NamedTuple):
    """A sentence the model finds unlikely."""

    text: str
    nll: float
    """Nats, from the importance-weighted bound."""
    num_tokens: int
    """`</s>` counted."""
    pieces: list[Piece]
    source_nll: float | None
    """On the embedded corpus, the exact value."""


class Projection(NamedTuple):
    """Points in a plane."""

    points: Tensor
    """float64 `[N, 2]`, in units of the prior."""
    fractions: tuple[float, float]
    """The fraction of the variance of the means on each axis."""
    origin: tuple[float, float]
    """Where the centre of the prior falls."""


class Map(NamedTuple):
    """Posterior means in a plane."""

    texts: list[str]
    labels: list[Property]
    projection: Projection
    note: str | None


class Material(NamedTuple):
    """The contents of a report."""

    name: str
    vae: TextVAE
    corpus: Corpus
    curves: Curves | Missing
    numbers: Numbers
    unigram_perplexity: float
    """The perplexity of the sentences under their own token frequencies."""
    kl: list[float] | Missing
    """The KL of each dimension, mean over the sentences, nats."""
    active: list[bool]
    map: Map | Missing
    samples: list[PriorSample]
    paths: list[Path] | Missing
    neighbors: list[Nearby] | Missing
    worst: list[Hard]
    seed: int


def gather(
    vae: TextVAE,
    choice: DataChoice = DataChoice(),  # noqa: B008 -- an immutable tuple
    *,
    seed: int = 0,
    num_sentences: int = 1000,
    num_samples: int = 100,
) -> Material:
    """The data of a report; the arguments are those of `write_report`."""
    for name, value in (("sentences", num_sentences), ("samples", num_samples)):
        if value < 1:
            raise ConfigError(f"--{name} {value}: must be at least 1")
    corpus = read_corpus(vae, choice, limit=num_sentences, seed=seed)
    posterior = encode_corpus(vae.model, corpus.array)
    means = vae.model.prior.to_normals(posterior.mean.double())
    numbers = _numbers(vae, corpus, num_samples, seed)
    curves = read_curves(vae.path)
    has_latent = not vae.model.is_language_model
    lonely = _lonely(vae, corpus)
    return Material(
        name=vae.path.resolve().name if vae.path is not None else "textvae model",
        vae=vae,
        corpus=corpus,
        curves=curves
        or Missing("There is no metrics.jsonl beside the model: it is not a run directory."),
        numbers=numbers,
        unigram_perplexity=_unigram_perplexity(corpus),
        kl=_kl(vae, posterior) if has_latent else Missing(NO_LATENT),
        active=_active(posterior.mean),
        map=_map(corpus, means) if has_latent else Missing(NO_LATENT),
        samples=_samples(vae, corpus, seed),
        paths=lonely or _paths(vae, corpus, seed),
        neighbors=lonely or _neighbors(corpus, means, seed),
        worst=_worst(vae, corpus, posterior, seed),
        seed=seed,
    )


def _numbers(vae: TextVAE, corpus: Corpus, num_samples: int, seed: int) -> Numbers:
    """Those of the run if the sentences are its test set, else measured now."""
    if corpus.is_test_of_run:
        evaluation = _kept(vae, corpus)
        if evaluation is not None:
            return numbers_of(evaluation, "Measured by `textvae evaluate`")
        if vae.results is not None and vae.results.evaluation is not None:
            summary = vae.results.evaluation.measurements(vae.model, vae.tokenizer)
            return numbers_of(summary, "Measured when training ended")
    held = HeldOut(corpus.array, corpus.facts, corpus.texts, embedded=corpus.is_embedded)
    subject = subject_of(vae.model, vae.origin, held, seed=seed)
    evaluators = LikelihoodEvaluator(num_samples=num_samples), LatentEvaluator()
    return numbers_of(measure(subject, evaluators), "Measured for this report")


def _kept(vae: TextVAE, corpus: Corpus) -> Measurements | None:
    """The file of `textvae evaluate`, if it is of this model and this test set."""
    file = None if vae.path is None else vae.path / FILE
    if file is None or not file.is_file():
        return None
    measurements = read_measurements(file)
    same_weights = measurements.model.sha256 == weights_file_sha256(vae.model)
    return (
        measurements if same_weights and measurements.data.source == corpus.whole_source else None
    )


def _unigram_perplexity(corpus: Corpus) -> float:
    """exp(entropy of the tokens, `</s>` counted): the best any model without context could do."""
    counts = torch.bincount(corpus.array.tokens.cpu().long(), minlength=1).double()
    counts[0] += corpus.array.num_sentences
    frequencies = counts[counts > 0] / counts.sum()
    return float((-(frequencies * frequencies.log()).sum()).exp())


def _kl(vae: TextVAE, posterior: DiagonalGaussian) -> list[float]:
    values: list[float] = vae.model.prior.kl(posterior).double().mean(0).tolist()
    return values


def _active(mean: Tensor) -> list[bool]:
    if mean.shape[0] < 2 or mean.shape[1] == 0:
        return [False] * mean.shape[1]
    active: list[bool] = (mean.double().var(0) > ACTIVE_VARIANCE).tolist()
    return active


def _map(corpus: Corpus, means: Tensor) -> Map:
    note = None if corpus.labels else NO_LABELS
    return Map(corpus.texts, corpus.labels, principal_plane(means), note)


def _samples(vae: TextVAE, corpus: Corpus, seed: int) -> list[PriorSample]:
    texts = vae.sample(NUM_SAMPLES, seed=seed)
    if not corpus.is_embedded:
        return [PriorSample(text, None) for text in texts]
    grammar = embedded_grammar()
    return [PriorSample(text, grammar.accepts(text)) for text in texts]


def _lonely(vae: TextVAE, corpus: Corpus) -> Missing | None:
    """Why nothing can be compared, if nothing can."""
    if vae.model.is_language_model:
        return Missing(NO_LATENT)
    if len(set(corpus.texts)) < 2:
        return Missing("There is but one sentence: nothing to go to from it.")
    return None


def _drawn(corpus: Corpus, purpose: str, seed: int) -> list[int]:
    """The different sentences in a random order, each where it stands first."""
    order = permutation(key(seed, purpose), len(corpus.texts)).tolist()
    return list({corpus.texts[index]: index for index in order}.values())


def _paths(vae: TextVAE, corpus: Corpus, seed: int) -> list[Path]:
    order = _drawn(corpus, "report paths", seed)
    ends = [corpus.texts[index] for index in order]
    pairs = list(zip(ends[::2], ends[1::2], strict=False))[:NUM_WALKS]
    return [Path(a, b, walk(vae, [a, b], steps=WALK_STEPS, seed=seed)) for a, b in pairs]


def _neighbors(corpus: Corpus, means: Tensor, seed: int) -> list[Nearby]:
    queries = _drawn(corpus, "report neighbors", seed)[:NUM_QUERIES]
    nearest = Nearest(means[queries], NUM_NEIGHBORS + 1)
    nearest.add(corpus.texts, range(len(corpus.texts)), means)
    nearby = []
    for index, near in zip(queries, nearest.ranked(), strict=True):
        text = corpus.texts[index]
        others = [one for one in near if one.text != text][:NUM_NEIGHBORS]
        nearby.append(Nearby(text, others))
    return nearby


def _worst(vae: TextVAE, corpus: Corpus, posterior: DiagonalGaussian, seed: int) -> list[Hard]:
    """The different sentences with the most nats per token, the worst first."""
    num_samples = 1 if vae.model.is_language_model else WORST_K
    nll = importance_weighted(
        vae.model, corpus.array, posterior, num_samples=num_samples, seed=seed
    ).nll
    lengths = corpus.array.lengths
    order = (nll / lengths).argsort(descending=True, stable=True).tolist()
    hardest: dict[str, int] = {}
    for index in order:
        hardest.setdefault(corpus.texts[index], index)
        if len(hardest) == NUM_WORST:
            break
    rows = torch.tensor(list(hardest.values()))
    read = at_own_labels(vae.model, corpus.array, posterior.mean)
    pieces = surprises(vae.model, vae.tokenizer, corpus.array, rows, read)
    grammar = embedded_grammar() if corpus.is_embedded else None
    return [
        Hard(
            text=text,
            nll=float(nll[index]),
            num_tokens=int(lengths[index]),
            pieces=parts,
            source_nll=None if grammar is None else -grammar.log_probability(text),
        )
        for (text, index), parts in zip(hardest.items(), pieces, strict=True)
    ]


def principal_plane(mean: Tensor) -> Projection:
    """Project `[N, Z]`, Z >= 1, on the two axes of largest variance; a lacking axis is 0.

    Principal components (Pearson 1901), from the eigenvectors of the covariance in float64. The
    sign of an eigenvector is not determined, so that of its largest entry is made positive: the
    picture never flips.
    """
    values = mean.detach().cpu().double()
    centre = values.mean(0)
    centred = values - centre
    variances, vectors = torch.linalg.eigh(centred.t() @ centred / max(1, len(values) - 1))
    order = variances.argsort(descending=True)[:2]
    axes = torch.zeros(values.shape[1], 2, dtype=torch.float64)
    fractions = [0.0, 0.0]
    total = float(variances.clamp(min=0.0).sum())
    for place, index in enumerate(order.tolist()):
        axis = vectors[:, index]
        largest = axis[axis.abs().argmax()]
        axes[:, place] = axis if float(largest) >= 0.0 else -axis
        fractions[place] = float(variances[index].clamp(min=0.0)) / total if total > 0.0 else 0.0
    origin = (-centre) @ axes
    return Projection(
        centred @ axes, (fractions[0], fractions[1]), (float(origin[0]), float(origin[1]))
    )


def surprises(
    model: VAE, tokenizer: Tokenizer, data: TokenArray, rows: Tensor, conditions: Tensor
) -> list[list[Piece]]:
    """The pieces of some sentences, with their nats at one condition each.

    `rows` are int64 `[B]` of the N sentences, `conditions` `[N, C]` what the decoder reads. A piece
    is a token, or as many as it takes for whole characters, and the last is the end of the
    sentence; their nats add up to -log p(x|z).
    """
    batch = data.batch(rows)
    with torch.inference_mode():
        nats = model.reconstruct(
            batch.inputs, batch.targets, batch.lengths, conditions[rows]
        ).rows.tolist()
    pieces, first = [], 0
    for targets, length in zip(batch.targets.tolist(), batch.lengths.tolist(), strict=True):
        pieces.append(_pieces(tokenizer, targets[: length - 1], nats[first : first + length]))
        first += length
    return pieces


def _pieces(tokenizer: Tokenizer, ids: Sequence[int], nats: Sequence[float]) -> list[Piece]:
    """Cut the text where decoding the tokens so far ends with whole characters.

    A token may be part of a character, which decodes to U+FFFD until the last of its bytes is
    there; a literal one in the text merely joins two pieces.
    """
    pieces: list[Piece] = []
    written, waiting = "", 0.0
    for place, amount in enumerate(nats[:-1], start=1):
        waiting += amount
        so_far = tokenizer.decode(ids[:place])
        if so_far.endswith("\ufffd") and place < len(ids):
            continue
        if so_far.startswith(written):
            pieces.append(Piece(so_far[len(written) :], waiting))
            written, waiting = so_far, 0.0
    return [*pieces, Piece("", waiting + nats[-1])]
