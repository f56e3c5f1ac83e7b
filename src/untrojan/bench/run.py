"""Which task comes when: every scan before the cells that need it, what is there already never again."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from untrojan.bench.cell import Cell, CellRecord, failed, finished, write_record
from untrojan.bench.workers import Ended, Task, Workers


@dataclass(frozen=True)
class Outcome:
    """What became of a cell: measured now, there already, or failed."""

    cell: Cell
    status: Literal["done", "there", "failed"]
    record: CellRecord


@dataclass(frozen=True)
class Scanned:
    """The scan that a cell needs is there."""

    cell: Cell


def waiting_and_there(cells: Sequence[Cell], out: Path) -> tuple[list[Cell], list[Outcome]]:
    """The cells that are yet to be measured, each once though two methods may be the same, and those that are there."""
    waiting: dict[str, Cell] = {}
    there: dict[str, Outcome] = {}
    for cell in cells:
        if cell.key in waiting or cell.key in there:
            continue
        record = finished(cell, out)
        if record is None:
            waiting[cell.key] = cell
        else:
            there[cell.key] = Outcome(cell, "there", record)
    return list(waiting.values()), list(there.values())


def run(cells: Sequence[Cell], out: Path, workers: Workers, *, device: str) -> Generator[Outcome | Scanned]:
    """Measure cells that are not there yet; scans and outcomes come as they are ready, and each failure has its record.

    A task that is lost with its worker is tried once more. One cell's failure stops no other; that of a scan is the
    failure of all cells that need it. The workers are closed in the end, whatever happens.
    """
    queue = _Queue(cells, out, device)
    running = 0
    try:
        while True:
            while workers.idle and (task := queue.take()) is not None:
                workers.submit(task)
                running += 1
            if not running:
                return
            ended = workers.next()
            running -= 1
            yield from queue.ended(ended)
    finally:
        workers.close()


class _Queue:
    """The tasks that are left, in order; a cell waits for its scan."""

    def __init__(self, cells: Sequence[Cell], out: Path, device: str):
        self._out, self._device = out, device
        self._ready: deque[Task] = deque()
        self._behind: dict[str, list[Task]] = {}
        self._lost: set[str] = set()
        for cell in cells:
            task = Task("cell", cell, out, device)
            if not cell.method.needs_scan:
                self._ready.append(task)
                continue
            scan = Task("scan", cell, out, device)
            if scan.id not in self._behind:
                self._behind[scan.id] = []
                self._ready.append(scan)
            self._behind[scan.id].append(task)

    def take(self) -> Task | None:
        """The next task that can be begun."""
        return self._ready.popleft() if self._ready else None

    def ended(self, ended: Ended) -> Sequence[Outcome | Scanned]:
        """Take note of how a task ended: the scan, or the cells about which everything is known now."""
        task, reason = ended.task, ended.reason
        if ended.lost and task.id not in self._lost:
            self._lost.add(task.id)
            self._ready.appendleft(task)
            return []
        if task.kind == "scan":
            # Its cells come before those of other victims, so that whole victims are finished first.
            freed = self._behind.pop(task.id)
            if reason is None:
                self._ready.extendleft(reversed(freed))
                return [Scanned(task.cell)]
            return [self._failed(one.cell, reason) for one in freed]
        if reason is not None:
            return [self._failed(task.cell, reason)]
        record = finished(task.cell, self._out)
        if record is None:
            return [self._failed(task.cell, f"its record is not in {self._out.name}: workers elsewhere must share it")]
        return [Outcome(task.cell, "done", record)]

    def _failed(self, cell: Cell, reason: str) -> Outcome:
        record = failed(cell, reason)
        write_record(self._out, record)
        return Outcome(cell, "failed", record)
