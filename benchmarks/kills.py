"""A scan that is killed at random moments and resumed, against one that is left alone.

    python benchmarks/kills.py VICTIM --clean DATA --kills 10 --out benchmarks/records/kills.json

Each time the scan starts anew in an empty folder, is killed with SIGKILL at a moment drawn uniformly from the
undisturbed run's time, and is finished by ``--resume``. The two reports must be equal, their costs aside.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from record import write_record

MEASURES = ["src/untrojan/scan_state.py", "src/untrojan/detection/shares.py", "src/untrojan/detection/search.py"]


def command(victim: str, data: str, out: Path, *more: str) -> list[str]:
    """The scan as a user runs it."""
    scan = ["scan", victim, "--clean", data, "--limit", "500", "--out", str(out), "--quiet", *more]
    return [sys.executable, "-m", "untrojan", *scan]


def report(out: Path) -> dict[str, Any]:
    """``scan.json`` without what differs by its nature."""
    read: dict[str, Any] = json.loads((out / "scan.json").read_text())
    read.pop("cost")
    return read


def killed_after(moment: float, started: list[str]) -> None:
    """Start a command and kill it with SIGKILL after so many seconds, if it has not ended by then."""
    process = subprocess.Popen(started, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(timeout=moment)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main() -> None:
    """Kill, resume, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("victim")
    parser.add_argument("--clean", required=True)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    draw = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "whole"
        started = time.monotonic()
        subprocess.run(command(given.victim, given.clean, whole), stdout=subprocess.DEVNULL)
        undisturbed, expected = time.monotonic() - started, report(whole)
        rows = []
        for number in range(given.kills):
            out, moment = Path(scratch) / str(number), draw.uniform(0, undisturbed)
            killed_after(moment, command(given.victim, given.clean, out))
            finished = (out / "scan.json").exists()
            kept = len(list((out / "scan-state").glob("*.safetensors"))) if out.is_dir() else 0
            started = time.monotonic()
            subprocess.run(command(given.victim, given.clean, out, "--resume"), stdout=subprocess.DEVNULL)
            rows.append(
                {
                    "killed_after": round(moment, 1),
                    "had_finished": finished,
                    "shares_kept": kept,
                    "seconds_of_the_rest": round(time.monotonic() - started, 1),
                    "equal": report(out) == expected,
                }
            )
            print(rows[-1], flush=True)
    results = {"undisturbed_seconds": round(undisturbed, 1), "verdict": expected["verdict"], "kills": rows}
    write_record(given.out, name=given.out.stem, script=__file__, seed=given.seed, results=results, measures=MEASURES)


if __name__ == "__main__":
    main()
