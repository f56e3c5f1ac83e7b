"""What long work shows, and how it ends when it is stopped."""

from __future__ import annotations

import io
import signal
import subprocess
import sys

import pytest
from rich.console import Console
from rich.progress import Progress as RichProgress
from tiny_cli import stripes, write_folder

from untrojan.cli import bars
from untrojan.cli.bars import Bars, Lines, progress_shown
from untrojan.progress import Silent


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(bars.time, "monotonic", lambda: self.now)


def test_lines_come_now_and_then_with_the_time_left(capsys, monkeypatch):
    clock = Clock(monkeypatch)
    lines = Lines()
    lines.start("inverting", 100)
    for second in range(1, 101):
        clock.now = 100.0 + second
        lines.advance()
    lines.start("judging", 3)
    lines.advance(3)
    assert capsys.readouterr().err.splitlines() == [
        "inverting (0/100)",
        "inverting (30/100, about 70 s left)",
        "inverting (60/100, about 40 s left)",
        "inverting (90/100, about 10 s left)",
        "judging (0/3)",
    ]


def test_a_stage_without_units_is_told_once(capsys, monkeypatch):
    clock = Clock(monkeypatch)
    lines = Lines()
    lines.start("thinking", 0)
    clock.now += 1000
    lines.advance()
    assert capsys.readouterr().err == "thinking (0/0)\n"


def test_bars_show_one_stage_at_a_time():
    live = RichProgress(console=Console(file=io.StringIO(), force_terminal=True))
    shown = Bars(live)
    shown.advance()
    shown.start("[bold]one", 4)
    shown.advance(3)
    shown.start("two", 2)
    shown.advance()
    assert [(task.description, task.completed, task.total) for task in live.tasks] == [("two", 1, 2)]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("quiet", "stderr", "term", "kind"),
    [
        (True, Terminal(), "xterm", Silent),
        (False, None, "xterm", Silent),
        (False, io.StringIO(), "xterm", Lines),
        (False, Terminal(), "dumb", Lines),
        (False, Terminal(), "xterm", Bars),
    ],
)
def test_what_is_shown_depends_on_who_looks(monkeypatch, quiet, stderr, term, kind):
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr("sys.stderr", stderr)
    with progress_shown(quiet) as progress:
        assert isinstance(progress, kind)
        progress.start("work", 2)
        progress.advance()


def test_bars_write_nothing_to_stdout_and_clean_up(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", terminal)
    with progress_shown(False) as progress:
        progress.start("work", 2)
        progress.advance()
        print("data")
    assert capsys.readouterr().out == "data\n"
    assert "work" in terminal.getvalue()
    assert "data" not in terminal.getvalue()


@pytest.mark.parametrize(("number", "code", "word"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")])
def test_stopped_from_outside_leaves_nothing(tmp_path, number, code, word):
    train = write_folder(tmp_path / "train", stripes(30))
    command = ["poison", "--dataset", train, "--attack", "none", "--arch", "convnet", "--epochs", "100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "untrojan", *map(str, command), "--out", str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test runner in the background ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("training (0/")
        process.send_signal(getattr(signal, number))
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code
    assert out == ""
    assert err.endswith(f"untrojan: error: {word}; nothing half-written was left\n")
    left = sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "out").rglob("*"))
    assert left in ([], ["out/untrojan-training.pt"])
    assert ("--resume goes on from there" in err) == bool(left)
