"""Charts as inline SVG markup. Pure functions; colours come from the page's style sheet through classes."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

from markupsafe import Markup, escape

from untrojan.records import PairScore, Rate
from untrojan.report.content import NeuronHistogram
from untrojan.report.wording import ClassName, interval, number, percent, plain, score_text, shorten

# Anomaly scores fall into classes that double, the same in every report, so that maps can be compared.
SCORE_STEPS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
FIRST_INVERTED_STEP = 5
LARGEST_MAP = 43
LABEL_LIMIT = 17
WIDE = 448  # pixels; a wider chart scrolls on a small screen rather than shrink below this


def element(tag: str, *children: str, **attributes: object) -> Markup:
    """One SVG element. Text and attribute values are escaped; markup made by this function is taken as it is.

    A trailing underscore of an attribute's name is dropped, others become hyphens.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_value(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    inside = "".join(child if isinstance(child, Markup) else escape(plain(child)) for child in children)
    return Markup(f"<{tag}{written}>{inside}</{tag}>")


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return plain(value)


def _chart(width: float, height: float, title: str, *children: Markup, **attributes: object) -> Markup:
    attributes = {"role": "img", "viewBox": f"0 0 {width:.0f} {height:.0f}", "aria_label": title, **attributes}
    return element("svg", element("title", title), *children, width=round(width), height=round(height), **attributes)


def text_width(text: str, size: float) -> float:
    """A generous estimate, in pixels, of how wide a text is in a sans-serif font of this size."""
    return sum(1.05 if unicodedata.east_asian_width(c) in "WF" else 0.57 for c in text) * size


def score_step(score: float | None) -> int | None:
    """The colour class of a score, 0 to len(SCORE_STEPS); None if there is no score."""
    if score is None or math.isnan(score):
        return None
    return sum(score >= step for step in SCORE_STEPS)


