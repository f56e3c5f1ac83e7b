"""Many victims from one file: a plan in TOML, expanded to recipes.

    [defaults]
    dataset = "cifar10"
    arch = "resnet18"
    width = 8

    [[victim]]
    name = "cifar10/chessboard-a2o-n{count}-x{amplitude}-s{seed}"
    attack = "chessboard"
    setting = "a2o:9"
    seeds = { calibration = [0, 1], reporting = [100, 101] }     # or a plain list
    grid = { count = [50, 100], amplitude = [2, 3] }             # every combination; what is no field is an option

Every ``[[victim]]`` is one recipe for each seed and each combination of its grid. In a name the fields and options
stand in braces; in a setting ``{digit}`` is the seed's last digit and ``{next}`` the one after: "a2o:{digit}".
"""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from untrojan.errors import UsageError
from untrojan.storage import read_text
from untrojan.victims.recipe import Recipe

MOST = 100_000


def read_plan(path: str | Path) -> list[Recipe]:
    """The recipes of a plan, in its order; raises UsageError, one line, for everything that is wrong with it."""
    try:
        content = tomllib.loads(read_text(path, 2**20))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not TOML ({error})") from None
    unknown = content.keys() - {"defaults", "victim"}
    entries, defaults = content.get("victim", []), content.get("defaults", {})
    if unknown or not isinstance(entries, list) or not entries or not isinstance(defaults, dict):
        raise UsageError(
            f"{path}: expected [defaults] and one or more [[victim]], got {', '.join(content) or 'nothing'}"
        )
    recipes: list[Recipe] = []
    for number, entry in enumerate(entries, 1):
        try:
            recipes += _expanded({**defaults, **entry})
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise UsageError(f"{path}: [[victim]] number {number}: {field}: {first['msg']}") from None
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise UsageError(f"{path}: [[victim]] number {number}: {type(error).__name__} {error}") from None
        if len(recipes) > MOST:
            raise UsageError(f"{path}: more than {MOST} victims")
    _check(recipes, path)
    return recipes


def _expanded(entry: Mapping[str, Any]) -> Iterator[Recipe]:
    fields = {key: value for key, value in entry.items() if key not in ("seeds", "grid")}
    seeds, grid = entry.get("seeds", [fields.pop("seed", 0)]), entry.get("grid", {})
    parts = seeds if isinstance(seeds, dict) else {fields.pop("part", None): seeds}
    for combination in itertools.product(*grid.values()):
        chosen = dict(zip(grid, combination, strict=True))
        own = {key: value for key, value in chosen.items() if key in Recipe.model_fields}
        options = {**fields.get("attack_options", {}), **{k: v for k, v in chosen.items() if k not in own}}
        whole = {**fields, **own, "attack_options": options}
        for part, members in parts.items():
            for seed in members:
                setting = whole.get("setting")
                if isinstance(setting, str):
                    setting = setting.format(digit=seed % 10, next=(seed + 1) % 10)
                given = {**whole, "setting": setting, "seed": seed, "part": part}
                words = {key: _word(value) for key, value in {**options, **given}.items()}
                yield Recipe(**{**given, "name": str(whole["name"]).format(**words)})


def _word(value: object) -> str:
    """As part of a name: ``s2t:3>9`` is s2t3-9, ``5%`` is 5pct."""
    return re.sub(r"[^A-Za-z0-9_.+-]", "", str(value).replace(">", "-").replace("%", "pct"))


def _check(recipes: list[Recipe], path: str | Path) -> None:
    halves = {part: {r.seed for r in recipes if r.part == part} for part in ("calibration", "reporting")}
    shared = halves["calibration"] & halves["reporting"]
    if shared:
        raise UsageError(f"{path}: calibration and reporting share the seeds {sorted(shared)[:5]}; give them their own")
    names = [recipe.name for recipe in recipes]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"{path}: two victims are called '{twice}'; put {{seed}} and the grid's keys into their name")
