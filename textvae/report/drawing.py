"""Charts as inline SVG: lines, bars and points, coloured by classes of the style sheet alone."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from textvae.report.curves import Point
from textvae.report.markup import Markup, join, number, shown, tag

WIDTH, HEIGHT = 460.0, 232.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 10.0, 10.0, 30.0

MARKERS = (
    "M-4.4 0a4.4 4.4 0 1 0 8.8 0a4.4 4.4 0 1 0 -8.8 0Z",  # disc
    "M-3.9 -3.9H3.9V3.9H-3.9Z",  # square
    "M0 -5.2L4.9 3.6H-4.9Z",  # triangle
    "M0 -5.6L4.6 0L0 5.6L-4.6 0Z",  # diamond
    "M0 5.2L4.9 -3.6H-4.9Z",  # triangle, pointing down
    "M-1.6 -5H1.6V-1.6H5V1.6H1.6V5H-1.6V1.6H-5V-1.6H-1.6Z",  # plus
    "M-4.9 -2.6H4.9V2.6H-4.9Z",  # bar
    "M-2.8 0a2.8 2.8 0 1 0 5.6 0a2.8 2.8 0 1 0 -5.6 0Z",  # small disc: all others
)
"""One for each colour, so that colours need not be distinguished."""


class Scale(NamedTuple):
    """Where values fall on the paper."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The place of a value."""
        span = self.high - self.low
        fraction = (value - self.low) / span if span else 0.5
        return self.start + fraction * (self.end - self.start)


