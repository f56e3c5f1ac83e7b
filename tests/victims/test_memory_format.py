from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from untrojan.victims import ARCHITECTURES
from untrojan.victims.training import memory_format, mixed_precision

TRAIN = """
import torch
from untrojan.victims import ARCHITECTURES
from untrojan.victims.training import TrainingSettings, train
torch.set_num_threads(1)
network = ARCHITECTURES["resnet18"](width=2, classes=3, channels=1)
images = torch.randint(0, 256, (48, 1, 8, 8), dtype=torch.uint8)
train(network, images, torch.arange(48) % 3, TrainingSettings(epochs=20, batch_size=16), seed=0,
      device=torch.device("cpu"))
print("lived")
"""


@pytest.mark.parametrize(
    ("arch", "width", "device", "last"),
    [
        ("resnet18", 8, "cpu", True),
        ("resnet18", 4, "cpu", False),
        ("resnet18", 12, "cpu", False),
        ("resnet18", 4, "cuda", True),
        ("convnet", 2, "cpu", True),
        ("mobilenet", 6, "cpu", True),
    ],
)
def test_channels_last_where_it_is_safe(arch: str, width: int, device: str, last: bool) -> None:
    with torch.device("meta"):
        network = ARCHITECTURES[arch](width=width, classes=3, channels=3)
    wanted = torch.channels_last if last else torch.contiguous_format
    assert memory_format(network, torch.device(device)) == wanted


def test_a_narrow_network_trains_on_one_thread() -> None:
    """With channels last this ended the process, by signal 11 or 6."""
    done = subprocess.run([sys.executable, "-c", TRAIN], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "lived\n")


@pytest.mark.parametrize(
    ("arch", "native", "low"), [("resnet18", True, True), ("resnet18", False, False), ("mobilenet", True, False)]
)
def test_bfloat16_where_it_is_quicker(arch: str, native: bool, low: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: native)
    with torch.device("meta"):
        network = ARCHITECTURES[arch](width=8, classes=3, channels=3)
    with mixed_precision(network, torch.device("cpu")):
        assert torch.is_autocast_enabled("cpu") == low


def test_shifted_grey_images_come_in_the_layout_that_is_safe() -> None:
    """Of one channel both layouts are contiguous: strides of a shifted batch said channels last, and the same crash."""
    shifted = TRAIN.replace("batch_size=16", 'batch_size=16, augmentation="crop"').replace("width=2", "width=6")
    done = subprocess.run([sys.executable, "-c", shifted], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "lived\n")
