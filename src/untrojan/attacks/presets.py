"""The BNA paper's settings of each attack on each data set, by name. A new data set's are a few lines.

What is not listed is the attack's own default, which is the paper's for CIFAR-10 where it has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from untrojan.errors import UsageError

Count = int | float
"""Poisoned images per source class: a number of images, or a share of the class (a float in (0, 1])."""


@dataclass(frozen=True)
class Preset:
    """Options of an attack and poisoned images per source class, by kind of setting; target class of all-to-one."""

    options: Mapping[str, object] = field(default_factory=dict)
    count: Mapping[str, Count] = field(default_factory=dict)
    target: int = 0


PRESETS: dict[str, dict[str, Preset]] = {
    "cifar10": {
        name: Preset(target=9) for name in ("badnet", "chessboard", "single-pixel", "l0-inv", "l2-inv", "wanet")
    },
    "cifar100": {
        "badnet": Preset(count={"a2o": 10}),
        "chessboard": Preset({"amplitude": 6}, {"a2o": 10}),
        "l0-inv": Preset(count={"a2o": 10}),
        "l2-inv": Preset(count={"a2o": 10}),
    },
    "gtsrb": {
        "badnet": Preset(count={"a2o": 0.02}),
        "chessboard": Preset({"amplitude": 6}, {"a2o": 0.05}),
        "l0-inv": Preset(count={"a2o": 0.05}),
        "l2-inv": Preset(count={"a2o": 0.02}),
        "wanet": Preset(count={"a2o": 0.24}),
    },
    "imagenette": {"badnet": Preset({"size": 21}, {"a2o": 0.05}, target=9)},
    "tiny-imagenet": {"badnet": Preset({"size": 6}, {"a2o": 10})},
}


def preset_for(name: str, attack: str) -> Preset:
    """The named preset of an attack; an empty one if the paper does not run this attack there.

    Raises UsageError if there is no preset of that name.
    """
    if name not in PRESETS:
        raise UsageError(f"preset '{name[:80]}' is not one of {', '.join(PRESETS)}")
    return PRESETS[name].get(attack, Preset())
