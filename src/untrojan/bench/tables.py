"""Records to tables: what each method does to each group of victims, averaged over victims."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic import ConfigDict, Field

from untrojan.bench.cell import Cell, CellRecord
from untrojan.bench.plan import COSTS, RATES, Plan, Table
from untrojan.bench.statistics import Mean, mean_over_victims
from untrojan.errors import UsageError
from untrojan.records import Cost, Record

Facts = tuple[str, ...]


class Entry(Record):
    """One method (or whatever the rows are) on one group of victims. ``found``: of how many cells, of those with a
    scan, it found a backdoor; cost: of making the guard, the scan included, None where any part is unknown."""

    row: Facts
    column: Facts
    cells: int
    failed: int
    found: tuple[int, int] | None
    rates: dict[str, Mean | None]
    cost: dict[str, Mean | None]


class BenchTable(Record):
    """``table.json``."""

    schema_: Literal["untrojan-bench-table-1"] = Field("untrojan-bench-table-1", alias="schema")
    name: str
    title: str | None
    rows: Facts
    columns: Facts
    rates: Facts
    entries: tuple[Entry, ...]
    failed: tuple[tuple[str, str], ...]

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)


def check_table(cells: Sequence[Cell], table: Table) -> None:
    """Raise UsageError if rows or columns name what no cell has, or if they mix what was varied on purpose."""
    known = {name for cell in cells for name in cell.facts()}
    for name in (*table.rows, *table.columns):
        if name not in known:
            raise UsageError(f"[table] '{name}' is no fact of any cell; there are {', '.join(sorted(known))}")
    seen: dict[tuple[Facts, Facts, str, int], Cell] = {}
    for cell in cells:
        place = (_place(cell, table.rows, table), _place(cell, table.columns, table), cell.victim.name, cell.seed)
        other = seen.setdefault(place, cell)
        if other.key != cell.key:  # the same one twice is no more than once
            raise UsageError(
                f"two cells fall on one place of the table, '{cell.name}' and '{other.name}'; name what tells them "
                "apart in its rows or columns, or give each [[method]] its own label"
            )


def table_of(plan: Plan, cells: Sequence[Cell], records: Mapping[str, CellRecord]) -> BenchTable:
    """The table of finished and failed cells; records: by key. Cells without a record are left out."""
    # By key: a cell may be there twice, and under another label it has a place of its own.
    groups: dict[tuple[Facts, Facts], dict[str, tuple[Cell, CellRecord]]] = {}
    for cell in cells:
        if cell.key in records:
            place = (_place(cell, plan.table.rows, plan.table), _place(cell, plan.table.columns, plan.table))
            groups.setdefault(place, {})[cell.key] = cell, records[cell.key]
    return BenchTable(
        name=plan.name,
        title=plan.title,
        rows=plan.table.rows,
        columns=plan.table.columns,
        rates=tuple(rate for rate in plan.table.rates if rate != "found"),
        entries=tuple(_entry(row, column, list(group.values())) for (row, column), group in groups.items()),
        failed=tuple(
            (cell.name, records[cell.key].reason or "")
            for cell in {cell.key: cell for cell in cells}.values()
            if cell.key in records and records[cell.key].status == "failed"
        ),
    )


def rates_of(record: CellRecord) -> dict[str, float | None]:
    """The rates behind the guard, of the victim alone where the method is none; None where nothing was measured."""
    result = record.evaluation
    if result is None:
        return {}
    before, shown = result.before, result.after or result.before
    names = ("acc", "asr", "sia", "tpr", "tpr_of_successful", "fpr", "fpr_all")
    found = {name: getattr(shown, name, None) for name in names}
    found |= {"asr_floor": before.asr_floor, "sia_ceiling": before.sia_ceiling}
    return {name: None if rate is None else rate.value for name, rate in found.items()}


def cost_of(record: CellRecord) -> dict[str, float | None]:
    """Of making the guard, the scan included: None where it is not known, or where nothing was made."""
    # A scan that found something and no guard: what was spent in vain on making one is not known.
    parts = [record.cost.repair] if record.guarded or record.found else []
    if record.verdict is not None:
        parts.append(record.cost.scan)
    known: list[Cost] = [part for part in parts if part is not None]
    whole = bool(parts) and len(known) == len(parts)
    return {name: float(sum(getattr(part, name) for part in known)) if whole else None for name in COSTS}


def to_json(table: BenchTable) -> str:
    """As a record."""
    return table.model_dump_json(indent=2) + "\n"


def to_csv(table: BenchTable) -> str:
    """A line for each entry, each rate and cost with its interval; shares as fractions."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [*table.rates, *COSTS]
    spread = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    writer.writerow([*table.rows, *table.columns, "victims", "cells", "failed", "found", "scanned", *spread])
    for entry in table.entries:
        found, scanned = entry.found or ("", "")
        means = [{**entry.rates, **entry.cost}.get(name) for name in names]
        values = [value for mean in means for value in _three(mean)]
        writer.writerow(
            [*entry.row, *entry.column, _victims(entry), entry.cells, entry.failed, found, scanned, *values]
        )
    return out.getvalue()


