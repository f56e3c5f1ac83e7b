"""A run of ``untrojan bench`` that is killed at random moments, against one that is left alone.

    python benchmarks/bench_kills.py --plan PLAN --zoo ZOO --kills 5 --out benchmarks/records/bench_kills.json

Each time the run starts anew in an empty folder, is killed with SIGKILL at a moment drawn uniformly from the
undisturbed run's time, and is finished by the same command. One more is killed as often in a row before it is left to
end. The tables must be equal to the undisturbed run's to the last digit, their costs aside.
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

from kills import killed_after
from record import write_record

MEASURES = ["src/untrojan/bench/run.py", "src/untrojan/bench/work.py", "src/untrojan/bench/tables.py"]


def command(plan: Path, zoo: Path, out: Path) -> list[str]:
    """The run as a user starts it."""
    bench = ["bench", "--plan", str(plan), "--zoo", str(zoo), "--out", str(out), "--jobs", "1", "--quiet"]
    return [sys.executable, "-m", "untrojan", *bench]


def table(out: Path) -> dict[str, Any]:
    """``table.json`` without what differs by its nature."""
    read: dict[str, Any] = json.loads((out / "table.json").read_text())
    for entry in read["entries"]:
        entry.pop("cost")
    return read


def ended(out: Path) -> int:
    """How many cells a run has finished."""
    return len(list(out.glob("cells/*.json")))


def ended_in(whole: dict[str, Any]) -> int:
    """How many cells a table stands for."""
    return sum(int(entry["cells"]) for entry in whole["entries"])


def main() -> None:
    """Kill, go on, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--zoo", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    draw = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as scratch:
        whole, often = Path(scratch) / "whole", Path(scratch) / "often"
        started = time.monotonic()
        subprocess.run(command(given.plan, given.zoo, whole), stdout=subprocess.DEVNULL, check=True)
        undisturbed, expected = time.monotonic() - started, table(whole)
        moments = [draw.uniform(0, undisturbed) for _ in range(given.kills)]
        rows = []
        for number, moment in enumerate(moments):
            out = Path(scratch) / str(number)
            killed_after(moment, command(given.plan, given.zoo, out))
            row = {"killed_after": round(moment, 1), "cells_finished": ended(out)}
            subprocess.run(command(given.plan, given.zoo, out), stdout=subprocess.DEVNULL, check=True)
            rows.append(row | {"equal": table(out) == expected})
            print(rows[-1], flush=True)
        for moment in moments:
            # A fifth of it each, since what is finished is not done again: five would hardly fall into the work.
            killed_after(moment / given.kills + 2, command(given.plan, given.zoo, often))
        row = {"killed_times": given.kills, "cells_finished": ended(often)}
        subprocess.run(command(given.plan, given.zoo, often), stdout=subprocess.DEVNULL, check=True)
        rows.append(row | {"equal": table(often) == expected})
        print(rows[-1], flush=True)
    results = {"undisturbed_seconds": round(undisturbed, 1), "cells": ended_in(expected), "kills": rows}
    write_record(given.out, name=given.out.stem, script=__file__, seed=given.seed, results=results, measures=MEASURES)


if __name__ == "__main__":
    main()
