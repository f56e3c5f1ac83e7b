"""``bench``: tables that do not depend on when it was killed, and errors before any work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_cli import stripes, write_folder

PLAN = """
victims = ['{victim}']
[settings]
defence = 60
data = '{images}'
[[method]]
name = 'none'
[[method]]
name = 'strip'
options = {{ overlays = 8 }}
[[method]]
name = 'bna'
options = {{ steps = [3, 4] }}
surrogates = {{ restarts = 1, allowances = [[]], held_out = [[2.0]] }}
"""


@pytest.fixture
def plan(tmp_path: Path, victim_folder: Path) -> Path:
    images = write_folder(tmp_path / "images", stripes(120, seed=2))
    (tmp_path / "plan.toml").write_text(PLAN.format(victim=victim_folder, images=images))
    return tmp_path / "plan.toml"


def without_cost(table: Any) -> Any:
    """The table, but what depends on the moment: the seconds, and what a scan cost that was interrupted."""
    for entry in table["entries"]:
        entry.pop("cost")
    return table


def workers_of(process: int) -> list[int]:
    """The processes that a process has started, where the system says so."""
    path = Path(f"/proc/{process}/task/{process}/children")
    return [int(child) for child in path.read_text().split()] if path.is_file() else []


def killed_when(command: list[str], reached: Callable[[], bool]) -> None:
    """Start a command, kill -9 it at a moment, and see that its workers end as well."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not reached() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    workers = workers_of(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)
    while any(Path(f"/proc/{worker}/stat").is_file() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert time.monotonic() < deadline


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_killed_outright_it_goes_on_to_the_same_tables(run: Callable[..., Any], plan: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    ended = run("bench", "--plan", plan, "--out", whole, "--device", "cpu")
    assert ended.code == 0, ended.err
    assert "4 of 4 cells" in ended.out

    command = [sys.executable, "-m", "untrojan", "bench", "--plan", str(plan), "-o", str(killed), "-q"]
    killed_when(command, lambda: any(killed.glob("scans/*/scan-state/*.safetensors")))
    assert not any(killed.glob("scans/*/scan.json"))
    killed_when(command, lambda: any(killed.glob("scans/*/scan.json")))
    assert not (killed / "table.json").exists()
    done = {path: path.read_bytes() for path in killed.glob("cells/*.json")}
    again = run("bench", "--plan", plan, "--out", killed, "--format", "json", "--device", "cpu")
    assert again.code == 0, again.err
    assert {path: path.read_bytes() for path in done} == done
    tables = [json.loads((folder / "table.json").read_text()) for folder in (whole, killed)]
    assert json.loads(again.out) == tables[1]
    assert without_cost(tables[0]) == without_cost(tables[1])
    assert {entry["row"][0] for entry in tables[0]["entries"]} == {"none", "strip", "bna steps=3", "bna steps=4"}
    assert tables[0]["entries"][2]["found"] == [1, 1]
    assert sorted(path.name for path in whole.glob("cells/*")) == sorted(path.name for path in killed.glob("cells/*"))


def test_a_cell_that_fails_is_in_the_table_and_is_tried_again(
    run: Callable[..., Any], plan: Path, tmp_path: Path
) -> None:
    text = plan.read_text()
    plan.write_text(text[: text.index("[[method]]\nname = 'bna'")].replace("overlays = 8", "overlays = 58"))
    ended = run("bench", "--plan", plan, "--out", tmp_path / "out", "-q")
    assert ended.code == 2
    assert "Failed:" in ended.out
    assert "STRIP with 58 overlays" in ended.out
    assert "Traceback" not in ended.err
    (record,) = [p for p in (tmp_path / "out/cells").iterdir() if json.loads(p.read_text())["status"] == "failed"]
    before = record.stat().st_mtime_ns
    assert run("bench", "--plan", plan, "--out", tmp_path / "out", "-q").code == 2
    assert record.stat().st_mtime_ns > before


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("'none'", "'cure'", "method 'cure' is not one of none, strip"),
        ("overlays", "layers", "has no option 'layers'"),
        ("victims = ['", "victims = ['nowhere/", "no victim in"),
        ("[settings]", "[table]\nrows = ['speed']\n[settings]", "'speed' is no fact of any cell"),
        ("defence", "defense", "defense"),
    ],
)
def test_what_is_wrong_with_a_plan_is_said_before_any_work(
    old: str, new: str, told: str, run: Callable[..., Any], plan: Path, tmp_path: Path
) -> None:
    plan.write_text(plan.read_text().replace(old, new))
    ended = run("bench", "--plan", plan, "--out", tmp_path / "out", "--zoo", tmp_path)
    assert ended.code == 4
    assert told in ended.error
    assert not (tmp_path / "out").exists()


def test_a_plan_that_is_not_there_is_told(run: Callable[..., Any], tmp_path: Path) -> None:
    assert "cannot be read" in run("bench", "--plan", tmp_path / "no.toml", "--out", tmp_path / "out").error
