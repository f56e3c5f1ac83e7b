"""``poison`` and ``scan`` after kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_cli import stripes, write_folder


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_killed_outright_it_goes_on_to_the_same_victim(tmp_path: Path) -> None:
    train_folder = write_folder(tmp_path / "train", stripes(60))
    command = [sys.executable, "-m", "untrojan", "poison", "--dataset", str(train_folder), "--setting", "a2a"]
    command += [
        "--arch",
        "convnet",
        "--width",
        "2",
        "--epochs",
        "60",
        "--attack-option",
        "size=2",
        "--count",
        "5",
        "-q",
    ]
    subprocess.run([*command, "--out", str(tmp_path / "whole")], check=True, timeout=120)
    process = subprocess.Popen([*command, "--out", str(tmp_path / "killed")])
    state = tmp_path / "killed/untrojan-training.pt"
    deadline = time.monotonic() + 60
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)
    assert state.exists()
    subprocess.run([*command, "--out", str(tmp_path / "killed"), "--resume"], check=True, timeout=120)
    names = ("victim.safetensors", "trigger.safetensors")
    assert all((tmp_path / "whole" / n).read_bytes() == (tmp_path / "killed" / n).read_bytes() for n in names)
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == [
        "trigger.safetensors",
        "victim.json",
        names[0],
    ]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_scan_killed_outright_goes_on_to_the_same_report(tmp_path: Path, victim_folder: Path) -> None:
    images = write_folder(tmp_path / "images", stripes(48))
    command = [sys.executable, "-m", "untrojan", "scan", str(victim_folder), "--clean", str(images), "-q"]
    subprocess.run([*command, "--out", str(tmp_path / "whole")], timeout=120, stdout=subprocess.DEVNULL)
    out = tmp_path / "killed"
    process = subprocess.Popen([*command, "--out", str(out)], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not any(out.glob("scan-state/*.safetensors")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)
    assert not (out / "scan.json").exists()
    subprocess.run([*command, "--out", str(out), "--resume"], timeout=120, stdout=subprocess.DEVNULL)
    whole, again = (json.loads((tmp_path / name / "scan.json").read_text()) for name in ("whole", "killed"))
    assert again.pop("cost")["images_forward_backward"] < whole.pop("cost")["images_forward_backward"]
    assert again == whole
    files = [(tmp_path / name / "triggers.safetensors").read_bytes() for name in ("whole", "killed")]
    assert files[0] == files[1]
