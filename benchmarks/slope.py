r"""How near the soft histogram is to the empirical one, by its slope.

    python benchmarks/slope.py --zoo zoo --out RECORD [--page docs/paper.md]

The paper sets tau = 150 "by line search to minimize the total variation" between the two. That distance is measured
here for a range of tau and of bin widths, over every channel of a victim of the calibration half, on clean test images.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from page import put
from record import write_record
from torch import Tensor

from untrojan.classifier import Classifier, as_found
from untrojan.classifier.sites import captured, require_sites
from untrojan.correction.divergence import total_variation
from untrojan.correction.histogram import Bins, soft_histogram
from untrojan.correction.moves import clean_activations
from untrojan.data import load_data
from untrojan.loading import load_victim
from untrojan.victims.recipe import splits
from untrojan.victims.zoo import members

ROOT = Path(__file__).resolve().parent.parent
MEASURES = ["src/untrojan/correction/histogram.py"]
TAUS = (10.0, 50.0, 100.0, 150.0, 250.0, 500.0)
WIDTHS = (0.05, 0.1, 0.2)
BEGIN, END = "<!-- slope: benchmarks/slope.py -->", "<!-- end of slope -->"


def empirical(values: Tensor, bins: Bins) -> Tensor:
    """The share of each channel's values in each bin, end to end: float [total bins]. values: [N, C, ...]."""
    flat = values.movedim(1, 0).flatten(1)
    places = ((flat - bins.low[:, None]) / bins.width).floor().long()
    places = torch.minimum(places.clamp_min(0), bins.counts[:, None] - 1) + bins.starts[:, None]
    return torch.bincount(places.flatten(), minlength=bins.total).double() / flat.shape[1]


@torch.no_grad()
def measure(classifier: Classifier, images: Tensor) -> list[dict[str, float]]:
    """The mean over channels of the total variation, for each tau and width."""
    with as_found(classifier):
        floats = classifier.as_float(images)
        layers = require_sites(classifier, floats)
        clean = clean_activations(classifier, layers, floats)
        with captured(layers) as outputs:
            classifier(floats)
        rows = []
        for width in WIDTHS:
            bins = {name: Bins.between(seen.low, seen.high, width) for name, seen in clean.items()}
            for tau in TAUS:
                apart = [
                    total_variation(empirical(outputs[n], bins[n]), soft_histogram(outputs[n], bins[n], tau).double())
                    for n in layers
                ]
                channels = sum(len(bins[name].counts) for name in layers)
                rows.append({"width": width, "tau": tau, "distance": float(torch.stack(apart).sum()) / channels})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """A line for each width, a column for each tau."""
    made = [f"| width | {' | '.join(f'τ = {tau:g}' for tau in TAUS)} |", "|---" * (len(TAUS) + 1) + "|"]
    for width in WIDTHS:
        cells = [f"{row['distance']:.3f}" for tau in TAUS for row in rows if (row["width"], row["tau"]) == (width, tau)]
        made.append(f"| {width:g} | {' | '.join(cells)} |")
    return "\n".join(made)


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, required=True)
    parser.add_argument("--victim", default="cifar10/badnet-a2o9-s0")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--page", type=Path)
    given = parser.parse_args()
    member = members(given.zoo, given.victim)[0]
    shape = tuple(member.card["input_shape"])
    where = str(splits(member.recipe)[1] or member.recipe.dataset)
    data = load_data(where, input_shape=shape, limit=given.images, seed=given.seed)
    rows = measure(load_victim(member.folder), data.images)
    print(table(rows))
    results = {"victim": member.name, "images": given.images, "rows": rows}
    write_record(given.out, name=given.out.stem, script=__file__, seed=given.seed, results=results, measures=MEASURES)
    if given.page:
        put(given.page, BEGIN, END, table(rows))


if __name__ == "__main__":
    main()
