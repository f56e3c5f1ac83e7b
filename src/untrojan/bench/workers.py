"""Those that do the work: processes of this machine, each of which may die without taking others with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Literal, Protocol

import torch

from untrojan.bench.cell import Cell
from untrojan.bench.work import measure_cell, scan_cell


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


def perform(task: Task, threads: int) -> str | None:
    """Do a task; why it failed, or None. Whatever goes wrong in a cell is this cell's failure alone."""
    torch.set_num_threads(min(threads, torch.get_num_threads()))
    try:
        (scan_cell if task.kind == "scan" else measure_cell)(task.cell, task.out, task.device)
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        return f"{'scan: ' if task.kind == 'scan' else ''}{type(error).__name__}: {text or 'no reason was given'}"
    return None


@dataclass
class _Worker:
    process: SpawnProcess
    connection: Connection
    task: Task | None = None


class Processes:
    """``jobs`` processes, each with ``threads`` threads, started when there is work for them.

    A process that dies (killed, out of memory) loses the task that it had; another one takes its place.
    """

    def __init__(self, jobs: int, threads: int):
        self.jobs, self.threads = jobs, threads
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []

    @property
    def idle(self) -> bool:
        """Whether another task can be begun now."""
        return sum(worker.task is not None for worker in self._workers) < self.jobs

    def submit(self, task: Task) -> None:
        """Give a task to a worker that has none. A worker that died meanwhile is noticed by ``next``."""
        free = next((worker for worker in self._workers if worker.task is None and worker.process.is_alive()), None)
        worker = free or self._start()
        worker.task = task
        try:
            worker.connection.send(task)
        except OSError:
            worker.process.kill()

    def next(self) -> Ended:
        """Wait until a task has ended."""
        while True:
            busy = [worker for worker in self._workers if worker.task is not None]
            wait([end for worker in busy for end in (worker.connection, worker.process.sentinel)])
            for worker in busy:
                if (ended := self._ended(worker)) is not None:
                    return ended

    def close(self) -> None:
        """End all workers, whatever they are doing."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.connection.close()
        self._workers.clear()

    def _start(self) -> _Worker:
        here, there = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(there, self.threads), daemon=True)
        process.start()
        there.close()
        worker = _Worker(process, here)
        self._workers.append(worker)
        return worker

    def _ended(self, worker: _Worker) -> Ended | None:
        task = worker.task
        if task is None or not (worker.connection.poll() or not worker.process.is_alive()):
            return None
        try:
            reason = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join()
            worker.connection.close()
            self._workers.remove(worker)
            return Ended(task, f"its worker died ({_how(worker.process.exitcode)})", lost=True)
        worker.task = None
        return Ended(task, reason)


def _how(code: int | None) -> str:
    """Of an exit code: what ended the process."""
    if code is None or code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"{name}, as when memory runs out" if name == "SIGKILL" else name


def _serve(connection: Connection, threads: int) -> None:
    """What a worker does: tasks, until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    warnings.simplefilter("ignore")
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        connection.send(perform(task, threads))


def _end_with_parent() -> None:
    """A parent that was killed outright cannot end its workers, which would go on for nobody."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
