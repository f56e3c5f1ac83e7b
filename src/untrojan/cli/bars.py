"""How long work is shown: bars on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from untrojan.cli.streams import say
from untrojan.progress import Progress, Silent

SECONDS_BETWEEN_LINES = 30.0


@contextmanager
def progress_shown(quiet: bool) -> Iterator[Progress]:
    """What long work reports to: nothing with ``quiet``, bars if stderr is a terminal, lines otherwise."""
    if quiet or sys.stderr is None:
        yield Silent()
    elif not sys.stderr.isatty() or Console(stderr=True).is_dumb_terminal:
        yield Lines()
    else:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with RichProgress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as live:
            yield Bars(live)


class Bars:
    """One bar per stage; a new stage takes the place of the last."""

    def __init__(self, live: RichProgress):
        self._live = live
        self._task: TaskID | None = None
        self._description = ""

    def start(self, description: str, total: int) -> None:
        self._description = description
        if self._task is not None:
            self._live.remove_task(self._task)
        self._task = self._live.add_task(description, total=total)

    def advance(self, count: int = 1) -> None:
        if self._task is not None:
            self._live.advance(self._task, count)

    def note(self, text: str) -> None:
        if self._task is not None:
            self._live.update(self._task, description=f"{self._description} ({text})")


class Lines:
    """A line when a stage starts, and at most one in ``SECONDS_BETWEEN_LINES`` while it lasts."""

    def __init__(self) -> None:
        self._description = self._note = ""
        self._total = self._done = 0
        self._started = self._told = 0.0

    def start(self, description: str, total: int) -> None:
        self._description, self._total, self._done, self._note = description, total, 0, ""
        self._started = self._told = time.monotonic()
        say(f"{description} (0/{total})")

    def advance(self, count: int = 1) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._told < SECONDS_BETWEEN_LINES or not 0 < self._done < self._total:
            return
        self._told = now
        left = (now - self._started) / self._done * (self._total - self._done)
        say(f"{self._description} ({self._done}/{self._total}, about {left:.0f} s left{self._note})")

    def note(self, text: str) -> None:
        self._note = f"; {text}"
