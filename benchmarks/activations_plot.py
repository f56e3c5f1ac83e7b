"""The paper's Figure 1, drawn from the record: ``python benchmarks/activations_plot.py --out docs/activations.png``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt

RECORD = Path(__file__).resolve().parent / "records" / "divergences.json"
TITLES = {"clean": "(a) clean network", "poisoned": "(b) poisoned", "bna": "(c) poisoned, with BNA"}


def draw(victim: dict[str, Any], width: float, path: Path) -> None:
    """A panel for each network: one neuron's histograms, without and with the trigger."""
    figure, axes = plt.subplots(1, len(TITLES), figsize=(9.6, 2.9), sharey=True)
    for axis, (name, title) in zip(axes, TITLES.items(), strict=True):
        shown = victim["histograms"].get(name)
        if shown is None:
            axis.set_visible(False)
            continue
        edges = shown["low"] + width * np.arange(len(shown["clean"]) + 1)
        for which, colour in (("clean", "tab:blue"), ("triggered", "tab:red")):
            label = "clean images" if which == "clean" else "the same with the trigger"
            axis.stairs(shown[which], edges, fill=True, alpha=0.45, color=colour, label=label)
        axis.set_title(f"{title}, neuron {shown['neuron']}", fontsize=9)
        axis.set_xlabel("activation", fontsize=8)
        axis.tick_params(labelsize=7)
    axes[2].sharex(axes[1])  # the same neuron
    axes[0].set_ylabel("share of images", fontsize=8)
    axes[0].legend(fontsize=7, frameon=False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    """Draw the first victim of the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    results = json.loads(RECORD.read_text())["results"]
    draw(results["victims"][0], results["width"], given.out)


if __name__ == "__main__":
    main()
