"""The sections that are about the model and its numbers: what it is, curves, figures, KL."""

from textvae.report.curves import Curves
from textvae.report.drawing import Series, bar_chart, line_chart
from textvae.report.markup import Markup, join, shown, table, tag
from textvae.report.material import Material, Missing
from textvae.report.verdicts import (
    ExplainedFigure,
    Numbers,
    explain_figures,
    explain_generation,
    value_text,
)

BARS = 128
"""Most dimensions drawn: more bars are too thin to read."""


def section(name: str, title: str, lead: str, *content: str) -> Markup:
    """A section with its heading and a paragraph that introduces it."""
    heading = tag("h2", title, id=f"{name}-title")
    parts = [heading, *([tag("p", lead, class_="lead")] if lead else []), *content]
    return tag("section", *parts, id=name, aria_labelledby=f"{name}-title")


def missing(part: Missing) -> Markup:
    """The reason in place of a part that is missing."""
    return tag("p", part.reason, class_="missing")


def facts_table(pairs: list[tuple[str, str]]) -> Markup:
    """Names and what they are."""
    rows = [tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs]
    return tag("dl", *rows, class_="facts")


def kind_of_model(material: Material) -> str:
    """The model in a sentence."""
    vae = material.vae
    count = sum(p.numel() for p in vae.model.parameters())
    what = (
        f"A {vae.model.decoder.architecture} language model, without a latent,"
        if vae.model.is_language_model
        else f"A {vae.model.decoder.architecture} variational autoencoder with a latent of "
        f"{vae.config.latent_dim} dimensions,"
    )
    text = (
        f"{what} {count:,} parameters and a {vae.tokenizer.kind} vocabulary of "
        f"{vae.tokenizer.vocabulary_size:,}"
    )
    if vae.results is None:
        return f"{text}."
    training = vae.results.training
    stopped = "" if training.finished else "; the run was stopped before its end"
    return f"{text}, trained on {vae.results.data.source} for {training.steps:,} steps{stopped}."


def model_section(material: Material) -> Markup:
    """The model and its data."""
    vae, config = material.vae, material.vae.config
    pairs = []
    model = vae.model
    if model.is_language_model:
        pairs.append(("Latent", "none: a language model"))
    else:
        prior = model.prior.description
        pairs.append(("Latent", f"{config.latent_dim} dimensions, {prior}"))
        pairs.append(("Encoder", model.encoder.description.replace(" x ", " \u00d7 ")))
    pairs.append(("Decoder", model.decoder.description.replace(" x ", " \u00d7 ")))
    pairs.append(("Tokenizer", f"{vae.tokenizer.kind}, {vae.tokenizer.vocabulary_size:,} tokens"))
    pairs.append(("Sentences", f"at most {config.max_length:,} tokens"))
    if vae.results is None:
        note = Missing(
            "There are no results beside the model: its run is not finished, or it was "
            "saved without them."
        )
        return section("model", "The model", "", facts_table(pairs), missing(note))
    training, data = vae.results.training, vae.results.data
    best = (
        f"; these are the weights of step {training.best_step:,}" if training.best_step >= 0 else ""
    )
    threads = "1 thread" if training.num_threads == 1 else f"{training.num_threads} threads"
    pairs.append(
        (
            "Training",
            f"{training.steps:,} steps in {_duration(training.seconds)} on {training.device} "
            f"({threads}, {training.precision}){best}",
        )
    )
    rows = [
        [
            name,
            f"{split.num_sentences:,}",
            f"{split.num_targets:,}",
            shown(split.num_targets / split.num_sentences),
        ]
        for name, split in data.splits().items()
    ]
    header = ["Split", "Sentences", "Tokens", "Tokens per sentence"]
    counts = table(f"The data: {data.source}; ends of sentences counted", header, rows, numeric=3)
    return section("model", "The model", "", facts_table(pairs), counts)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def curves_section(material: Material) -> Markup:
    """The training curves."""
    title = "Training"
    curves = material.curves
    if isinstance(curves, Missing):
        return section("training", title, "", missing(curves))
    selected = "" if curves.selected is None else " The dashed line marks the step that was kept."
    lead = (
        "Nats per sentence at each step; the first tenth may lie above the frame. Training figures "
        f"include dropout, validation does not.{selected}"
    )
    panels = [
        _panel(place, *one, mark=curves.selected)
        for place, one in enumerate(_charts(material, curves))
    ]
    hint = tag(
        "p",
        "Point at a curve, or focus one and use the arrow keys, to read its values.",
        class_="readout",
        role="status",
    )
    return section(
        "training", title, lead, tag("div", *panels, class_="curves"), hint, _curve_table(curves)
    )


