"""p-values of the scan, clean victims and attacked: ``python benchmarks/detection_plot.py --out docs/p_values.png``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt

RECORDS = Path(__file__).resolve().parent / "records"


def main() -> None:
    """A curve for each half that has a record; attacked victims beside them, where the scale is logarithmic."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    figure, (linear, log) = plt.subplots(1, 2, figsize=(8.4, 3.6))
    for half, colour in (("calibration", "tab:blue"), ("reporting", "tab:orange")):
        path = RECORDS / f"detection_{half}.json"
        if not path.is_file():
            continue
        victims = json.loads(path.read_text())["results"]["victims"]
        clean = np.sort([v["p_value"] for v in victims if v["asr"] is None])
        attacked = np.sort([v["p_value"] for v in victims if v["asr"] is not None and v["asr"] >= 0.5])
        shares = (np.arange(len(clean)) + 1) / len(clean)
        linear.step(clean, shares, where="post", color=colour, label=f"{half} half, {len(clean)} clean")
        log.step(np.maximum(clean, 1e-12), shares, where="post", color=colour, label=f"{half}, clean")
        if len(attacked):
            shares = (np.arange(len(attacked)) + 1) / len(attacked)
            label = f"{half}, {len(attacked)} attacked"
            log.step(np.maximum(attacked, 1e-12), shares, where="post", color=colour, linestyle="--", label=label)
    linear.plot([0, 1], [0, 1], color="0.6", linewidth=1)
    log.axvline(0.01, color="0.6", linewidth=1)
    log.set_xscale("log")
    for axes in (linear, log):
        axes.set_xlabel("p-value of the scan")
        axes.set_ylabel("share of victims at or below")
        axes.legend(fontsize=7, frameon=False)
    figure.tight_layout()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(given.out, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
