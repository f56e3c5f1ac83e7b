"""SIG: a sinusoidal pattern, stamped on images of the target class alone; no label is wrong."""

from __future__ import annotations

import math
from typing import ClassVar

import torch

from untrojan.attacks.base import Attack
from untrojan.errors import UsageError
from untrojan.setting import Setting
from untrojan.triggers import AdditiveTrigger


class SIG(Attack):
    """``amplitude``/255 times a sine with ``frequency`` periods across the image, in all channels. Clean-label.

    Source: Barni, Kallas, Tondi, "A new backdoor attack in CNNs by training set corruption without label poisoning",
    ICIP 2019. ``count`` is the number of stamped images of the target class.
    """

    name = "sig"
    settings: ClassVar = ("a2o",)
    default_count: ClassVar = {"a2o": 2500}

    def __init__(self, *, amplitude: float = 20.0, frequency: float = 6.0):
        if not 0 < amplitude <= 255 or not frequency > 0:
            raise UsageError(
                "sig: amplitude is in units of 1/255, in (0, 255], frequency in periods per image, above 0; "
                f"got {amplitude} and {frequency}"
            )
        self.amplitude, self.frequency = amplitude, frequency

    def make_trigger(self, image_shape: tuple[int, int, int], generator: torch.Generator) -> AdditiveTrigger:
        wave = torch.sin(
            2 * math.pi * self.frequency * torch.arange(image_shape[2], dtype=torch.float64) / image_shape[2]
        )
        return AdditiveTrigger((wave.float() * self.amplitude / 255).expand(image_shape).clone())

    def relabelled(self, setting: Setting, classes: int) -> tuple[tuple[int, int], ...]:
        del classes
        return ((int(setting.target or 0), int(setting.target or 0)),)
