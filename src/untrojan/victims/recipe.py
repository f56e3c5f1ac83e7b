"""Everything that says which victim to make, as a user or a plan writes it."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator

from untrojan.attacks import PRESETS, preset_for
from untrojan.data import NAMED, ImageSet, load_data
from untrojan.errors import UsageError
from untrojan.progress import Progress
from untrojan.setting import Setting
from untrojan.victims.making import Victim, build_attack, make_victim
from untrojan.victims.training import TrainingSettings

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.+-]*(/[A-Za-z0-9][A-Za-z0-9_.+-]*)*$"


class Recipe(BaseModel):
    """One victim. What is None follows from the rest: the preset from the data set, the count from preset or attack,
    the architecture from the images, the test images from a named set.

    dataset, test: as ``load_data`` takes them; of a named set the training and the test split. count: poisoned images
    per source class, or their share of it: 0.05 or "5%". part: the half of a zoo that the victim belongs to. first:
    another task to train on before, as ``load_data`` takes it, for ``first_epochs``. The rest: see ``make_victim`` and
    ``TrainingSettings``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=NAME, max_length=200)] = "victim"
    dataset: str
    test: str | None = None
    attack: str = "none"
    setting: str | None = None
    attack_options: dict[str, int | float | str] = Field(default_factory=dict)
    preset: str | None = None
    count: int | float | None = None
    arch: str | None = None
    width: Annotated[int, Field(ge=1)] | None = None
    arch_options: dict[str, int | float | str] = Field(default_factory=dict)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    first: str | None = None
    first_epochs: Annotated[int, Field(ge=1)] = 2
    epochs: Annotated[int, Field(ge=1)] = 8
    batch_size: Annotated[int, Field(ge=2)] = 64
    lr: Annotated[float, Field(gt=0)] = 0.003
    augmentation: str = "none"
    optimiser: str = "adam"
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    mixup: bool = False
    adversarial: Annotated[float, Field(ge=0, le=255)] = 0.0
    input: Annotated[str, Field(pattern=r"^[1-9]\d{0,4}x[1-9]\d{0,4}x[1-9]\d{0,4}$")] | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    seed: int = 0
    half: bool = False
    part: Literal["calibration", "reporting"] | None = None

    @field_validator("count", mode="before")
    @classmethod
    def _count(cls, value: Any) -> Any:
        if isinstance(value, str):
            return parse_count(value)
        if (isinstance(value, float) and not 0 < value <= 1) or (isinstance(value, int) and value < 1):
            raise ValueError(
                f"expected a number of images such as 100, or a share of the class such as 0.05, got {value}"
            )
        return value


def parse_count(text: str) -> int | float:
    """``100`` images or ``5%`` of a class; raises ValueError."""
    if found := re.fullmatch(r"(\d+(?:\.\d+)?) ?%", text.strip()):
        share = float(found[1]) / 100
        if 0 < share <= 1:
            return share
    elif re.fullmatch(r"\d{1,9}", text.strip()) and int(text) >= 1:
        return int(text)
    raise ValueError(f"expected a number of images such as 100, or a share of the class such as 5%, got '{text[:40]}'")


def splits(recipe: Recipe) -> tuple[str, str | None]:
    """DATA to train on and to test on: of a set by name its two splits."""
    name, _, query = recipe.dataset.partition("?")
    if name != "digits" and name not in NAMED:
        return recipe.dataset, recipe.test
    if "split=" in query:
        return recipe.dataset, recipe.test
    rest = f"&{query}" if query else ""
    return f"{name}?split=train{rest}", recipe.test or f"{name}?split=test{rest}"


def complete(recipe: Recipe) -> Recipe:
    """The recipe with what its preset says filled in; raises UsageError."""
    if recipe.attack == "none":
        if recipe.preset is not None:
            preset_for(recipe.preset, recipe.attack)  # raises for a name that there is not
        return recipe
    if recipe.setting is None:
        raise UsageError(f"attack {recipe.attack} needs --setting: a2o:T, a2a or s2t:S>T with class numbers")
    name = recipe.dataset.partition("?")[0]
    chosen = recipe.preset or (name if name in PRESETS else None)
    if chosen is None:
        return recipe
    preset = preset_for(chosen, recipe.attack)
    count = preset.count.get(Setting.parse(recipe.setting).kind) if recipe.count is None else recipe.count
    options = {**preset.options, **recipe.attack_options}
    return recipe.model_copy(update={"preset": chosen, "attack_options": options, "count": count})


def make(
    recipe: Recipe,
    *,
    device: torch.device,
    progress: Progress | None = None,
    state: Path | None = None,
    resume: bool = True,
    watch: bool = True,
) -> Victim:
    """The victim of a recipe; its card holds the recipe. state, resume, watch: as for ``make_victim``.

    Raises as ``make_victim`` and ``load_data`` do.
    """
    full = complete(recipe)
    # What is wrong with the recipe is said before any image is read.
    if full.attack != "none":
        build_attack(full.attack, full.attack_options)
    setting = None if full.setting is None else Setting.parse(full.setting)
    training = TrainingSettings(
        epochs=full.epochs,
        batch_size=full.batch_size,
        learning_rate=full.lr,
        weight_decay=full.weight_decay,
        augmentation=full.augmentation,
        optimiser=full.optimiser,
        label_smoothing=full.label_smoothing,
        mixup=full.mixup,
        adversarial=full.adversarial,
    )
    train_spec, test_spec = splits(full)
    shape = None if full.input is None else _three(full.input)
    images = _loaded(train_spec, shape, full.limit, full.seed if full.limit else 0, None)
    channels, height, width = images.images.shape[1:]
    test = None
    if test_spec is not None:
        test = _loaded(test_spec, (channels, height, width), None, 0, images.class_names)
    first = None
    if full.first is not None:
        first = _loaded(full.first, (channels, height, width), full.limit, full.seed, None), full.first_epochs
    victim = make_victim(
        images,
        attack=full.attack,
        setting=setting,
        arch=full.arch or ("convnet" if (channels, height, width) == (1, 28, 28) else "resnet18"),
        width=full.width,
        arch_options=full.arch_options,
        mean=full.mean,
        std=full.std,
        first=first,
        count=full.count,
        training=training,
        device=device,
        seed=full.seed,
        test=test,
        attack_options=full.attack_options,
        half=full.half,
        state=state,
        resume=resume,
        watch=watch,
        progress=progress,
    )
    victim.card["recipe"] = recipe.model_dump()
    return victim


@lru_cache(maxsize=4)
def _loaded(
    spec: str, shape: tuple[int, int, int] | None, limit: int | None, seed: int, names: tuple[str, ...] | None
) -> ImageSet:
    """Decoded once for all victims of a plan that use the same images."""
    return load_data(spec, input_shape=shape, limit=limit, seed=seed, class_names=names)


def _three(text: str) -> tuple[int, int, int]:
    channels, height, width = map(int, text.split("x"))
    return channels, height, width
