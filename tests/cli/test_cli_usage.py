"""Wrong usage is one line and exit code 4; whatever else ends a command has its own code and is one line too."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import typer

import untrojan
from untrojan import __main__
from untrojan.cli import doctor, entry
from untrojan.errors import UntrojanError


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["scan"],
        ["scan", "victim", "--clean"],
        ["scan", "victim", "--clean", "digits", "--bogus"],
        ["scan", "victim", "other", "--clean", "digits"],
        ["scan", "victim", "--clean", "digits", "--limit", "0"],
        ["scan", "victim", "--clean", "digits", "--seed", "-1"],
        ["scan", "victim", "--clean", "digits", "--format", "xml"],
        ["scan", "victim", "--clean", "digits", "--device", "abacus"],
        ["scan", "--clean", "digits"],
        ["scan", "victim", "--clean", "digits", "--model", "convnet"],
        ["scan", "victim", "--clean", "digits", "--mean", "0.5"],
        ["scan", "--clean", "digits", "--weights", "file"],
        ["scan", "--clean", "digits", "--model", "convnet"],
        ["scan", "--clean", "digits", "--model", "convnet", "--weights", "file", "--mean", "a,b"],
        ["scan", "--clean", "digits", "--model", "convnet", "--weights", "file", "--std", "nan"],
        ["scan", "--clean", "digits", "--model", "convnet", "--weights", "file", "--input", "28x28"],
        ["scan", "--clean", "digits", "--model", "convnet", "--weights", "file", "--input", "1x0x28"],
        ["repair", "victim", "--clean", "digits", "--out", "guard"],
        ["repair", "victim", "--clean", "digits", "--scan", "scan"],
        ["evaluate", "victim"],
        ["predict", "victim", "image.png"],
        ["predict", "victim", "--guard", "guard"],
        ["predict", "victim", "image.png", "--guard", "guard", "--format", "html"],
        ["poison", "--out", "x"],
        ["poison", "--dataset", "digits", "--out", "x"],
        ["poison", "--dataset", "digits", "--out", "x", "--setting", "b2o"],
        ["poison", "--dataset", "digits", "--out", "x", "--setting", "a2a", "--attack", "magic"],
        ["poison", "--dataset", "digits", "--out", "x", "--setting", "a2a", "--attack-option", "size"],
        ["poison", "--dataset", "digits", "--out", "x", "--setting", "a2a", "--attack-option", "size=x"],
        ["poison", "--dataset", "digits", "--out", "x", "--setting", "a2a", "--lr", "-1"],
        ["poison", "--dataset", "digits", "--out", "x", "--setting", "a2a", "--augmentation", "mixup"],
        ["poison", "--dataset", "digits", "--out", "x", "--attack", "none", "--setting", "a2a"],
        ["zoo", "feed"],
        ["demo", "extra"],
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_4(run, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "victim").mkdir()
    ended = run(*arguments)
    assert ended.code == 4, ended.err
    assert ended.error
    assert ended.err.count("\n") == 1
    assert ended.out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "victim"]


def test_help_and_version_are_data(run):
    for arguments in (["--help"], ["-h"], ["scan", "--help"], ["scan", "-h"]):
        ended = run(*arguments)
        assert (ended.code, ended.err) == (0, "")
        assert "Usage: untrojan" in ended.out
    ended = run("--version")
    assert ended.code == 0
    assert ended.out.startswith("untrojan ")


def test_without_a_command_help_goes_to_stderr(run):
    ended = run()
    assert (ended.code, ended.out) == (4, "")
    assert "Commands" in ended.err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UntrojanError("two\nlines"), 2, "two lines"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (typer.Abort(), 130, "interrupted"),
        (typer.BadParameter("no\ngood"), 4, "no good"),
        (MemoryError(), 2, "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), 2, "--limit"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 2, "--limit"),
        (PermissionError(13, "Permission denied", "par/guard.json"), 2, "par/guard.json: Permission denied"),
        (OSError(28, "No space left on device"), 2, "No space left"),
        (SystemExit("no licence"), 2, "no licence"),
        (ZeroDivisionError("division by zero"), 2, "unexpected ZeroDivisionError: division by zero"),
        (RecursionError("x" * 5000), 2, "--debug"),
    ],
)
def test_whatever_ends_a_command_is_explained_in_one_line(error, code, line):
    found, text = entry.explain(error)
    assert found == code
    assert line in text
    assert "\n" not in text
    assert len(text) < 500


@pytest.mark.parametrize("raised", [ZeroDivisionError("a fault"), KeyboardInterrupt(), MemoryError("9 GiB")])
def test_exceptions_inside_a_command_become_lines(run, monkeypatch, raised):
    def fail(*_arguments, **_options):
        raise raised

    monkeypatch.setattr("untrojan.cli.doctor.examine", fail)
    ended = run("doctor")
    assert ended.code == (130 if isinstance(raised, KeyboardInterrupt) else 2)
    assert ended.error
    assert ended.err.count("\n") == 1


def test_debug_shows_the_traceback_and_still_the_line(run, monkeypatch):
    def fail():
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr("untrojan.cli.doctor.examine", fail)
    by_option = run("doctor", "--debug")
    monkeypatch.setenv("UNTROJAN_DEBUG", "1")
    by_variable = run("doctor")
    for ended in (by_option, by_variable):
        assert ended.code == 2
        assert "Traceback" in ended.err
        assert ended.err.splitlines()[-1].startswith("untrojan: error: unexpected ZeroDivisionError")


def test_warnings_of_libraries_are_not_shown(run, monkeypatch):
    examine = doctor.examine

    def noisy():
        warnings.warn("use something else", FutureWarning, stacklevel=1)
        return examine()

    monkeypatch.setattr("untrojan.cli.doctor.examine", noisy)
    assert run("doctor").err == ""


WITHOUT_PUBLIC_API = """
import sys, types
package = types.ModuleType("untrojan")
package.__path__ = [{place!r}]
sys.modules["untrojan"] = package
from untrojan.cli import main
code = main(["scan", "--help"])
sys.exit(code or "torch" in sys.modules)
"""


def test_help_waits_for_no_torch():
    place = str(Path(untrojan.__file__).parent)
    ended = subprocess.run([sys.executable, "-c", WITHOUT_PUBLIC_API.format(place=place)], capture_output=True)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_ctrl_c_while_the_program_is_loaded_is_one_line(monkeypatch, capsys):
    class Loading:
        @property
        def main(self):
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "untrojan.cli", Loading())
    assert __main__.run() == 130
    assert capsys.readouterr() == ("", "untrojan: error: interrupted; nothing was begun\n")


@pytest.mark.parametrize("before", [None, "elsewhere"])
def test_where_the_data_lie_is_said_for_one_call(run, victim_folder, images_folder, tmp_path, monkeypatch, before):
    if before is None:
        monkeypatch.delenv("UNTROJAN_DATA", raising=False)
    else:
        monkeypatch.setenv("UNTROJAN_DATA", before)
    ended = run("evaluate", victim_folder, "--test", images_folder, "--data-dir", tmp_path, "-q")
    assert (ended.code, ended.err) == (0, "")
    assert os.environ.get("UNTROJAN_DATA") == before
