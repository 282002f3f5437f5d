"""The figures of measurements that are single numbers, by name."""

import math
from typing import NamedTuple

import msgspec

from textvae.evaluate.measurements import Measurements


class Number(NamedTuple):
    """A figure."""

    value: float
    stderr: float | None = None
    unit: str = ""
    settings: str = ""


class Numbers(NamedTuple):
    """Figures that are known and finite, by name, and the facts that sentences need."""

    figures: dict[str, Number]
    source: str
    tokenizer: str
    latent_dim: int
    seed: int
    precision: str
    origin: str
    """Such as "Measured when training ended"."""
    diagnosis: str | None
    """A warning that the latent is collapsed."""

    def value(self, name: str) -> float | None:
        """The value of a figure; None where it is unknown."""
        number = self.figures.get(name)
        return None if number is None else number.value


def numbers_of(measurements: Measurements, origin: str) -> Numbers:
    """The numbers of measurements; lists and texts are left out."""
    figures = {}
    for figure in measurements:
        if isinstance(figure.value, int | float) and math.isfinite(figure.value):
            stderr = None if isinstance(figure.stderr, msgspec.UnsetType) else figure.stderr
            figures[figure.name] = Number(figure.value, stderr, figure.unit, figure.settings)
    return Numbers(
        figures=figures,
        source=measurements.data.source,
        tokenizer=measurements.model.tokenizer,
        latent_dim=measurements.model.latent_dim,
        seed=measurements.seed,
        precision=measurements.precision,
        origin=origin,
        diagnosis=measurements.diagnosis(),
    )
