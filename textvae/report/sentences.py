"""The sections that show sentences: the map, samples, paths, neighbours, the hard ones."""

import difflib

from textvae.report.corpus import Property
from textvae.report.drawing import MARKERS, scatter
from textvae.report.markup import Markup, escape, join, sentence, shown, table, tag
from textvae.report.material import WORST_K, Hard, Map, Material, Missing
from textvae.report.sections import missing, section

COLOURS = len(MARKERS) - 1
"""Values with a colour of their own; the last marker is for all others."""
HEAT = (2.0, 4.0, 7.0)
"""Nats from which a word is shaded: less likely than 1 in 7, in 55, in 1,100."""
PRIOR_RING = 2.4477
"""Radius that holds 95 % of a standard normal in two dimensions: sqrt(-2 log 0.05)."""


def map_section(material: Material) -> Markup:
    """Posterior means in their principal plane."""
    title, plane = "A map of the sentences", material.map
    if isinstance(plane, Missing):
        return section("map", title, "", missing(plane))
    first, second = (100.0 * fraction for fraction in plane.projection.fractions)
    of_what = "the prior" if material.vae.model.prior.kl_is_exact else "a normal with its moments"
    lead = (
        f"The posterior means of {len(plane.texts):,} sentences in the plane where they differ "
        f"most: the first axis has {first:.0f} % of their variance, the second {second:.0f} %. "
        f"One unit is the same on both; the circles hold 39 % and 95 % of {of_what}."
    )
    ranks = [{value: k for k, value in enumerate(one.by_frequency())} for one in plane.labels]
    points: list[tuple[float, float]] = [
        (float(a), float(b)) for a, b in plane.projection.points.tolist()
    ]

    def dot(place: int, x: float, y: float) -> Markup:
        kinds = [rank[one.values[place]] for rank, one in zip(ranks, plane.labels, strict=True)]
        colour = min(kinds[0], COLOURS) if kinds else 0
        labels = [f"{one.name} {one.values[place]}" for one in plane.labels]
        text = "\n".join([plane.texts[place], *([" \u00b7 ".join(labels)] if labels else [])])
        return tag(
            "use",
            tag("title", text),
            href=f"#m{colour}",
            x=x,
            y=y,
            class_=f"c{colour}",
            data_k=",".join(map(str, kinds)) or None,
        )

    label = f"Map of {len(points):,} sentences; use the arrow keys to go from one to the next."
    chart = scatter(
        points, dot, rings=(PRIOR_RING, 1.0), origin=plane.projection.origin, label=label
    )
    plot = tag(
        "div",
        chart,
        tag("div", role="status", class_="tip", hidden=True),
        class_="map",
        tabindex="0",
        role="group",
        aria_label=label,
    )
    note = tag("p", plane.note, class_="soft") if plane.note else ""
    hint = tag(
        "p", "Point at a mark, touch it, or focus the map and use the arrow keys.", class_="soft"
    )
    return section("map", title, lead, _choosers(plane), tag("figure", plot), hint, note)


def _choosers(plane: Map) -> Markup:
    """Which label colours the map, and a legend for each."""
    parts = []
    if len(plane.labels) > 1:
        options = [tag("option", one.name, value=str(k)) for k, one in enumerate(plane.labels)]
        choose = tag("select", *options, id="colour-by", autocomplete="off")
        parts.append(tag("label", "Colour by ", choose, class_="choose script"))
    for place, one in enumerate(plane.labels):
        parts.append(_legend(place, one))
    return tag("div", *parts, class_="legends") if parts else join([])


def _legend(place: int, labels: Property) -> Markup:
    values = labels.by_frequency()
    shown_values = values[:COLOURS]
    keys = [_key(colour, value, str(colour)) for colour, value in enumerate(shown_values)]
    if len(values) > COLOURS:
        keys.append(_key(COLOURS, f"{len(values) - COLOURS:,} others", "others"))
        options = [tag("option", "none", value="")]
        options += [tag("option", value, value=str(k)) for k, value in enumerate(values)]
        pick = tag("select", *options, class_="pick", autocomplete="off")
        keys.append(tag("label", "Show only ", pick, class_="choose script"))
    return tag(
        "div",
        *keys,
        class_="legend",
        role="group",
        aria_label=f"Legend: {labels.name}",
        hidden=place > 0,
        data_place=str(place),
    )


def _key(colour: int, name: str, value: str) -> Markup:
    mark = tag("use", href=f"#m{colour}", class_=f"c{colour}")
    icon = tag("svg", mark, viewBox="-7 -7 14 14", class_="mark", aria_hidden="true")
    return tag("button", icon, name, type="button", aria_pressed="false", data_value=value)


def samples_section(material: Material) -> Markup:
    """New sentences."""
    language = material.vae.model.is_language_model
    lead = f"The first {len(material.samples)} sentences of seed {material.seed}, not picked"
    lead += (
        ", at temperature 1." if language else ": a latent from the prior, words at temperature 1."
    )
    judged = [one for one in material.samples if one.grammatical is not None]
    if judged:
        right = sum(bool(one.grammatical) for one in judged)
        lead += f" The grammar of the embedded corpus accepts {right} of these {len(judged)}."
    rows = []
    for one in material.samples:
        flaw = tag("span", "not grammatical", class_="flaw") if one.grammatical is False else ""
        text = sentence(one.text) if one.text else tag("span", "(empty)", class_="soft")
        rows.append(tag("li", text, " ", flaw))
    return section("samples", "Samples", lead, tag("ol", *rows, class_="sentences"))