class Series(NamedTuple):
    """A line of a chart."""

    name: str
    points: Sequence[Point]
    dots: bool = False
    """Mark each value."""


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from low to high, 1, 2 or 5 times a power of ten apart."""
    if not high - low > max(1e-30, 1e-12 * max(abs(low), abs(high))):
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [place * step for place in range(first, last + 1)]


def tick_labels(values: Sequence[float]) -> list[str]:
    """The ticks with as many decimals as they need, the same for all."""
    step = values[1] - values[0] if len(values) > 1 else max(abs(values[0]), 1.0)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{value + 0.0:,.{decimals}f}".replace("-", "\u2212") for value in values]


def limits(series: Sequence[Series], fixed: tuple[float, float] | None) -> tuple[float, float]:
    """The values a chart shows: all but those of the first tenth of the steps, which dwarf them."""
    if fixed is not None:
        return fixed
    last = max(point.step for line in series for point in line.points)
    every = [point for line in series for point in line.points]
    late = [point.value for point in every if point.step >= last / 10] or [p.value for p in every]
    low, high = min(late), max(late)
    margin = 0.06 * (high - low) or max(abs(high), 1.0) * 0.1
    return low - margin, high + margin


def line_chart(
    series: Sequence[Series],
    *,
    label: str,
    clip: str,
    fixed: tuple[float, float] | None = None,
    mark: int | None = None,
) -> Markup:
    """Lines over steps.

    `label` is what the chart shows, for those who cannot see it; `clip` an id of its own; `fixed`
    the least and greatest value shown, where they do not follow from the values; `mark` a step to
    mark.
    """
    low, high = limits(series, fixed)
    last = max(point.step for line in series for point in line.points)
    x, y = Scale(0, max(last, 1), LEFT, WIDTH - RIGHT), Scale(low, high, HEIGHT - BOTTOM, TOP)
    parts = [_frame(x, y), _clip(clip)]
    if mark is not None:
        place = x(mark)
        line = tag("line", x1=place, x2=place, y1=TOP, y2=HEIGHT - BOTTOM, class_="selected")
        parts.append(line)
    for place, one in enumerate(series):
        parts.append(_line(one, place, x, y, clip))
    cross = tag("line", x1=0.0, x2=0.0, y1=TOP, y2=HEIGHT - BOTTOM, class_="cross")
    return tag(
        "svg",
        *parts,
        cross,
        viewBox=f"0 0 {number(WIDTH)} {number(HEIGHT)}",
        class_="chart",
        role="img",
        aria_label=label,
        data_last=float(last),
        data_left=LEFT,
        data_right=WIDTH - RIGHT,
    )


def _frame(x: Scale, y: Scale) -> Markup:
    parts = []
    across, up = ticks(x.low, x.high), ticks(y.low, y.high)
    for value, text in zip(up, tick_labels(up), strict=True):
        height = y(value)
        parts.append(tag("line", x1=x.start, x2=x.end, y1=height, y2=height, class_="grid"))
        parts.append(tag("text", text, x=x.start - 7, y=height + 4, text_anchor="end"))
    for value, text in zip(across, tick_labels(across), strict=True):
        anchor = "end" if x(value) > x.end - 16 else "middle"
        parts.append(tag("text", text, x=x(value), y=HEIGHT - 10, text_anchor=anchor))
    return join(parts)


def _clip(name: str) -> Markup:
    frame = tag("rect", x=LEFT, y=TOP - 4, width=WIDTH - LEFT, height=HEIGHT - BOTTOM - TOP + 8)
    return tag("clipPath", frame, id=name)


def _line(series: Series, place: int, x: Scale, y: Scale, clip: str) -> Markup:
    where = [(number(x(point.step)), number(y(point.value))) for point in series.points]
    path = " ".join(f"{'L' if k else 'M'}{a} {b}" for k, (a, b) in enumerate(where))
    parts = [tag("path", d=path, class_=f"line l{place}")] if path else []
    if series.dots or len(where) == 1:
        parts += [tag("circle", cx=a, cy=b, r=2.6, class_=f"dot l{place}") for a, b in where]
    return tag(
        "g",
        *parts,
        clip_path=f"url(#{clip})",
        data_name=series.name,
        data_steps=" ".join(str(point.step) for point in series.points),
        data_values=" ".join(shown(point.value) for point in series.points),
    )


def bar_chart(
    values: Sequence[float],
    names: Sequence[str],
    lit: Sequence[bool],
    *,
    label: str,
) -> Markup:
    """Bars of values from 0, in the order given; those not lit are paler."""
    width, height, left = 720.0, 220.0, 56.0
    high = max(max(values), 1e-9) * 1.05
    y = Scale(0.0, high, height - BOTTOM, TOP)
    parts = []
    lines = ticks(0.0, high, 4)
    for value, text in zip(lines, tick_labels(lines), strict=True):
        place = y(value)
        parts.append(tag("line", x1=left, x2=width, y1=place, y2=place, class_="grid"))
        parts.append(tag("text", text, x=left - 7, y=place + 4, text_anchor="end"))
    room = (width - left) / len(values)
    thick = min(room * 0.72, 40.0)
    every, seldom = (math.ceil(len(values) / most) for most in (32, 11))
    for place, (value, name, bright) in enumerate(zip(values, names, lit, strict=True)):
        middle = left + (place + 0.5) * room
        bar = tag(
            "rect",
            tag("title", f"{name}: {shown(value)} nats"),
            x=middle - thick / 2,
            y=y(value),
            width=thick,
            height=max(y(0.0) - y(value), 0.5),
            rx=1.5,
            class_="bar" if bright else "bar pale",
        )
        parts.append(bar)
        if place % every == 0:
            text = name.removeprefix("dimension ")
            minor = "minor" if place % seldom else None  # not where the page is narrow
            parts.append(
                tag("text", text, x=middle, y=height - 9, text_anchor="middle", class_=minor)
            )
    box = f"0 0 {number(width)} {number(height)}"
    return tag("svg", *parts, viewBox=box, class_="bars", role="img", aria_label=label)


def scatter(
    points: Sequence[tuple[float, float]],
    dots: Callable[[int, float, float], Markup],
    *,
    rings: Sequence[float],
    origin: tuple[float, float],
    label: str,
) -> Markup:
    """Points with the same unit on both axes, and circles of the prior around its centre.

    In units of the prior; `dots` makes the mark of a point from its number and place.
    """
    width, height = 760.0, 620.0
    across = max((abs(a - origin[0]) for a, _ in points), default=1.0)
    along = max((abs(b - origin[1]) for _, b in points), default=1.0)
    unit = min(
        (width / 2 - 14) / max(across, 1e-6),
        (height / 2 - 14) / max(along, 1e-6),
        (height / 2 - 14) / max([0.5, *rings[:1]]),
    )
    parts = [
        tag("circle", cx=width / 2, cy=height / 2, r=radius * unit, class_="ring")
        for radius in rings
    ]
    parts += [
        tag("line", x1=0.0, x2=width, y1=height / 2, y2=height / 2, class_="grid"),
        tag("line", x1=width / 2, x2=width / 2, y1=0.0, y2=height, class_="grid"),
    ]
    for place, (a, b) in enumerate(points):
        x = width / 2 + (a - origin[0]) * unit
        y = height / 2 - (b - origin[1]) * unit
        parts.append(dots(place, x, y))
    shapes = [tag("path", id=f"m{k}", d=path) for k, path in enumerate(MARKERS)]
    halo = tag("circle", r=10.0, class_="halo", cx=-99.0, cy=-99.0)
    return tag(
        "svg",
        tag("defs", *shapes),
        *parts,
        halo,
        viewBox=f"0 0 {number(width)} {number(height)}",
        class_="points",
        role="img",
        aria_label=label,
    )
