"""Records to tables, from records that are made up."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from untrojan.bench import cell as cells
from untrojan.bench.cell import Cell, CellCost, CellRecord, failed
from untrojan.bench.plan import MethodSpec, Plan, Settings, Table
from untrojan.bench.tables import BenchTable, check_table, cost_of, table_of, to_csv, to_json, to_markdown
from untrojan.bench.victims import BenchVictim
from untrojan.records import After, Before, Cost, Counts, Evaluation, Rate, VictimInfo

COST = Cost(seconds=2.0, images_forward=10, images_forward_backward=4)


def rate(value: float) -> Rate:
    return Rate(value=value, low=0.0, high=1.0)


def victim(name: str, attack: str) -> BenchVictim:
    facts = {"victim": name, "attack": attack, "setting": "A2O"}
    return BenchVictim(name, Path(name), name, attack, "a2o:1", "digits", (1, 8, 8), None, facts)


def cell(name: str, attack: str, seed: int = 0, **options: object) -> Cell:
    spec = MethodSpec("bna", "bna", "untrojan", options, {}, None, None, tuple(options))
    return Cell(victim(name, attack), spec, seed, Settings())


def record(
    of: Cell, asr: float, *, found: bool = True, tpr: float | None = 0.5, scan: Cost | None = COST
) -> CellRecord:
    result = Evaluation(
        before=Before(acc=rate(0.9), asr=rate(1.0), asr_floor=rate(0.01)),
        after=After(acc=rate(0.8), asr=rate(asr), tpr=None if tpr is None else rate(tpr)),
        counts=Counts(clean=10),
        victim=VictimInfo(sha256="0", classes=3, input_shape=(1, 8, 8)),
        cost=COST,
        seed=0,
        version="0",
    )
    return CellRecord(
        key=of.key,
        status="done",
        victim=of.victim.name,
        method="bna",
        options={},
        seed=of.seed,
        settings={},
        verdict="backdoor" if found else "clean",
        found=found,
        guarded=found,
        evaluation=result,
        cost=CellCost(scan=scan, repair=COST if found else None, evaluate=COST),
    )


def made(pairs: Sequence[tuple[Cell, CellRecord]], **table: object) -> BenchTable:
    plan = Plan.model_construct(name="t", title=None, table=Table.model_validate(table))
    return table_of(plan, [c for c, _ in pairs], {c.key: r for c, r in pairs})


@pytest.fixture
def pairs() -> list[tuple[Cell, CellRecord]]:
    chosen = [(cell("a", "badnet"), 0.1), (cell("a", "badnet", 1), 0.3), (cell("b", "badnet"), 0.6)]
    return [(c, record(c, asr, found=asr < 0.5)) for c, asr in chosen] + [
        (one := cell("c", "wanet"), record(one, 0.4, scan=None)),
        (other := cell("d", "wanet"), failed(other, "its worker | died")),
    ]


def test_entries_are_means_over_victims_with_their_interval(pairs: list[tuple[Cell, CellRecord]]) -> None:
    badnet, wanet = made(pairs, columns=["attack"]).entries
    low, high = stats.t.interval(0.95, 1, loc=0.4, scale=stats.sem([0.2, 0.6]))
    asr = badnet.rates["asr"]
    assert (asr.value, asr.low, asr.high) == pytest.approx((0.4, max(low, 0), min(high, 1)))
    assert (asr.victims, badnet.cells, badnet.found) == (2, 3, (2, 3))
    # Victim a: scan and repair of both seeds; victim b: the scan alone.
    assert badnet.cost["seconds"].value == pytest.approx((4 + 2) / 2)
    assert (wanet.cells, wanet.failed, wanet.rates["asr"].low) == (2, 1, None)
    assert wanet.cost["seconds"] is None


def test_options_that_vary_are_rows_of_their_own() -> None:
    chosen = [cell("a", "badnet", tau=tau) for tau in (50, 150)]
    named = made([(c, record(c, 0.1)) for c in chosen])
    assert [entry.row for entry in named.entries] == [("bna tau=50",), ("bna tau=150",)]
    own = made([(c, record(c, 0.1)) for c in chosen], rows=["tau"], columns=["method"])
    assert [(entry.row, entry.column) for entry in own.entries] == [(("50",), ("bna",)), (("150",), ("bna",))]


def test_the_three_forms_say_the_same(pairs: list[tuple[Cell, CellRecord]]) -> None:
    table = made(pairs, columns=["attack"], rates=["acc", "asr", "tpr"])
    shown = to_markdown(table)
    assert "| method |  | badnet (2) | wanet (1) |" in shown
    assert "| bna | ASR | 40.0 [0.0, 100.0] | 40.0 |" in shown
    assert "| bna | found | 2 of 3 | 1 of 1 |" in shown
    assert "| bna | seconds | 3.0 | – |" in shown
    assert "- d, bna, seed 0: its worker \\| died" in shown
    rows = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert [(row["attack"], row["victims"], row["found"], row["failed"]) for row in rows] == [
        ("badnet", "2", "2", "0"),
        ("wanet", "1", "1", "1"),
    ]
    assert (float(rows[0]["asr"]), rows[1]["asr_low"], rows[1]["seconds"]) == (pytest.approx(0.4), "", "")
    assert json.loads(to_json(table))["schema"] == "untrojan-bench-table-1"
    assert BenchTable.model_validate_json(to_json(table)) == table


def test_a_rate_of_fewer_victims_than_the_group_says_so() -> None:
    chosen = [cell("a", "badnet"), cell("b", "badnet")]
    table = made([(chosen[0], record(chosen[0], 0.1)), (chosen[1], record(chosen[1], 0.1, tpr=None))])
    assert "| bna | TPR | 50.0 (1) |" in to_markdown(table)


def test_a_cost_is_known_whole_or_not_at_all() -> None:
    def one(**changes: Any) -> CellRecord:
        return record(cell("a", "badnet"), 0.1, **changes)

    assert cost_of(one())["images_forward"] == 20
    assert cost_of(one(scan=None))["images_forward"] is None
    assert cost_of(one(found=False))["images_forward"] == 10
    alone = one().model_copy(update={"verdict": None, "guarded": False, "found": None})
    assert set(cost_of(alone).values()) == {None}


def test_a_mean_cost_is_of_all_its_cells_or_none() -> None:
    known, unknown = cell("a", "badnet"), cell("b", "badnet")
    (both,) = made([(known, record(known, 0.1)), (unknown, record(unknown, 0.1, scan=None))]).entries
    assert both.cost["seconds"] is None
    (one,) = made([(known, record(known, 0.1))]).entries
    assert one.cost["seconds"] is not None


def test_another_version_measures_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    before = cell("a", "badnet").key
    assert cell("a", "badnet").key == before
    monkeypatch.setattr(cells, "version", lambda: "another")
    assert cell("a", "badnet").key != before


def test_what_was_spent_on_no_guard_is_not_known() -> None:
    made = record(cell("a", "badnet"), 0.5)
    spent = Cost(seconds=10.0, images_forward=1, images_forward_backward=2)
    vain = made.model_copy(
        update={"verdict": "backdoor", "found": True, "guarded": False, "cost": CellCost(scan=spent)}
    )
    assert set(cost_of(vain).values()) == {None}
    missed = vain.model_copy(update={"verdict": "clean", "found": False})
    assert cost_of(missed)["seconds"] == 10.0


def test_a_cell_that_is_there_twice_counts_once(pairs: list[tuple[Cell, CellRecord]]) -> None:
    rest = {"rows": ["method"], "columns": ["attack"], "rates": ["asr"]}
    check_table([c for c, _ in [*pairs, pairs[0]]], Table.model_validate(rest))
    assert made([*pairs, pairs[0]], **rest) == made(pairs, **rest)


def test_one_measurement_under_two_labels_has_two_rows() -> None:
    one = cell("a", "badnet")
    other = dataclasses.replace(one, spec=dataclasses.replace(one.spec, label="the default"))
    assert one.key == other.key
    both = made([(one, record(one, 0.1)), (other, record(other, 0.1))])
    assert [entry.row for entry in both.entries] == [("bna",), ("the default",)]
