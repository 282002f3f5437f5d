"""Rows of a table of results: their fields, their files, and the Markdown table."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
from provenance import processor
from reproduce_methods import METHODS, Published

from textvae.storage.files import write_file


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A method on a corpus with one seed; nats per sentence, `</s>` counted, unless stated."""

    key: str
    """sha256 of the settings, the data and the protocol: a row is never measured twice."""
    corpus: str
    recipe: str
    method: str
    paper: str
    seed: int
    num_sentences: int
    num_tokens: int
    num_samples: int
    """K of the importance-weighted bound; 1 for a language model, which is exact."""
    nll: float
    nll_stderr: float | None
    """Over sentences."""
    perplexity: float
    """Per token of the model's tokenizer, `</s>` counted."""
    tokenizer: str
    elbo: float
    kl: float
    mutual_information: float | None
    mutual_information_cap: float | None
    active_units: int | None
    latent_dim: int
    permutation_cost: float | None
    reconstruction_bleu: float | None
    """0 to 100, of decoding greedily at the posterior mean."""
    bleu_signature: str
    num_parameters: int
    steps: int
    seconds: float
    """Training time."""
    evaluation_seconds: float
    precision: str
    hardware: str
    """That trained it."""
    commit: str
    """The checkout that measured the model, and trained it, unless trained elsewhere."""
    test_sha256: str
    created: str
    command: str
    """That trains this model again."""


def hardware(device: str, num_threads: int) -> str:
    """The processor or the device, cores and threads."""
    if device != "cpu":
        import torch  # noqa: PLC0415 -- only here

        return torch.cuda.get_device_name(device)
    return f"{processor()}, {os.cpu_count()} cores, {num_threads} threads"


def read_row(path: Path, key: str) -> Row | None:
    """A row that was measured before; None where there is none, or one of other settings."""
    try:
        row = msgspec.json.decode(path.read_bytes(), type=Row)
    except (msgspec.DecodeError, OSError):
        return None  # absent, damaged, or of another version: measured again
    return row if row.key == key else None


def write_row(path: Path, row: Row) -> None:
    """Write a row; a crash leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, msgspec.json.format(msgspec.json.encode(row), indent=2) + b"\n")


HEAD = (
    "method|seeds|NLL|perplexity|KL|MI (cap)|active|permuting costs|BLEU|minutes"
    "|published: perplexity|MI|active|source"
)


def markdown(rows: Sequence[Row], published: Sequence[Published]) -> str:
    """The table: one line per method, means over its seeds; published figures in their own columns.

    Published figures of a method that was not run have a line of their own. Where `published` is
    empty there are no such columns.
    """
    names = list(dict.fromkeys(row.method for row in rows))
    lines = []
    for name in names:
        beside = [one for one in published if one.method == name]
        ours = _ours([row for row in rows if row.method == name])
        for number, one in enumerate(beside or [None]):
            lines.append([*(ours if number == 0 else [name, *[""] * 9]), *_theirs(one)])
    for one in published:
        if one.method not in names:
            lines.append([one.name, *["-"] * 9, *_theirs(one)])
    width = 14 if published else 10
    head = HEAD.split("|")[:width]
    table = [head, ["---"] * width, *(line[:width] for line in lines)]
    return "\n".join("| " + " | ".join(line) + " |" for line in table)


def _ours(rows: list[Row]) -> list[str]:
    """The cells of one method."""
    seeds = ", ".join(str(row.seed) for row in rows)
    nll = _mean([row.nll for row in rows], 3)
    stderr = [row.nll_stderr for row in rows if row.nll_stderr is not None]
    if stderr:
        nll += f" +- {sum(stderr) / len(stderr):.3f}"
    perplexity = _mean([row.perplexity for row in rows], 2)
    if len(rows) > 1:
        low, high = min(row.perplexity for row in rows), max(row.perplexity for row in rows)
        perplexity += f" ({low:.2f} to {high:.2f})"
    cap = rows[0].mutual_information_cap
    information = _mean([row.mutual_information for row in rows], 2)
    has_latent = rows[0].latent_dim > 0
    active = _mean([row.active_units for row in rows], 0 if len(rows) == 1 else 1)
    return [
        rows[0].method,
        seeds,
        nll,
        perplexity,
        _mean([row.kl for row in rows], 2) if has_latent else "-",
        f"{information} ({cap:.2f})" if has_latent and cap is not None else "-",
        f"{active} of {rows[0].latent_dim}" if has_latent else "-",
        _mean([row.permutation_cost for row in rows], 2) if has_latent else "-",
        _mean([row.reconstruction_bleu for row in rows], 1),
        _mean([row.seconds / 60 for row in rows], 1),
    ]


def _theirs(one: Published | None) -> list[str]:
    if one is None:
        return ["-", "-", "-", "-"]
    information, active = one.mutual_information, one.active_units
    return [
        f"{one.perplexity:.2f}",
        "-" if information is None else f"{information:.2f}",
        "-" if active is None else str(active),
        f"published, {one.source}: {one.name}; {one.protocol}",
    ]


def _mean(values: Sequence[float | None], digits: int) -> str:
    known = [value for value in values if value is not None]
    return f"{math.fsum(known) / len(known):.{digits}f}" if known else "-"


def caption(rows: Sequence[Row]) -> str:
    """The settings that all rows have in common."""
    if not rows:
        return "no row"
    first = rows[0]
    samples = max(row.num_samples for row in rows)
    return (
        f"{first.corpus}, recipe {first.recipe}: {first.num_sentences:,} test sentences, "
        f"{first.num_tokens:,} tokens with </s> ({first.tokenizer}), IW-{samples}, sha256 "
        f"{first.test_sha256[:16]}; {', '.join(sorted({row.hardware for row in rows}))}; "
        f"{', '.join(sorted({row.precision for row in rows}))}; commit "
        f"{', '.join(sorted({row.commit for row in rows}))}"
    )


def papers(rows: Sequence[Row]) -> str:
    """The papers of the methods."""
    names = list(dict.fromkeys(row.method for row in rows if row.method in METHODS))
    return "; ".join(f"{name}: {METHODS[name].paper}" for name in names)
