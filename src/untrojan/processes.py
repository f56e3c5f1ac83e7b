"""Processes of this machine that do tasks, each of which may die without taking others with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Generic, TypeVar

import torch

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Ended(Generic[Task, Result]):
    """How a task ended: with a result, or ``died`` says how its process did."""

    task: Task
    result: Result | None = None
    died: str | None = None


@dataclass
class _Worker(Generic[Task]):
    process: SpawnProcess
    connection: Connection
    task: Task | None = None


class Pool(Generic[Task, Result]):
    """``jobs`` processes with ``threads`` threads each, started when there is work for them.

    function: does a task; it and the tasks are sent to the processes. What it raises ends its process. A process that
    dies (killed, out of memory) loses the task that it had; another one takes its place.
    """

    def __init__(self, function: Callable[[Task], Result], *, jobs: int, threads: int):
        self.function, self.jobs, self.threads = function, jobs, threads
        self.workers: list[_Worker[Task]] = []
        self._context = multiprocessing.get_context("spawn")

    @property
    def idle(self) -> bool:
        """Whether another task can be begun now."""
        return sum(worker.task is not None for worker in self.workers) < self.jobs

    def submit(self, task: Task) -> None:
        """Give a task to a process that has none. One that died meanwhile is noticed by ``next``."""
        free = next((worker for worker in self.workers if worker.task is None and worker.process.is_alive()), None)
        worker = free or self._start()
        worker.task = task
        try:
            worker.connection.send(task)
        except OSError:
            worker.process.kill()

    def next(self) -> Ended[Task, Result]:
        """Wait until a task has ended."""
        while True:
            busy = [worker for worker in self.workers if worker.task is not None]
            wait([end for worker in busy for end in (worker.connection, worker.process.sentinel)])
            for worker in busy:
                if (ended := self._ended(worker)) is not None:
                    return ended

    def each(self, tasks: Iterable[Task]) -> Iterator[Ended[Task, Result]]:
        """Do all tasks; they come as they end. One that was lost with its process is tried once more."""
        waiting, lost = deque(tasks), list[Task]()
        running = 0
        while waiting or running:
            while waiting and self.idle:
                self.submit(waiting.popleft())
                running += 1
            ended = self.next()
            running -= 1
            if ended.died is not None and ended.task not in lost:
                lost.append(ended.task)
                waiting.appendleft(ended.task)
            else:
                yield ended

    def close(self) -> None:
        """End all processes, whatever they are doing."""
        for worker in self.workers:
            worker.process.kill()
        for worker in self.workers:
            worker.process.join()
            worker.connection.close()
        self.workers.clear()

    def _start(self) -> _Worker[Task]:
        here, there = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(there, self.function, self.threads), daemon=True)
        process.start()
        there.close()
        worker: _Worker[Task] = _Worker(process, here)
        self.workers.append(worker)
        return worker

    def _ended(self, worker: _Worker[Task]) -> Ended[Task, Result] | None:
        task = worker.task
        if task is None or not (worker.connection.poll() or not worker.process.is_alive()):
            return None
        try:
            result = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join()
            worker.connection.close()
            self.workers.remove(worker)
            return Ended(task, died=f"its worker died ({_how(worker.process.exitcode)})")
        worker.task = None
        return Ended(task, result)


def _how(code: int | None) -> str:
    """Of an exit code: what ended the process."""
    if code is None or code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"{name}, as when memory runs out" if name == "SIGKILL" else name


def _serve(connection: Connection, function: Callable[[Any], Any], threads: int) -> None:
    """What a process does: tasks, until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    warnings.simplefilter("ignore")
    sys.stdout = sys.stderr  # what a model's code prints is no data
    torch.set_num_threads(min(threads, torch.get_num_threads()))
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        connection.send(function(task))


def _end_with_parent() -> None:
    """A parent that was killed outright cannot end its workers, which would go on for nobody."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
