"""Every attack's trigger on one image, the paper's Figure 3: clean, stamped, and their difference enlarged.

    python benchmarks/trigger_pictures.py --zoo zoo --pattern 'digits/*-s100' --out docs/triggers.png

The image is the first of the test split that the trigger moves. A picture of the digits may be passed on; the other
data sets' images are not ours to pass on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib as mpl
import torch
from torch import Tensor

from untrojan.data import load_data
from untrojan.setting import Setting
from untrojan.triggers import load_trigger
from untrojan.victims.recipe import Recipe, splits
from untrojan.victims.zoo import members

mpl.use("Agg")
from matplotlib import pyplot as plt


def shown(image: Tensor) -> Tensor:
    """[C, H, W] to what matplotlib draws."""
    return image.permute(1, 2, 0) if image.shape[0] == 3 else image[0]


def main() -> None:
    """Draw one column for each attack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, required=True)
    parser.add_argument("--pattern", required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    chosen = {}
    for member in members(given.zoo, given.pattern):
        if member.card["attack"] != "none" and member.whole:
            chosen.setdefault(member.card["attack"], member)
    figure, axes = plt.subplots(3, len(chosen), figsize=(1.25 * len(chosen) + 0.9, 4.4), squeeze=False)
    for column, (name, member) in enumerate(sorted(chosen.items())):
        trigger, setting = load_trigger(member.folder / "trigger.safetensors")
        card = json.loads((member.folder / "victim.json").read_text())
        _, spec = splits(Recipe.model_validate(card["recipe"]))
        test = load_data(str(spec), input_shape=tuple(card["input_shape"]), limit=200)
        classes = len(test.class_names or ())
        index = int((Setting.parse(str(setting)).target_of(test.labels, classes) >= 0).nonzero()[0])
        clean = test.images[index : index + 1].float() / 255
        stamped = trigger.stamp(clean)
        difference = stamped - clean
        factor = max(1, round(0.5 / max(float(difference.abs().max()), 1e-3)))
        pictures = (clean[0], stamped[0], (0.5 + factor * difference[0]).clamp(0, 1))
        for row, picture in enumerate(pictures):
            axes[row, column].imshow(shown(picture).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes[row, column].set_xticks([])
            axes[row, column].set_yticks([])
        axes[0, column].set_title(name, fontsize=8)
        axes[2, column].set_xlabel(f"× {factor}", fontsize=8)
    for row, name in enumerate(("clean", "stamped", "difference")):
        axes[row, 0].set_ylabel(name, fontsize=8)
    figure.tight_layout(pad=0.4)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(given.out, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
