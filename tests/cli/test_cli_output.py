"""--out and stdout: whole or not at all, checked before the work."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from untrojan.cli.output import WRITTEN, require_writable, staged
from untrojan.cli.streams import write_data, write_text
from untrojan.errors import OutputError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_check_leaves_nothing_behind(tmp_path):
    require_writable(tmp_path / "a" / "b")
    require_writable(tmp_path)
    require_writable(None)
    assert names(tmp_path) == []


def test_a_file_cannot_be_a_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="is not a folder"):
            require_writable(out)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="is not a folder"):
        require_writable(tmp_path / "dangling")


def test_a_folder_that_refuses_is_told_before_the_work(tmp_path, monkeypatch):
    def refuse(**_options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(OutputError, match=r"Permission denied.*--out"):
        require_writable(tmp_path / "new")


def test_files_appear_together_and_replace_those_of_an_earlier_run(tmp_path):
    out = tmp_path / "new" / "out"
    with staged(out, ("a", "b")) as stage:
        (stage / "a").write_text("1")
        (stage / "b").write_text("1")
        assert [name for name in names(out) if not name.startswith(".")] == []
    (out / "mine").write_text("kept")
    with staged(out, ("a", "b")) as stage:
        (stage / "a").write_text("2")
    assert names(out) == ["a", "mine"]
    assert (out / "a").read_text() == "2"


def test_folders_are_replaced_as_well(tmp_path):
    for content in ("1", "2"):
        with staged(tmp_path, ("sub",)) as stage:
            (stage / "sub").mkdir()
            (stage / "sub" / content).write_text(content)
    assert names(tmp_path / "sub") == ["2"]


@pytest.mark.parametrize(
    "raised", [KeyboardInterrupt(), ValueError("x"), OutputError("x"), OSError(28, "No space left")]
)
def test_a_failed_run_leaves_all_as_it_was(tmp_path, raised):
    (tmp_path / "a").write_text("earlier")

    def fail(out: Path) -> None:
        with staged(out, ("a",)) as stage:
            (stage / "a").write_text("half")
            raise raised

    for out in (tmp_path, tmp_path / "new" / "deep"):
        with pytest.raises(OutputError if isinstance(raised, OSError) else type(raised)):
            fail(out)
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "earlier"


def test_messages_name_the_folder_that_the_user_knows(tmp_path):
    def fail() -> None:
        with staged(tmp_path, ("a",)) as stage:
            raise OutputError(f"cannot write {stage / 'a'}: No space left on device")

    with pytest.raises(OutputError, match=f"cannot write {tmp_path}/a: No space"):
        fail()


class Terminal(io.TextIOWrapper):
    """stdout of some encoding."""

    def __init__(self, encoding: str):
        super().__init__(io.BytesIO(), encoding=encoding)

    def content(self) -> bytes:
        self.flush()
        return self.buffer.getvalue()


def test_text_survives_a_terminal_of_few_characters(monkeypatch):
    terminal = Terminal("ascii")
    monkeypatch.setattr("sys.stdout", terminal)
    write_text("95.1–97.2%\n")
    assert terminal.content() == b"95.1?97.2%\n"


def test_data_is_utf8_on_any_terminal(monkeypatch):
    terminal = Terminal("ascii")
    monkeypatch.setattr("sys.stdout", terminal)
    write_data('{"name": "Straße"}')
    assert terminal.content() == '{"name": "Straße"}'.encode()


def test_no_stdout_is_told(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    WRITTEN.set(False)  # another test may have filled a folder
    with pytest.raises(OutputError, match="--out"):
        write_text("x")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_stdout_is_an_error_of_one_line():
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "untrojan", "--version"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert ended.returncode == 2
    assert ended.stderr == "untrojan: error: cannot write to standard output: No space left on device\n"


def test_closed_pipe_is_quiet():
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run(
        [sys.executable, "-m", "untrojan", "--version"], stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), OSError(28, "No space left")])
@pytest.mark.parametrize("after", range(5))
def test_a_move_that_fails_midway_is_undone(tmp_path, monkeypatch, raised, after):
    for name in "abc":
        (tmp_path / name).write_text("earlier")
    moves, replace = [], os.replace

    def failing(start, end):
        moves.append(start)
        if len(moves) == after + 1:
            raise raised
        replace(start, end)

    def change() -> None:
        with staged(tmp_path, ("a", "b", "c")) as stage:
            for name in "ac":
                (stage / name).write_text("new")
            monkeypatch.setattr(os, "replace", failing)

    with pytest.raises(OutputError if isinstance(raised, OSError) else KeyboardInterrupt):
        change()
    assert {name: (tmp_path / name).read_text() for name in names(tmp_path)} == dict.fromkeys("abc", "earlier")


@pytest.fixture
def ctrl_c_raises():
    """As in a terminal; a process in the background may have been started without."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c_raises")
def test_ctrl_c_waits_for_the_end_of_the_move(tmp_path, monkeypatch):
    replace = os.replace

    def interrupted(start, end):
        signal.raise_signal(signal.SIGINT)
        replace(start, end)

    def change() -> None:
        with staged(tmp_path, ("a", "b")) as stage:
            (stage / "a").write_text("new")
            (stage / "b").write_text("new")
            monkeypatch.setattr(os, "replace", interrupted)

    with pytest.raises(KeyboardInterrupt):
        change()
    assert {name: (tmp_path / name).read_text() for name in names(tmp_path)} == {"a": "new", "b": "new"}
