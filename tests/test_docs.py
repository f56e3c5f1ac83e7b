"""What the documents say in figures is what the committed records say."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from untrojan.attacks import ATTACKS
from untrojan.correction import TUNINGS
from untrojan.victims.plan import read_plan
from untrojan.victims.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent
CARDS = sorted((ROOT / "zoo").rglob("victim.json"))


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """The names that a script of the benchmarks defines."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return lambda name: runpy.run_path(str(ROOT / "benchmarks" / f"{name}.py"), run_name="benchmark")


def test_the_table_of_the_zoo_is_made_from_its_cards(script: Callable[[str], dict[str, Any]]) -> None:
    made = script("zoo_table")
    assert made["table"](ROOT / "zoo") in made["PAGE"].read_text(), "run python benchmarks/zoo_table.py --write"


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


def test_the_table_of_what_was_left_out_is_made_from_its_record(script: Callable[[str], dict[str, Any]]) -> None:
    made = script("left_out")
    results = json.loads(made["RECORD"].read_text())["results"]
    assert made["table"](results) in made["PAGE"].read_text(), "run python benchmarks/left_out.py --page"


def test_p_values_of_left_out_clean_networks_are_what_they_say(script: Callable[[str], dict[str, Any]]) -> None:
    """Uniform below .2, where verdicts are made; and few are called backdoored."""
    results = json.loads(script("left_out")["RECORD"].read_text())["results"]
    assert results["below_0.2"]["n"] >= 10
    assert results["below_0.2"]["ks_p_value"] > 0.01
    assert results["clean"]["flagged"] <= 0.02 * results["clean"]["n"]
    assert results["by_task"]["clean"]["flagged"] <= 0.02 * results["by_task"]["clean"]["n"]


@pytest.mark.parametrize(
    ("name", "key", "table", "page"),
    [
        ("shifts", "victims", "table", "theory"),
        ("methods", "cells", "table", "paper"),
        ("methods", "cells", "spread", "paper"),
        ("methods", "cells", "guards", "repair"),
        ("channelwise", "victims", "table", "paper"),
        ("slope", "rows", "table", "paper"),
        ("divergences", "victims", "table", "paper"),
        ("anomaly_scores", "victims", "table", "paper"),
        ("honest_networks", "victims", "table", "paper"),
        ("features", "rows", "table", "detection"),
    ],
)
def test_a_table_is_made_from_its_record(
    name: str, key: str, table: str, page: str, script: Callable[[str], dict[str, Any]]
) -> None:
    rows = json.loads((ROOT / "benchmarks" / "records" / f"{name}.json").read_text())["results"][key]
    assert script(name)[table](rows) in (ROOT / "docs" / f"{page}.md").read_text(), f"run benchmarks/{name}.py"


def test_tables_of_bench_runs_are_made_from_their_records(script: Callable[[str], dict[str, Any]]) -> None:
    page = (ROOT / "docs" / "paper.md").read_text()
    made = script("bench_table")
    for path in sorted((ROOT / "benchmarks" / "records").glob("*.json")):
        results = json.loads(path.read_text())["results"]
        if "table" in results:
            begin, end = made["marks"](path.stem)
            assert f"{begin}\n{made['table'](results)}\n{end}" in page, f"run benchmarks/bench_table.py for {path.stem}"
            begin, end = made["marks"](f"costs of {path.stem}")
            if begin in page:
                assert f"{begin}\n{made['costs'](results)}\n{end}" in page, f"run it with --costs for {path.stem}"


def test_what_stands_between_two_marks_is_replaced(tmp_path: Path, script: Callable[[str], dict[str, Any]]) -> None:
    page, put = tmp_path / "page.md", script("page")["put"]
    page.write_text("before\n<a>\nold\n<b>\nafter\n")
    put(page, "<a>", "<b>", "new")
    assert page.read_text() == "before\n<a>\nnew\n<b>\nafter\n"
    page.write_text("before\n<a>\nold\n")
    with pytest.raises(ValueError, match="lacks the marks"):
        put(page, "<a>", "<b>", "new")
    assert page.read_text() == "before\n<a>\nold\n"


def test_every_method_that_can_repair_is_explained() -> None:
    page = (ROOT / "docs" / "repair.md").read_text()
    assert all(f"| `{name}` |" in page for name in TUNINGS)