def paths_section(material: Material) -> Markup:
    """Interpolations, with what changed from one step to the next."""
    title, paths = "Interpolations", material.paths
    if isinstance(paths, Missing):
        return section("interpolations", title, "", missing(paths))
    lead = (
        "Straight lines between the posterior means of two sentences drawn by the seed, decoded "
        "greedily at seven places. Marked words are new since the step before; a caret stands "
        "where words went. Nats are those of a sentence given its latent."
    )
    tables = []
    for number_, path in enumerate(paths, start=1):
        rows, before = [], None
        for step in path.walk.steps:
            rows.append(
                [
                    f"{100 * step.share:.0f} %",
                    changed(before, step.text),
                    f"{step.reconstruction:.2f}",
                ]
            )
            before = step.text
        ends = tag("p", "From ", sentence(path.first), " to ", sentence(path.second), class_="ends")
        change = f"{100 * path.walk.mean_change:.0f} % of the tokens change at a step, on average"
        made = table(f"Path {number_}: {change}", ["Way", "Sentence", "Nats"], rows, numeric=1)
        tables.append(tag("div", ends, made, class_="path"))
    return section("interpolations", title, lead, *tables)


def changed(before: str | None, text: str) -> Markup:
    """A sentence in which the words that another one has not are marked.

    Words are what stands between blanks; of a text without any, its characters.
    """
    if before is None or before == text:
        same = tag("span", " unchanged", class_="soft") if before is not None else ""
        return join([sentence(text), same])
    between = " " if " " in before + text else ""
    old, new = (line.split() if between else list(line) for line in (before, text))
    pieces: list[Markup] = []
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for kind, i, j, k, end in matcher.get_opcodes():
        words = between.join(new[k:end])
        if kind == "equal":
            pieces.append(escape(words))
        elif kind == "delete":
            lost = between.join(old[i:j])
            gone = tag("span", f" (gone: {lost})", class_="unseen")
            pieces.append(tag("span", "\u2038", gone, class_="gone", title=f"gone: {lost}"))
        else:
            pieces.append(tag("mark", words))
    return tag("bdi", join(pieces, between), class_="sentence")


def neighbors_section(material: Material) -> Markup:
    """Sentences close to each other in the latent space."""
    title, nearby = "Nearest neighbours", material.neighbors
    if isinstance(nearby, Missing):
        return section("neighbours", title, "", missing(nearby))
    lead = (
        f"For sentences drawn by the seed, those of the {len(material.corpus.texts):,} whose "
        "posterior means are nearest; distances are Euclidean, in units of the prior. A good "
        "latent puts sentences together that mean or are built alike."
    )
    labels = material.corpus.labels
    names = ["Distance", "Sentence", *(["Label"] if len(labels) == 1 else [])]
    tables = []
    for one in nearby:
        rows = []
        for near in one.near:
            row = [f"{near.distance:.3f}", sentence(near.text)]
            if len(labels) == 1:
                row.append(labels[0].values[near.number])
            rows.append(row)
        caption = tag("span", "Near ", sentence(one.text))
        tables.append(table(caption, names, rows))
    return section("neighbours", title, lead, tag("div", *tables, class_="pairs"))


def worst_section(material: Material) -> Markup:
    """The sentences with the most nats per token."""
    by = "" if material.vae.model.is_language_model else " at the posterior mean"
    lead = (
        f"Of the {len(material.corpus.texts):,} sentences, those with the most nats per token. "
        f"Shaded words are those the model did not expect{by}, given all before them: "
    )
    odds = ("1 in 7", "1 in 55", "1 in 1,100")
    scale = [tag("span", f"below {one}", class_=f"h{k}") for k, one in enumerate(odds, start=1)]
    exact = any(one.source_nll is not None for one in material.worst)
    rows = []
    for one in material.worst:
        row = [
            _heated(one),
            f"{one.nll / one.num_tokens:.2f}",
            f"{one.nll:.2f}",
            str(one.num_tokens),
        ]
        if exact:
            row.append("" if one.source_nll is None else f"{one.source_nll:.2f}")
        rows.append(row)
    names = ["Sentence", "Nats per token", "Nats", "Tokens", *(["Exact nats"] if exact else [])]
    bound = (
        "exact" if material.vae.model.is_language_model else f"importance-weighted, K = {WORST_K}"
    )
    made = table(f"Nats, {bound}; ends counted", names, rows, numeric=len(names) - 1)
    key = tag("p", lead, join(scale, ", "), ".", class_="lead")
    return section("hardest", "The worst-modelled sentences", "", key, made)


def _heated(one: Hard) -> Markup:
    parts = []
    for piece in one.pieces:
        heat = sum(piece.nats >= limit for limit in HEAT)
        text = piece.text.lstrip()
        blank = piece.text[: len(piece.text) - len(text)]
        if not piece.text:
            text = "\u23ce" if heat else ""  # the end, where it was not expected
        said = f"{shown(piece.nats)} nats"
        parts += [blank, tag("span", text, class_=f"h{heat}", title=said) if heat else text]
    return tag("bdi", join(parts), class_="sentence")