def heat_map(pairs: Sequence[PairScore], names: Sequence[ClassName], title: str, unit: str | None = None) -> Markup:
    """Anomaly scores of one trigger kind, true classes down, target classes across.

    pairs: at most one per (source, target), all within ``names``; names: K of them, 2 to 43. Detected pairs are
    outlined; pairs that nothing flips carry a dash; pairs that were not searched are empty.
    """
    count = len(names)
    cell = max(15, min(64, 480 // count))
    font = 12 if cell >= 24 else 10
    labels = [_label(name) for name in names]
    longest = max(text_width(label, font) for label in labels)
    angle = -90 if count > 20 else -45
    left = longest + 34
    top = (longest if angle == -90 else longest * 0.72) + 34
    right = 8 if angle == -90 else max(8, longest * 0.72 - cell / 2)
    marks, outlines = [], []
    for pair in pairs:
        x, y = left + pair.target * cell, top + pair.source * cell
        marks.append(_cell(pair, names, x, y, cell, unit))
        if pair.detected:
            outlines.append(element("rect", x=x + 0.5, y=y + 0.5, width=cell - 2, height=cell - 2, class_="halo"))
            outlines.append(element("rect", x=x + 0.5, y=y + 0.5, width=cell - 2, height=cell - 2, class_="detected"))
    axes = []
    for i, (label, name) in enumerate(zip(labels, names, strict=True)):
        middle = (i + 0.5) * cell
        tip = element("title", name.full)
        axes.append(element("text", tip, label, x=left - 8, y=top + middle, dy="0.35em", text_anchor="end"))
        turn = f"rotate({angle} {left + middle:.1f} {top - 8:.1f})"
        shift = "0.35em" if angle == -90 else "0"
        axes.append(element("text", tip, label, x=left + middle, y=top - 8, dy=shift, transform=turn))
    middle_x, middle_y = left + count * cell / 2, top + count * cell / 2
    axes.append(element("text", "sent to", x=middle_x, y=14, text_anchor="middle", class_="axis"))
    turn = f"rotate(-90 12 {middle_y:.1f})"
    axes.append(
        element("text", "images of", x=12, y=middle_y, dy="0.35em", text_anchor="middle", class_="axis", transform=turn)
    )
    width = left + count * cell + right
    return _chart(
        width,
        top + count * cell + 6,
        title,
        element("g", *axes, class_="labels", font_size=font),
        element("g", *marks, font_size=12 if cell >= 44 else 11),
        element("g", *outlines, class_="outlines"),
        class_="heatmap" + " wide" * (width > WIDE) + " large" * (count > 20),
    )


def _label(name: ClassName) -> str:
    """Number and name in at most the width of LABEL_LIMIT narrow characters, the number first in every script."""
    label = f"{name.number} {name.name}" if name.name else str(name.number)
    limit = LABEL_LIMIT
    while text_width(short := shorten(label, limit), 1) > LABEL_LIMIT * 0.6:
        limit -= 1
    return "\u200e" + short if not short.isascii() else short


def _cell(pair: PairScore, names: Sequence[ClassName], x: float, y: float, cell: int, unit: str | None) -> Markup:
    step = score_step(pair.score)
    size = number(pair.size, "none found") + (f" {unit}" if unit and pair.size is not None else "")
    route = f"from {names[pair.source].full} to {names[pair.target].full}"
    found = ", detected" if pair.detected else ""
    tip = f"{route}: score {score_text(pair.score)}, trigger size {size}{found}"
    square = element(
        "rect", x=x, y=y, width=cell - 1, height=cell - 1, class_="unflipped" if step is None else f"q{step}"
    )
    if cell < 30 and step is not None:
        return element("g", element("title", tip), square)
    inverted = step is not None and step >= FIRST_INVERTED_STEP
    score = element(
        "text",
        "–" if step is None else _brief(pair.score),
        x=x + (cell - 1) / 2,
        y=y + (cell - 1) / 2,
        dy="0.36em",
        text_anchor="middle",
        class_="inverted" if inverted else "cell",
    )
    return element("g", element("title", tip), square, score)


def _brief(score: float | None) -> str:
    """A score in at most four characters, as far as it goes."""
    if score is None or not math.isfinite(score):
        return number(score)
    if abs(score) >= 1e5:
        return f"{score:.0e}".replace("e+0", "e").replace("e+", "e")
    return f"{score / 1000:.0f}k" if abs(score) >= 1e4 else f"{score:.1f}" if abs(score) < 100 else f"{score:.0f}"


def histogram(neuron: NeuronHistogram, title: str) -> Markup:
    """Densities of one neuron: the clean ones filled, the others as lines of different dashes."""
    width, height, left, right, top, bottom = 720.0, 300.0, 56.0, 12.0, 12.0, 44.0
    low, high = neuron.edges[0], neuron.edges[-1]
    tallest = max((max(densities) for _, densities in neuron.curves()), default=0.0) or 1.0
    marks_y = ticks(0.0, tallest, 4)
    ceiling = max(tallest, marks_y[-1]) * 1.02

    def px(value: float) -> float:
        return left + (value - low) / (high - low) * (width - left - right)

    def py(value: float) -> float:
        return height - bottom - value / ceiling * (height - top - bottom)

    parts = []
    for value in marks_y:
        parts.append(element("line", x1=left, x2=width - right, y1=py(value), y2=py(value), class_="grid"))
        parts.append(element("text", number(value), x=left - 8, y=py(value), dy="0.35em", text_anchor="end"))
    for value in ticks(low, high, 8):
        parts.append(element("line", x1=px(value), x2=px(value), y1=py(0), y2=py(0) + 5, class_="tick"))
        parts.append(element("text", number(value), x=px(value), y=py(0) + 19, text_anchor="middle"))
    parts.append(element("line", x1=left, x2=width - right, y1=py(0), y2=py(0), class_="tick"))
    middle_x, middle_y = (left + width - right) / 2, (top + height - bottom) / 2
    parts.append(element("text", "activation", x=middle_x, y=height - 6, text_anchor="middle", class_="axis"))
    turn = f"rotate(-90 12 {middle_y:.1f})"
    parts.append(
        element("text", "density", x=12, y=middle_y, dy="0.35em", text_anchor="middle", class_="axis", transform=turn)
    )
    for name, densities in neuron.curves():
        steps = "".join(
            f"L{px(a):.1f} {py(d):.1f}L{px(b):.1f} {py(d):.1f}"
            for a, b, d in zip(neuron.edges, neuron.edges[1:], densities, strict=False)
        )
        outline = f"M{px(low):.1f} {py(0):.1f}{steps}L{px(high):.1f} {py(0):.1f}"
        parts.append(element("path", element("title", name), d=outline, class_=f"curve {name}"))
    return _chart(width, height, title, element("g", *parts, font_size=13), class_="histogram wide")


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers from ``low`` to ``high``, about so many, 1, 2 or 5 times a power of ten apart."""
    raw = max((high - low) / about, 1e-300)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def whiskers(name: str, before: Rate | None, after: Rate | None, reference: Rate | None = None) -> Markup:
    """Rates from 0 to 100 %: bars with intervals, before above after, and the reference as a dashed line."""
    width, height, left, span = 240.0, 38.0, 6.0, 228.0

    def px(share: float) -> float:
        return left + min(1.0, max(0.0, share)) * span

    parts = [
        element("line", x1=px(share), x2=px(share), y1=1.0, y2=height - 1, class_="grid")
        for share in (0, 0.25, 0.5, 0.75, 1)
    ]
    said = []
    alone = before is None or after is None
    for word, rate, row in (("before", before, 11.0), ("after", after, 27.0)):
        if rate is None:
            continue
        y = height / 2 if alone else row
        said.append(f"{word} {percent(rate.value)}, interval {interval(rate)}")
        parts.append(element("rect", x=px(0), y=y - 5, width=px(rate.value) - px(0), height=10.0, class_=f"bar {word}"))
        if math.isfinite(rate.low) and math.isfinite(rate.high):
            low, high = px(rate.low), px(rate.high)
            outline = f"M{low:.1f} {y - 4}V{y + 4}M{low:.1f} {y}H{high:.1f}M{high:.1f} {y - 4}V{y + 4}"
            parts.append(element("path", d=outline, class_="whisker"))
    if reference is not None:
        said.append(f"reference {percent(reference.value)}")
        x = px(reference.value)
        parts.append(element("line", x1=x, x2=x, y1=1.0, y2=height - 1, class_="reference"))
    return _chart(width, height, f"{name}: {'; '.join(said) or 'not measured'}", *parts, class_="whiskers")
