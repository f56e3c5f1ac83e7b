"""The zoo: the victims that everything is measured on, as cards, most of them with their weights."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from untrojan.classifier import load_victim_folder
from untrojan.data import load_data
from untrojan.errors import CheckpointError, UsageError
from untrojan.progress import Progress
from untrojan.records import Rate
from untrojan.setting import Setting
from untrojan.storage import read_text, write_bytes
from untrojan.triggers import load_trigger
from untrojan.victims import ARCHITECTURES
from untrojan.victims.files import CARD, FILES, TRIGGER, WEIGHTS, clear, save_victim
from untrojan.victims.measuring import measure
from untrojan.victims.recipe import Recipe, make, splits

VARIABLE = "UNTROJAN_ZOO"
MARGIN = 0.01
"""By how much a rate may differ from its card: another processor rounds otherwise."""
RATES = ("acc", "asr", "asr_floor")
"""What a card says of a victim and ``verify`` measures again."""


@dataclass(frozen=True)
class Member:
    """A victim of the zoo: its name, its folder, its card, and whether its weights are there."""

    name: str
    folder: Path
    card: dict[str, Any]

    @property
    def whole(self) -> bool:
        return (self.folder / WEIGHTS).is_file()

    @property
    def recipe(self) -> Recipe:
        """How it was made; raises CheckpointError if its card does not say."""
        try:
            return Recipe.model_validate(self.card.get("recipe"))
        except ValueError:
            raise CheckpointError(f"{self.folder / CARD}: holds no recipe that this version can read") from None


@dataclass(frozen=True)
class Check:
    """What the card says of a member, and what was measured now."""

    name: str
    card: dict[str, float | None]
    now: dict[str, float | None]

    @property
    def agrees(self) -> bool:
        return all(
            (a is None) == (b is None) and (a is None or b is None or abs(a - b) <= MARGIN)
            for a, b in ((self.card[name], self.now[name]) for name in self.card)
        )


def find_zoo(given: Path | None = None) -> Path:
    """The folder of the zoo: ``given``, what ``VARIABLE`` names, or the one of the repository that this package is in.

    Raises UsageError if there is none.
    """
    named = os.environ.get(VARIABLE, "")
    places = (
        [given] if given else [Path(named)] if named else [Path(__file__).resolve().parents[3] / "zoo", Path("zoo")]
    )
    for place in places:
        if place.is_dir():
            return place
    raise UsageError(
        f"no zoo in {places[0]}; it lies in the repository, not in the installed package: clone that, and give "
        f"--zoo DIR or set {VARIABLE}"
    )


def members(zoo: Path, pattern: str = "*") -> list[Member]:
    """The victims whose name matches, sorted by name; raises UsageError if there are none."""
    found = []
    for path in sorted(zoo.rglob(CARD)):
        name = path.parent.relative_to(zoo).as_posix()
        if fnmatchcase(name, pattern):
            found.append(Member(name, path.parent, _card(path)))
    if not found:
        raise UsageError(f"no victim in {zoo} matches '{pattern}'; untrojan zoo list shows what there is")
    return found


def _card(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(read_text(path))
    except ValueError:
        raise CheckpointError(f"{path}: not JSON, no victim's card") from None
    if not isinstance(card, dict):
        raise CheckpointError(f"{path}: expected an object, a victim's card")
    for name, kind in (("recipe", dict), ("setting", str), ("test_data", dict)):
        if not isinstance(card.get(name), kind | None):
            raise CheckpointError(f"{path}: {name} is no {'text' if kind is str else 'object'}")
    for name in RATES:
        try:
            if card.get(name) is not None:
                Rate.model_validate(card[name])
        except ValidationError:
            raise CheckpointError(f"{path}: {name} is no rate with value, low and high") from None
    return card


def verify(member: Member, *, device: torch.device, progress: Progress | None = None) -> Check:
    """Measure a member again, on the test images that its recipe names. Without its weights it is made again first."""
    names = [name for name in RATES if member.card.get(name) is not None]
    card = {name: float(member.card[name]["value"]) for name in names}
    if not member.whole:
        fresh = make(member.recipe, device=device, progress=progress).card
        return Check(member.name, dict(card), {name: _value(fresh.get(name)) for name in names})
    classifier = load_victim_folder(member.folder, device=device, builtins=ARCHITECTURES)
    shape = classifier.input_shape
    _, spec = splits(member.recipe)
    if spec is None or shape is None:
        raise UsageError(f"{member.name}: its recipe names no test images")
    test = load_data(spec, input_shape=(shape[0], shape[1], shape[2]), class_names=classifier.class_names)
    trigger, setting = None, None
    if member.card.get("setting") is not None:
        trigger, _ = load_trigger(member.folder / TRIGGER)
        setting = Setting.parse(member.card["setting"])
    classes = len(member.card.get("class_names") or test.class_names or ())
    now = measure(classifier, test, trigger, setting, classes, progress)
    return Check(member.name, dict(card), {name: _value(now.get(name)) for name in names})


def get(chosen: Sequence[Member], out: Path, *, device: torch.device, progress: Progress | None = None) -> list[Path]:
    """Copy members to ``out/NAME``; those without weights are made again from their recipe.

    An earlier card there goes first and the new one comes last, as in ``save_victim``. Raises OutputError.
    """
    folders = []
    for member in chosen:
        folder = out / member.name
        if member.whole and folder.resolve() != member.folder.resolve():
            clear(folder)
            for name in FILES:
                if (member.folder / name).is_file():
                    write_bytes(folder / name, _content(member.folder / name))
        elif not member.whole:
            save_victim(folder, make(member.recipe, device=device, progress=progress))
        folders.append(folder)
    return folders


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from None


def _value(rate: Any) -> float | None:
    return None if rate is None else float(rate["value"])
