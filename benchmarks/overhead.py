"""What a guard costs at run time: ``python benchmarks/overhead.py --out RECORD``.

The victim alone and behind a guard, by turns in one run, on batches of which a share is sent to the guard's target: 0,
a tenth (what clean images of ten classes do) and all of them (every image carries the trigger). The floor is one more
pass for the images sent there. Weights do not matter for time, so they are random, and a bias makes the answers so.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from record import write_record
from torch import Tensor, nn

from untrojan.classifier import Classifier
from untrojan.classifier.corrected import CorrectedClassifier
from untrojan.guard import Guard
from untrojan.victims import ARCHITECTURES

SHARES = (0.0, 0.1, 1.0)
MEASURES = ["src/untrojan/guard/guard.py", "src/untrojan/classifier/corrected.py"]


class Sent(nn.Module):
    """A network whose answer is class 0 for the images with a white first pixel, and class 1 for the others."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        white = images[:, 0, 0, 0] > 0.5
        favoured = torch.stack([white, ~white], 1).float() * 1e6
        return torch.cat([logits[:, :2] + favoured, logits[:, 2:]], 1)


def batch(size: int, share: float, generator: torch.Generator) -> Tensor:
    """Float images [size, 3, 32, 32], ``share`` of them with a white first pixel."""
    images = torch.rand(size, 3, 32, 32, generator=generator)
    images[:, 0, 0, 0] = (torch.arange(size) < round(share * size)).float()
    return images


def seconds(run: Callable[[Tensor], object], images: Tensor) -> float:
    """Of one call."""
    started = time.perf_counter()
    run(images)
    return time.perf_counter() - started


def measure(architecture: str, width: int, size: int, repeats: int, seed: int) -> list[dict[str, Any]]:
    """A row for each share: milliseconds per image, and the ratio of each repeat."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    classifier = Classifier(Sent(ARCHITECTURES[architecture](width=width, classes=10))).eval().requires_grad_(False)
    guard = Guard(classifier, [0], CorrectedClassifier(classifier).theta())
    rows = []
    for share in SHARES:
        images = classifier.arranged(batch(size, share, generator))
        with torch.no_grad():
            classifier(images), guard(images)
            alone, guarded = [], []
            for _ in range(repeats):
                alone.append(seconds(classifier, images))
                guarded.append(seconds(guard, images))
        rows.append(
            {
                "share": share,
                "floor": 1 + share,
                "ratio": statistics.median(g / a for a, g in zip(alone, guarded, strict=True)),
                "alone_ms_per_image": 1000 * statistics.median(alone) / size,
                "guarded_ms_per_image": 1000 * statistics.median(guarded) / size,
            }
        )
    return rows


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    rows = measure(given.arch, given.width, given.batch, given.repeats, given.seed)
    for row in rows:
        print(f"{row['share']:.0%} sent to the target: {row['ratio']:.2f} times the victim (floor {row['floor']:.2f})")
    results = {"network": f"{given.arch}, width {given.width}", "batch": given.batch, "shares": rows}
    write_record(given.out, name=given.out.stem, script=__file__, seed=given.seed, results=results, measures=MEASURES)


if __name__ == "__main__":
    main()
