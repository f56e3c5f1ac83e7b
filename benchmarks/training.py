"""Training throughput: how fast victims are made, and what the plain ways of doing it cost.

    python benchmarks/training.py --data train.parquet --out benchmarks/records/training.json

Three loops train the same network on the same images, in turn, several times: ours (images decoded once, augmentation
on the device in batches, channels last, bfloat16 where the processor has it); the same loop in plain float32 without
channels last; and a DataLoader that decodes and augments each image with Pillow. A fourth figure is the ceiling: the
convolutions alone, forward and backward.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image, ImageOps
from record import write_record
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from untrojan.data import load_data
from untrojan.victims import ARCHITECTURES
from untrojan.victims.training import TrainingSettings, augment, train

MEASURED = ("src/untrojan/victims/training.py", "src/untrojan/victims/resnet.py")
CPU = torch.device("cpu")


class Encoded(Dataset[tuple[Tensor, int]]):
    """Each image decoded, shifted and mirrored by Pillow when it is asked for."""

    def __init__(self, path: Path, count: int):
        table = pq.read_table(path).slice(0, count)
        self.images = [row["bytes"] for row in table.column("image").to_pylist()]
        self.labels = table.column("label").to_pylist()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = ImageOps.expand(Image.open(io.BytesIO(self.images[index])).convert("RGB"), 4)
        left, top = torch.randint(9, (2,)).tolist()
        image = image.crop((left, top, left + 32, top + 32))
        if torch.rand(()) < 0.5:
            image = ImageOps.mirror(image)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255, self.labels[index]


def fresh(width: int) -> nn.Module:
    torch.manual_seed(0)
    return ARCHITECTURES["resnet18"](width=width, classes=10, channels=3)


def ours(images: Tensor, labels: Tensor, width: int, batch: int, augmentation: str) -> float:
    """Seconds of one epoch."""
    network = fresh(width)
    settings = TrainingSettings(epochs=1, batch_size=batch, augmentation=augmentation)
    started = time.perf_counter()
    train(network, images, labels, settings, seed=0, device=CPU)
    return time.perf_counter() - started


def plain(images: Tensor, labels: Tensor, width: int, batch: int, augmentation: str) -> float:
    """The same, contiguous and in float32."""
    network = fresh(width).train()
    optimiser = torch.optim.Adam(network.parameters(), lr=0.003, weight_decay=1e-4)
    generator = torch.Generator().manual_seed(0)
    started = time.perf_counter()
    for index in torch.randperm(len(images), generator=generator)[: len(images) // batch * batch].view(-1, batch):
        given = (augment(images[index], augmentation, generator).float() / 255).contiguous()
        step(network, optimiser, given, labels[index])
    return time.perf_counter() - started


def loader(dataset: Encoded, width: int, batch: int, workers: int) -> float:
    """A DataLoader in its usual form."""
    network = fresh(width).train()
    optimiser = torch.optim.Adam(network.parameters(), lr=0.003, weight_decay=1e-4)
    started = time.perf_counter()
    for images, labels in DataLoader(dataset, batch, shuffle=True, num_workers=workers, drop_last=True):
        step(network, optimiser, images, labels)
    return time.perf_counter() - started


def step(network: nn.Module, optimiser: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> None:
    loss = functional.cross_entropy(network(images), labels)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()


def convolutions(width: int, batch: int, steps: int) -> float:
    """Seconds of the forward and backward passes of the network's convolutions alone, channels last."""
    network = fresh(width).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    inputs: list[tuple[nn.Conv2d, Tensor]] = []
    hooks = [
        m.register_forward_hook(lambda module, given, _out: inputs.append((module, given[0].detach().clone())))
        for m in network.modules()
        if isinstance(m, nn.Conv2d)
    ]
    network(torch.rand(batch, 3, 32, 32).contiguous(memory_format=torch.channels_last))
    for hook in hooks:
        hook.remove()
    work = []
    for module, given in inputs:
        out = functional.conv2d(given, module.weight, None, module.stride, module.padding)
        work.append((module, given, torch.randn_like(out)))
    started = time.perf_counter()
    for _ in range(steps):
        for position, (module, given, gradient) in enumerate(work):
            functional.conv2d(given, module.weight.detach(), None, module.stride, module.padding)
            torch.ops.aten.convolution_backward(
                gradient, given, module.weight, None, module.stride, module.padding, module.dilation, False, [0, 0], 1,
                [position > 0, True, False],
            )  # fmt: skip
    return time.perf_counter() - started


def measure(path: Path, *, width: int, batch: int, images: int, repeats: int) -> dict[str, Any]:
    """Images per second of each way, in turn, and the ratios pair by pair."""
    data = load_data(str(path), input_shape=None, limit=images)
    count = len(data) // batch * batch
    dataset = Encoded(path, count)
    ways: dict[str, Callable[[], float]] = {
        "ours": lambda: ours(data.images[:count], data.labels[:count], width, batch, "crop-flip"),
        "plain": lambda: plain(data.images[:count], data.labels[:count], width, batch, "crop-flip"),
        "loader": lambda: loader(dataset, width, batch, 0),
        "convolutions": lambda: convolutions(width, batch, count // batch),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            rate = count / way()
            if turn:
                rates[name].append(round(rate, 1))
    ratios = {
        f"ours_to_{name}": statistics.median(a / b for a, b in zip(rates["ours"], rates[name], strict=True))
        for name in ("plain", "loader", "convolutions")
    }
    return {
        "width": width,
        "batch": batch,
        "images": count,
        "bfloat16": bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()),
        "images_per_second": rates,
        **{name: round(value, 3) for name, value in ratios.items()},
    }


def main() -> None:
    """Measure and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a parquet file of 32x32 colour images")
    parser.add_argument("--images", type=int, default=6400)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--widths", default="8,16")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    results = [
        measure(given.data, width=int(width), batch=given.batch, images=given.images, repeats=given.repeats)
        for width in given.widths.split(",")
    ]
    write_record(given.out, name="training", script=__file__, seed=0, results={"widths": results}, measures=MEASURED)


if __name__ == "__main__":
    main()
