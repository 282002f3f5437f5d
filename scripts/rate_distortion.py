"""Rate against distortion: what a latent keeps of sentences and what that costs samples, as JSON.

python scripts/rate_distortion.py DATA MODEL... --judge LANGUAGE_MODEL [--samples N] [--paths N]
                                  [--importance K] [--bound-sentences N] [--limit N] [--seed N]

DATA is a file of held-out sentences: validation while settings are chosen, test for the table. One
line of JSON for each model: its rate and bounds, how well it reconstructs, how its samples and the
middles of its paths read to an outside language model, and whether paths end at the sentences they
were given. The judge is a language model (`model.encoder.kind=none`) of another seed, trained on
the training split; perplexities stand beside that of the sentences themselves (`real`). A model
that is a language model too has the figures of likelihood and of samples alone. How well samples
cover the corpus (reverse perplexity): `textvae evaluate --evaluators reverse_perplexity`.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from textvae import TextVAE
from textvae.generate.paths import straight_path
from textvae.metrics.text_quality import corpus_bleu, tokenization_for
from textvae.randomness import key, permutation

STEPS = 7
"""Sentences of a path, both ends included."""
INFORMATION_LIMIT = 6.0
"""Nats above which samples cannot close the gap of an estimate of mutual information."""


class Reading(NamedTuple):
    """Sentences as the judge reads them."""

    perplexity: float | None
    """None without a sentence."""
    num_sentences: int
    num_left_out: int
    """Empty ones, and those over the judge's limit."""


def read(judge: TextVAE, sentences: Sequence[str]) -> Reading:
    """The perplexity of sentences per token of the judge, `</s>` counted."""
    limit = judge.config.max_length
    lengths = [len(ids) for ids in judge.tokenizer.encode_batch(sentences)]
    readable = [
        text
        for text, length in zip(sentences, lengths, strict=True)
        if text.strip() and length <= limit
    ]
    perplexity = judge.evaluate(readable, num_samples=1).perplexity if readable else None
    return Reading(perplexity, len(readable), len(sentences) - len(readable))


def likelihoods(vae: TextVAE, sentences: Sequence[str], num_samples: int) -> dict[str, object]:
    """Rate, bound, and mutual information where it can be estimated."""
    evaluation = vae.evaluate(sentences, num_samples=num_samples)
    information = evaluation.mutual_information
    return {
        "kl": evaluation.kl,
        "mutual_information": information if information < INFORMATION_LIMIT else None,
        "perplexity": evaluation.perplexity,
        "bound_sentences": evaluation.num_sentences,
        "importance_samples": evaluation.num_samples,
        "permutation_cost": evaluation.permutation_cost,
    }


def reconstruction(vae: TextVAE, sentences: Sequence[str]) -> dict[str, object]:
    """BLEU and the fraction of exact matches, greedy and by a beam of 5."""
    figures: dict[str, object] = {}
    for name in ("greedy", "beam"):
        written = vae.reconstruct(sentences, strategy=name)
        exact = [a.split() == b.split() for a, b in zip(written, sentences, strict=True)]
        bleu = corpus_bleu(written, sentences, tokenization_for(vae.tokenizer.kind, sentences))
        figures[name] = {"bleu": bleu.value, "exact": sum(exact) / len(exact)}
    return figures


def samples(vae: TextVAE, judge: TextVAE, count: int, seed: int) -> dict[str, object]:
    """Samples of the prior at temperature 1 and greedy: perplexity, and how many differ."""
    figures: dict[str, object] = {}
    # greedily a language model writes one sentence
    for name in ("temperature", "greedy") if vae.latent_dim else ("temperature",):
        drawn = vae.sample(count, seed=seed, strategy=name)
        figures[name] = read(judge, drawn)._asdict() | {"distinct": len(set(drawn)) / count}
    return figures


def paths(
    vae: TextVAE, judge: TextVAE, sentences: Sequence[str], count: int, seed: int
) -> dict[str, object]:
    """Greedy paths between pairs of sentences: perplexity of the middles, and exact ends."""
    order = permutation(key(seed, "paths"), len(sentences))[: 2 * count].tolist()
    ends = [sentences[row] for row in order]
    mean = vae.encode(ends).mean
    points = [
        straight_path(mean[2 * i], mean[2 * i + 1], torch.linspace(0.0, 1.0, STEPS).to(mean))
        for i in range(len(ends) // 2)
    ]
    written = vae.decode(torch.cat(points))
    walks = [written[i : i + STEPS] for i in range(0, len(written), STEPS)]
    exact = [
        walk[0].split() == ends[2 * i].split() and walk[-1].split() == ends[2 * i + 1].split()
        for i, walk in enumerate(walks)
    ]
    middles = [text for walk in walks for text in walk[1:-1]]
    return read(judge, middles)._asdict() | {
        "both_ends": sum(exact) / len(exact),
        "distinct": sum(len(set(walk)) for walk in walks) / len(written),
    }


def row(
    vae: TextVAE, judge: TextVAE, sentences: Sequence[str], arguments: argparse.Namespace
) -> dict[str, object]:
    """All figures of a model."""
    figures: dict[str, object] = {
        "latent_dim": vae.latent_dim,
        "num_sentences": len(sentences),
        **likelihoods(vae, sentences[: arguments.bound_sentences], arguments.importance),
        "samples": samples(vae, judge, arguments.samples, arguments.seed),
    }
    if vae.latent_dim:
        figures["reconstruction"] = reconstruction(vae, sentences)
        count = min(arguments.paths, len(sentences) // 2)
        figures["paths"] = paths(vae, judge, sentences, count, arguments.seed)
    if vae.results is not None:
        figures["training_minutes"] = vae.results.training.seconds / 60
    return figures


def main() -> None:
    """Print the perplexity of the sentences themselves, and a line for each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--judge", required=True)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--paths", type=int, default=200)
    parser.add_argument("--importance", type=int, default=500)
    parser.add_argument("--bound-sentences", type=int, default=None, help="of the bound alone")
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    judge = TextVAE.from_pretrained(arguments.judge)
    lines = Path(arguments.data).read_text(encoding="utf-8").split("\n")
    sentences = [line.strip() for line in lines if line.strip()][: arguments.limit]
    print(json.dumps({"real": read(judge, sentences)._asdict()}))
    if arguments.bound_sentences is not None:
        part = read(judge, sentences[: arguments.bound_sentences])
        print(json.dumps({"real, sentences of the bound": part._asdict()}))
    for path in arguments.models:
        vae = TextVAE.from_pretrained(path)
        print(json.dumps({"model": path, **row(vae, judge, sentences, arguments)}), flush=True)


if __name__ == "__main__":
    main()
