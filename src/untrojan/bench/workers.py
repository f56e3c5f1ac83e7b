"""Those that do the work, each of which may die without taking others with it; here processes of this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch

from untrojan.bench.cell import Cell
from untrojan.bench.work import measure_cell, scan_cell
from untrojan.processes import Pool


@dataclass(frozen=True)
class Task:
    """A share of the work: the scan that a cell needs, or the cell itself. It is all that a worker is sent."""

    kind: Literal["scan", "cell"]
    cell: Cell
    out: Path
    device: str

    @property
    def id(self) -> str:
        """What tells it from others; cells that share a scan share the task."""
        return f"{self.kind} {self.cell.scan_key if self.kind == 'scan' else self.cell.key}"


@dataclass(frozen=True)
class Ended:
    """How a task ended: done (no reason), failed for a reason, or lost with its worker, whose end ``reason`` tells."""

    task: Task
    reason: str | None = None
    lost: bool = False


class Workers(Protocol):
    """Who does the tasks. ``submit`` may be called while ``idle``; ``next`` waits for one that was submitted."""

    @property
    def idle(self) -> bool: ...

    def submit(self, task: Task) -> None: ...

    def next(self) -> Ended: ...

    def close(self) -> None: ...


def perform(task: Task, threads: int | None = None) -> str | None:
    """Do a task; why it failed, or None. Whatever goes wrong in a cell is this cell's failure alone."""
    if threads is not None:
        torch.set_num_threads(min(threads, torch.get_num_threads()))
    try:
        (scan_cell if task.kind == "scan" else measure_cell)(task.cell, task.out, task.device)
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        return f"{'scan: ' if task.kind == 'scan' else ''}{type(error).__name__}: {text or 'no reason was given'}"
    return None


class Processes:
    """``jobs`` processes with ``threads`` threads each."""

    def __init__(self, jobs: int, threads: int):
        self.pool: Pool[Task, str | None] = Pool(perform, jobs=jobs, threads=threads)

    @property
    def idle(self) -> bool:
        """Whether another task can be begun now."""
        return self.pool.idle

    def submit(self, task: Task) -> None:
        """Begin a task."""
        self.pool.submit(task)

    def next(self) -> Ended:
        """Wait until a task has ended."""
        ended = self.pool.next()
        return Ended(ended.task, ended.result if ended.died is None else ended.died, lost=ended.died is not None)

    def close(self) -> None:
        """End all processes, whatever they are doing."""
        self.pool.close()
