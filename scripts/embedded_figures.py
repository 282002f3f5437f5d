"""Figures of a run on the embedded corpus that need its grammar, as JSON.

python scripts/embedded_figures.py [RUN]      (RUN: runs/embedded unless given; 500 samples each)
"""

import json
import sys

import textvae
from textvae.data.grammar import embedded_grammar, embedded_splits

run = sys.argv[1] if len(sys.argv) > 1 else "runs/embedded"
vae = textvae.TextVAE.from_pretrained(run)
grammar, splits = embedded_grammar(), embedded_splits()
test, train = splits.test.texts, set(splits.train.texts)

evaluation = vae.evaluate(num_samples=500)
figures: dict[str, object] = {
    "nll": evaluation.nll,
    "nll_stderr": evaluation.nll_stderr,
    "exact_nll": evaluation.source_nll,
    "percent_above_exact": 100 * (evaluation.nll / (evaluation.source_nll or 1) - 1),
    "kl": evaluation.kl,
    "mutual_information": evaluation.mutual_information,
    "permutation_cost": evaluation.permutation_cost,
    "active_units": evaluation.active_units,
}

samples = vae.sample(1000, seed=1)
figures["samples_grammatical"] = sum(map(grammar.accepts, samples)) / 1000
many = vae.sample(10_000, seed=7)
figures["samples_grammatical_of_10000"] = sum(map(grammar.accepts, many)) / 10_000
figures["samples_distinct"] = len(set(samples)) / 1000
figures["samples_not_in_train"] = sum(sample not in train for sample in samples) / 1000

pairs = [
    (grammar.attributes(text), grammar.attributes(other))
    for text, other in zip(test, vae.reconstruct(test), strict=True)
]
unchanged = {
    name: sum(b is not None and a is not None and a[name] == b[name] for a, b in pairs) / len(pairs)
    for name in grammar.attributes(test[0]) or {}
}
figures["attributes_reconstructed"] = sum(unchanged.values()) / len(unchanged)
figures["attributes_reconstructed_each"] = unchanged

middles = [vae.interpolate(test[i], test[i + 500], steps=3) for i in range(500)]
figures["middles_grammatical"] = sum(grammar.accepts(path[1]) for path in middles) / 500
figures["middles_differ_from_both_ends"] = sum(path[1] not in path[::2] for path in middles) / 500
print(json.dumps(figures, indent=2))
