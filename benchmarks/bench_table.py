r"""A table that ``untrojan bench`` has made, as a record and in a page.

    untrojan bench --plan benchmarks/plans/table4.toml --out RUN ...
    python benchmarks/bench_table.py RUN --out benchmarks/records/table4.json --page docs/paper.md

The record is named after the plan. In percent, means over victims: ACC, ASR and its floor, SIA and its ceiling. With
--costs a second table has what making each row's guards cost, the scan included.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from page import put
from record import write_record

from untrojan.bench.tables import BenchTable

ROOT = Path(__file__).resolve().parent.parent
MEASURES = ["src/untrojan/bench/work.py", "src/untrojan/pipeline.py", "src/untrojan/correction/bna.py"]
BOUNDS = {"asr": "asr_floor", "sia": "sia_ceiling"}
COSTS = {
    "seconds": "seconds",
    "images_forward_backward": "images forward + backward",
    "images_forward": "images forward",
}


def marks(name: str) -> tuple[str, str]:
    """What the table stands between in its page."""
    return f"<!-- {name}: benchmarks/bench_table.py -->", f"<!-- end of {name} -->"


def table(results: dict[str, Any]) -> str:
    """A line for each row of the plan's table, a column for each of its groups of victims, with how many these are."""
    entries = BenchTable.model_validate(results["table"]).entries
    columns = list(dict.fromkeys(one.column for one in entries))
    rows = list(dict.fromkeys(one.row for one in entries))
    at = {(one.row, one.column): one for one in entries}
    victims = {
        c: max(mean.victims for one in entries if one.column == c for mean in one.rates.values() if mean)
        for c in columns
    }
    heads = [*results["table"]["rows"], *(f"{', '.join(filter(None, c))} ({victims[c]})" for c in columns)]
    made = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        cells = [_rates(at[row, c].rates) if (row, c) in at else "–" for c in columns]
        made.append(f"| {' | '.join([*row, *cells])} |")
    return "\n".join(made)


def _rates(rates: dict[str, Any]) -> str:
    shown = []
    for name in ("acc", *BOUNDS):
        if rates.get(name) is not None:
            bound = rates.get(BOUNDS.get(name, ""))
            shown.append(f"{100 * rates[name].value:.1f}" + (f" ({100 * bound.value:.1f})" if bound else ""))
    return ", ".join(shown) or "–"


def costs(results: dict[str, Any]) -> str:
    """A line for each row that has cost something: the means over all its columns, and of how many these are."""
    entries = BenchTable.model_validate(results["table"]).entries
    heads = [*results["table"]["rows"], "groups", *COSTS.values()]
    made = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in dict.fromkeys(one.row for one in entries):
        own = [one.cost for one in entries if one.row == row and all(one.cost.get(name) for name in COSTS)]
        if own:
            means = [statistics.mean(mean.value for cost in own if (mean := cost[name])) for name in COSTS]
            made.append(f"| {' | '.join([*row, str(len(own)), *(f'{mean:,.0f}' for mean in means)])} |")
    return "\n".join(made)


def main() -> None:
    """Read the run's table, record it, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="what untrojan bench --out wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--page", type=Path, help="the page with the table")
    parser.add_argument("--costs", action="store_true", help="put a table of costs into the page, too")
    given = parser.parse_args()
    results = {"table": json.loads((given.run / "table.json").read_text(encoding="utf-8"))}
    print(table(results))
    write_record(given.out, name=given.out.stem, script=__file__, seed=0, results=results, measures=MEASURES)
    if given.page:
        put(given.page, *marks(given.out.stem), table(results))
        if given.costs:
            put(given.page, *marks(f"costs of {given.out.stem}"), costs(results))


if __name__ == "__main__":
    main()