def to_markdown(table: BenchTable) -> str:
    """A line for each row and rate, a column for each group: percent, with the 95 % interval over victims."""
    columns = list(dict.fromkeys(entry.column for entry in table.entries))
    rows = list(dict.fromkeys(entry.row for entry in table.entries))
    entries = {(entry.row, entry.column): entry for entry in table.entries}
    most = {c: max(_victims(entries[row, c]) for row in rows if (row, c) in entries) for c in columns}
    heads = [f"{', '.join(filter(None, column)) or 'all'} ({most[column]})" for column in columns]
    lines = [f"# {table.title or table.name}", ""]
    lines += [_line([*table.rows, "", *heads]), "|" + "---|" * (len(table.rows) + 1 + len(columns))]
    for row in rows:
        for name in (*table.rates, "found", *COSTS):
            cells = [_shown(entries[row, c], name, most[c]) if (row, c) in entries else "–" for c in columns]
            if any(cell != "–" for cell in cells):
                lines.append(_line([*row, _heading(name), *cells]))
    lines += [
        "",
        "In brackets beside a group: its victims. Rates in percent, means over victims with their 95 % interval",
    ]
    lines += ["(Student's t; none for one victim). What it cost is for each victim, the scan included."]
    if table.failed:
        lines += ["", "Failed:", ""]
        lines += [f"- {_plain(name)}: {_plain(reason)}" for name, reason in table.failed]
    return "\n".join(lines) + "\n"


def _shown(entry: Entry, name: str, most: int) -> str:
    """A rate, a cost or what was found, as the table has it; ``most``: the victims of the group."""
    if name == "found":
        return "–" if entry.found is None else f"{entry.found[0]} of {entry.found[1]}"
    return _amount(entry.cost.get(name)) if name in COSTS else _percent(entry.rates.get(name), most)


def _entry(row: Facts, column: Facts, group: Sequence[tuple[Cell, CellRecord]]) -> Entry:
    done = [(cell, record) for cell, record in group if record.status == "done"]
    scanned = [record.found for _, record in done if record.found is not None]
    rates = [(cell.victim.name, rates_of(record)) for cell, record in done]
    costs = [(cell.victim.name, cost_of(record)) for cell, record in done]
    names = list(dict.fromkeys(name for _, values in rates for name in values))
    return Entry(
        row=row,
        column=column,
        cells=len(group),
        failed=len(group) - len(done),
        found=(sum(scanned), len(scanned)) if scanned else None,
        rates={name: mean_over_victims(_by_victim(rates, name)) for name in names},
        cost={name: _whole_mean(costs, name) for name in COSTS},
    )


def _by_victim(values: Sequence[tuple[str, Mapping[str, float | None]]], name: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for victim, own in values:
        value = own.get(name)
        if value is not None:
            found.setdefault(victim, []).append(value)
    return found


def _whole_mean(values: Sequence[tuple[str, Mapping[str, float | None]]], name: str) -> Mean | None:
    """The mean of a cost, None if one is unknown: those that were interrupted are no random choice."""
    if any(own[name] is None for _, own in values):
        return None
    return mean_over_victims(_by_victim(values, name), bounds=None)


def _place(cell: Cell, names: Sequence[str], table: Table) -> Facts:
    """The values of these facts, as text; a method is named with those of its varied options that have no place."""
    facts = cell.facts()
    own = [f"{name}={facts[name]}" for name in cell.spec.varied if name not in (*table.rows, *table.columns)]
    facts["method"] = " ".join([facts["method"], *own])
    return tuple("" if facts.get(name) is None else str(facts[name]) for name in names)


def _heading(name: str) -> str:
    return (name.upper() if name in RATES and name != "found" else name).replace("_", " ")


def _victims(entry: Entry) -> int:
    return max((mean.victims for mean in entry.rates.values() if mean is not None), default=0)


def _three(mean: Mean | None) -> list[float | str]:
    """Value and interval, empty where there is none."""
    return ["" if x is None else x for x in ((None,) * 3 if mean is None else (mean.value, mean.low, mean.high))]


def _percent(mean: Mean | None, most: int) -> str:
    """With the number of victims where it is smaller than that of the group."""
    if mean is None:
        return "–"
    value = f"{100 * mean.value:.1f}"
    if mean.low is not None and mean.high is not None:
        value += f" [{100 * mean.low:.1f}, {100 * mean.high:.1f}]"
    return value if mean.victims == most else f"{value} ({mean.victims})"


def _amount(mean: Mean | None) -> str:
    if mean is None:
        return "–"
    return f"{mean.value:,.0f}" if mean.value >= 10 or mean.value == 0 else f"{mean.value:.1f}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(_plain(cell) for cell in cells)} |"


def _plain(text: str) -> str:
    """What a table in Markdown can hold."""
    return " ".join(text.split()).replace("|", "\\|")
