"""Scheduling: order, failures, workers that die, what is there already."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from untrojan.bench.cell import Cell, CellRecord, finished
from untrojan.bench.run import Outcome, run, waiting_and_there
from untrojan.bench.workers import Ended, Processes, Task, perform
from untrojan.errors import MissingExtraError, UntrojanError

NONE = {"name": "none"}
STRIP = {"name": "strip", "options": {"overlays": 5}}
BNA = {"name": "bna", "options": {"steps": 2}}
CellsOf = Callable[..., list[Cell]]


class Here:
    """Works in this process, and loses a task with its worker as often as it is told."""

    def __init__(self, losses: dict[str, int] | None = None, jobs: int = 2):
        self.losses, self.jobs = dict(losses or {}), jobs
        self.tasks: list[Task] = []
        self.begun: list[str] = []
        self.closed = False

    @property
    def idle(self) -> bool:
        return len(self.tasks) < self.jobs

    def submit(self, task: Task) -> None:
        self.begun.append(task.id)
        self.tasks.append(task)

    def next(self) -> Ended:
        task = self.tasks.pop()
        if self.losses.get(task.id, 0):
            self.losses[task.id] -= 1
            return Ended(task, "its worker died", lost=True)
        return Ended(task, perform(task, 1))

    def close(self) -> None:
        self.closed = True


def all_of(cells: list[Cell], out: Path, workers: Any) -> dict[str, Outcome]:
    events = list(run(cells, out, workers, device="cpu"))
    return {event.cell.key: event for event in events if isinstance(event, Outcome)}


def test_each_scan_comes_once_and_before_its_cells(cells: CellsOf, tmp_path: Path) -> None:
    wanted, workers = cells(NONE, BNA, {**BNA, "label": "b", "options": {"steps": 3}}), Here()
    ended = all_of(wanted, tmp_path, workers)
    assert {outcome.status for outcome in ended.values()} == {"done"}
    assert len(ended) == 6
    assert workers.closed
    scans = [task for task in workers.begun if task.startswith("scan")]
    assert len(scans) == len(set(scans)) == 2
    for cell in wanted:
        if cell.method.needs_scan:
            assert workers.begun.index(f"scan {cell.scan_key}") < workers.begun.index(f"cell {cell.key}")


def test_where_nothing_is_found_the_rates_stay_and_nothing_is_flagged(cells: CellsOf, tmp_path: Path) -> None:
    wanted = cells(NONE, BNA)
    records = {key: outcome.record for key, outcome in all_of(wanted, tmp_path, Here()).items()}
    alone, behind = records[wanted[0].key], records[wanted[1].key]
    assert (behind.found, behind.guarded, behind.verdict) == (False, False, "inconclusive")
    assert behind.reason.startswith("not found: the scan says inconclusive")
    before, after = behind.evaluation.before, behind.evaluation.after
    assert (after.acc, after.asr, after.sia) == (before.acc, before.asr, before.sia)
    assert after.tpr.value == after.fpr.value == after.fpr_all.value == 0
    assert alone.found is None
    assert alone.evaluation.before == before
    clean = records[wanted[3].key]
    assert clean.evaluation.after.asr is None
    assert clean.evaluation.after.fpr_all.value == 0
    assert json.loads(behind.model_dump_json())["schema"] == "untrojan-bench-cell-1"
    assert (behind.images.defence, behind.images.scan, behind.images.test) == (30, 30, 60)


def test_a_lost_task_is_tried_once_more(cells: CellsOf, tmp_path: Path) -> None:
    wanted = cells(NONE, BNA)
    lost = {f"cell {wanted[0].key}": 1, f"scan {wanted[1].scan_key}": 1, f"cell {wanted[2].key}": 2}
    ended = all_of(wanted, tmp_path, Here(lost))
    assert [ended[cell.key].status for cell in wanted] == ["done", "done", "failed", "done"]
    record = ended[wanted[2].key].record
    assert (record.status, record.reason) == ("failed", "its worker died")
    assert finished(wanted[2], tmp_path) is None


def test_a_scan_that_fails_fails_its_cells_alone(cells: CellsOf, tmp_path: Path) -> None:
    wanted = cells(NONE, BNA)
    ended = all_of(wanted, tmp_path, Here({f"scan {wanted[1].scan_key}": 2}))
    assert [ended[cell.key].status for cell in wanted] == ["done", "failed", "done", "done"]


def test_what_goes_wrong_in_a_cell_is_its_reason(cells: CellsOf, tmp_path: Path) -> None:
    wanted = cells({"name": "strip", "options": {"overlays": 29}}, NONE)
    ended = all_of(wanted, tmp_path, Here())
    assert ended[wanted[0].key].record.reason.startswith("DataError: STRIP with 29 overlays")
    assert ended[wanted[1].key].status == "done"
    waiting, there = waiting_and_there(wanted, tmp_path)
    assert [cell.key for cell in waiting] == [wanted[0].key, wanted[2].key]
    assert len(there) == 2


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b'{"schema": "other"}', None])
def test_a_record_that_cannot_be_read_is_made_again(cells: CellsOf, tmp_path: Path, damage: bytes | None) -> None:
    wanted = cells(NONE)[:1]
    all_of(wanted, tmp_path, Here())
    path = tmp_path / "cells" / f"{wanted[0].key}.json"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(wanted[0].key.encode(), b"0" * 24) if damage is None else damage)
    assert [cell.key for cell in waiting_and_there(wanted, tmp_path)[0]] == [wanted[0].key]
    all_of(wanted, tmp_path, Here())
    again = CellRecord.model_validate_json(path.read_bytes())
    first = CellRecord.model_validate_json(whole)
    assert again.evaluation.before == first.evaluation.before


def test_a_scan_that_is_damaged_or_of_other_images_is_made_again(cells: CellsOf, tmp_path: Path) -> None:
    cell = cells(BNA)[0]
    task = Task("scan", cell, tmp_path, "cpu")
    assert perform(task, 1) is None
    folder = tmp_path / "scans" / cell.scan_key
    whole = (folder / "scan.json").read_bytes()
    for name, content in (("scan.json", b"{"), ("bench.json", b"[]"), ("bench.json", b'{"key": "other"}')):
        (folder / name).write_bytes(content)
        (folder / "scan-state").mkdir(exist_ok=True)
        assert perform(task, 1) is None
        scans = [json.loads(text) for text in (whole, (folder / "scan.json").read_bytes())]
        assert scans[0].pop("cost")
        assert scans[1].pop("cost")
        assert scans[0] == scans[1]
        assert json.loads((folder / "bench.json").read_bytes())["whole"] is False


def test_a_key_depends_on_what_determines_the_cell_and_on_nothing_else(cells: CellsOf) -> None:
    def key(*methods: dict[str, object], **settings: object) -> str:
        return cells(*methods, **settings)[0].key

    same = key(BNA)
    assert key({**BNA, "label": "another name"}) == same
    assert key({**BNA, "options": {"steps": 2, "tau": 150}}) == same
    others = [key(NONE), key(STRIP), key({**BNA, "options": {"steps": 3}}), key({**BNA, "margin_share": 0.1})]
    others += [key(BNA, seeds=(1,)), key(BNA, defence=0.5), key(BNA, test_limit=9), key(BNA, scan_images=9)]
    others += [cells(BNA)[1].key, key({**BNA, "test_limit": 8}), key(BNA, data="digits")]
    assert len({same, *others}) == 1 + len(others)
    assert key(NONE, scan_images=9) == key(NONE)


def test_a_process_that_is_killed_loses_its_own_task_alone(cells: CellsOf, tmp_path: Path) -> None:
    class Mortal(Processes):
        killed = 0

        def submit(self, task: Task) -> None:
            super().submit(task)
            if not self.killed:
                self.killed += 1
                self.pool.workers[-1].process.kill()

    workers = Mortal(jobs=2, threads=1)
    wanted = cells(NONE, STRIP)
    ended = all_of(wanted, tmp_path, workers)
    assert [ended[cell.key].status for cell in wanted] == ["done"] * 4
    assert workers.killed == 1
    assert not workers.pool.workers


@dataclass(frozen=True, eq=False)
class Reference:
    """What Ray gives for a task."""

    number: int
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


class FakeRay(types.ModuleType):
    """As much of Ray as is used; a task whose number is in ``deaths`` loses its worker."""

    def __init__(self, deaths: set[int]):
        super().__init__("ray")
        self.deaths, self.count, self.calls = deaths, 0, []
        error = type("RayError", (Exception,), {})
        self.exceptions = types.SimpleNamespace(RayError=error)

    def init(self, address: str | None, **options: Any) -> None:
        if address == "nowhere":
            raise ConnectionError("no\ncluster")
        self.calls.append("init")

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 3.0}

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 1.0}}] * 3

    def remote(self, **options: Any) -> Callable[..., Any]:
        assert options == {"num_cpus": 1, "num_gpus": 0, "max_retries": 0}

        def wrap(function: Callable[..., Any]) -> Any:
            def submit(*arguments: Any) -> Reference:
                self.count += 1
                return Reference(self.count, function, arguments)

            return types.SimpleNamespace(remote=submit)

        return wrap

    def wait(self, references: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        return references[:1], references[1:]

    def get(self, reference: Any) -> Any:
        if reference.number in self.deaths:
            raise self.exceptions.RayError("the worker died")
        return reference.function(*reference.arguments)

    def cancel(self, reference: Any, force: bool) -> None:
        self.calls.append("cancel")

    def shutdown(self) -> None:
        self.calls.append("shutdown")


def test_on_ray_a_lost_task_is_tried_once_more(cells: CellsOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from untrojan.bench.ray_workers import RayWorkers

    ray = FakeRay({1})
    monkeypatch.setitem(sys.modules, "ray", ray)
    workers = RayWorkers()
    assert (workers.jobs, workers.threads) == (3, 1)
    wanted = cells(NONE)
    ended = all_of(wanted, tmp_path, workers)
    assert [ended[cell.key].status for cell in wanted] == ["done", "done"]
    assert (ray.count, ray.calls) == (3, ["init", "shutdown"])
    with pytest.raises(UntrojanError, match=r"no Ray cluster at nowhere \(no cluster\)"):
        RayWorkers("nowhere")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"untrojan\[ray\]"):
        RayWorkers()
