"""Plans: what they expand to, and what is wrong with one is said before any work."""

from __future__ import annotations

import json
import shutil
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from untrojan.bench.cell import cells_of
from untrojan.bench.methods import method_for, method_names
from untrojan.bench.plan import Plan, every_method, every_setting, read_plan
from untrojan.bench.tables import check_table
from untrojan.bench.victims import victims_of
from untrojan.errors import CheckpointError, UsageError
from untrojan.victims.plan import read_plan as read_zoo_plan

ROOT = Path(__file__).resolve().parents[2]
PLANS = sorted((ROOT / "benchmarks" / "plans").glob("*.toml"))


def plan_of(text: str) -> Plan:
    return Plan.model_validate(tomllib.loads(text))


def test_lists_are_grids() -> None:
    plan = plan_of(
        'victims = ["a"]\n[settings]\ndefence = [0.1, 50]\n[[method]]\nname = "bna"\nmargin_share = [0.0, 0.3]\n'
        "options = { tau = [50, 150], steps = 3 }\nsurrogates = { allowances = [[1.5], [2, 3]] }"
    )
    specs = every_method(plan)
    assert [s.defence for s in every_setting(plan)] == [0.1, 50]
    assert len(specs) == 8
    assert specs[0].varied == ("tau", "allowances", "margin_share")
    assert specs[-1].given == {"tau": 150, "steps": 3, "allowances": [2, 3], "margin_share": 0.3}
    made = method_for(specs[-1]).resolved()
    assert (made["correction"]["tau"], made["surrogates"]["allowances"], made["margin_share"]) == (150, (2, 3), 0.3)


def test_the_papers_recipe_can_be_varied() -> None:
    (spec,) = every_method(plan_of('victims = ["a"]\n[[method]]\nname = "bna"\nrecipe = "paper"\noptions = {tau = 9}'))
    made = method_for(spec).resolved()
    assert (made["correction"]["tau"], made["correction"]["pairing"], made["margin_share"]) == (9, False, 0.0)
    assert made["surrogates"]["restarts"] == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("victims = ['a'", "not TOML"),
        ("victims = []\n[[method]]\nname = 'none'", "victims"),
        ("victims = ['a']", "method: field required"),
        ("victims = ['a']\nseed = 1\n[[method]]\nname = 'none'", "seed: extra inputs"),
        ("victims = ['a']\n[settings]\ndefence = 1.5\n[[method]]\nname = 'none'", "defence"),
        ("victims = ['a']\n[settings]\ndefense = 5\n[[method]]\nname = 'none'", "defense: extra inputs"),
        ("victims = ['a']\n[[method]]\nname = 'bna'\noptions = {tau = []}", "tau is an empty list"),
        ("victims = ['a']\n[[method]]\nname = 'bna'\noptions = {tau = 1}\nsurrogates = {tau = 1}", "given twice"),
        ("victims = ['a']\n[table]\nrates = ['speed']\n[[method]]\nname = 'none'", "rates.0"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(UsageError, match=told) as raised:
        read_plan(tmp_path / "plan.toml")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("method", "told"),
    [
        ("name = 'cure'", "'cure' is not one of none, strip, bna"),
        ("name = 'bna'\noptions = {slope = 1}", "no option 'slope'; it has steps"),
        ("name = 'bna'\noptions = {tau = 'steep'}", "tau cannot be 'steep'"),
        ("name = 'bna'\noptions = {divergence = 'x'}", "divergence 'x' is not one of"),
        ("name = 'bna'\nsurrogates = {budget = 1}", "no option 'budget'"),
        ("name = 'bna'\nmargin_share = 1.5", "margin_share is from 0"),
        ("name = 'strip'\noptions = {images = 1}", "no option 'images'; it has overlays"),
        ("name = 'strip'\nrecipe = 'paper'", "takes no recipe"),
        ("name = 'strip'\noptions = {overlays = 0}", "at least one overlay"),
        ("name = 'strip'\noptions = {false_positives = 3}", "between 0 and 1"),
        ("name = 'bna'\nsurrogates = {restarts = 0}", "restarts and moved_images are at least 1"),
        ("name = 'bna'\nsurrogates = {copies = -3}", "copies at least 0"),
        ("name = 'bna'\nsurrogates = {copy_level = 7}", "levels are from 0 to 1"),
        ("name = 'bna'\nsurrogates = {allowances = [[-2.0]]}", "larger than 0"),
        ("name = 'bna'\nsurrogates = {growth = -1.0}", "growth is larger than 0"),
        ("name = 'none'\noptions = {a = 1}", "it has none"),
    ],
)
def test_unknown_methods_and_options_are_told(method: str, told: str) -> None:
    (spec,) = every_method(plan_of(f"victims = ['a']\n[[method]]\n{method}"))
    with pytest.raises(UsageError, match=told):
        method_for(spec)


