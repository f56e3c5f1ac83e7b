"""What to measure, as a TOML file says it: victims x methods x seeds x settings, and the table to make of it.

name = "table5"
victims = ["cifar10/*-a2o9-s10?", "my/victim"]          # patterns of the zoo's names, or victims' folders
seeds = [0, 1]

[settings]
defence = 0.1                                           # of the test split, or a number of images
test_limit = 4000

[[method]]
name = "bna"
options = { tau = [50, 150], divergence = "tv" }        # a list is a grid: every combination is measured

[table]
rows = ["method", "tau"]
columns = ["attack", "setting"]
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from untrojan.errors import UsageError
from untrojan.storage import read_text

MOST = 100_000
RATES = ("acc", "asr", "asr_floor", "sia", "sia_ceiling", "tpr", "tpr_of_successful", "fpr", "fpr_all", "found")
COSTS = ("seconds", "images_forward", "images_forward_backward")

Count = Annotated[int, Field(ge=1, strict=True)]
Share = Annotated[float, Field(gt=0, lt=1, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**32, strict=True)]


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Settings(Part):
    """What is the same for all methods. In a plan each may be a list, which is a grid.

    defence: the share of the victim's test split, or the number of its images, that the defence gets; balanced over
    classes. scan_images: how many of these a scan gets; None: 500, or ten per class. test_limit: how many of the other
    test images to measure on; None: all. data: where the images are, of all victims; without it each card's own.
    """

    defence: Share | Count = 0.1
    scan_images: Count | None = None
    test_limit: Count | None = None
    data: str | None = None


class MethodEntry(Part):
    """One ``[[method]]``. In ``options``, ``surrogates`` and ``margin_share`` a list is a grid; for an option that is
    itself a list, give a list of lists. label: what the table calls it."""

    name: str
    label: Annotated[str, Field(max_length=80)] | None = None
    recipe: Literal["untrojan", "paper"] = "untrojan"
    options: dict[str, Any] = Field(default_factory=dict)
    surrogates: dict[str, Any] = Field(default_factory=dict)
    margin_share: Any = None
    test_limit: Count | None = None


class Table(Part):
    """``rows`` and ``columns`` are names of facts about a cell: method, an option's name, attack, setting (A2O, A2A,
    S2T), goal (a2o:9), dataset, arch, width, count, attack.OPTION, victim, seed, defence, ...; see ``facts``."""

    rows: Annotated[tuple[str, ...], Field(min_length=1)] = ("method",)
    columns: tuple[str, ...] = ("attack", "setting")
    rates: tuple[Literal[RATES], ...] = ("acc", "asr", "sia", "tpr", "fpr", "found")  # type: ignore[valid-type]


class Plan(Part):
    """A whole plan; ``settings`` are still a grid."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=80)] = "bench"
    title: str | None = None
    victims: Annotated[tuple[str, ...], Field(min_length=1)]
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    settings: dict[str, Any] = Field(default_factory=dict)
    method: Annotated[tuple[MethodEntry, ...], Field(min_length=1)]
    table: Table = Table()


@dataclass(frozen=True)
class MethodSpec:
    """One method of a grid: what the plan gives, defaults not filled in. ``varied``: options that the grid varies."""

    name: str
    label: str
    recipe: str
    options: dict[str, Any]
    surrogates: dict[str, Any]
    margin_share: Any
    test_limit: int | None
    varied: tuple[str, ...]

    @property
    def given(self) -> dict[str, Any]:
        """All options by their names."""
        margin = {} if self.margin_share is None else {"margin_share": self.margin_share}
        return {**self.options, **self.surrogates, **margin}


def read_plan(path: str | Path) -> Plan:
    """Raises UsageError, one line, for what is wrong with the file; names in it are looked up later."""
    try:
        content = tomllib.loads(read_text(path, 2**20))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not TOML ({error})") from None
    try:
        plan = Plan.model_validate(content)
    except ValidationError as error:
        raise UsageError(f"{path}: {_first(error)}") from None
    try:
        every_setting(plan)
        every_method(plan)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    return plan


def every_setting(plan: Plan) -> list[Settings]:
    """The combinations of the settings' grid; raises UsageError."""
    try:
        return [Settings(**chosen) for chosen in grid(plan.settings, "[settings]")]
    except ValidationError as error:
        raise UsageError(f"[settings] {_first(error)}") from None


def every_method(plan: Plan) -> list[MethodSpec]:
    """The combinations of each method's grid, in the plan's order; raises UsageError."""
    return [spec for entry in plan.method for spec in _specs(entry)]


def grid(options: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """Every combination of the options' values, of which a list is several.

    >>> grid({"tau": [50, 150], "divergence": "tv"}, "options")
    [{'tau': 50, 'divergence': 'tv'}, {'tau': 150, 'divergence': 'tv'}]
    """
    values = [value if isinstance(value, list) else [value] for value in options.values()]
    for name, several in zip(options, values, strict=True):
        if not several:
            raise UsageError(f"{where}: {name} is an empty list; expected a value, or a list of values")
    total = 1
    for several in values:
        total *= len(several)
    if total > MOST:
        raise UsageError(f"{where}: {total} combinations are more than {MOST}")
    return [dict(zip(options, combination, strict=True)) for combination in itertools.product(*values)]


def _specs(entry: MethodEntry) -> list[MethodSpec]:
    where = f"[[method]] {entry.name}"
    margin = {} if entry.margin_share is None else {"margin_share": entry.margin_share}
    parts = [entry.options, entry.surrogates, margin]
    names = [name for part in parts for name in part]
    if len(set(names)) < len(names):
        raise UsageError(f"{where}: an option is given twice: {', '.join(names)}")
    varied = tuple(name for part in parts for name, value in part.items() if isinstance(value, list) and len(value) > 1)
    label = entry.label or entry.name + (" (paper)" if entry.recipe == "paper" else "")
    return [
        MethodSpec(
            name=entry.name,
            label=label,
            recipe=entry.recipe,
            options={name: chosen[name] for name in entry.options},
            surrogates={name: chosen[name] for name in entry.surrogates},
            margin_share=chosen.get("margin_share"),
            test_limit=entry.test_limit,
            varied=varied,
        )
        for chosen in grid({name: value for part in parts for name, value in part.items()}, where)
    ]


def _first(error: ValidationError) -> str:
    """The first thing that pydantic found wrong, in a line."""
    found = error.errors()[0]
    place = ".".join(map(str, found["loc"]))
    return f"{place}: {found['msg'][:1].lower()}{found['msg'][1:]}" if place else found["msg"]