Chart = tuple[str, str, list[Series], tuple[float, float] | None]


def _charts(material: Material, curves: Curves) -> list[Chart]:
    """Title, explanation, lines and limits of each panel that has anything to show."""
    dim = material.vae.config.latent_dim
    valid, train = "validation", "training"
    charts: list[Chart] = [
        (
            "Negative log-likelihood",
            "upper bound from the ELBO; lower is better" if dim else "lower is better",
            [Series(train, curves.train_nll), Series(valid, curves.valid_nll, dots=True)],
            None,
        )
    ]
    if dim:
        kl = [Series(train, curves.train_kl), Series(valid, curves.valid_kl, dots=True)]
        top = max((p.value for line in kl for p in line.points), default=1.0)
        charts += [
            (
                "KL",
                "what the latent carries; near 0 it has collapsed",
                kl,
                (0.0, 1.06 * top or 1.0),
            ),
            (
                "KL weight",
                "how strongly the KL counts in the loss",
                [Series("weight", curves.kl_weight)],
                (0.0, 1.06 * max((p.value for p in curves.kl_weight), default=1.0) or 1.0),
            ),
            (
                "Active units",
                f"dimensions in which sentences differ, of {dim}",
                [Series("active", curves.active_units)],
                (0.0, 1.06 * dim),
            ),
        ]
    return [chart for chart in charts if any(line.points for line in chart[2])]


def _panel(
    place: int,
    title: str,
    meaning: str,
    series: list[Series],
    fixed: tuple[float, float] | None,
    *,
    mark: int | None,
) -> Markup:
    series = [line for line in series if line.points]
    ends = "; ".join(f"{line.name} ends at {shown(line.points[-1].value)}" for line in series)
    chart = line_chart(
        series, label=f"{title} over steps: {ends}.", clip=f"clip{place}", fixed=fixed, mark=mark
    )
    legend = ""
    if len(series) > 1:
        keys = [
            tag("span", tag("i", class_=f"key l{k}"), line.name) for k, line in enumerate(series)
        ]
        legend = tag("span", *keys, class_="keys")
    words = tag("figcaption", tag("b", title), legend, tag("span", meaning, class_="soft"))
    plot = tag("div", chart, tabindex="0", role="group", aria_label=f"{title}: arrow keys read it")
    return tag("figure", words, plot)


