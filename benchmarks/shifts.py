r"""Property 3.1 on the zoo: do the shifts that a trigger causes in different images point the same way?

    python benchmarks/shifts.py --zoo zoo --only 'cifar10/*-a2o9-*' --clean cifar10/clean-s0 cifar10/clean-s100 \
        --out RECORD [--figure docs/shifts.png] [--page docs/theory.md]

At the output of every BatchNorm, the shift of an image is its activations with the trigger less those without. What is
recorded is the mean cosine between the shifts of two different images, in the victim and, for the same images and the
same trigger, in a clean network of the same seeds' half. 1: all the same direction; 0: none in common.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from page import put
from record import write_record
from torch import Tensor, nn

from untrojan.classifier import Classifier
from untrojan.data import load_data
from untrojan.loading import load_victim
from untrojan.setting import Setting
from untrojan.triggers import load_trigger
from untrojan.victims.recipe import splits
from untrojan.victims.zoo import Member, members

IMAGES, LAST = 200, 5
BEGIN, END = "<!-- shifts: benchmarks/shifts.py -->", "<!-- end of the shifts -->"


def activations(classifier: Classifier, images: Tensor) -> dict[str, Tensor]:
    """The output of every BatchNorm, by name in the order of the passes: float [N, everything]."""
    seen: dict[str, Tensor] = {}
    layers = [(name, m) for name, m in classifier.module.named_modules() if isinstance(m, nn.BatchNorm2d)]
    hooks = [
        layer.register_forward_hook(lambda _m, _i, out, name=name: seen.__setitem__(name, out.detach().flatten(1)))
        for name, layer in layers
    ]
    try:
        classifier.predict(images, batch_size=len(images))
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def agreement(shifts: Tensor) -> float:
    """The mean cosine between two different rows [N, D]; rows of zeros agree with none."""
    directions = nn.functional.normalize(shifts.double(), dim=1)
    total, own = directions.sum(0).square().sum(), directions.square().sum()
    return float((total - own) / (len(shifts) * (len(shifts) - 1)))


def compared(victim: Classifier, clean: Classifier, images: Tensor, stamped: Tensor) -> dict[str, list[Any]]:
    """Layer by layer, in the victim and in the clean network."""
    made: dict[str, list[Any]] = {}
    for name, classifier in (("victim", victim), ("clean", clean)):
        before, after = activations(classifier, images), activations(classifier, stamped)
        made["layers"] = list(before)
        made[name] = [round(agreement(after[layer] - before[layer]), 4) for layer in before]
    return made


def row(member: Member, clean: Member) -> dict[str, Any]:
    """One attacked victim, on test images that its trigger sends to the target."""
    victim, other = load_victim(member.folder), load_victim(clean.folder)
    shape = tuple(member.card["input_shape"])
    data = load_data(str(splits(member.recipe)[1]), input_shape=shape, limit=4 * IMAGES, seed=0)
    trigger, setting = load_trigger(member.folder / "trigger.safetensors")
    wanted = Setting.parse(str(setting)).target_of(data.labels, len(data.class_names or ()))
    images = data.images[wanted >= 0].float() / 255
    moved = victim.predict(trigger.stamp(images)).argmax(1) == wanted[wanted >= 0]
    images = images[moved][:IMAGES]
    return {
        "name": member.name,
        "attack": member.card["attack"],
        "clean": clean.name,
        "images": len(images),
        **compared(victim, other, images, trigger.stamp(images)),
    }


def by_attack(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The rows of each attack, by its name."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for made in rows:
        groups[made["attack"]].append(made)
    return dict(sorted(groups.items()))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A line for each attack: the last layers' mean, least and most over victims."""
    made = [f"| attack | victims | cosine, last {LAST} layers [least, most] | in clean networks |", "|---|---|---|---|"]
    for attack, group in by_attack(rows).items():
        cells = []
        for name in ("victim", "clean"):
            values = [mean(one[name][-LAST:]) for one in group]
            cells.append(f"{mean(values):.2f} [{min(values):.2f}, {max(values):.2f}]")
        made.append(f"| {attack} | {len(group)} | {' | '.join(cells)} |")
    return "\n".join(made)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """A panel for each attack: victims solid, clean networks with the same trigger dashed."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    groups = by_attack(rows)
    columns = min(5, len(groups))
    lines = -(-len(groups) // columns)
    size = (2.2 * columns, 2.1 * lines + 0.4)
    figure, axes = plt.subplots(lines, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
    for axis, (attack, group) in zip(axes.flat, groups.items(), strict=False):
        depth = range(1, len(group[0]["layers"]) + 1)
        for number, made in enumerate(group):
            victim, clean = ("attacked", "clean") if number == 0 else (None, None)
            axis.plot(depth, made["victim"], color="tab:red", linewidth=1, label=victim)
            axis.plot(depth, made["clean"], color="tab:blue", linewidth=1, linestyle="--", label=clean)
        axis.set_title(attack, fontsize=8)
        axis.axhline(0, color="0.8", linewidth=0.6)
    for axis in axes.flat[len(groups) :]:
        axis.set_visible(False)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), fontsize=7, frameon=False, loc="lower right", ncols=2)
    figure.supxlabel("BatchNorm, from input to output", fontsize=8)
    figure.supylabel("mean cosine of shifts", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main() -> None:
    """Measure, record, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, required=True)
    parser.add_argument("--only", required=True, help="a pattern of names")
    parser.add_argument("--clean", nargs="+", required=True, help="clean victims' names, one for each part of the plan")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--page", type=Path)
    given = parser.parse_args()
    clean = {m.recipe.part: m for name in given.clean for m in members(given.zoo, name)}
    chosen = [m for m in members(given.zoo, given.only) if m.whole and (m.card.get("asr") or {}).get("value", 0) >= 0.5]
    rows = [row(m, clean[m.recipe.part]) for m in chosen]
    print(table(rows))
    write_record(given.out, name=given.out.stem, script=__file__, seed=0, results={"victims": rows})
    if given.figure:
        draw(rows, given.figure)
    if given.page:
        put(given.page, BEGIN, END, table(rows))


if __name__ == "__main__":
    main()
