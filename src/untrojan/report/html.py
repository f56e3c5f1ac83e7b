"""The report as one HTML file that loads nothing and runs nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from untrojan.records import PairScore, Rate
from untrojan.report import svg
from untrojan.report.advice import next_steps
from untrojan.report.content import NeuronHistogram, ReportContent, TriggerPicture
from untrojan.report.pictures import ShownTrigger, show
from untrojan.report.tables import RateRow, clearest, cost_rows, count_rows, facts, kinds, rate_rows, top_pairs
from untrojan.report.verdict import verdict
from untrojan.report.wording import (
    GLOSSARY,
    SIZE_UNITS,
    ClassName,
    Code,
    interval,
    number,
    percent,
    plain,
    score_text,
    small,
)

PAIRS_BESIDE_MAP = 10
PAIRS_WITHOUT_MAP = 40


@dataclass(frozen=True)
class KindView:
    """The pair scores of one trigger kind."""

    kind: str
    unit: str | None
    chart: Markup | None
    pairs: tuple[PairScore, ...]
    total: int
    detected: int


@dataclass(frozen=True)
class PictureView:
    """One trigger with its images."""

    picture: TriggerPicture
    unit: str | None
    shown: ShownTrigger


@dataclass(frozen=True)
class RateView:
    """One row of the table of rates."""

    row: RateRow
    chart: Markup


@dataclass(frozen=True)
class Tile:
    """One figure that a hurried reader should see."""

    label: str
    before: str
    after: str | None
    note: str | None


def render_html(content: ReportContent) -> str:
    """One self-contained page: no script, no network, a content security policy that allows only its own style.

    Raises ShapeError if a trigger does not fit the images that it is to be shown on.
    """
    environment = _environment()
    style = _style()
    policy = f"default-src 'none'; img-src data:; style-src '{style_hash(style)}'; base-uri 'none'; form-action 'none'"
    return environment.get_template("report.html.jinja").render(
        content=content,
        policy=policy,
        style=Markup(style),
        verdict=verdict(content),
        tiles=_tiles(content),
        steps=next_steps(content) if content.victim is not None else (),
        evidence=clearest(content.scan) if content.scan is not None else (),
        kinds=_kind_views(content),
        steps_of_score=svg.SCORE_STEPS,
        pictures=tuple(PictureView(p, SIZE_UNITS.get(p.kind), show(p)) for p in content.pictures),
        neuron=_neuron_chart(content.neuron),
        rates=_rate_views(content),
        counts=count_rows(content.evaluation) if content.evaluation is not None else (),
        costs=cost_rows(content),
        facts=facts(content),
        glossary=GLOSSARY,
        named=lambda index: ClassName.of(content.victim, index),
    )


def style_hash(style: str) -> str:
    """The source expression that allows exactly this inline style sheet."""
    return "sha256-" + base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("untrojan.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else plain(value),
    )
    environment.filters.update(percent=percent, interval=interval, number=number, score_text=score_text, small=small)
    environment.tests.update(class_name=lambda p: isinstance(p, ClassName), code=lambda p: isinstance(p, Code))
    return environment


def _style() -> str:
    return resources.files("untrojan.report").joinpath("templates/style.css").read_text("utf-8")


def _kind_views(content: ReportContent) -> tuple[KindView, ...]:
    scan = content.scan
    if scan is None:
        return ()
    views = []
    for kind in kinds(scan):
        pairs = tuple(pair for pair in scan.pairs if pair.kind == kind)
        unit, chart, limit = SIZE_UNITS.get(kind), None, PAIRS_WITHOUT_MAP
        if scan.victim.classes <= svg.LARGEST_MAP:
            names = [ClassName.of(scan.victim, index) for index in range(scan.victim.classes)]
            chart = svg.heat_map(pairs, names, _map_title(kind, pairs), unit)
            limit = PAIRS_BESIDE_MAP
        detected = sum(pair.detected for pair in pairs)
        views.append(KindView(kind, unit, chart, top_pairs(pairs, limit), len(pairs), detected))
    return tuple(views)


def _map_title(kind: str, pairs: Sequence[PairScore]) -> str:
    detected = sum(pair.detected for pair in pairs)
    return f"Anomaly scores of {len(pairs)} pairs of classes, {kind} triggers; {detected} detected, listed in the table"


def _neuron_chart(neuron: NeuronHistogram | None) -> Markup | None:
    if neuron is None:
        return None
    said = "; ".join(
        f"{name} at distance {neuron.distance(densities):.2f} from clean" for name, densities in neuron.curves()[1:]
    )
    return svg.histogram(neuron, f"Activations of {neuron.layer}, channel {neuron.channel}: {said}")


def _rate_views(content: ReportContent) -> tuple[RateView, ...]:
    if content.evaluation is None:
        return ()
    rows = rate_rows(content.evaluation)
    return tuple(RateView(row, svg.whiskers(row.name, row.before, row.after, row.reference)) for row in rows)


def _tiles(content: ReportContent) -> tuple[Tile, ...]:
    """Attack success, right answers despite the trigger, accuracy: those that were measured before."""
    if content.evaluation is None:
        return ()
    labels = {"ASR": "Attack succeeds", "SIA": "Right despite the trigger", "ACC": "Right on clean images"}
    rows = {row.name: row for row in rate_rows(content.evaluation)}
    return tuple(
        Tile(label, percent(rows[name].before.value), _share(rows[name].after), _note(rows[name]))  # type: ignore[union-attr]
        for name, label in labels.items()
        if rows[name].before is not None
    )


def _share(rate: Rate | None) -> str | None:
    return None if rate is None else percent(rate.value)


def _note(row: RateRow) -> str | None:
    return None if row.reference is None else f"{row.reference_name} {percent(row.reference.value)}"