def _curve_table(curves: Curves) -> Markup:
    """The same as a table, for those who would rather read; at most some sixty rows."""
    columns = [
        ("NLL, training", curves.train_nll),
        ("NLL, validation", curves.valid_nll),
        ("KL, training", curves.train_kl),
        ("KL, validation", curves.valid_kl),
        ("KL weight", curves.kl_weight),
        ("Active units", curves.active_units),
    ]
    measured = [(name, dict(points)) for name, points in columns if points]
    steps = sorted({step for _, values in measured for step in values})
    always = {point.step for point in curves.valid_nll}
    every = max(1, len(steps) // 60)
    steps = [s for k, s in enumerate(steps) if k % every == 0 or (s in always and len(always) < 60)]
    rows = [
        [f"{step:,}", *(shown(values[step]) if step in values else "" for _, values in measured)]
        for step in steps
    ]
    made = table(
        "The training curves",
        ["Step", *(name for name, _ in measured)],
        rows,
        numeric=len(measured),
    )
    return tag("details", tag("summary", "The curves as a table"), made)


def figures_section(material: Material) -> Markup:
    """The numbers, with what they mean."""
    numbers = material.numbers
    lead = (
        f"{numbers.origin} on {numbers.source}, in {numbers.precision}, with seed {numbers.seed}."
    )
    explained = explain_figures(numbers, material.unigram_perplexity)
    writing = explain_generation(numbers)
    warning = "" if numbers.diagnosis is None else tag("p", numbers.diagnosis, class_="warning")
    rows = tag("dl", *map(_figure, explained.values()), class_="figures")
    if not writing:
        note = "`textvae evaluate MODEL` adds figures of reconstructions, samples and paths."
        rows = join([rows, tag("p", note, class_="soft")])
    else:
        title = tag("h3", "What it writes")
        rows = join([rows, title, tag("dl", *map(_figure, writing.values()), class_="figures")])
    others = _others(numbers, explained | writing)
    return section("numbers", "The numbers", lead, warning, rows, others)


def _others(numbers: Numbers, explained: dict[str, ExplainedFigure]) -> Markup:
    """A table of all other figures."""
    rows = []
    for name, one in numbers.figures.items():
        if name not in explained and not name.startswith("distinct_"):
            unit = "" if one.unit == "share" else one.unit
            note = ", ".join(part for part in (unit, one.settings) if part)
            rows.append([name.replace("_", " "), value_text(one), note])
    if not rows:
        return join([])
    made = table("All other figures", ["Figure", "Value", "Unit and settings"], rows)
    return tag("details", tag("summary", "All other figures"), made)


def _figure(one: ExplainedFigure) -> Markup:
    settings = f" ({one.settings})" if one.settings else ""
    return tag(
        "div",
        tag("dt", one.title),
        tag("dd", one.value, class_="value"),
        tag("dd", verdict(one), class_="judged"),
        tag("dd", one.meaning, tag("span", settings, class_="soft"), class_="means"),
    )


def verdict(one: ExplainedFigure) -> Markup:
    """The verdict on a figure, in a word and a colour."""
    word = one.verdict or "relative"
    return tag("span", word, class_=f"verdict {word}")


def tiles(material: Material) -> Markup:
    """The most important figures, at the head of the page."""
    explained = explain_figures(material.numbers, material.unigram_perplexity)
    names = ("nll", "perplexity", "kl", "active_units", "bits_per_character")
    figures = [explained[name] for name in names if name in explained][:4]
    cards = [
        tag(
            "div",
            tag("dt", one.title),
            tag("dd", one.value.partition(" \u00b1")[0], class_="value"),
            tag("dd", verdict(one)),
        )
        for one in figures
    ]
    return tag("dl", *cards, class_="tiles")


def kl_section(material: Material) -> Markup:
    """How much each dimension carries."""
    title, kl = "KL of each dimension", material.kl
    if isinstance(kl, Missing):
        return section("dimensions", title, "", missing(kl))
    order = sorted(range(len(kl)), key=lambda index: (-kl[index], index))
    total, first = sum(kl), order[0]
    percent = 100.0 * kl[first] / total if total > 0.0 else 0.0
    lead = (
        f"Mean over {len(material.corpus.texts):,} sentences, nats, the largest first: "
        f"{shown(total)} in all, {percent:.0f} % of it in dimension {first}. Pale bars are "
        "dimensions that do not differ from sentence to sentence: they carry nothing."
    )
    drawn = order[:BARS]
    label = (
        f"Bars of {len(drawn)} dimensions, from {shown(kl[first])} to {shown(kl[drawn[-1]])} nats."
    )
    chart = bar_chart(
        [max(kl[k], 0.0) for k in drawn],
        [f"dimension {k}" for k in drawn],
        [material.active[k] for k in drawn],
        label=label,
    )
    more = []
    if len(order) > len(drawn):
        more = [tag("p", f"The other {len(order) - len(drawn):,} carry less.", class_="soft")]
    rows = [[str(k), shown(kl[k]), "yes" if material.active[k] else "no"] for k in drawn]
    values = table("KL of each dimension, nats", ["Dimension", "KL", "Active"], rows, numeric=2)
    folded = tag("details", tag("summary", "The bars as a table"), values)
    return section("dimensions", title, lead, tag("figure", chart), join(more), folded)
