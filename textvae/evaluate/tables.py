"""Measurements for a reader: a line a figure, evaluator by evaluator."""

import msgspec

from textvae.evaluate.measurements import Figure, Measurements
from textvae.metrics.latent_usage import diagnosis

_ENORMOUS = 1e6
"""From here on three digits do: a word of unspaced text is a sentence."""


def table(found: Measurements) -> str:
    """The figures with what they depend on; lists are in the file alone, here by their range."""
    data = found.data
    lines = [
        f"{data.num_sentences:,} sentences of {data.source}, </s> counted ({found.precision}, "
        f"seed {found.seed})"
    ]
    if data.num_unknown:
        share = 100 * data.num_unknown / data.num_tokens
        lines.append(
            f"  {data.num_unknown:,} of {data.num_tokens:,} tokens are <unk> ({share:.2f} %), "
            "which costs less than the words it stands for"
        )
    if data.decoded:
        lines.append("  the text is not at hand: what its tokens decode to stands in for it")
    for one in found.measured:
        if one.figures:
            lines += [f"{one.kind} ({one.seconds:.1f} s)", *map(_line, one.figures)]
    collapse = _collapse(found)
    return "\n".join([*lines, *([] if collapse is None else [collapse])])


def _line(figure: Figure) -> str:
    value = _brief(figure.value, figure.unit == "share")
    if figure.stderr is None:
        value += " +- unknown"
    elif figure.stderr is not msgspec.UNSET:
        value += f" +- {_brief(figure.stderr, figure.unit == 'share')}"
    unit = "" if figure.unit == "share" else figure.unit
    note = ", ".join(part for part in (unit, figure.settings) if part)
    return f"  {figure.name.replace('_', ' '):<28}{value:<22}{note}".rstrip()


def _brief(value: object, as_percent: bool = False) -> str:
    """A value in at most some twenty characters."""
    if value is None:
        return "unknown"
    if isinstance(value, list):
        if not value:
            return "none"
        return f"{_brief(min(value), as_percent)} to {_brief(max(value), as_percent)}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if as_percent:
            return f"{100 * value:.1f} %"
        return f"{value:.3f}" if abs(value) < _ENORMOUS else f"{value:.2e}"
    return str(value)


def _collapse(found: Measurements) -> str | None:
    """A collapsed latent in words, where what says so was measured."""
    figures = found.flat()
    kl, active = figures.get("kl"), figures.get("active_units")
    if not isinstance(kl, float) or "active_units" not in figures:
        return None
    cost = figures.get("permutation_cost")
    return diagnosis(
        kl,
        active if isinstance(active, int) else None,
        found.model.latent_dim,
        cost if isinstance(cost, float) else None,
    )
