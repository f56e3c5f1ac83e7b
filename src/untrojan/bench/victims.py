"""The victims of a plan: which there are, and what tells one from another."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from untrojan.bench.plan import Plan
from untrojan.classifier.loading import VictimCard, read_card
from untrojan.errors import CheckpointError, UsageError
from untrojan.setting import Setting
from untrojan.storage import read_text
from untrojan.victims.files import CARD, TRIGGER
from untrojan.victims.recipe import Recipe, splits
from untrojan.victims.zoo import find_zoo, members


@dataclass(frozen=True)
class BenchVictim:
    """A victim with its weights. ``identity``: a hash of its files, as far as a measurement depends on them; attack,
    setting: "none" and None for a clean one; test: where its test images are, None if its card does not say; facts:
    what a table can be sorted by."""

    name: str
    folder: Path
    identity: str
    attack: str
    setting: str | None
    test: str | None
    shape: tuple[int, int, int]
    class_names: tuple[str, ...] | None
    facts: dict[str, Any]


def victims_of(plan: Plan, zoo: Path | None, only: str | None = None) -> list[BenchVictim]:
    """The plan's victims in its order, those alone whose name matches ``only``.

    Raises UsageError for what is not there or lacks its weights, CheckpointError for a card that cannot be read.
    """
    folders: dict[str, Path] = {}
    for wanted in plan.victims:
        try:
            found = _found(wanted, zoo)
        except UsageError:
            # A part of a plan can be measured while its other victims are still in the making.
            if only is None or fnmatchcase(wanted, only):
                raise
        else:  # a folder that is named in two ways is one victim
            known = {folder.resolve() for folder in folders.values()}
            folders |= {name: folder for name, folder in found.items() if folder.resolve() not in known}
    chosen = {name: folder for name, folder in folders.items() if only is None or fnmatchcase(name, only)}
    if not chosen:
        raise UsageError(
            f"no victim of the plan matches --only '{only}'; there are {', '.join(list(folders)[:3]) or 'none'}"
        )
    cards = {name: read_card(folder) for name, folder in chosen.items()}
    lacking = [name for name, folder in chosen.items() if not (folder / cards[name].weights).is_file()]
    if lacking:
        raise UsageError(
            f"{len(lacking)} of {len(chosen)} victims lack their weights, such as {lacking[0]}; make them with "
            "untrojan zoo get PATTERN --out DIR and give --zoo DIR, or leave them out with --only"
        )
    return [_victim(name, folder, cards[name]) for name, folder in chosen.items()]


def _found(wanted: str, zoo: Path | None) -> dict[str, Path]:
    """Name to folder, for a pattern of the zoo's names or for a victim's folder."""
    if (Path(wanted) / CARD).is_file():
        return {wanted: Path(wanted)}
    place = find_zoo(zoo)
    try:
        return {member.name: member.folder for member in members(place, wanted)}
    except UsageError:
        raise UsageError(
            f"victims '{wanted}': no victim in {place} has such a name, and there is no {Path(wanted) / CARD}; "
            f"untrojan zoo list --zoo {place} shows what there is"
        ) from None


def _victim(name: str, folder: Path, card: VictimCard) -> BenchVictim:
    extra = json.loads(read_text(folder / CARD))
    attack, setting = str(extra.get("attack") or "none"), extra.get("setting")
    if setting is not None:
        try:
            Setting.parse(str(setting))
        except UsageError as error:
            raise CheckpointError(f"{folder / CARD}: {error}") from None
        if not (folder / TRIGGER).is_file():
            raise CheckpointError(f"{folder / TRIGGER}: no such file; an attacked victim cannot be measured without it")
    recipe = _recipe(extra.get("recipe"))
    test = None if recipe is None else splits(recipe)[1]
    digest = hashlib.sha256((folder / card.weights).read_bytes())
    digest.update((folder / TRIGGER).read_bytes() if setting is not None else b"")
    own = card.model_dump(mode="json", include={"model", "input_shape", "mean", "std", "class_names"})
    digest.update(json.dumps([own, attack, setting, test], sort_keys=True).encode())
    arch, _, query = card.model.partition("?")
    facts: dict[str, Any] = {
        "victim": name,
        "dataset": "unknown" if recipe is None else recipe.dataset,
        "attack": "clean" if setting is None else attack,
        "setting": "" if setting is None else Setting.parse(str(setting)).kind.upper(),
        "goal": "" if setting is None else str(setting),
        "arch": arch,
        "count": extra.get("count"),
    }
    facts |= {key: value for key, _, value in (part.partition("=") for part in query.split("&")) if key}
    chosen = extra.get("attack_options") or {}
    if not isinstance(chosen, dict):
        raise CheckpointError(f"{folder / CARD}: attack_options is no object with the attack's options")
    options = {**(recipe.attack_options if recipe else {}), **chosen}
    facts |= {f"attack.{key}": value for key, value in options.items()}
    return BenchVictim(
        name=name,
        folder=folder.absolute(),
        identity=digest.hexdigest(),
        attack=attack,
        setting=setting,
        test=test,
        shape=card.input_shape,
        class_names=card.class_names,
        facts=facts,
    )


def _recipe(found: Any) -> Recipe | None:
    try:
        return None if found is None else Recipe.model_validate(found)
    except ValueError:
        return None
