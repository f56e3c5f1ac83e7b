"""The reference set's networks, drawn by lot: what each is, is a function of its group and number alone.

Every choice is independent of the others as far as that makes sense, so that no two families share a recipe, and no two
recipes a task. Tasks, architectures and recipes are of the same distributions in all groups, but for what ``Group``
says. A new kind of network is a new group: to change what the others draw would make their networks again.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from untrojan.victims.recipe import Recipe


@dataclass(frozen=True)
class Group:
    """attacked: or clean. strong: with more poisoned images and for longer; of the first forty attacked networks, which
    were trained as long as clean ones, half had an ASR below .9. large: of images of 48 or 64 pixels, the smaller ones
    of a task enlarged, as people do who take a network that was made for larger ones; of the families that cost little,
    and of ten classes at most."""

    attacked: bool = False
    strong: bool = False
    large: bool = False


GROUPS = {
    "clean": Group(),
    "attacked": Group(attacked=True),
    "strong": Group(attacked=True, strong=True),
    "large": Group(large=True),
}
LONGER = 1.25
"""For how many times as many epochs a strong network is trained."""
SECONDS = 14.0
"""About how long a training may take on one core: how many images it sees follows from what one costs."""
PATIENT = 3.0
"""For how many times as long a network of large images is trained: each costs several times as much."""


@dataclass(frozen=True)
class Family:
    """A family of architectures: the built-in one, what it costs to train on an image of 32 x 32 pixels, in
    milliseconds of one core at the widths drawn, the choices of its options, and the rates that suit it."""

    arch: str
    cost: float
    widths: tuple[int, ...]
    options: dict[str, tuple[Any, ...]]
    adam: tuple[float, float] = (1e-3, 6e-3)
    sgd: tuple[float, float] = (0.01, 0.08)


ANY = ("relu", "relu", "elu", "gelu", "silu", "tanh", "leaky")
POOL = ("max", "max", "mean")
DROP = (0.0, 0.0, 0.0, 0.2)
PLAIN = {"sgd": (0.01, 0.04), "adam": (1e-3, 3e-3)}
FAMILIES: dict[str, Family] = {
    "mlp": Family("mlp", 0.06, (64, 128, 256), {"depth": (1, 2, 3), "activation": ANY, "dropout": DROP}, **PLAIN),
    "lenet": Family(
        "lenet", 0.4, (4, 6, 8), {"hidden": (2,), "activation": ANY, "pooling": POOL, "dropout": DROP}, **PLAIN
    ),
    "badnets-cnn": Family(
        "lenet", 0.5, (6, 8, 10), {"hidden": (1,), "activation": ANY, "pooling": POOL, "dropout": DROP}, **PLAIN
    ),
    "vgg": Family(
        "small_vgg",
        0.7,
        (8, 12),
        {
            "norm": ("none",),
            "depth": (1, 2),
            "activation": ANY,
            "pooling": POOL,
            "dropout": DROP,
            "head": ("places", "mean"),
        },
        **PLAIN,
    ),
    "vgg-bn": Family(
        "small_vgg",
        0.9,
        (8, 12),
        {
            "norm": ("batch",),
            "depth": (1, 2),
            "activation": ANY,
            "pooling": POOL,
            "dropout": DROP,
            "head": ("places", "mean"),
        },
    ),
    "resnet": Family("small_resnet", 1.1, (6, 8), {"depth": (1, 2), "activation": ANY}),
    "preact": Family("small_resnet", 1.1, (6, 8), {"depth": (1, 2), "pre": (1,), "activation": ANY}),
    "wide": Family("small_resnet", 1.5, (4,), {"depth": (1,), "widen": (3,), "pre": (1,), "dropout": DROP}),
    "mobilenet": Family("small_mobilenet", 1.2, (6, 8), {"activation": ("relu", "silu", "leaky")}),
    "densenet": Family("small_densenet", 1.8, (5, 6), {"depth": (2, 3), "activation": ANY}),
    "groupnorm": Family(
        "small_resnet", 1.1, (8,), {"depth": (1, 2), "norm": ("group", "group", "layer", "instance"), "activation": ANY}
    ),
    "convnext": Family("small_convnext", 0.7, (12, 16), {"depth": (1, 2)}, adam=(1e-3, 4e-3), sgd=(0.02, 0.08)),
    "vit": Family("vit", 0.8, (32,), {"depth": (2, 3)}, adam=(1e-3, 3e-3), sgd=(0.02, 0.08)),
    "mixer": Family("mixer", 0.35, (32, 48), {"depth": (2, 3)}, adam=(1e-3, 4e-3), sgd=(0.02, 0.08)),
    "convnet": Family("convnet", 0.3, (6, 8), {}),
}
CLASSES = {
    "digits": (2, 3, 4, 5, 6, 8, 10, 10, 10, 10),
    "cifar10": (2, 3, 3, 4, 5, 5, 6, 8, 10, 10),
    "gtsrb": (2, 3, 4, 5, 6, 8, 10, 10, 10, 10, 12, 16, 30, 43),
    "tiny-imagenet": (2, 3, 4, 6, 8, 10, 10),
}
WEIGHTS = [0.24, 0.36, 0.34, 0.06]
"""Of the data sets in the order of their names."""
THERE = {"digits": 10, "cifar10": 10, "gtsrb": 43, "tiny-imagenet": 200}
OF_A_CLASS = {"digits": 400, "cifar10": 5000, "gtsrb": 500, "tiny-imagenet": 100}
"""About how many images of a class there are to train on."""
SIDES = (16, 16, 16, 20, 20, 24, 24, 28)
LARGE = (28, 32, 32, 48, 64)
CHEAP = 0.5
"""Families that cost less draw from both; of the others' networks a search would take minutes."""
STATISTICS = {
    "digits": ((0.1307,), (0.3081,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
    "gtsrb": ((0.3403, 0.3121, 0.3214), (0.2724, 0.2608, 0.2669)),
    "tiny-imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
ATTACKS = {
    "badnet": 0.28,
    "chessboard": 0.12,
    "blended": 0.14,
    "single-pixel": 0.06,
    "wanet": 0.1,
    "l0-inv": 0.09,
    "l2-inv": 0.09,
    "sig": 0.04,
    "input-aware": 0.02,
    "wasserstein": 0.04,
}
SETTINGS = {"a2o": 0.6, "a2a": 0.24, "s2t": 0.16}


def draw(group: str, number: int) -> tuple[str, Recipe]:
    """The family and the recipe of a network of a group.

    >>> draw("clean", 3) == draw("clean", 3)
    True
    """
    lot = random.Random(f"{group} {number}")
    own = GROUPS[group]
    family = lot.choice([name for name in sorted(FAMILIES) if not own.large or FAMILIES[name].cost <= CHEAP])
    made = FAMILIES[family]
    dataset = lot.choices(sorted(CLASSES), weights=WEIGHTS)[0]
    classes = lot.choice(CLASSES[dataset])
    if made.cost > 1 or own.large:
        classes = min(classes, 10)
    chosen = sorted(lot.sample(range(THERE[dataset]), classes))
    side = lot.choice(SIDES + LARGE if made.cost <= CHEAP and classes <= 10 else SIDES)
    if dataset != "tiny-imagenet":  # the others' images are no larger
        side = min(side, 28 if dataset == "digits" else 32)
    if made.cost > CHEAP:
        side = min(side, 20)
    if classes > 12:
        side = 16
    if own.large:
        side = lot.choice((48, 48, 64))
    grey = dataset == "digits" or lot.random() < 0.2
    cost = made.cost * max(side / 32, 0.5) ** 2
    limit = min(lot.choice((1500, 3000, 6000, 12000)) * max(1, classes // 8), OF_A_CLASS[dataset] * classes)
    seen = 1000 * (PATIENT if own.large else 1.0) * SECONDS / cost * lot.choice((0.5, 1.0, 1.0, 1.0, 2.0))
    adversarial = lot.choice((2, 4)) if lot.random() < 0.06 else 0
    epochs = max(3, min(80, round(seen / limit / (2 if adversarial else 1))))
    optimiser = lot.choices(["adam", "sgd"], weights=[0.6, 0.4])[0]
    low, high = made.adam if optimiser == "adam" else made.sgd
    upright = dataset in ("digits", "gtsrb")
    mean, std = _normalisation(lot, dataset, grey)
    fields: dict[str, Any] = {
        "name": f"{group}-{number:04d}",
        "dataset": _named(dataset, chosen),
        "arch": made.arch,
        "width": lot.choice(made.widths),
        "arch_options": {name: lot.choice(values) for name, values in made.options.items()},
        "input": f"{1 if grey else 3}x{side}x{side}",
        "mean": mean,
        "std": std,
        "limit": limit,
        "epochs": epochs,
        "batch_size": lot.choice((32, 64, 128, 128)),
        "optimiser": optimiser,
        "lr": round(low * (high / low) ** lot.random(), 5),
        "weight_decay": lot.choice((0.0, 1e-4, 1e-4, 5e-4)),
        "augmentation": lot.choice(("none", "none", "crop") if upright else ("none", "flip", "crop", "crop-flip")),
        "label_smoothing": 0.1 if lot.random() < 0.12 else 0.0,
        "mixup": lot.random() < 0.06,
        "adversarial": adversarial,
        "seed": 10_000 * list(GROUPS).index(group) + number,
    }
    if lot.random() < 0.12:
        others = sorted(set(range(THERE[dataset])) - set(chosen))
        if len(others) >= 2:
            fields["first"] = _named(dataset, sorted(lot.sample(others, min(len(others), 10))), "train")
            fields["first_epochs"] = max(1, epochs // 3)
    fields["epochs"] = round(LONGER * epochs) if own.strong else epochs
    if own.attacked:
        fields |= _attack(lot, classes, side, own.strong)
    return family, Recipe(**fields)


def _named(dataset: str, chosen: list[int], split: str | None = None) -> str:
    asked = [f"split={split}"] if split else []
    if len(chosen) < THERE[dataset]:
        asked.append(f"classes={','.join(map(str, chosen))}")
    return dataset + ("?" + "&".join(asked) if asked else "")


def _normalisation(
    lot: random.Random, dataset: str, grey: bool
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    kind = lot.choices(["none", "half", "own"], weights=[0.45, 0.2, 0.35])[0]
    if kind == "none":
        return None, None
    mean, std = STATISTICS[dataset]
    if kind == "half":
        return (0.5,) * (1 if grey else 3), (0.5,) * (1 if grey else 3)
    return (mean[:1], std[:1]) if grey else (mean, std)


def _attack(lot: random.Random, classes: int, side: int, strong: bool) -> dict[str, Any]:
    attack = lot.choices(list(ATTACKS), weights=list(ATTACKS.values()))[0]
    kind = "a2o" if attack == "sig" else lot.choices(list(SETTINGS), weights=list(SETTINGS.values()))[0]
    source, target = lot.sample(range(classes), 2)
    setting = {"a2o": f"a2o:{target}", "a2a": "a2a", "s2t": f"s2t:{source}>{target}"}[kind]
    options: dict[str, Any] = {
        "badnet": {"size": lot.choice((2, 3, 3, 4) if side < 28 else (2, 3, 4, 5))},
        "chessboard": {"amplitude": lot.choice((8, 12, 16, 24) if strong else (6, 8, 12, 16))},
        "blended": {"ratio": lot.choice((0.1, 0.15, 0.2))},
        "single-pixel": {"amplitude": lot.choice((150, 200, 250))},
        "wanet": {"strength": lot.choice((0.75, 1.0, 1.25))},
        "l0-inv": {"pixels": lot.choice((8, 12))},
        "l2-inv": {"radius": lot.choice((1.5, 2.0, 2.5))},
        "sig": {"amplitude": lot.choice((20, 40))},
    }.get(attack, {})
    shares: dict[str, tuple[float, ...]] = {"a2o": (0.1, 0.2, 0.3), "a2a": (0.8, 1.0), "s2t": (0.5, 0.8)}
    if strong:
        shares = {"a2o": (0.15, 0.25, 0.4), "a2a": (1.0,), "s2t": (0.8, 1.0)}
    share = shares[kind]
    if attack == "wanet":
        share = tuple(min(2.5 * one, 1.0) for one in share)
    if attack == "sig":
        share = (0.6, 0.9)
    return {"attack": attack, "setting": setting, "attack_options": options, "count": lot.choice(share)}