def test_unknown_victims_and_those_without_weights_are_told(tmp_path: Path, victims: list[str]) -> None:
    plan = plan_of("victims = ['digits/x*']\n[[method]]\nname = 'none'")
    with pytest.raises(UsageError, match=r"no victim in .* has such a name"):
        victims_of(plan, tmp_path)
    folder = tmp_path / "digits" / "x1"
    folder.mkdir(parents=True)
    (folder / "victim.json").write_bytes((Path(victims[1]) / "victim.json").read_bytes())
    with pytest.raises(UsageError, match=r"1 of 1 victims lack their weights, such as digits/x1"):
        victims_of(plan, tmp_path)
    with pytest.raises(UsageError, match="--only"):
        victims_of(plan, tmp_path, only="cifar10/*")


def test_a_victim_that_is_named_in_two_ways_is_one(victims: list[str]) -> None:
    twice = [victims[0], f"{victims[0]}/", f"{victims[0]}/../{Path(victims[0]).name}", victims[1]]
    made = victims_of(plan_of(f"victims = {twice}\n[[method]]\nname = 'none'"), None)
    assert [one.name for one in made] == [victims[0], victims[1]]


def test_a_card_with_an_unknown_setting_is_named(tmp_path: Path, victims: list[str]) -> None:
    shutil.copytree(victims[0], tmp_path / "odd")
    card = tmp_path / "odd" / "victim.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"setting": "5"}))
    with pytest.raises(CheckpointError, match=r"odd/victim\.json: setting '5'"):
        victims_of(plan_of(f"victims = ['{tmp_path / 'odd'}']\n[[method]]\nname = 'none'"), None)


def test_a_part_of_a_plan_can_be_measured_before_all_its_victims_are_there(tmp_path: Path, victims: list[str]) -> None:
    plan = plan_of(f"victims = ['digits/x*', '{victims[0]}']\n[[method]]\nname = 'none'")
    with pytest.raises(UsageError, match=r"digits/x\*"):
        victims_of(plan, tmp_path)
    assert [victim.name for victim in victims_of(plan, tmp_path, only="*attacked")] == victims[:1]
    with pytest.raises(UsageError, match=r"digits/x\*"):  # this one was asked for
        victims_of(plan, tmp_path, only="*")


def test_data_must_be_known(victims: list[str]) -> None:
    plan = plan_of(f"victims = {victims}\n[[method]]\nname = 'bna'")
    with pytest.raises(UsageError, match="names no test images"):
        cells_of(plan, victims_of(plan, None))


@pytest.mark.parametrize(
    ("rest", "told"),
    [
        ("[table]\nrows = ['speed']", "'speed' is no fact"),
        ("[[method]]\nname = 'strip'\nlabel = 'none'", "two cells fall on one place"),
        ("[settings]\ndefence = [5, 6]", "two cells fall on one place"),
    ],
)
def test_a_table_mixes_nothing_that_was_varied(rest: str, told: str, victims: list[str]) -> None:
    settings = rest if "[settings]" in rest else f"[settings]\n{rest if not rest.startswith('[') else ''}"
    text = f"victims = {victims}\n[[method]]\nname = 'none'\n{settings}\ndata = 'digits'\n"
    plan = plan_of(text if "[settings]" in rest else text + rest)
    cells = cells_of(plan, victims_of(plan, None))
    with pytest.raises(UsageError, match=told):
        check_table(cells, plan.table)


def test_the_plan_that_the_documents_show_can_be_read() -> None:
    page = (ROOT / "docs" / "bench.md").read_text()
    plan = plan_of(page.partition("```toml\n")[2].partition("```")[0])
    assert len([method_for(spec) for spec in every_method(plan)]) == 8
    assert len(every_setting(plan)) == 1


def test_there_are_plans_for_the_papers_tables() -> None:
    assert {path.stem for path in PLANS} >= {f"table{number}" for number in (1, 2, 3, 4, 5, 10, 11)}


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_the_plans_name_victims_of_the_reporting_half_and_methods(path: Path) -> None:
    zoo = {str(recipe.name): recipe for recipe in read_zoo_plan(ROOT / "zoo" / "plan.toml")}
    plan = read_plan(path)
    for pattern in plan.victims:
        matched = [recipe for name, recipe in zoo.items() if fnmatchcase(name, pattern)]
        assert matched, pattern
        assert all(recipe.part == "reporting" and recipe.seed >= 100 for recipe in matched), pattern
    specs = every_method(plan)
    assert {spec.name for spec in specs} <= set(method_names())
    for spec in specs:
        method_for(spec)
