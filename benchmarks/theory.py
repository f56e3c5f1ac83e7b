"""Theorem 3.1, derived and simulated: ``python benchmarks/theory.py --out RECORD [--figure docs/theory.png]``.

A classifier that has learnt an attack on Gaussian data (``untrojan.theory.learnt_problem``), with triggered images that
vary less than clean ones, as much, and more: the paper's theorem asks that they do not vary more.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from record import write_record

from untrojan.theory import learnt_problem, sia, simulated_sia, source_accuracy

SIGMA, RATIOS = 0.5, (0.5, 1.0, 2.0)
ALPHAS = [round(float(a), 2) for a in np.linspace(0, 1, 11)]


def measure(seed: int, samples: int) -> list[dict[str, Any]]:
    """A row for each ratio of the spread of triggered images to that of clean ones."""
    rows = []
    for ratio in RATIOS:
        problem = learnt_problem(
            inputs=20, nodes=40, sigma=SIGMA, sigma_b=ratio * SIGMA, poisoned=0.2, strength=4.0, seed=seed
        )
        rates = [simulated_sia(problem, alpha, samples=samples, seed=seed + 1) for alpha in ALPHAS]
        rows.append(
            {
                "ratio": ratio,
                "source_accuracy": source_accuracy(problem),
                "asr": 1 - sia(problem, 1.0),
                "alpha": ALPHAS,
                "sia": [sia(problem, alpha) for alpha in ALPHAS],
                "simulated": [[rate.value, rate.low, rate.high] for rate in rates],
            }
        )
    return rows


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """SIA against alpha: lines derived, points simulated."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(4.6, 3.4))
    for row, colour in zip(rows, ("tab:blue", "tab:orange", "tab:green"), strict=True):
        axes.plot(row["alpha"], row["sia"], color=colour, label=f"σ_b = {row['ratio']:g} σ")
        value, low, high = np.array(row["simulated"]).T
        axes.errorbar(row["alpha"], value, (value - low, high - value), fmt="o", markersize=3, color=colour)
    axes.set_xlabel("α (0: shift reversed, 1: left as it is)")
    axes.set_ylabel("SIA")
    axes.set_ylim(0, 1)
    axes.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main() -> None:
    """Measure, record, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--figure", type=Path)
    given = parser.parse_args()
    rows = measure(given.seed, given.samples)
    write_record(
        given.out,
        name=given.out.stem,
        script=__file__,
        seed=given.seed,
        results={"samples": given.samples, "problems": rows},
        measures=["src/untrojan/theory.py"],
    )
    if given.figure:
        draw(rows, given.figure)


if __name__ == "__main__":
    main()
