"""The report on a terminal. Names from outside are never read as markup or as control sequences."""

from __future__ import annotations

import io

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from untrojan.records import Rate, ScanReport
from untrojan.report.advice import next_steps
from untrojan.report.content import ReportContent
from untrojan.report.tables import RateRow, clearest, cost_rows, count_rows, kinds, rate_rows, top_pairs
from untrojan.report.verdict import verdict
from untrojan.report.wording import (
    NOT_MEASURED,
    SIZE_UNITS,
    ClassName,
    Code,
    Sentence,
    interval,
    number,
    percent,
    plain,
    score_text,
    small,
)

WIDTH = 100
PAIRS_SHOWN = 10
LEGEND = (
    ("ACC", "right on clean images"),
    ("ASR", "attack succeeds"),
    ("SIA", "right despite the trigger"),
    ("TPR", "triggered flagged"),
    ("FPR", "clean flagged"),
)
STYLES = {"bad": "bold red", "good": "bold green", "unsure": "bold yellow", "neutral": "bold"}


def render_text(content: ReportContent) -> str:
    """The report as plain text, 100 columns wide, without colours."""
    stream = io.StringIO()
    print_text(content, Console(file=stream, width=WIDTH, color_system=None, force_terminal=False, force_jupyter=False))
    return "".join(line.rstrip() + "\n" for line in stream.getvalue().splitlines())


def print_text(content: ReportContent, console: Console) -> None:
    """Print the report: verdict, targets, the highest pairs of each kind, rates, cost.

    Colours, width and NO_COLOR are the console's business.
    """
    _Printer(console).report(content)


class _Printer:
    def __init__(self, console: Console):
        self.console = console

    def report(self, content: ReportContent) -> None:
        self._verdict(content)
        if content.scan is not None:
            self._evidence(content, content.scan)
            for kind in kinds(content.scan):
                self._pairs(content, kind)
        if content.evaluation is not None:
            self._rates(content)
        self._origin(content)

    def _text(self, text: str, style: str = "") -> Text:
        """Text as it is, with only the characters that the console's encoding has."""
        encoding = self.console.encoding
        return Text(plain(text).encode(encoding, "replace").decode(encoding), style=style)

    def _line(self, text: str, style: str = "", indent: int = 0) -> None:
        self.console.print(Padding(self._text(text, style), (0, 0, 0, indent), expand=False))

    def _show(self, table: Table) -> None:
        self.console.print(Padding(table, (0, 0, 0, 2), expand=False))

    def _heading(self, text: str) -> None:
        self.console.print()
        self._line(text, "bold")

    def _verdict(self, content: ReportContent) -> None:
        answer = verdict(content)
        self._line(answer.headline, STYLES[answer.tone])
        for sentence in answer.sentences:
            self._line(_spoken(sentence))
        if answer.warning is not None:
            self._line(_spoken(answer.warning), STYLES["bad"])
        if answer.reason is not None:
            self._line(answer.reason, "dim")
        steps = next_steps(content) if content.victim is not None else ()
        if steps:
            self._heading("What to do next")
        numbered = self._table("", "")
        for position, step in enumerate(steps, 1):
            numbered.add_row(self._text(f"{position}."), self._text(_spoken(step)))
        self._show(numbered)

    def _evidence(self, content: ReportContent, scan: ScanReport) -> None:
        rows = clearest(scan)
        if not rows:
            return
        self._heading("The most anomalous triggers")
        table = self._table("kind", "images of", "sent to", "size", "ratio", "p-value", right=(3, 4, 5))
        for row in rows:
            start = "all classes" if row.source is None else ClassName.of(content.victim, row.source).short
            end = "one other each" if row.target is None else ClassName.of(content.victim, row.target).short
            ratio = f"{number(row.ratio)}x"
            cells = (row.kinds_in_words, start, end, number(row.size), ratio, small(row.p_value))
            table.add_row(*(self._text(cell) for cell in cells))
        self._show(table)

    def _pairs(self, content: ReportContent, kind: str) -> None:
        scan = content.scan
        pairs = [] if scan is None else [pair for pair in scan.pairs if pair.kind == kind]
        unit = f" (size: {SIZE_UNITS[kind]})" if kind in SIZE_UNITS else ""
        found = sum(pair.detected for pair in pairs)
        self._heading(f"Trigger kind {kind}: {found} of {len(pairs)} pairs detected{unit}")
        table = self._table("images of", "sent to", "size", "score", "", right=(2, 3))
        for pair in top_pairs(pairs, PAIRS_SHOWN):
            source, target = (ClassName.of(content.victim, c).short for c in (pair.source, pair.target))
            cells = (source, target, number(pair.size), score_text(pair.score), "detected" if pair.detected else "")
            table.add_row(*(self._text(cell, "bold" if pair.detected else "") for cell in cells))
        self._show(table)

    def _rates(self, content: ReportContent) -> None:
        evaluation = content.evaluation
        if evaluation is None:
            return
        self._heading("Rates, with 95% intervals")
        table = self._table("", "before", "behind the guard", "")
        for row in rate_rows(evaluation):
            cells = (row.name, _before(row), _rate(row.after), _reference(row))
            table.add_row(*(self._text(cell, "dim" if i == 3 else "") for i, cell in enumerate(cells)))
        self._show(table)
        self._line("; ".join(f"{name} {meaning}" for name, meaning in LEGEND), "dim", indent=2)
        self._line("; ".join(f"{value:,} {label}" for label, value in count_rows(evaluation)), "dim", indent=2)

    def _origin(self, content: ReportContent) -> None:
        rows = cost_rows(content)
        if rows:
            self._heading("Cost")
            table = self._table("", "time", "images forward", "forward and backward", right=(1, 2, 3))
            for row in rows:
                cells = (
                    row.step,
                    row.duration,
                    f"{row.cost.images_forward:,}",
                    f"{row.cost.images_forward_backward:,}",
                )
                table.add_row(*(self._text(cell) for cell in cells))
            self._show(table)
        record = content.scan or content.evaluation or content.guard
        if record is not None:
            self.console.print()
            origin = f"classifier {record.victim.sha256[:16]}, seed {record.seed}, untrojan {record.version}"
            self._line(origin, "dim")

    def _table(self, *headers: str, right: tuple[int, ...] = ()) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=any(headers))
        for position, header in enumerate(headers):
            side = "right" if position in right else "left"
            table.add_column(self._text(header, "dim"), justify=side, overflow="fold")  # type: ignore[arg-type]
        return table


def _spoken(sentence: Sentence) -> str:
    words = (p.short if isinstance(p, ClassName) else p.text if isinstance(p, Code) else p for p in sentence)
    return "".join(words)


def _rate(rate: Rate | None) -> str:
    return NOT_MEASURED if rate is None else f"{percent(rate.value)} ({interval(rate)})"


def _before(row: RateRow) -> str:
    return _rate(row.before) if row.applies_before else ""


def _reference(row: RateRow) -> str:
    return "" if row.reference is None else f"{row.reference_name} {percent(row.reference.value)}"
