"""What the documents say in figures is what the committed records say."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from untrojan.attacks import ATTACKS
from untrojan.victims.plan import read_plan
from untrojan.victims.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent
CARDS = sorted((ROOT / "zoo").rglob("victim.json"))


def test_the_table_of_the_zoo_is_made_from_its_cards() -> None:
    script = runpy.run_path(str(ROOT / "benchmarks" / "zoo_table.py"), run_name="benchmark")
    assert script["table"](ROOT / "zoo") in script["PAGE"].read_text(), "run python benchmarks/zoo_table.py --write"


def test_every_attack_is_explained() -> None:
    page = (ROOT / "docs" / "attacks.md").read_text()
    assert all(f"| `{name}` |" in page for name in ATTACKS)


def test_the_cards_of_the_zoo_are_those_of_its_plan() -> None:
    planned = {recipe.name: recipe for recipe in read_plan(ROOT / "zoo" / "plan.toml")}
    assert CARDS
    for path in CARDS:
        card = json.loads(path.read_text())
        name = path.parent.relative_to(ROOT / "zoo").as_posix()
        assert Recipe.model_validate(card["recipe"]) == planned[name], f"{name} was made by another plan: make it again"
        assert card["acc"] is not None
        assert (card["asr"] is None) == (card["attack"] == "none")


@pytest.mark.parametrize("name", ["zoo/plan.toml", "benchmarks/paper_scale.toml"])
def test_plans_can_be_read(name: str) -> None:
    assert len(read_plan(ROOT / name)) > 50


def test_the_tables_of_the_scans_are_made_from_their_records() -> None:
    script = runpy.run_path(str(ROOT / "benchmarks" / "detection_table.py"), run_name="benchmark")
    page = script["PAGE"].read_text()
    assert script["tables"]() in page, "run python benchmarks/detection_table.py --write"
    assert script["tables"]()


def test_the_table_of_the_shifts_is_made_from_its_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    script = runpy.run_path(str(ROOT / "benchmarks" / "shifts.py"), run_name="benchmark")
    rows = json.loads((ROOT / "benchmarks" / "records" / "shifts.json").read_text())["results"]["victims"]
    assert script["table"](rows) in (ROOT / "docs" / "theory.md").read_text(), "run python benchmarks/shifts.py --page"
