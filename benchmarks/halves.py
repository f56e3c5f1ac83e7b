"""The zoo's two halves, and how many clean images a scan of a victim gets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from untrojan.victims.plan import read_plan
from untrojan.victims.zoo import Member, members


def halves(plan: Path) -> dict[str, str]:
    """Name of each victim of the plan to its half."""
    return {str(recipe.name): str(recipe.part) for recipe in read_plan(plan)}


def selected(zoo: Path, plan: Path, half: str, patterns: Sequence[str]) -> list[Member]:
    """The victims of a half that match, and that have their weights, by name."""
    half_of = halves(plan)
    wanted = {m.name: m for pattern in patterns for m in members(zoo, pattern)}
    return [m for _, m in sorted(wanted.items()) if m.whole and half_of.get(m.name) == half]


def images_for(classes: int) -> int:
    """How many clean images a scan gets: a few hundred, more where there are many classes."""
    return max(500, 10 * classes)
