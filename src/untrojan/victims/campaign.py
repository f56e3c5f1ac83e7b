"""Makes the victims of a plan, several at once, and goes on where it was interrupted."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from untrojan.errors import UntrojanError
from untrojan.processes import Pool
from untrojan.storage import read_text
from untrojan.victims.checkpoint import STATE, OtherTrainingError, forget
from untrojan.victims.files import CARD, WEIGHTS, save_victim
from untrojan.victims.recipe import Recipe, make


@dataclass(frozen=True)
class Outcome:
    """What became of one recipe: made now, there already, or failed, and why. ``card`` of a victim that is there."""

    name: str
    status: Literal["made", "there", "failed"]
    reason: str = ""
    card: dict[str, Any] | None = None


def run(recipes: Sequence[Recipe], out: Path, *, jobs: int, device: torch.device) -> Iterator[Outcome]:
    """Make every victim of a plan into ``out/NAME``; outcomes come as they are ready, those already there first.

    jobs: victims that are trained at once, each with its share of the processor's threads; small networks do not fill
    even two of them, nor a GPU. A victim that was interrupted goes on from its last epoch. One that fails does not stop
    the others; one whose process dies is tried once more.
    """
    waiting = []
    for recipe in recipes:
        card = finished(recipe, out)
        if card is None:
            waiting.append(recipe)
        else:
            yield Outcome(recipe.name, "there", card=card)
    work = [(recipe, out, str(device)) for recipe in waiting]
    if jobs == 1:
        yield from map(_make, work)
        return
    pool: Pool[tuple[Recipe, Path, str], Outcome] = Pool(
        _make, jobs=jobs, threads=max(1, (os.cpu_count() or 1) // jobs)
    )
    with closing(pool):
        for ended in pool.each(work):
            yield ended.result or Outcome(ended.task[0].name, "failed", ended.died or "")


def finished(recipe: Recipe, out: Path) -> dict[str, Any] | None:
    """The card of the victim that was made by this very recipe, if it is there."""
    path = out / recipe.name / CARD
    if not path.is_file() or not (out / recipe.name / WEIGHTS).is_file():
        return None
    try:
        card: dict[str, Any] = json.loads(read_text(path))
        return card if Recipe.model_validate(card.get("recipe")) == recipe else None
    except (ValueError, UntrojanError):
        return None


def _make(work: tuple[Recipe, Path, str]) -> Outcome:
    recipe, out, device = work
    folder = out / recipe.name
    try:
        try:
            victim = make(recipe, device=torch.device(device), state=folder / STATE)
        except OtherTrainingError:  # the plan was changed after an interruption
            forget(folder / STATE)
            victim = make(recipe, device=torch.device(device), state=folder / STATE)
        save_victim(folder, victim)
        forget(folder / STATE)
    except Exception as error:  # whatever it is, the others are made
        return Outcome(recipe.name, "failed", " ".join(str(error).split())[:300])
    return Outcome(recipe.name, "made", card=victim.card)
