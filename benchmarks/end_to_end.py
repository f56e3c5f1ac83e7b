"""How well the commands do on victims from elsewhere: scan, repair, evaluate, as a user runs them.

    python benchmarks/end_to_end.py --plan victims.toml --data test.parquet --out benchmarks/records/end_to_end.json

The plan lists victims; paths are relative to it:

    [[victim]]
    name = "badnet"
    model = "resnet18?width=16&classes=10"
    weights = "badnet.safetensors"
    trigger = "badnet.trigger.safetensors"     # absent for a clean victim

Each command runs as a process of its own; time and peak memory are the process's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

from record import write_record

from untrojan.triggers import load_trigger

PROBE = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:])
print("PEAK", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(done.returncode)
"""


def timed(arguments: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Exit code, seconds and peak memory in GiB of one command; and the JSON that it printed."""
    command = [sys.executable, "-m", "untrojan", *arguments, "--format", "json", "--quiet"]
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", PROBE, *command], capture_output=True, text=True)
    seconds = time.perf_counter() - started
    peak = next((float(line.split()[1]) for line in done.stderr.splitlines()[::-1] if line.startswith("PEAK")), 0.0)
    if done.returncode not in (0, 1):
        print(done.stderr, file=sys.stderr)
    spent = {"exit_code": done.returncode, "seconds": round(seconds, 1), "peak_gib": round(peak / 2**20, 2)}
    return spent, json.loads(done.stdout) if done.stdout.strip() else {}


def measure(
    victim: dict[str, str], folder: Path, data: str, *, limit: int, seed: int, recipes: list[str]
) -> dict[str, Any]:
    """Scan one victim, and if a backdoor is found, repair it by each recipe and evaluate on the images left over."""
    weights = victim["weights"]
    chosen = ["--model", victim["model"], "--weights", str(folder / weights), "--seed", str(seed)]
    clean = ["--clean", data, "--limit", str(limit)]
    result: dict[str, Any] = {"name": victim["name"], "setting": None}
    truth: list[str] = []
    if "trigger" in victim:
        truth = ["--trigger", str(folder / victim["trigger"])]
        result["setting"] = str(load_trigger(folder / victim["trigger"])[1])
    with tempfile.TemporaryDirectory() as scratch:
        spent, scan = timed(["scan", *chosen, *clean, "--out", f"{scratch}/scan"])
        result["scan"] = spent | {k: scan.get(k) for k in ("verdict", "targets", "p_value", "reason", "cost")}
        result["repairs"] = {}
        for recipe in recipes if spent["exit_code"] == 1 else ():
            guard = f"{scratch}/{recipe}"
            spent, card = timed(
                ["repair", *chosen, *clean, "--scan", f"{scratch}/scan", "--out", guard, "--recipe", recipe]
            )
            repair = spent | {"cost": card.get("cost"), "checks": card.get("checks")}
            if spent["exit_code"] == 0:
                _, rates = timed(["evaluate", *chosen, "--guard", guard, "--test", data, *truth])
                repair["evaluation"] = {key: rates.get(key) for key in ("before", "after", "counts")}
            result["repairs"][recipe] = repair
    return result


def main() -> None:
    """Measure every victim of the plan and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--data", required=True, help="clean images: folder or parquet")
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipes", default="untrojan,paper", help="how guards are made, by commas")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    results = []
    for victim in tomllib.loads(given.plan.read_text())["victim"]:
        results.append(
            measure(
                victim,
                given.plan.parent,
                given.data,
                limit=given.limit,
                seed=given.seed,
                recipes=given.recipes.split(","),
            )
        )
        print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    write_record(given.out, name="end_to_end", script=__file__, seed=given.seed, results={"victims": results})


if __name__ == "__main__":
    main()
