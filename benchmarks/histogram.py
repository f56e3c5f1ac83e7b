"""How fast is the soft histogram: against the dense form in plain PyTorch, and against the floor that memory sets.

    python benchmarks/histogram.py

16 channels of 131,072 values each, 60 bins, tau = 150, forward and backward. See METHODOLOGY.md, "Soft histogram".
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from record import ROOT, write_record
from torch import Tensor

from untrojan.correction.histogram import Bins, soft_histogram

CHANNELS, IMAGES, SIDE, BINS = 16, 128, 32, 60
TAU, WIDTH = 150.0, 0.1
MEASURED = ["src/untrojan/correction/histogram.py"]


def dense_histogram(values: Tensor, bins: Bins, tau: float) -> Tensor:
    """The formula as it stands, for channels with the same number of bins: one sigmoid per value and inner edge."""
    count = int(bins.counts[0])
    sample = values.movedim(1, 0).reshape(values.shape[1], 1, -1)
    edges = bins.low[:, None] + bins.width * torch.arange(1, count, dtype=values.dtype)
    above = torch.sigmoid(tau * (sample - edges[:, :, None])).mean(2)
    one = above.new_ones(len(above), 1)
    return -torch.diff(torch.cat([one, above, torch.zeros_like(one)], 1)).flatten()


def dense_in_parts(channels_at_once: int) -> Callable[[Tensor, Bins, float], Tensor]:
    """The same, so many channels at a time: intermediate results take less memory, autograd keeps as much."""

    def histogram(values: Tensor, bins: Bins, tau: float) -> Tensor:
        parts = zip(*(t.split(channels_at_once) for t in (values.movedim(1, 0), bins.low, bins.counts)), strict=True)
        return torch.cat([dense_histogram(v.movedim(0, 1), Bins(low, m, bins.width), tau) for v, low, m in parts])

    return histogram


def example(seed: int, images: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Bins, Tensor]:
    """Values as a BatchNorm gives them, channels last as the pipeline has them; bins around them; a gradient."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(images, CHANNELS, SIDE, SIDE, generator=generator)
    bins = Bins(torch.full((CHANNELS,), -BINS * WIDTH / 2), torch.full((CHANNELS,), BINS), WIDTH)
    gradient = torch.randn(CHANNELS * BINS, generator=generator)
    return values.to(dtype).contiguous(memory_format=torch.channels_last), bins, gradient.to(dtype)


def forward_backward(
    histogram: Callable[[Tensor, Bins, float], Tensor], values: Tensor, bins: Bins, gradient: Tensor
) -> tuple[float, Tensor, Tensor]:
    """Seconds, histogram and gradient."""
    leaf = values.detach().requires_grad_()
    started = time.perf_counter()
    result = histogram(leaf, bins, TAU)
    (slope,) = torch.autograd.grad(result, leaf, gradient)
    return time.perf_counter() - started, result.detach(), slope


def copy_seconds(values: Tensor, target: Tensor) -> float:
    """One read and one write of the values' bytes: nothing that looks at each and answers for each can be faster."""
    started = time.perf_counter()
    target.copy_(values)
    return time.perf_counter() - started


def measure(seed: int, repeats: int, images: int, channels_at_once: int) -> dict[str, Any]:
    """All three in turn, ``repeats`` times after one that does not count."""
    values, bins, gradient = example(seed, images)
    target = torch.empty_like(values)
    dense = dense_in_parts(channels_at_once)
    times: dict[str, list[float]] = {"soft": [], "dense": [], "copy": []}
    for i in range(repeats + 1):
        soft_time, soft, soft_slope = forward_backward(soft_histogram, values, bins, gradient)
        dense_time, plain, plain_slope = forward_backward(dense, values, bins, gradient)
        row = {"soft": soft_time, "dense": dense_time, "copy": min(copy_seconds(values, target) for _ in range(5))}
        if i:
            for name, seconds in row.items():
                times[name].append(seconds)
    gaps = {
        "histogram_difference": float((soft - plain).abs().max()),
        "gradient_relative_difference": float((soft_slope - plain_slope).abs().max() / plain_slope.abs().max()),
    }
    ratios = {"dense_to_soft": ("dense", "soft"), "soft_to_copy": ("soft", "copy")}
    return {
        "shape": list(values.shape),
        "bins_per_channel": BINS,
        "tau": TAU,
        "bin_width": WIDTH,
        "dtype": str(values.dtype).removeprefix("torch."),
        "dense_channels_at_once": channels_at_once,
        "seconds": times,
        **{name: spread([x / y for x, y in zip(times[a], times[b], strict=True)]) for name, (a, b) in ratios.items()},
        **gaps,
    }


def spread(ratios: list[float]) -> dict[str, float]:
    """Median and extremes of ratios that were each taken within one turn."""
    return {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}


def main(arguments: list[str] | None = None) -> None:
    """Measure, write the record, say the two ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--images", type=int, default=IMAGES, help="of 1024 values per channel each")
    parser.add_argument("--channels-at-once", type=int, default=CHANNELS, help="of the dense form; fewer, less memory")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "records" / "histogram.json")
    given = parser.parse_args(arguments)
    results = measure(given.seed, given.repeats, given.images, given.channels_at_once)
    write_record(given.out, name="histogram", script=__file__, seed=given.seed, results=results, measures=MEASURED)
    print(
        f"dense / soft {results['dense_to_soft']['median']:.1f}, soft / copy {results['soft_to_copy']['median']:.1f}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
